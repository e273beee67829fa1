"""Check the signature of a model folder, in the key mode of the OpenSSF model-signing tool.

https://github.com/sigstore/model-transparency: one file holds the sha256 of every other file of
the folder, signed with a private elliptic-curve key (P-256, P-384 or P-521).
"""

from __future__ import annotations

import re
from pathlib import Path

from runtime_bench.errors import SignatureError

SIGNATURE_NAME = "model.sig"

# In the tool's message, a list of texts as Python writes it.
_DIFFERENCES = {
    "altered": r"Hash mismatch for \\?'(.*?)\\?': Expected",
    "added": r"Extra files found in model '.*?': ([^\"]*)\"",
    "removed": r"Missing files in model '.*?': ([^\"]*)\"",
}


def verify_signature(folder: Path, public_key: Path) -> None:
    """Check that every file of `folder` is as the owner of the key signed it, and none was added.

    Args:
        public_key: PEM file.

    Raises:
        SignatureError: no signature or key, another key, a file that was altered, added or
            removed, or the library isn't installed.
    """
    folder = Path(folder).resolve()  # the tool takes no link, such as `current` on a device
    signature = folder / SIGNATURE_NAME
    if not public_key.is_file():
        raise SignatureError(f"--verify-key {public_key}: no such file")
    if not signature.is_file():
        raise SignatureError(f"{folder}: not signed, it holds no {SIGNATURE_NAME}")
    try:
        from model_signing import hashing, verifying
    except ImportError as error:
        raise SignatureError(
            f"--verify-key needs the model-signing library, {error.name} is missing: "
            "pip install model-signing pyOpenSSL"
        ) from error
    # Without a hashing configuration of its own the tool would pass over .git files.
    every_file = hashing.Config().set_ignored_paths(paths=[signature], ignore_git_paths=False)
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except (ValueError, TypeError, AttributeError) as error:  # the last for an RSA key
        raise SignatureError(
            f"--verify-key {public_key}: no public elliptic-curve key in PEM form ({error})"
        ) from error
    try:
        config.set_hashing_config(every_file).verify(folder, signature)
    except Exception as error:  # the tool raises ValueError and whatever its parsers do
        raise SignatureError(f"{folder}: {_reason(str(error), public_key)}") from error


def _reason(said: str, public_key: Path) -> str:
    """The tool's message without digests."""
    if "Key mismatch" in said:
        return f"signed with another key than {public_key}"
    found = {verb: re.findall(pattern, said) for verb, pattern in _DIFFERENCES.items()}
    differences = [f"{', '.join(names)} {verb}" for verb, names in found.items() if names]
    if differences:
        return f"{'; '.join(differences)} since it was signed"
    why = " ".join(said.split())[:200] or "altered"  # cryptography's own error has no text
    return f"{SIGNATURE_NAME} can't be used ({why})"
