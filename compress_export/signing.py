"""Sign a bundle, and check its signature, with the OpenSSF model-signing tool in key mode."""

from __future__ import annotations

from pathlib import Path

from compress_export.errors import UsageError
from compress_export.user_paths import refuse_unreachable
from compressor.whole_files import whole_file
from runtime_bench.errors import SignatureError
from runtime_bench.signature import SIGNATURE_NAME, verify_signature


def check_private_key(key: Path) -> None:
    """Refuse a key that `sign_bundle` could not sign with, before hours of work.

    Raises:
        UsageError: no such file, no private elliptic-curve key, one with a passphrase, or the
            library is missing.
    """
    refuse_unreachable("key", key)
    if not key.is_file():
        raise UsageError(f"{key}: no such key; make one with openssl, see docs/deploy.md")
    try:
        from model_signing import signing
    except ImportError as error:
        raise UsageError(
            f"signing needs the model-signing library, {error.name} is missing: "
            "pip install 'compress-export[signing]'"
        ) from None
    try:
        signing.Config().use_elliptic_key_signer(private_key=key)
    except OSError as error:
        raise UsageError(f"{key}: the key cannot be read ({error.strerror})") from None
    except (ValueError, TypeError, AttributeError) as error:  # the last for an RSA key
        raise UsageError(
            f"{key}: not a private elliptic-curve key (P-256, P-384, P-521) in PEM form without a "
            f"passphrase ({' '.join(str(error).split())})"
        ) from None


def sign_bundle(folder: Path, key: Path) -> Path:
    """Sign every file of `folder`; the last thing that is done to it. Returns the signature.

    Raises:
        UsageError: what `check_private_key` raises.
    """
    check_private_key(key)
    from model_signing import hashing, signing

    folder = folder.resolve()  # the tool takes no link
    signature = folder / SIGNATURE_NAME
    config = signing.Config().use_elliptic_key_signer(private_key=key)
    with whole_file(signature) as unfinished:
        ignored = [signature, unfinished]
        every_file = hashing.Config().set_ignored_paths(paths=ignored, ignore_git_paths=False)
        config.set_hashing_config(every_file).sign(folder, unfinished)
    return signature


def verify_bundle(folder: Path, public_key: Path) -> None:
    """Check the signature of a bundle.

    Raises:
        UsageError: it is missing, doesn't hold, or is another key's.
    """
    try:
        verify_signature(folder, public_key)
    except SignatureError as error:
        raise UsageError(str(error)) from None
