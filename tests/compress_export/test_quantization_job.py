"""--qat-epochs: a job whose network trains as its files will answer, and what it says about it."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from tiny_jobs import NETWORK, QUICK, Ended, run_here
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from boards import load_board
from compress_export import load_model
from compress_export.errors import UsageError
from compress_export.job_file import resolve_options
from compress_export.quantization_training import refuse_branches, rounded_as_files

ROOT = Path(__file__).parents[2]
Job = Callable[..., Ended]


@pytest.fixture(scope="module")
def ternary(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Ended:
    """Pruned, then trained for weights of 2 bits; TFLite alone. Tests only read it."""
    out = tmp_path_factory.mktemp("quantization") / "out"
    words = (
        "--board x86-64 --formats tflite --target-macs 0.6 --max-drop 90 --method taylor "
        "--precision int2-weights --qat-epochs 3"
    )
    return run_here(out, *NETWORK, *QUICK, "--weights", trained, *words.split())


def test_training_recovers_at_least_half_of_what_two_bits_lose(ternary: Ended) -> None:
    assert ternary.complained == ""
    found = ternary.report["quantization_training"]
    lost = found["validation_score_float"] - found["validation_score_rounded"]
    assert lost > 0.02
    assert found["validation_score"] > found["validation_score_rounded"] + lost / 2


def test_the_file_answers_as_well_as_the_rounded_network(ternary: Ended) -> None:
    found = ternary.report["quantization_training"]
    scores = {a["path"]: a["top1"] for a in ternary.report["artifacts"]}
    assert scores["bundle/slim.int2-weights.tflite"] > found["validation_score"] - 0.06
    assert (
        scores["bundle/slim.int2-weights.tflite"] > scores["reference/baseline.int2-weights.tflite"]
    )


def test_the_network_that_is_left_is_one_of_its_class(ternary: Ended) -> None:
    slim = load_model(ternary.out / "torch" / "slim")
    norms = [m for m in slim.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    for norm in norms:
        torch.testing.assert_close(norm.weight, torch.ones_like(norm.weight))
        assert norm.bias.any()
    assert (ternary.run / "quantization.csv").read_text().count("\n") == 4  # heading, three epochs


def test_the_report_and_its_page_know_the_same_keys(ternary: Ended) -> None:
    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    pattern = r"^## quantization_training\n(.*?)^## "
    (section,) = re.findall(pattern, text, flags=re.MULTILINE | re.DOTALL)
    documented = re.findall(r"^\| (`.*?`) \|", section, flags=re.MULTILINE)
    found = ternary.report["quantization_training"]
    assert set(found) == set(re.findall(r"`(\w+)`", " ".join(documented)))
    assert (found["precision"], found["format"]) == ("int2-weights", "tflite")
    for said in (ternary.said, (ternary.out / "report.md").read_text()):
        assert "trained for int2-weights tflite: validation" in said


def test_measuring_again_keeps_what_is_known(ternary: Ended, tmp_path: Path) -> None:
    before = ternary.report["quantization_training"]
    words = "--board x86-64 --stages bench --latency-runs 5 --max-drop 90"
    shutil.copytree(ternary.out, tmp_path / "out")
    again = run_here(tmp_path / "out", *words.split())
    assert again.code == ternary.code, again.complained
    assert again.report["quantization_training"] == before


def test_a_network_can_train_for_int8_without_being_pruned(job: Job) -> None:
    ended = job("--board x86-64 --stages quantize --formats onnx --qat-epochs 1")
    assert ended.code in (0, 1), ended.complained
    stages = ended.report["stages"]
    assert stages["slim"]["macs"] == stages["baseline"]["macs"]
    found = ended.report["quantization_training"]
    assert found["validation_score"] >= found["validation_score_rounded"]


def test_what_is_trained_and_judged_is_clipped_as_the_boards_files_are() -> None:
    torch.manual_seed(0)
    images = torch.randn(32, 3, 8, 8)
    images[0, 0, 0, 0] = 50
    task = SimpleNamespace(
        calibration_stream=lambda: iter([images.numpy()]), example=lambda: images[:1]
    )
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    board, answers = load_board("x86-64"), {}
    for method in ("minmax", "entropy"):
        rules = board.quantization.changed(calibration=method)
        exports = SimpleNamespace(precision="int8", formats=("onnx",))
        board = board.model_copy(update={"quantization": rules})
        job = cast(Any, SimpleNamespace(task=task, board=board, exports=exports))
        with torch.no_grad():
            answers[method] = rounded_as_files(job, copy.deepcopy(network)).eval()(images)
    with torch.no_grad():
        exact = network(images)
    off = {method: (found - exact)[0].abs().mean() for method, found in answers.items()}
    assert off["entropy"] > 3 * off["minmax"]  # of the image whose largest pixel is clipped


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"qat_epochs": "-1"}, "--qat-epochs -1: must be greater than or equal to 0"),
        ({"qat_epochs": "2", "codebook": "16"}, "--qat-epochs 2 and --codebook 16 exclude"),
    ],
)
def test_wrong_values_are_refused(options: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        resolve_options({"board": "x86-64", **options})


def test_networks_whose_branches_merge_on_export_are_refused(tmp_path: Path) -> None:
    start = [*NETWORK[2:], *QUICK, "--model", "tiny_networks:with_branches"]
    ended = run_here(tmp_path / "out", *start, "--board", "x86-64", "--qat-epochs", "2")
    assert ended.code == 2
    assert "--qat-epochs 2: tiny_networks:with_branches has branches" in ended.complained
    assert not (ended.run / "baseline.csv").exists()


class Fused(nn.Sequential):
    """Merges into its convolution, with the norm behind it."""

    def fuse(self) -> nn.Module:
        return fuse_conv_bn_eval(self[0], self[1])


class Scaled(nn.Sequential):
    """Merges into its layer, with a factor behind it."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * super().forward(x)

    def fuse(self) -> nn.Module:
        layer = copy.deepcopy(self[0])
        layer.weight.data, layer.bias.data = 3 * layer.weight, 3 * layer.bias
        return layer


def test_merging_that_only_folds_norms_is_no_reason_to_refuse() -> None:
    def task(block: nn.Module) -> Any:
        model = nn.Sequential(block.eval(), nn.ReLU(), nn.Conv2d(4, 2, 1))
        example = torch.zeros(1, 3, 8, 8)
        return SimpleNamespace(
            model=model, architecture="net", input_shape=(3, 8, 8), example=lambda: example
        )

    options = resolve_options({"board": "x86-64", "qat_epochs": "2"})
    refuse_branches(options, task(Fused(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))))
    with pytest.raises(UsageError, match="--qat-epochs 2: net has branches"):
        refuse_branches(options, task(Scaled(nn.Conv2d(3, 4, 3))))


def test_files_without_integers_have_nothing_to_train_for(job: Job) -> None:
    ended = job("--board x86-64 --precision float16 --qat-epochs 2")
    assert ended.code == 2
    assert "--qat-epochs 2: float16 files round nothing" in ended.complained
