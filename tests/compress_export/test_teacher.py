"""From options to recipes and teachers; a run that another network teaches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_jobs import NETWORK, QUICK, run_here

from compress_export.options import JobOptions
from compress_export.schedule import (
    Epochs,
    baseline_recipe,
    finetune_recipe,
    search_recipe,
)
from compressor.models import build_model
from compressor.saved import save_model

EPOCHS = Epochs(baseline=4, search=2, finetune=3)


def options(**said: object) -> JobOptions:
    return JobOptions(board="jetson", **said)


def test_recipes_by_default() -> None:
    baseline = baseline_recipe(options(), EPOCHS, 128, trained=False)
    search = search_recipe(options(), EPOCHS, 128)
    finetune = finetune_recipe(options(), EPOCHS, 128)
    assert (baseline.epochs, search.epochs, finetune.epochs) == (4, 2, 3)
    assert [r.weight_decay for r in (baseline, search, finetune)] == [5e-4] * 3
    assert [r.regularizer for r in (baseline, search, finetune)] == ["l2"] * 3
    assert [r.warmup_share for r in (baseline, search, finetune)] == [0.2, 0.1, 0.0]
    assert [r.distillation for r in (baseline, search, finetune)] == [0.0, 0.5, 0.5]
    assert [r.attention for r in (baseline, search, finetune)] == [0.0] * 3
    assert [r.decays for r in (baseline, search, finetune)] == [True, False, True]
    assert search.rate(1.0) == finetune.rate(0.0)  # one cycle over both


def test_a_cosine_never_rises() -> None:
    chosen = options(schedule="cosine")
    alone = Epochs(baseline=4, search=0, finetune=3)
    for recipe in (
        baseline_recipe(chosen, EPOCHS, 128, trained=True),
        search_recipe(chosen, EPOCHS, 128),
        finetune_recipe(chosen, EPOCHS, 128),
        finetune_recipe(chosen, alone, 128),
    ):
        rates = [recipe.rate(step / 50) for step in range(50)]
        assert rates == sorted(rates, reverse=True)
    rising = finetune_recipe(options(), alone, 128)
    assert rising.rate(0.0) < rising.rate(0.1)


def test_the_regularizer_is_that_of_every_stage() -> None:
    recipes = (search_recipe, finetune_recipe)
    assert [make(options(regularizer="l1"), EPOCHS, 128).weight_decay for make in recipes] == [
        1e-5,
        1e-5,
    ]
    chosen = options(regularizer="l1", weight_decay="0.002")
    made = [make(chosen, EPOCHS, 128) for make in recipes]
    made.append(baseline_recipe(chosen, EPOCHS, 128, trained=True))
    assert {(r.regularizer, r.weight_decay) for r in made} == {("l1", 0.002)}


@pytest.mark.parametrize(
    ("distill", "search", "finetune"),
    [("none", (0, 0), (0, 0)), ("logits", (0.5, 0), (0.5, 0)), ("features", (0.5, 0), (0.5, 1000))],
)
def test_what_the_teacher_teaches(
    distill: str, search: tuple[float, float], finetune: tuple[float, float]
) -> None:
    chosen = options(distill=distill)
    for make, expected in ((search_recipe, search), (finetune_recipe, finetune)):
        recipe = make(chosen, EPOCHS, 128)
        assert (recipe.distillation, recipe.attention) == expected
        assert recipe.distills == (expected != (0, 0))
    assert not search_recipe(options(distill=distill, method="paper"), EPOCHS, 128).distills


def test_another_network_teaches_answers_and_features(trained: Path, tmp_path: Path) -> None:
    """A saved teacher of another family; everything of this page at once."""
    torch.manual_seed(0)
    teacher = saved(10, tmp_path / "teacher")
    words = (
        "--board jetson --stages prune --target-macs 0.5 --distill features --regularizer l1 "
        "--weight-decay 1e-5 --schedule cosine"
    )
    start = [*NETWORK, *QUICK, "--weights", trained, *words.split()]
    ended = run_here(tmp_path / "out", *start, "--teacher", teacher)
    assert ended.code == 0, ended.complained
    said, networks = ended.report["options"], ended.report["stages"]
    assert (said["distill"], said["teacher"]) == ("features", str(teacher))
    assert networks["slim"]["macs"] <= 0.5 * networks["baseline"]["macs"]

    by_itself = run_here(tmp_path / "itself", *start)
    assert by_itself.code == 0, by_itself.complained
    mine, its = (e.run / "rung-1" / "finetune.csv" for e in (ended, by_itself))
    assert mine.read_text() != its.read_text()  # the original teaches something else


def weights_of(model: str, classes: int, path: Path) -> Path:
    torch.save(build_model(model, classes).state_dict(), path)
    return path


def saved(classes: int, folder: Path) -> Path:
    save_model(build_model("resnet20", classes), "resnet20", classes, folder)
    return folder


TEACHERS: dict[str, tuple[Callable[[Path], list[str | Path]], tuple[str, ...]]] = {
    "no such file": (
        lambda folder: ["--teacher", folder / "none.pt"],
        ("none.pt", "no such file"),
    ),
    "other classes, saved": (
        lambda folder: ["--teacher", saved(7, folder / "t")],
        ("t: the network has 7 classes, the data has 10",),
    ),
    "other classes, weights": (
        lambda folder: [
            *("--teacher", weights_of("resnet20", 7, folder / "t.pt")),
            *("--teacher-model", "resnet20"),
        ],
        ("t.pt", "7 classes", "the data has 10"),
    ),
    "another network's weights": (
        lambda folder: ["--teacher", weights_of("resnet20", 10, folder / "t.pt")],
        ("t.pt", "another model"),
    ),
    "a folder with a name": (
        lambda folder: ["--teacher", saved(10, folder / "t"), "--teacher-model", "resnet20"],
        ("--teacher-model resnet20", "leave --teacher-model out"),
    ),
    "another input": (
        lambda folder: [
            *("--teacher", weights_of("tiny_networks:only_16_pixels", 10, folder / "t.pt")),
            *("--teacher-model", "tiny_networks:only_16_pixels"),
        ],
        ("t.pt", "doesn't take images of 8x8 pixels"),
    ),
    "no feature maps": (
        lambda folder: [
            *("--teacher", weights_of("tiny_networks:only_8_pixels", 10, folder / "t.pt")),
            *("--teacher-model", "tiny_networks:only_8_pixels", "--distill", "features"),
        ],
        ("no feature maps to compare", "those of the teacher none", "--distill logits"),
    ),
    "nothing to teach": (
        lambda folder: ["--teacher", folder / "t.pt", "--distill", "none"],
        ("--distill none",),
    ),
    "no such file, beside a codebook": (
        lambda folder: [
            *("--stages", "quantize", "--codebook", "8", "--teacher", folder / "none.pt"),
        ],
        ("none.pt", "no such file"),
    ),
    "no weights, for rounding": (
        lambda folder: ["--stages", "quantize", "--qat-epochs", "1", "--teacher", "/etc/hostname"],
        ("/etc/hostname", "weights"),
    ),
    "no stage that it teaches in": (
        lambda folder: ["--stages", "quantize,bench", "--teacher", folder / "none.pt"],
        ("none.pt", "trains nothing that it could teach", "add prune"),
    ),
    "a codebook that isn't trained": (
        lambda folder: [
            *("--stages", "quantize", "--codebook", "8", "--codebook-epochs", "0"),
            *("--teacher", folder / "none.pt"),
        ],
        ("none.pt", "trains nothing"),
    ),
    "a name without weights": (
        lambda folder: ["--teacher-model", "resnet20"],
        ("--teacher-model resnet20", "give --teacher FILE"),
    ),
}


@pytest.mark.parametrize("mistake", list(TEACHERS))
def test_mistakes_about_teachers(tmp_path: Path, mistake: str) -> None:
    make, says = TEACHERS[mistake]
    given = tmp_path / "given"
    given.mkdir()
    ended = run_here(tmp_path / "out", *NETWORK, *QUICK, "--board", "jetson", *make(given))
    assert ended.code == 2, ended.complained
    assert ended.complained.count("\n") == 1
    for word in says:
        assert word in ended.complained
    assert list(tmp_path.iterdir()) == [given]
