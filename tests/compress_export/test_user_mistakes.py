"""Twelve mistakes a user makes: code 2, one line that helps, and nothing left behind."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny_jobs import NETWORK, run_here, run_line

from compress_export.data.sources import open_source
from compress_export.errors import UsageError
from compress_export.user_paths import refuse_unreachable
from compressor.errors import InputError
from compressor.models import build_model

ROOT = Path(__file__).parents[2]
TINY = ["--model", "tiny_networks:two_blocks", "--input-size", "8"]


def board_file(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def picture_folder(root: Path, per_class: int, broken: int = 0) -> Path:
    """Two classes of noise; the first `broken` files of the first class are cut off."""
    noise = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for number in range(per_class):
            pixels = noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{number:03}.png")
    for path in sorted((root / "cat").iterdir())[:broken]:
        path.write_bytes(path.read_bytes()[:40])
    return root


def missing_board(folder: Path) -> list[str | Path]:
    return ["--board", "jetsen"]


def unknown_key(folder: Path) -> list[str | Path]:
    board = yaml.safe_load((ROOT / "boards" / "jetson.yaml").read_text())
    board["budgets"]["file_size_mb"] = 3
    return ["--board", board_file(folder / "mine.yaml", yaml.safe_dump(board))]


def corrupt_yaml(folder: Path) -> list[str | Path]:
    text = (ROOT / "boards" / "jetson.yaml").read_text().replace("cpu:", "cpu: [", 1)
    return ["--board", board_file(folder / "mine.yaml", text)]


def missing_weights(folder: Path) -> list[str | Path]:
    return ["--board", "jetson", "--weights", folder / "resnet20.th"]


def weights_of_another_model(folder: Path) -> list[str | Path]:
    torch.save(build_model("resnet32", 10).state_dict(), folder / "weights.th")
    return ["--board", "jetson", "--model", "resnet20", "--weights", folder / "weights.th"]


def truncated_weights(folder: Path) -> list[str | Path]:
    path = folder / "weights.th"
    torch.save({"state_dict": build_model("resnet20", 10).state_dict()}, path)
    path.write_bytes(path.read_bytes()[:100_000])
    return ["--board", "jetson", "--model", "resnet20", "--weights", path]


def wrong_class_count(folder: Path) -> list[str | Path]:
    torch.save(build_model("resnet20", 100).state_dict(), folder / "weights.th")
    return ["--board", "jetson", "--model", "resnet20", "--weights", folder / "weights.th"]


def empty_folder(folder: Path) -> list[str | Path]:
    (folder / "images").mkdir()
    return ["--board", "jetson", "--data", folder / "images"]


def broken_images(folder: Path) -> list[str | Path]:
    return ["--board", "jetson", *TINY, "--data", picture_folder(folder / "images", 40, 2)]


def unwritable_out(folder: Path) -> list[str | Path]:
    (folder / "file").write_text("in the way")
    return ["--board", "jetson", "--out", folder / "file" / "out"]


def existing_out(folder: Path) -> list[str | Path]:
    (folder / "taken").mkdir()
    (folder / "taken" / "report.json").write_text("{}")
    return ["--board", "jetson", "--out", folder / "taken"]


def target_above_1(folder: Path) -> list[str | Path]:
    return ["--board", "jetson", "--target-macs", "1.5"]


# mistake -> what its message has to hold: the value, what is allowed, the likely cause
MISTAKES: dict[Callable[[Path], list[str | Path]], tuple[str, ...]] = {
    missing_board: ("'jetsen'", "jetson", "did you mean"),
    unknown_key: ("mine.yaml", "file_size_mb", "file_size_mib"),
    corrupt_yaml: ("mine.yaml", "line"),
    missing_weights: ("resnet20.th", "no such file"),
    weights_of_another_model: ("weights.th", "another model", "'resnet32'"),
    truncated_weights: ("weights.th", "truncated or damaged", "fetch it again"),
    wrong_class_count: ("weights.th", "100 classes", "the data has 10"),
    empty_folder: ("images", "no class folders", "one sub-folder per class"),
    broken_images: ("2 of 80 images (2.5%)", "at most 1%", "000.png"),
    unwritable_out: ("cannot write to", "file", "choose another folder"),
    existing_out: ("taken", "exists", "--force"),
    target_above_1: ("--target-macs 1.5", "at most 1"),
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_a_mistake_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: Callable[[Path], list[str | Path]]
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = mistake(tmp_path)
    before = snapshot(tmp_path)
    out = tmp_path / "out"
    if "--out" in arguments:
        out = Path(arguments.pop())
        arguments.pop()
    ended = run_here(out, *arguments)
    assert ended.code == 2, ended.complained
    assert ended.complained.count("\n") == 1
    assert ended.complained.startswith("compress-export: ")
    assert "Traceback" not in ended.complained + ended.said
    for part in MISTAKES[mistake]:
        assert part in ended.complained
    assert snapshot(tmp_path) == before


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content, and every folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def test_few_broken_images_are_left_out_and_counted(tmp_path: Path) -> None:
    images = picture_folder(tmp_path / "images", 60, broken=1)
    quick = "--board jetson --stages prune --target-macs 0.5 --baseline-epochs 1 --search-epochs 1"
    arguments = [*TINY, *quick.split(), "--finetune-epochs", "1", "--data", images]
    ended = run_here(tmp_path / "out", *arguments)
    assert ended.code == 0, ended.complained
    (warning,) = [text for text in ended.report["warnings"] if "broken" in text]
    assert warning.startswith("1 broken image was left out: ")
    assert "000.png" in warning

    strict = run_here(tmp_path / "strict", *arguments, "--strict")
    assert strict.code == 2
    assert "none is allowed with --strict" in strict.complained
    assert not (tmp_path / "strict.run").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--stages prune,bench", "add quantize"),
        ("--stages bench", "no bundle/ and report.json"),
        ("--resume", "nothing to resume"),
        ("--board esp32s3 --formats onnx", "runs tflite only"),
        ("--board x86-64 --precision int8,int4-weights", "opset 21"),
        ("--board stm32h747 --raw-input", "--raw-input: board stm32h747 is for int8 files only"),
        ("--board x86-64 --precision int4-weights", "--formats tflite can have it"),
        ("--board esp32s3 --precision int8-dynamic", "for int8 files only"),
        ("--activation-range asymmetric", "TensorRT has no zero points"),
        ("--weight-scales per-tensor", "wants per_channel_conv true"),
        ("--board jetson-nano --calibration mse", "has no INT8 rules to change"),
        (
            "--board x86-64 --precision int8-weights --calibration entropy",
            "--calibration entropy: it is for int8 and int8-int16 files, and int8-weights in onnx",
        ),
        (
            "--board x86-64 --precision float16,float32 --weight-scales per-tensor",
            "it is for files of integers",
        ),
        (
            "--board rpi5 --precision int8-dynamic,float32 --activation-range symmetric",
            "name int8 in --precision, or leave it out",
        ),
        (
            "--board rpi5 --formats tflite --precision int8-int16 --activation-range asymmetric",
            "it is for int8 files and int8-int16 ONNX files, and int8-int16 in tflite makes none",
        ),
        ("--mean 0.5,0.5,0.5", "--std"),
        ("--target-size 3", "KiB"),
        ("--penalty 3", "--method paper"),
        ("--data cifar11", "did you mean"),
        ("--model resnet21", "resnet20"),
    ],
)
def test_other_mistakes(tmp_path: Path, words: str, says: str) -> None:
    board = [] if "--board" in words else ["--board", "jetson"]
    start = [] if "--model" in words or "--data" in words else NETWORK
    ended = run_here(tmp_path / "out", *start, *board, *words.split())
    assert ended.code == 2, ended.complained
    assert ended.complained.count("\n") == 1
    assert says in ended.complained
    assert list(tmp_path.iterdir()) == []


LONG = "x" * 300


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (f"--out {LONG}", "File name too long"),
        (f"--out {'x' * 253}", "File name too long"),  # with the .run of its run folder
        (f"--stages bench --out {LONG}", "File name too long"),
        (f"--weights {LONG}", "--weights"),
        (f"--teacher {LONG}", "--teacher"),
        (f"--data {LONG}/images", "--data"),
        (f"--data cifar10 --data-root {LONG}", "--data-root"),
        (f"--sign-key {LONG}", "key"),
        (f"--board {LONG}", "board"),
        ("--out=~nosuchuser/x", "--out ~nosuchuser/x: ~nosuchuser/x: there is no such user here"),
        ("--weights ~nosuchuser/x.pt", "no such user"),
        ("--data ~nosuchuser/x", "no such user"),
        ("--config ~nosuchuser/x", "no such user"),
        ("--board ~nosuchuser/x", "no such user"),
    ],
)
def test_paths_that_cannot_be_looked_at(tmp_path: Path, words: str, says: str) -> None:
    out = [] if "--out" in words else ["--out", tmp_path / "out"]
    board = [] if "--board" in words else ["--board", "jetson"]
    start = [] if "--data" in words else NETWORK
    ended = run_line(tmp_path / "out", *start, *board, *out, *words.split())
    assert ended.code == 2, ended.complained
    assert ended.complained.count("\n") == 1
    assert says in ended.complained
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["gate", "reproduce", "deploy"])
def test_results_that_cannot_be_looked_at(tmp_path: Path, command: str) -> None:
    where = [tmp_path / LONG, *(["me@board:/m"] if command == "deploy" else [])]
    ended = run_line(tmp_path, command, *where)
    assert ended.code == 2, ended.complained
    assert ended.complained.count("\n") == 1
    assert "File name too long" in ended.complained


@pytest.mark.parametrize(
    "words",
    [
        f"report DIR --out {LONG}",
        f"deploy DIR me@board:/m --json {LONG}",
        f"deploy DIR me@board:/m --ssh-config {LONG}",
        f"gate DIR --junit {LONG}",
        f"gate DIR --history {LONG}",
    ],
)
def test_files_to_write_that_cannot_be_looked_at(tmp_path: Path, words: str) -> None:
    (tmp_path / "report.json").write_text("{}")
    ended = run_line(tmp_path, *words.replace("DIR", str(tmp_path)).split())
    assert ended.code == 2, ended.complained
    assert ended.complained.count("\n") == 1
    assert f"{words.split()[-2]} {LONG}: cannot be looked at (File name too long)" in (
        ended.complained
    )


def test_a_class_folder_that_cannot_be_read_is_not_called_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = picture_folder(tmp_path / "images", 4)
    scan = os.scandir

    def guarded(path: str) -> Any:
        if Path(path).name == "dog":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", guarded)  # root may read all
    with pytest.raises(InputError, match=r"images/dog cannot be read \(Permission denied\)"):
        open_source(str(images), 0, None)


def test_a_place_of_another_user_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "w.pt"

    def refused(path: Path, **_: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "stat", refused)
    with pytest.raises(
        UsageError, match=rf"--weights {re.escape(str(place))}: .*\(Permission denied\)"
    ):
        refuse_unreachable("--weights", place)


def test_a_folder_made_with_options_that_are_refused_now(tmp_path: Path) -> None:
    (tmp_path / "out" / "bundle").mkdir(parents=True)
    options = {"board": "jetson", "stages": ["quantize"], "target_macs": 0.5}
    report = {"board": "jetson", "options": options}
    (tmp_path / "out" / "report.json").write_text(json.dumps(report))
    ended = run_here(tmp_path / "out", "--board", "jetson", "--stages", "bench")
    assert ended.code == 2, ended.complained
    assert "options that this version doesn't take" in ended.complained
    assert ended.complained.count("\n") == 1


def test_a_saved_network_with_other_classes(tmp_path: Path) -> None:
    from compressor.saved import save_model

    save_model(build_model("resnet20", 7), "resnet20", 7, tmp_path / "network")
    ended = run_here(tmp_path / "out", "--board", "jetson", "--weights", tmp_path / "network")
    assert ended.code == 2
    assert "the network has 7 classes, the data has 10" in ended.complained
    assert not (tmp_path / "out.run").exists()
