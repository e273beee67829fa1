"""The C array is the file, byte for byte, and the card says what firmware needs."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from boards import Board, load_board
from exporters import ExportError, write_firmware
from exporters.firmware import resolver_method
from exporters.profiles.tflite_micro import OPERATORS

NAME = "slim.int8.tflite"
ARENA = {
    "head_bytes": 2000,
    "tail_bytes": 1000,
    "total_bytes": 3000,
    "smallest_bytes": 3088,
    "runtime": "tflite-micro 0.dev1",
}
DUMP = """
#include <stdint.h>
#include <stdio.h>
#include "model_data.h"
int main(void) {
  if ((uintptr_t)model_data % 16 != 0) return 2;
  if (sizeof(model_data) != MODEL_DATA_BYTES) return 3;
  return fwrite(model_data, 1, MODEL_DATA_BYTES, stdout) == MODEL_DATA_BYTES ? 0 : 4;
}
"""


@pytest.fixture(scope="module")
def models() -> ModuleType:
    """The bench's tiny classifiers, whose scales and shapes are known."""
    path = Path(__file__).parents[1] / "runtime_bench" / "bench_models.py"
    spec = importlib.util.spec_from_file_location("bench_models", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def board() -> Board:
    return load_board("stm32h747")


@pytest.fixture(scope="module")
def bundle(models: ModuleType, board: Board, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = models.write_folder(tmp_path_factory.mktemp("firmware") / "bundle", [NAME])
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    about = {"fused_integer_convs": None, "convs": 0, "agreement_validation": 1.0}
    manifest["files"] = [{**entry, **about} for entry in manifest["files"]]
    path.write_text(json.dumps(manifest))
    written = write_firmware(folder, board=board, arena=ARENA)
    assert [p.name for p in written] == ["model_data.h", "model_data.cc", "FIRMWARE.md"]
    return folder


@pytest.mark.parametrize(
    ("language", "standard", "compilers"),
    [("c", "c11", ("cc", "gcc", "clang")), ("c++", "c++11", ("c++", "g++", "clang++"))],
)
def test_the_compiled_array_is_the_file(
    bundle: Path, tmp_path: Path, language: str, standard: str, compilers: tuple[str, ...]
) -> None:
    compiler = next((name for name in compilers if shutil.which(name)), None)
    if compiler is None:
        pytest.skip(f"no {language} compiler here")
    main = tmp_path / "main.cc"
    main.write_text(DUMP)
    flags = ["-Wall", "-Wextra", "-Werror", f"-std={standard}", "-x", language, "-I", str(bundle)]
    sources = [str(main), str(bundle / "model_data.cc")]
    built = subprocess.run(
        [compiler, *flags, *sources, "-o", str(tmp_path / "dump")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    dumped = subprocess.run([str(tmp_path / "dump")], capture_output=True, check=True)
    assert dumped.stdout == (bundle / NAME).read_bytes()


def test_constants_of_the_header(bundle: Path, models: ModuleType) -> None:
    text = (bundle / "model_data.h").read_text()
    defined = dict(re.findall(r"#define (\w+) ([^\s]+)", text))
    assert int(defined["MODEL_DATA_BYTES"]) == (bundle / NAME).stat().st_size
    assert int(defined["TENSOR_ARENA_BYTES"]) == 4096  # whole KiB
    assert int(defined["MODEL_INPUT_VALUES"]) == models.FEATURES
    assert int(defined["MODEL_OUTPUT_VALUES"]) == models.CLASSES
    assert float(defined["MODEL_INPUT_SCALE"].rstrip("f")) == pytest.approx(models.INPUT_SCALE)
    assert defined["MODEL_INPUT_ZERO_POINT"] == f"({models.INPUT_ZERO})"
    assert float(defined["MODEL_OUTPUT_SCALE"].rstrip("f")) == pytest.approx(models.OUTPUT_SCALE)
    assert defined["MODEL_OUTPUT_ZERO_POINT"] == f"({models.OUTPUT_ZERO})"


def test_the_card(bundle: Path) -> None:
    card = (bundle / "FIRMWARE.md").read_text()
    assert "MicroMutableOpResolver<1>" in card
    assert "resolver.AddFullyConnected();" in card
    assert "4.0 KiB of 512 KiB usable" in card  # RAM of the board
    assert "of 1792 KiB usable" in card  # its flash
    assert "tflite-micro 0.dev1" in card and "smallest 3088" in card


def test_an_arena_that_was_not_measured_is_called_an_estimate(
    bundle: Path, board: Board, models: ModuleType, tmp_path: Path
) -> None:
    copied = tmp_path / "bundle"
    shutil.copytree(bundle, copied)
    write_firmware(copied, board=board)
    assert "Not measured" in (copied / "FIRMWARE.md").read_text()
    header = (copied / "model_data.h").read_text()
    assert "#define TENSOR_ARENA_BYTES 1024  // an estimate" in header


def test_firmware_holds_one_file(bundle: Path, board: Board, tmp_path: Path) -> None:
    copied = tmp_path / "bundle"
    shutil.copytree(bundle, copied)
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["files"] *= 2
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ExportError, match="firmware holds one TFLite file"):
        write_firmware(copied, board=board)
    manifest["files"] = []
    (copied / "manifest.json").write_text(json.dumps(manifest))
    assert write_firmware(copied, board=board) == ()


@pytest.mark.parametrize(
    ("operator", "method"),
    [
        ("CONV_2D", "AddConv2D"),
        ("DEPTHWISE_CONV_2D", "AddDepthwiseConv2D"),
        ("AVERAGE_POOL_2D", "AddAveragePool2D"),
        ("FULLY_CONNECTED", "AddFullyConnected"),
        ("PADV2", "AddPadV2"),
        ("STRIDED_SLICE", "AddStridedSlice"),
        ("RELU6", "AddRelu6"),
        ("SPLIT_V", "AddSplitV"),
        ("L2_POOL_2D", "AddL2Pool2D"),
        ("GATHER_ND", "AddGatherNd"),
    ],
)
def test_methods_of_the_resolver(operator: str, method: str) -> None:
    assert operator in OPERATORS
    assert resolver_method(operator) == method
