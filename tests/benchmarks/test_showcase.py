"""Files of finished networks: ResNet-8's published counts, runtimes and scikit-learn as oracles."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import accuracy_score, precision_score, recall_score
from torch import nn

from benchmarks.pruning import files, results, showcase, tiny
from benchmarks.pruning.resnet8 import ARCHITECTURE, resnet8
from benchmarks.pruning.setting import Setting
from benchmarks.pruning.showcase import Showcase
from compressor.checkpoint import Checkpoint
from compressor.cost import NetworkCosts, as_tensor
from compressor.graph import channel_graph
from compressor.models import build_model
from compressor.saved import load_model, save_model
from compressor.slim import slim

EXAMPLE = torch.zeros(1, 3, 32, 32)
SHOW = Showcase("resnet20", "thin", "longer", images=20, threads=1)


def write_images(root: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Ten classes of noise around a brightness each; returns the training images and labels."""
    rng, images, labels = np.random.default_rng(0), [], []
    for split, count in (("train", 6), ("test", 3)):
        for label in range(10):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.normal(20 + 22 * label, 20, (32, 32, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
                if split == "train":
                    images.append(pixels)
                    labels.append(label)
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2)), torch.tensor(labels)


def fitted(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> nn.Module:
    """Set batch norm's statistics and, by ridge regression, the last layer; uint8 (N, 3, H, W)."""
    features: list[torch.Tensor] = []
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    head = model.get_submodule("linear")
    hook = head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    with torch.no_grad():
        model.train()(normalized(images))
        model.eval()(normalized(images))
        hook.remove()
        x = torch.cat([features[-1], torch.ones(len(labels), 1)], dim=1)
        wanted = nn.functional.one_hot(labels, 10).float()
        found = torch.linalg.solve(x.T @ x + torch.eye(x.shape[1]), x.T @ wanted)
        head.weight.copy_(found[:-1].T)  # type: ignore[operator]
        head.bias.copy_(found[-1])  # type: ignore[operator]
    return model


def normalized(images: torch.Tensor) -> torch.Tensor:
    """Apply ImageNet's mean and std, which are those of resnet20, to uint8 (N, 3, H, W)."""
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, None, :, None, None]
    return (images / 255 - mean) / std


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """Images, a baseline and runs that slimmed it, prolonged it, and are of another network."""
    root = tmp_path_factory.mktemp("showcase")
    images, labels = write_images(root / "data")
    torch.manual_seed(0)
    model = fitted(build_model("resnet20", 10), images, labels)
    graph = channel_graph(model, EXAMPLE)
    keep = graph.all_kept().copy()
    for group in graph.groups:
        keep[list(group.classes)[8:]] = False
    thin = fitted(slim(model, graph, keep), images, labels)
    save_model(model, "resnet20", 10, root / "baselines" / "resnet20")
    save_model(model, "resnet20", 10, root / "networks" / "longer")
    save_model(thin, "resnet20", 10, root / "networks" / "thin")
    save_model(resnet8(), ARCHITECTURE, 10, root / "networks" / "small")
    return Setting(root / "data", None, root, root / "results", "cpu")


