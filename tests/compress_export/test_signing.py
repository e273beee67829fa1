"""Signatures of bundles: made, checked by deploy and by the bench, refused when they don't hold."""

from __future__ import annotations

import base64
import json
import shutil

import pytest
from deploy_bundles import fake_ssh, make_bundle

from compress_export.cli import main
from compress_export.errors import UsageError
from compress_export.signing import check_private_key, sign_bundle, verify_bundle

pytest.importorskip("OpenSSL", reason="the extra signing is not installed")
pytest.importorskip("model_signing", reason="the extra signing is not installed")
from cryptography.hazmat.primitives import serialization as pem  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, rsa  # noqa: E402


@pytest.fixture
def keys(tmp_path):
    """key.pem and pub.pem belong together, other.pem is another public key."""
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    _write(tmp_path / "key.pem", key)
    for name, owner in (("pub.pem", key), ("other.pem", other)):
        (tmp_path / name).write_bytes(
            owner.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo)
        )
    return tmp_path


def _write(path, key, encryption=None):
    encryption = encryption or pem.NoEncryption()
    path.write_bytes(key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, encryption))


@pytest.fixture
def signed(keys):
    bundle = make_bundle(keys / "run" / "bundle")
    assert main(["sign", str(keys / "run"), "--key", str(keys / "key.pem")]) == 0
    return bundle


def test_signed_bundle_is_deployed_under_any_name(keys, signed, monkeypatch):
    monkeypatch.setenv("PATH", str(fake_ssh(keys / "bin")), prepend=":")
    words = ["deploy", str(signed), f"board:{keys}/m", "--verify-key", str(keys / "pub.pem")]
    assert main(words) == 0
    verify_bundle(keys / "m" / "current", keys / "pub.pem")


@pytest.mark.parametrize(
    ("change", "key", "message"),
    [
        (lambda b: (b / "labels.txt").write_text("x"), "pub.pem", "labels.txt added"),
        (lambda b: (b / "slim.int8.onnx").write_bytes(b"x"), "pub.pem", "slim.int8.onnx altered"),
        (lambda b: (b / "more/empty.txt").unlink(), "pub.pem", "more/empty.txt removed"),
        (lambda b: (b / ".git").write_text("x"), "pub.pem", ".git added"),
        (lambda b: (b / "model.sig").unlink(), "pub.pem", "not signed"),
        (lambda b: (b / "model.sig").write_text("{}"), "pub.pem", "can't be used"),
        (lambda b: None, "other.pem", "signed with another key"),
        (lambda b: None, "key.pem", "no public elliptic-curve key"),
        (lambda b: None, "none.pem", "no such file"),
    ],
)
def test_what_does_not_hold_is_refused(keys, signed, change, key, message):
    change(signed)
    with pytest.raises(UsageError, match=message):
        verify_bundle(signed, keys / key)


def test_signature_of_other_content_is_refused(keys, signed):
    """The statement inside the signature is altered, in place of the files."""
    text = (signed / "model.sig").read_text()
    payload = json.loads(text)["dsseEnvelope"]["payload"]
    statement = base64.b64decode(payload).replace(b"sha256", b"sha512", 1)
    (signed / "model.sig").write_text(text.replace(payload, base64.b64encode(statement).decode()))
    with pytest.raises(UsageError, match="altered"):
        verify_bundle(signed, keys / "pub.pem")


def test_files_and_sums_altered_together_end_deploy_with_2(keys, signed, capsys):
    signature = (signed / "model.sig").read_bytes()
    shutil.rmtree(signed)
    make_bundle(signed, b"other weights")
    (signed / "model.sig").write_bytes(signature)
    words = ["deploy", str(signed), "board:/m", "--verify-key", str(keys / "pub.pem")]
    assert main(words) == 2
    assert "slim.int8.onnx altered since it was signed" in " ".join(
        capsys.readouterr().err.replace(", ", " ").split()
    )


def test_the_bench_checks_the_signature_before_all_else(keys, signed, capsys):
    from runtime_bench.__main__ import main as bench

    (signed / "slim.int8.onnx").write_bytes(b"other")
    assert bench([str(signed), "--verify-key", str(keys / "pub.pem")]) == 2
    assert "slim.int8.onnx altered since it was signed" in capsys.readouterr().err


def test_keys_that_cannot_sign(keys, tmp_path):
    _write(tmp_path / "rsa.pem", rsa.generate_private_key(65537, 2048))
    key = ec.generate_private_key(ec.SECP256R1())
    _write(tmp_path / "locked.pem", key, pem.BestAvailableEncryption(b"secret"))
    for name in ("pub.pem", "rsa.pem", "locked.pem"):
        with pytest.raises(UsageError, match="not a private elliptic-curve key"):
            check_private_key(tmp_path / name)
    with pytest.raises(UsageError, match="no such key"):
        sign_bundle(tmp_path, tmp_path / "none.pem")
