"""Who may import whom, what an import may cost, and what the distribution installs."""

import ast
import re
import subprocess
import sys
from configparser import ConfigParser
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("boards", "compress_export", "compressor", "exporters", "runtime_bench")

# package -> those of ours that it may import, itself aside
ARROWS = {
    "boards": set(),
    "runtime_bench": set(),
    "compressor": {"boards"},
    "exporters": {"boards"},
    "compress_export": {"boards", "compressor", "exporters", "runtime_bench"},
}
HEAVY = {
    "ai_edge_litert",
    "ai_edge_quantizer",
    "jax",
    "litert_torch",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "onnxsim",
    "sklearn",
    "tensorboard",
    "torch",
    "torchvision",
}
# What a board has: the standard library aside, numpy, Pillow for example images, and a runtime.
ON_THE_BOARD = {"numpy", "PIL", "onnxruntime", "ai_edge_litert", "tflite_runtime", "tflite_micro"}
# What it may have: the library that checks signatures.
ON_THE_BOARD |= {"model_signing"}


def imported_names(source: str) -> set[str]:
    """Top-level names of every import statement, also those inside functions; relative imports
    stay inside their package and are left out."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


def imports_of(package: str) -> dict[str, set[str]]:
    return {
        path.relative_to(ROOT).as_posix(): imported_names(path.read_text(encoding="utf-8"))
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def modules_after(statement: str) -> set[str]:
    """Top-level names of the modules that a fresh interpreter holds after `statement`."""
    script = (
        f"{statement}\nimport sys\nprint(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(run.stdout.split())


def test_the_scanner_sees_imports_inside_functions() -> None:
    source = "def f():\n    import torch.nn\n    from boards.loader import x\nfrom . import y\n"
    assert imported_names(source) == {"torch", "boards"}


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_follow_the_arrows(package: str) -> None:
    files = imports_of(package)
    assert files, f"{package} has no modules"
    allowed = ARROWS[package] | {package}
    strays = {
        file: sorted(names & (set(PACKAGES) | {"tests", "benchmarks"}) - allowed)
        for file, names in files.items()
    }
    assert {file: names for file, names in strays.items() if names} == {}


def test_runtime_bench_needs_only_what_a_board_has() -> None:
    allowed = ON_THE_BOARD | {"runtime_bench"} | sys.stdlib_module_names
    strays = {file: sorted(names - allowed) for file, names in imports_of("runtime_bench").items()}
    assert {file: names for file, names in strays.items() if names} == {}


def test_importing_runtime_bench_brings_in_neither_torch_nor_ours() -> None:
    loaded = modules_after("import runtime_bench")
    assert "runtime_bench" in loaded
    assert loaded & (HEAVY | set(PACKAGES)) == {"runtime_bench"}


@pytest.mark.parametrize("package", ["boards", "compressor", "exporters", "compress_export"])
def test_importing_a_package_is_cheap(package: str) -> None:
    loaded = modules_after(f"import {package}")
    assert package in loaded
    assert not loaded & (HEAVY - {"torch"})


def test_the_command_line_starts_without_heavy_imports() -> None:
    loaded = modules_after("import compress_export.cli")
    assert "typer" in loaded
    assert not loaded & HEAVY


def test_help_needs_no_heavy_imports() -> None:
    loaded = modules_after(
        "import contextlib, io, sys\n"
        "from compress_export.cli import main\n"
        "with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "    assert main(['--help']) == 0\n"
        "assert '--board' in out.getvalue()"
    )
    assert not loaded & HEAVY


def test_installed_names_belong_to_this_distribution_alone() -> None:
    owners = metadata.packages_distributions()
    if "compress-export" not in owners.get("compress_export", []):
        pytest.skip("run from a checkout that is not installed")
    assert {name: set(owners[name]) for name in PACKAGES} == {
        name: {"compress-export"} for name in PACKAGES
    }
    ours = {name for name, found in owners.items() if "compress-export" in found}
    # an editable install adds a finder module of its own
    assert {name for name in ours if not name.startswith("__editable__")} == set(PACKAGES)


def read_setup_cfg() -> ConfigParser:
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_every_library_that_is_imported_is_a_requirement() -> None:
    setup = read_setup_cfg()
    extras = setup["options.extras_require"]
    optional = [extras[name] for name in ("tflite-runtime", "timm", "signing", "sweep")]
    lines = "\n".join([setup["options"]["install_requires"], *optional])
    required = {
        re.split(r"[<>=;\s]", line, maxsplit=1)[0].lower().replace("_", "-")
        for line in lines.splitlines()
        if line and not line.startswith("#")
    }
    # optional on a board, or part of another package that is required
    required |= {"tflite-micro", "pydantic-core"}
    owners = metadata.packages_distributions()
    missing = {}
    for package in PACKAGES:
        for file, names in imports_of(package).items():
            for name in names - sys.stdlib_module_names - set(PACKAGES):
                homes = {home.lower().replace("_", "-") for home in owners.get(name, [name])}
                if not homes & required:
                    missing[name] = file
    assert missing == {}


def test_the_version_is_one() -> None:
    from compress_export import __version__

    assert read_setup_cfg()["metadata"]["version"] == __version__
