"""README.md as a model card, read by the Hub's own parser."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from boards import load_board
from exporters.artifacts import Exported, TensorSpec
from exporters.card_figures import how_made
from exporters.codebook_file import CodebookFile
from exporters.model_card import complete_card, model_card

hub = pytest.importorskip("huggingface_hub")

STAGE = {"params": 269_722, "macs": 40_551_808, "top1": 0.9267, "score": None}


def exported(format: str) -> Exported:
    return Exported(
        name=f"slim.int8.{format}", stage="slim", path=f"slim.int8.{format}", side_files=(),
        format=format, precision="int8", size_bytes=92_160, sha256=f"{format:0>64}",
        input=TensorSpec("x", (1, 3, 32, 32), "float32", layout="NCHW"),
        output=TensorSpec("y", (1, 10), "float32"), weight_bytes={}, activation_bytes=1,
        float_layers=(), fused_integer_convs=None, convs=1, agreement_validation=1.0,
    )  # fmt: skip


FILES = (exported("onnx"), exported("tflite"))


def report(top1: float | None = 0.9134) -> dict[str, object]:
    artifacts = [
        {
            "name": file.name, "sha256": file.sha256, "top1": top1, "score": None,
            "agreement": 0.99, "samples": 10_000, "measured_on": "host", "peak_rss_bytes": 2**25,
            "latency_ms": {"p50": 0.41, "p90": 0.47, "p99": 0.6},
        }
        for file in FILES
    ]  # fmt: skip
    other = artifacts[0] | {"name": "slim.float32.onnx", "sha256": "f" * 64, "top1": 0.5}
    check = {"file": "slim.int8.onnx", "budget": "latency_p90_ms", "value": 0.47, "limit": 2.0,
             "unit": "ms", "status": "pass"}  # fmt: skip
    return {
        "tool": {"name": "compress-export", "version": "0.1.0"},
        "model": "resnet20", "data": "/home/me/secret/cats", "seed": 3, "metric": "top-1",
        "target": "half of the MACs", "options": {"method": "decore", "calibration_samples": 512},
        "environment": {"python": "3.11.7", "libraries": {"torch": "2.14.0", "onnxsim": None}},
        "stages": {"baseline": STAGE, "slim": STAGE | {"macs": 20_000_000}},
        "artifacts": [*artifacts, other], "checks": [check],
    }  # fmt: skip


def parsed(text: str) -> hub.ModelCard:
    return hub.ModelCard(text, ignore_metadata_errors=False)


def test_metadata_and_results_as_the_hub_reads_them() -> None:
    text = model_card(FILES, load_board("x86-64"), "resnet20", None, report=report())
    data = parsed(text).data
    assert data.library_name == "onnx" and data.pipeline_tag == "image-classification"
    assert {"onnx", "tflite", "int8", "x86-64"} <= set(data.tags)
    assert data.license is None and "# license:" in text
    results = {result.metric_name: result for result in data.eval_results}
    assert set(results) == {"Top-1 of slim.int8.onnx", "Top-1 of slim.int8.tflite"}
    assert all(result.metric_value == 0.9134 for result in results.values())
    assert {(r.task_type, r.metric_type, r.dataset_name) for r in results.values()} == {
        ("image-classification", "accuracy", "cats")
    }


def test_sections_hold_the_figures_and_no_path_of_this_machine() -> None:
    text = model_card(FILES, load_board("x86-64"), "resnet20", None, report=report())
    for heading in ("What this is", "How it was made", "Intended use and limits", "Evaluation",
                    "How to run it", "Files", "Provenance"):  # fmt: skip
        assert f"\n## {heading}\n" in text
    assert "| slim.int8.onnx | 0.9134 | 0.9900 | 0.41 / 0.47 | 32.0 |" in text
    assert "| slim.int8.onnx | latency_p90_ms | 0.47 | 2 ms | pass |" in text
    assert "40.55M" in text and "20M" in text and "half of the MACs" in text
    assert "seed 3" in text and "torch 2.14.0" in text and "onnxsim" not in text
    assert "secret" not in text and "slim.float32" not in text and "{" not in text


@pytest.mark.parametrize(
    ("options", "recovered"),
    [
        ({}, "accuracy recovered by distillation"),
        ({"distill": "logits", "finetune_epochs": 3}, "accuracy recovered by distillation"),
        ({"distill": "none"}, "accuracy recovered by training"),
        ({"search_epochs": 2, "finetune_epochs": 0}, "accuracy recovered by distillation"),
        ({"search_epochs": 0, "finetune_epochs": 0}, "without training"),
    ],
)
def test_the_card_tells_what_was_done_and_no_more(
    options: dict[str, object], recovered: str
) -> None:
    known = report()
    known["options"] = {"method": "decore", "calibration_samples": 512, **options}
    text = how_made(known, FILES)
    assert f"channels removed for good, {recovered})" in text
    assert "ranges from training images, at most 512." in text
    for precision, ranged in (("int8-int16", True), ("float16", False), ("int4-weights", False)):
        found = how_made(known, [replace(FILES[0], precision=precision)])
        assert ("ranges" in found) == ranged


def test_public_data_is_linked() -> None:
    board = load_board("x86-64")
    text = model_card(FILES, board, "resnet20", None, report=report(), dataset_id="cifar10")
    assert parsed(text).data.datasets == ["cifar10"]
    text = model_card(FILES, board, "resnet20", None, report=report())
    assert parsed(text).data.datasets is None


@pytest.mark.parametrize("known", [None, report(top1=None)])
def test_without_an_accuracy_there_are_no_results(known: dict[str, object] | None) -> None:
    text = model_card(FILES, load_board("jetson"), "resnet20", None, report=known)
    assert parsed(text).data.eval_results is None
    assert "trtexec --onnx=slim.int8.onnx" in text


def test_finished_folder_gets_its_card(tmp_path) -> None:
    codebook = CodebookFile("slim.codebook", 100, "0" * 64, 16, 1000)
    manifest = {
        "model": "resnet20",
        "files": [file.to_json() for file in FILES],
        "codebook": codebook.to_json(),
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "bench.pyz").touch()
    path = complete_card(tmp_path, board=load_board("x86-64"), report=report())
    text = path.read_text()
    assert "0.9134" in text and "`slim.codebook`" in text and "`bench.pyz`" in text
    assert "samples.npz" not in text
