"""--first-aid: jobs whose networks lose accuracy by rounding, and what their reports say."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_jobs import NETWORK, QUICK, Ended, run_here

from compress_export.errors import UsageError
from compress_export.first_aid import _aid_format, _least
from compress_export.first_aid_figures import FirstAid
from compress_export.job import Job
from compress_export.job_file import resolve_options
from compress_export.task import load_task
from exporters.checks import onnx_runner, tflite_runner
from exporters.inspect_onnx import inspect_onnx
from exporters.inspect_tflite import inspect_tflite

ROOT = Path(__file__).parents[2]
INSPECT = {".onnx": inspect_onnx, ".tflite": inspect_tflite}
RUNNERS = {".onnx": onnx_runner, ".tflite": tflite_runner}
_WEIGHTS_ALONE = "--board x86-64 --formats tflite --stages quantize,bench"


@pytest.fixture(scope="module")
def badly_scaled(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Path:
    """The same network, but for channels between layers of very unequal size."""
    state = torch.load(trained, weights_only=True)
    for block in ("blocks.0", "blocks.1"):
        width = len(state[f"{block}.bn1.weight"])
        factors = 10 ** torch.linspace(-1.5, 1.5, width)
        for name in ("weight", "bias"):
            state[f"{block}.bn1.{name}"] *= factors
        state[f"{block}.conv2.weight"] /= factors.reshape(1, -1, 1, 1)
    path = tmp_path_factory.mktemp("weights") / "badly_scaled.pt"
    torch.save(state, path)
    return path


@pytest.fixture(scope="module")
def equalized(tmp_path_factory: pytest.TempPathFactory, badly_scaled: Path) -> Ended:
    """Weights of one scale, ONNX alone. Tests only read it."""
    out = tmp_path_factory.mktemp("equalized") / "out"
    words = "--board x86-64 --formats onnx --stages quantize,bench --weight-scales per-tensor"
    return run_here(out, *NETWORK, *QUICK, "--weights", badly_scaled, *words.split())


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Ended:
    """Weights of 2 bits, which lose more than the budget allows. Tests only read it."""
    out = tmp_path_factory.mktemp("mixed") / "out"
    words = f"{_WEIGHTS_ALONE} --precision int2-weights --max-drop 3"
    return run_here(out, *NETWORK, *QUICK, "--weights", trained, *words.split())


def float_layers(ended: Ended, format: str = "") -> list[str]:
    """Those of the file in the bundle, as it was read back; of several, of a format's."""
    files = json.loads((ended.out / "bundle" / "manifest.json").read_text())["files"]
    (file,) = [file for file in files if format in ("", file["format"])]
    return list(file["float_layers"])


def file_score(ended: Ended, name: str, model: str) -> float:
    """Share of the validation images that a file of the bundle gets right."""
    options = {"board": "x86-64", "model": model, "data": "digits", "input_size": "8"}
    task = load_task(resolve_options(options), lambda _: None)
    path = ended.out / "bundle" / name
    inspect, runner = INSPECT[path.suffix], RUNNERS[path.suffix]
    (answers,) = runner(path, [inspect(path).output.name])(
        np.concatenate([*task.validation_stream()])
    )
    labels = np.concatenate([labels for _, labels in task.images("").validation()])
    return float((answers.argmax(axis=1) == labels).mean())


def test_a_drop_of_exactly_the_budget_needs_no_layers_in_float() -> None:
    """Of 300 images, some counts less 3 are below the share less 0.01 in floating point."""
    below = 0
    for right in range(150, 300):
        wanted, score = right / 300 - 0.01, (right - 3) / 300
        least = _least(FirstAid("int8", "onnx", 0.9, 0.5, 1.0, wanted, ()))
        assert score >= least > score - 1e-9
        below += score < wanted
    assert below > 0


def test_equalization_saves_a_network_of_unequal_channels(equalized: Ended) -> None:
    assert equalized.complained == ""
    found = equalized.report["first_aid"]
    first = found["remedies"][0]
    assert (first["name"], first["kept"]) == ("equalization", True)
    assert found["validation_score_rounded"] < found["validation_score_float"] - 0.05
    assert first["validation_score"] > found["validation_score_float"] - 0.02
    (file,) = [a for a in equalized.report["artifacts"] if a["path"].startswith("bundle/")]
    assert file["top1"] > equalized.report["stages"]["baseline"]["top1"] - 0.03
    assert float_layers(equalized) == []


def test_layers_come_into_float_until_the_budget_is_kept(mixed: Ended) -> None:
    assert mixed.complained == ""
    found = mixed.report["first_aid"]
    (kept,) = [m for m in found["mixtures"] if m["kept"]]
    assert found["validation_score_rounded"] < found["wanted_score"] <= kept["validation_score"]
    assert 0 < len(kept["layers"]) < len(found["layers"])
    assert kept["extra_bytes"] < found["mixtures"][1]["extra_bytes"]  # all layers
    (file,) = [a for a in mixed.report["artifacts"] if a["path"].startswith("bundle/")]
    assert sorted(float_layers(mixed)) == sorted(kept["layers"])
    assert file["top1"] > kept["validation_score"] - 0.06


def test_the_report_and_its_page_know_the_same_keys(mixed: Ended) -> None:
    page = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    pattern = r"^## first_aid\n(.*?)^## "
    (section,) = re.findall(pattern, page, flags=re.MULTILINE | re.DOTALL)
    documented = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`.*?`) \|", section, re.M))))
    found = mixed.report["first_aid"]
    inner = [found[name][0] for name in ("remedies", "layers", "mixtures")]
    assert documented == set(found).union(*inner)