@pytest.fixture(scope="module")
def measured(setting: Setting) -> dict[str, Any]:
    """The ONNX half of a row, from turns of 7 images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "TURN_IMAGES", 7)
        return showcase.measure(SHOW, setting, formats=("onnx",))


def run_main(
    module: Any, setting: Setting, patch: pytest.MonkeyPatch, results_folder: Path, words: str
) -> None:
    common = ["--data", setting.data, "--work", setting.work, "--results", results_folder]
    patch.setattr(sys, "argv", ["prog", *words.split(), *map(str, common)])
    module.main()


def test_resnet8_is_mlperf_tinys() -> None:
    model = resnet8()
    counted_by_keras = [
        value.numel()
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    ]
    assert sum(counted_by_keras) == 78_666
    graph = channel_graph(model.eval(), EXAMPLE)
    # 3x3 convs at 32, 16 and 8 pixels, two 1x1 shortcuts, one linear layer
    stem, first = 3 * 16 * 9 * 32**2, 2 * 16 * 16 * 9 * 32**2
    second = (16 * 32 * 9 + 32 * 32 * 9 + 16 * 32) * 16**2
    third = (32 * 64 * 9 + 64 * 64 * 9 + 32 * 64) * 8**2
    macs = float(NetworkCosts(graph).macs(as_tensor(graph.all_kept())))
    assert macs == stem + first + second + third + 640
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert isinstance(build_model(ARCHITECTURE, 4), type(model))


def answers(path: Path, images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Ask onnxruntime itself; uint8 (N, 3, H, W)."""
    import onnxruntime

    x = normalized(torch.from_numpy(images)).numpy()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0].argmax(axis=1)


def test_every_file_is_measured_as_runtime_and_scikit_learn_do(
    setting: Setting, measured: dict[str, Any]
) -> None:
    test = files.with_test_images(setting.task("resnet20"), SHOW.images).data.test
    images, labels = test.read(np.arange(len(test))), test.labels
    assert measured["test_images"] == len(labels) == 20
    assert set(labels) == set(range(10))
    names = [(file["role"], file["precision"]) for file in measured["files"]]
    assert names == [
        ("original", "float32"),
        ("continued", "float32"),
        ("slim", "float32"),
        ("slim", "int8"),
    ]
    for file in measured["files"]:
        stage = "slim" if file["role"] == "slim" else "baseline"
        path = setting.work / "files" / "thin" / file["role"] / f"{stage}.{file['precision']}.onnx"
        predicted = answers(path, images)
        average = {"average": "macro", "zero_division": 0}
        assert file["size_bytes"] == path.stat().st_size
        assert file["top1"] == pytest.approx(accuracy_score(labels, predicted))
        assert file["precision_macro"] == pytest.approx(
            precision_score(labels, predicted, **average)
        )
        assert file["recall_macro"] == pytest.approx(recall_score(labels, predicted, **average))
        assert (results.unpack(file["right"], 20) == (predicted == labels)).all()


def test_figures_stand_against_the_float_original(measured: dict[str, Any]) -> None:
    original, continued, thin, int8 = measured["files"]
    assert original["top1"] > 0.5 and thin["top1"] > 0.3  # not everything is one class
    assert original["difference_points"] == continued["difference_points"] == 0
    assert original["eval_factor"] == original["size_factor"] == 1
    for file in (thin, int8):
        points = 100 * (file["top1"] - original["top1"])
        assert file["difference_points"] == pytest.approx(points)
        assert file["difference_low"] <= file["difference_points"] <= file["difference_high"]
        assert file["eval_factor"] == original["eval_seconds"] / file["eval_seconds"]
        assert file["eval_seconds"] > file["runtime_seconds"] > 0
    assert int8["size_factor"] > thin["size_factor"] > 1
    assert measured["parameters"]["slim"] < measured["parameters"]["original"]


def test_files_take_turns(
    setting: Setting, measured: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = []
    take_turn = files.Evaluation.take_turn

    def noted(evaluation: files.Evaluation, images: files.Pixels) -> None:
        turns.append((evaluation.manifest.folder.name, len(images)))
        take_turn(evaluation, images)

    monkeypatch.setattr(files, "TURN_IMAGES", 12)
    monkeypatch.setattr(files.Evaluation, "take_turn", noted)
    made, test = setting.work / "files" / "thin", setting.task("resnet20").data.test
    files.evaluate_in_turns([made / "original", made / "continued"], "onnx", test, threads=1)
    there, back = ["original", "continued"], ["continued", "original"]
    assert [name for name, _ in turns] == [*there, *back, *there]
    assert [count for _, count in turns] == [12, 12, 12, 12, 6, 6]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "--slim xyz",
            "error: no network of a run 'xyz' among the .* benchmarks.pruning.compare",
        ),
        ("--slim thim", "error: no network of a run 'thim' among the .*; did you mean thin?"),
        ("--slim small", f"error: run 'small' holds a {ARCHITECTURE}"),
        ("--slim thin --continued none", "error: no network of a run 'none'"),
    ],
)
def test_a_missing_or_strange_network_is_refused_in_one_line(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: str, said: str
) -> None:
    with pytest.raises(SystemExit, match=said) as refused:
        run_main(showcase, setting, monkeypatch, tmp_path, f"--network resnet20 {words}")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "showcase.jsonl").exists()


