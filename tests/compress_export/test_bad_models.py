"""Bad networks, weights, losses and metrics: code 2, exactly this line, and nothing left behind.

`docs/cli.md` lists these messages.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import bad_models
import pytest
import torch
from tiny_jobs import run_here
from torch import nn

Given = Callable[[Path], list[str | Path]]

START = ["--board", "jetson", "--data", "digits", "--input-size", "8", "--threads", "1"]
FUNCTIONS = (
    "array, batch_mean, detached, fails, fails_in_training, good, linear, masks, no_argument, "
    "no_gradient, no_module, one_argument, percent, raises, seven_classes, shifts, text, two, "
    "two_in_training, wrong_shapes"
)


def network(name: str, *more: str) -> Given:
    return lambda folder: ["--model", f"bad_models:{name}", *more]


def judged(option: str, name: str) -> Given:
    return network("good", f"--{option}", f"bad_models:{name}")


def weights(write: Callable[[Path], object], *more: str, model: str = "good") -> Given:
    def given(folder: Path) -> list[str | Path]:
        write(folder / "net.pt")
        return ["--model", f"bad_models:{model}", "--weights", folder / "net.pt", *more]

    return given


def saved(state: object, *more: str, model: str = "good") -> Given:
    return weights(lambda path: torch.save(state, path), *more, model=model)


def state_of(model: nn.Module, **changes: torch.Tensor) -> dict[str, torch.Tensor]:
    return {**model.state_dict(), **changes}


GOOD = bad_models.good(10)

# what is wrong -> what is given, and the line without "compress-export: "; FOLDER holds the files
BAD: dict[str, tuple[Given, str]] = {
    "no such module": (
        lambda folder: ["--model", "nowhere.nets:build"],
        "model 'nowhere.nets:build': there is no module 'nowhere'; it is looked for in the current "
        "directory (FOLDER) and among the installed packages",
    ),
    "no such factory": (
        network("goood"),
        "model 'bad_models:goood': bad_models has no function 'goood'; it has " + FUNCTIONS,
    ),
    "the factory raises": (
        network("raises"),
        "model 'bad_models:raises': calling it with num_classes=10 failed with RuntimeError: no "
        "licence file",
    ),
    "the factory takes no classes": (
        network("no_argument"),
        "model 'bad_models:no_argument': calling it with num_classes=10 failed with TypeError: "
        "no_argument() got an unexpected keyword argument 'num_classes'",
    ),
    "the factory returns no module": (
        network("no_module"),
        "model 'bad_models:no_module' returned dict; a torch.nn.Module is needed",
    ),
    "other classes": (
        network("seven_classes"),
        "--model bad_models:seven_classes: it returns (N, 7), wanted is (N, 10), one number for "
        "each class of the data; where that is meant so, give --loss for cross-entropy and "
        "--metric for top-1 as package.module:function of your own",
    ),
    "no tensor comes out": (
        network("text"),
        "--model bad_models:text: its forward returns str; one tensor or several are needed",
    ),
    "several outputs without a loss": (
        network("two"),
        "--model bad_models:two: it returns (N, 10) and (N, 8, 6, 6), wanted is (N, 10), one "
        "number for each class of the data; where that is meant so, give --loss for cross-entropy "
        "and --metric for top-1 as package.module:function of your own",
    ),
    "it fails on an image": (
        network("fails"),
        "--model bad_models:fails: it fails on RGB images of 8x8 pixels with ValueError: pictures "
        "below 32 pixels are too small",
    ),
    "it changes the images": (
        network("shifts"),
        "--model bad_models:shifts: its forward changes the images that it is given, which a "
        "teacher and the check of the slim network read as well; compute new ones, x = x - mean "
        "for x -= mean",
    ),
    "it fails in training": (
        network("fails_in_training"),
        "--model bad_models:fails_in_training in train mode: it fails on RGB images of 8x8 pixels "
        "with ValueError: no targets were given",
    ),
    "it has no gradient": (
        network("no_gradient"),
        "--model bad_models:no_gradient in train mode: the gradient of its loss fails with "
        "RuntimeError: element 0 of tensors does not require grad and does not have a grad_fn",
    ),
    "other outputs in training": (
        network("two_in_training"),
        "--model bad_models:two_in_training: it returns (N, 10) and (N, 10) in train mode and "
        "(N, 10) in eval mode; leave auxiliary outputs out, or give --loss and --metric that take "
        "both, and --distill none",
    ),
    "nothing to prune": (
        network("linear"),
        "--model bad_models:linear: none of its channels can be pruned",
    ),
    "no batch norm to go by": (
        network("good", "--method", "bn-sparse"),
        "the network has no batch norm with a scale, which --method bn-scale and bn-sparse go by; "
        "choose another method, such as decore or taylor",
    ),
    "noise for weights": (
        weights(lambda path: path.write_bytes(b"\x93\x17noise" * 99)),
        "weights FOLDER/net.pt: truncated or damaged (0.00 MiB; UnpicklingError); compare its size "
        "or checksum with the source and fetch it again",
    ),
    "other keys": (
        saved({"stem.weight": torch.zeros(8, 3, 3, 3)}),
        "weights FOLDER/net.pt: weights of another model: 4 tensors missing (first conv.weight), 1 "
        "tensors unexpected (first stem.weight)",
    ),
    "a whole module": (
        saved(nn.Conv2d(3, 8, 3)),
        "weights FOLDER/net.pt: refused, since reading it would run code "
        "(torch.nn.modules.conv.Conv2d); save only the tensors: torch.save(model.state_dict(), "
        "path)",
    ),
    "NaN among the weights": (
        saved(state_of(GOOD, **{"head.bias": torch.full((10,), torch.nan)})),
        "weights FOLDER/net.pt: 1 tensors hold NaN or infinite numbers, the first is head.bias; "
        "the training that made them probably diverged",
    ),
    "weights for other classes": (
        saved(state_of(bad_models.seven_classes(10))),
        "weights FOLDER/net.pt: its last layer (head) has 7 classes, the data has 10; give data "
        "with the same classes, weights trained on this data, or --new-head to train a new last "
        "layer",
    ),
    "a new head for weights of another model": (
        saved({"stem.weight": torch.zeros(8, 3, 3, 3)}, "--new-head"),
        "weights FOLDER/net.pt: weights of another model: 2 tensors missing (first conv.weight), 1 "
        "tensors unexpected (first stem.weight)",
    ),
    "a new head for a fixed number of classes": (
        saved(GOOD.state_dict(), "--new-head", model="seven_classes"),
        "model 'bad_models:seven_classes' has no last layer to renew: no tensor follows the number "
        "of classes; its factory has to make as many outputs as num_classes says",
    ),
    "a new head without weights": (
        network("good", "--new-head"),
        "--new-head renews the last layer of given weights: give --weights",
    ),
    "a new head without training": (
        saved(GOOD.state_dict(), "--new-head", "--baseline-epochs", "0"),
        "--baseline-epochs 0 would leave the last layer of --new-head untrained; give at least 1",
    ),
    "no such loss": (
        judged("loss", "los"),
        "loss 'bad_models:los': bad_models has no function 'los'; it has " + FUNCTIONS,
    ),
    "a loss of one argument": (
        judged("loss", "one_argument"),
        "loss bad_models:one_argument: calling it with outputs of shape (8, 10) and labels of "
        "shape (8,) failed with TypeError: one_argument() takes 1 positional argument but 2 were "
        "given",
    ),
    "a loss of the batch": (
        judged("loss", "batch_mean"),
        "loss bad_models:batch_mean: it must return one number per image, shape (8,); for 8 images "
        "it returned the shape (); was a mean taken over the batch?",
    ),
    "a loss that is an array": (
        judged("loss", "array"),
        "loss bad_models:array: it must return a tensor with one number per image, it returned "
        "ndarray",
    ),
    "a loss without a gradient": (
        judged("loss", "detached"),
        "loss bad_models:detached: what it returns has no gradient; compute it from the outputs "
        "with torch operations alone, without .detach(), .item() or numpy",
    ),
    "a metric that fails": (
        judged("metric", "wrong_shapes"),
        "metric bad_models:wrong_shapes: calling it with outputs of shape (8, 10) and labels of "
        "shape (8,) failed with ValueError: outputs and masks differ",
    ),
    "a metric in percent": (
        judged("metric", "percent"),
        "metric bad_models:percent: every score must lie in [0, 1], higher for better outputs; "
        "those of a batch run from 100 to 100",
    ),
    "masks without a loss": (
        network("good", "--data", "bad_models:masks"),
        "data bad_models:masks: the labels are int64 of shape (N, 8, 8), no class numbers; give "
        "--loss for cross-entropy and --metric for top-1 as package.module:function of your own",
    ),
    "masks that would have to move": (
        network("good", "--data", "bad_models:masks", "--augment", "crop"),
        "--augment crop: the labels of bad_models:masks are no classes, and would not move along "
        "with the image; augment in the function that makes them",
    ),
}


@pytest.mark.parametrize("mistake", list(BAD))
def test_a_bad_model_is_one_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    make, line = BAD[mistake]
    given = tmp_path / "given"
    given.mkdir()
    monkeypatch.chdir(given)
    arguments = make(given)
    before = [(path, path.read_bytes()) for path in given.iterdir()]
    ended = run_here(tmp_path / "out", *START, *arguments)
    assert ended.code == 2, ended.complained
    assert ended.complained == f"compress-export: {line.replace('FOLDER', str(given))}\n"
    assert not re.search("Traceback", ended.said)
    assert [(path, path.read_bytes()) for path in given.iterdir()] == before
    assert list(tmp_path.iterdir()) == [given]


@pytest.mark.parametrize("method", ["bn-scale", "bn-sparse"])
def test_a_plan_says_that_there_is_no_batch_norm(tmp_path: Path, method: str) -> None:
    arguments = [*START, "--model", "bad_models:good", "--method", method]
    ended = run_here(tmp_path / "out", *arguments, "--dry-run")
    assert ended.code == 2
    assert "no batch norm with a scale" in ended.complained


def test_the_documentation_has_every_message() -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    for _, line in BAD.values():
        assert f"`{line.replace('FOLDER', '/home/ann')}`" in page