def test_the_trade_off_is_shown(mixed: Ended) -> None:
    with Image.open(mixed.out / "first_aid.png") as picture:
        assert picture.width > 600
    text = (mixed.out / "report.md").read_text()
    assert "](first_aid.png)" in text
    assert text.count("| kept |") == 1
    for said in (mixed.said, text):
        assert "layers stay float" in said


def test_measuring_again_keeps_what_is_known(mixed: Ended, tmp_path: Path) -> None:
    before = mixed.report["first_aid"]
    words = "--board x86-64 --stages bench --latency-runs 5"
    shutil.copytree(mixed.out, tmp_path / "out")
    again = run_here(tmp_path / "out", *words.split())
    assert again.code == mixed.code, again.complained
    assert again.report["first_aid"] == before
    assert (again.out / "first_aid.png").is_file()


def test_networks_with_branches_are_judged_by_what_their_files_round(tmp_path: Path) -> None:
    words = f"{_WEIGHTS_ALONE} --precision int2-weights --max-drop 12 --baseline-epochs 6"
    network = [*NETWORK[2:], "--model", "tiny_networks:with_branches"]
    ended = run_here(tmp_path / "out", *network, *QUICK[2:], *words.split())
    assert ended.complained == ""
    found = ended.report["first_aid"]
    assert [cost["layer"] for cost in found["layers"]] == ["0.merged", "1.merged", "2.merged", "5"]
    everything = found["mixtures"][1]  # no weight is rounded, and no bias corrected for it
    assert everything["validation_score"] == found["validation_score_float"]
    (kept,) = [m for m in found["mixtures"] if m["kept"]]
    assert sorted(float_layers(ended)) == sorted(kept["layers"])
    share = file_score(ended, "baseline.int2-weights.tflite", network[-1])
    assert share == pytest.approx(kept["validation_score"], abs=0.004)


def test_every_format_has_its_own_answer(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a board whose ONNX files go to TensorRT, which has no weights of 4 bits."""
    monkeypatch.setattr(
        "exporters.support.why_not_float_layers",
        lambda board, format: "integers alone" if format == "onnx" else None,
    )
    board = (ROOT / "boards" / "x86-64.yaml").read_text()
    newer = re.sub(r'(name: onnxruntime\n +min_version: )".*?"', r'\1"1.20"', board)
    assert newer != board
    (tmp_path / "x86-64.yaml").write_text(newer)
    words = "--stages quantize,bench --precision int4-weights --weight-scales per-tensor"
    start = [*NETWORK, *QUICK, "--weights", trained, "--board", tmp_path / "x86-64.yaml"]
    ended = run_here(tmp_path / "out", *start, *words.split(), "--max-drop", "0.5")
    assert ended.complained == ""
    first, (further,) = ended.report["first_aid"], ended.report["first_aid_further"]
    assert (first["format"], further["format"]) == ("onnx", "tflite")
    assert (first["note"], first["mixtures"]) == ("no layers left in float: integers alone", [])
    (kept,) = [mixture for mixture in further["mixtures"] if mixture["kept"]]
    assert kept["layers"]
    shipped = [f["format"] for f in ended.report["artifacts"] if f["path"].startswith("bundle/")]
    assert shipped == ["onnx", "tflite"]
    assert float_layers(ended, "onnx") == []
    assert sorted(float_layers(ended, "tflite")) == sorted(kept["layers"])
    for entry in (first, further):
        share = file_score(ended, f"baseline.int4-weights.{entry['format']}", NETWORK[1])
        assert share == pytest.approx(FirstAid.from_json(entry).validation_score, abs=0.004)
    text = (ended.out / "report.md").read_text()
    assert "int4-weights onnx: validation" in text and "int4-weights tflite: validation" in text


def test_formats_that_round_alike_share_the_work(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counted(job: Job, *given: Any) -> Any:
        asked.extend(job.exports.formats)
        return _aid_format(job, *given)

    monkeypatch.setattr("compress_export.first_aid._aid_format", counted)
    words = "--board x86-64 --stages quantize --precision int8-weights"
    ended = run_here(tmp_path / "out", *NETWORK, *QUICK, "--weights", trained, *words.split())
    assert asked == ["onnx"]
    first, (further,) = ended.report["first_aid"], ended.report["first_aid_further"]
    assert further == {**first, "format": "tflite"}
    assert {path.suffix for path in (ended.out / "bundle").glob("baseline.*")} == {*RUNNERS}


def test_none_leaves_the_files_as_they_are(tmp_path: Path, badly_scaled: Path) -> None:
    words = (
        "--board x86-64 --formats onnx --stages quantize --weight-scales per-tensor "
        "--first-aid none"
    )
    ended = run_here(tmp_path / "out", *NETWORK, *QUICK, "--weights", badly_scaled, *words.split())
    assert ended.code in (0, 1), ended.complained
    assert ended.report["first_aid"] is None
    with pytest.raises(UsageError, match="first-aid"):
        resolve_options({"board": "x86-64", "first_aid": "some"})


def test_a_network_that_cant_be_rounded_in_torch_goes_without(
    tmp_path: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("it counts its calls")

    monkeypatch.setattr("compressor.quantization.fake.FakeQuantized.__init__", refuse)
    words = "--board x86-64 --formats onnx --stages quantize,bench"
    ended = run_here(tmp_path / "out", *NETWORK, *QUICK, "--weights", trained, *words.split())
    assert ended.code == 0, ended.complained
    warning = "no first aid: the network can't be rounded in torch: it counts its calls"
    assert warning in ended.report["warnings"]
    assert ended.report["first_aid"] is None
    assert (tmp_path / "out" / "bundle" / "baseline.int8.onnx").is_file()
