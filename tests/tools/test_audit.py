import subprocess
from types import SimpleNamespace

import pytest

from tools.audit import Audit, audit, read_audit

# As pip-audit 2.10 prints it.
CLEAN = {"name": "numpy", "version": "2.4.6", "vulns": []}
SKIPPED = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited"}
FOUND = {
    "name": "jinja2",
    "version": "3.0",
    "vulns": [
        {"id": "PYSEC-1", "fix_versions": ["3.1.6"], "aliases": [], "description": ""},
        {"id": "PYSEC-2", "fix_versions": [], "aliases": [], "description": ""},
    ],
}


@pytest.mark.parametrize(
    ("packages", "lenient", "strict", "said"),
    [
        ([CLEAN], 0, 0, "1 packages audited, 0 known"),
        ([CLEAN, SKIPPED], 0, 0, "not audited: torch"),
        ([SKIPPED], 0, 1, "NOT AUDITED"),
        ([CLEAN, FOUND], 1, 1, "jinja2 3.0: PYSEC-1, mended in 3.1.6"),
        ([FOUND], 1, 1, "jinja2 3.0: PYSEC-2, mended in no release yet"),
    ],
)
def test_a_finding_fails_and_silence_is_told(
    packages: list[dict[str, object]], lenient: int, strict: int, said: str
) -> None:
    result = read_audit({"dependencies": packages, "fixes": []})
    assert said in str(result)
    assert (result.exit_code(required=False), result.exit_code(required=True)) == (lenient, strict)


def test_a_network_that_forbids_the_database_is_no_failure_of_the_build(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(stderr: str) -> Audit:
        answer = SimpleNamespace(stdout="", stderr=stderr, returncode=1)
        monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
        return audit(["requirements.txt"])

    refused = run("requests.exceptions.ProxyError: HTTPSConnectionPool(host='example.org')")
    assert "NOT AUDITED" in str(refused)
    assert (refused.exit_code(required=False), refused.exit_code(required=True)) == (0, 1)
    with pytest.raises(RuntimeError, match="invalid requirements input"):
        run("ERROR:pip_audit._cli:invalid requirements input: requirements.txt")