def test_a_finished_showcase_is_not_repeated(
    setting: Setting,
    measured: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = []

    def measure(show: Showcase, _: Setting) -> dict[str, Any]:
        calls.append(show)
        return measured

    monkeypatch.setattr(showcase, "measure", measure)
    words = "--network resnet20 --slim thin --continued longer --images 20"
    for _ in range(2):
        run_main(showcase, setting, monkeypatch, tmp_path, words)
    assert calls == [SHOW]
    (row,) = results.rows(tmp_path / "showcase.jsonl")
    assert row["environment"]["threads"] == torch.get_num_threads()
    assert capsys.readouterr().out.count("slim INT8 ONNX") == 2


def test_tiny_files_and_rows(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tiny, "FORMAT", "onnx")  # imports of the other converter take seconds
    words = "--seeds 3 --epochs 2 --against thin"
    run_main(tiny, setting, monkeypatch, tmp_path, words)
    first = list(results.rows(tmp_path / "tiny.jsonl"))
    run_main(tiny, setting, monkeypatch, tmp_path, words)
    assert list(results.rows(tmp_path / "tiny.jsonl")) == first
    trained, thin = first
    name = "resnet8-s3-e2-lr0.1-wd0.0002"
    assert (trained["run"], thin["run"], thin["network"]) == (name, "thin", "resnet20")
    assert [entry["epoch"] for entry in trained["curves"]] == [1, 2]
    for row, stage in ((trained, "baseline"), (thin, "slim")):
        path = setting.work / "files" / row["run"] / f"{stage}.int8.onnx"
        assert row["size_bytes"] == path.stat().st_size
        for kind in ("test", "int8_test"):
            right = results.unpack(row[f"{kind}_right"], row["test_images"])
            assert row[f"{kind}_top1"] == pytest.approx(right.mean())
    assert not (setting.work / "runs" / name / "training.pt").exists()


class StopsAtOnce(Checkpoint):
    """An interruption after the first epoch."""

    def save(self, state: dict[str, Any]) -> None:
        super().save(state)
        raise KeyboardInterrupt


def test_an_interrupted_resnet8_ends_as_an_undisturbed_one(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tiny, "measure", lambda *_: {})
    images, training = tiny.resnet8_task(setting), tiny.Training(5, 2, 0.1, 2e-4)
    saved = setting.work / "networks" / training.name
    whole = tiny.train(training, images, setting, Checkpoint(None))
    undisturbed = load_model(saved).state_dict()
    path = tmp_path / "training.pt"
    with pytest.raises(KeyboardInterrupt):
        tiny.train(training, images, setting, StopsAtOnce(path))
    resumed = tiny.train(training, images, setting, Checkpoint(path))
    assert resumed["validation_top1"] == whole["validation_top1"]
    assert [entry["epoch"] for entry in resumed["curves"]] == [2]
    for name, value in load_model(saved).state_dict().items():
        assert torch.equal(value, undisturbed[name]), name


def test_missing_runs_are_told_before_training(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tiny, "train", lambda *_: pytest.fail("trained"))
    for run, said in (("none", "no network of a run 'none'"), ("small", "--against small: holds")):
        with pytest.raises(SystemExit, match=f"error: {said}"):
            run_main(tiny, setting, monkeypatch, tmp_path, f"--against {run}")
