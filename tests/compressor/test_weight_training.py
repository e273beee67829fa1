"""Losses, rates, best epochs, checkpoints and resuming."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from decore_toys import Notes, TinyNet, ToyImages
from torch import Tensor, nn
from torch.nn import functional as F

from compressor.checkpoint import Checkpoint
from compressor.compute import Compute
from compressor.cost import Limits, NetworkCosts
from compressor.decore.agents import GradientAgents
from compressor.decore.paper import PaperAgents
from compressor.epochs import DivergedError
from compressor.graph import channel_graph
from compressor.methods.agent_search import SearchResult, search
from compressor.methods.method import PruneTask
from compressor.placeholders import Constant
from compressor.shrink import Shrinking
from compressor.training import Recipe, evaluate, fit, image_losses, sgd

CPU = Compute(torch.device("cpu"), mixed_precision=False)
RECIPE = Recipe(epochs=4, learning_rate=0.1, distillation=0.5)


def tiny(seed: int = 0) -> TinyNet:
    torch.manual_seed(seed)
    return TinyNet(dropout=0.3)


def states_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_distillation_loss_is_hinton_s(smoothing: float) -> None:
    torch.manual_seed(0)
    logits, teacher = torch.randn(6, 5), torch.randn(6, 5)
    labels = torch.randint(0, 5, (6,))
    recipe = Recipe(1, 0.1, label_smoothing=smoothing, distillation=0.7, temperature=3.0)
    # torch's own criteria; "batchmean" of one image is that image's divergence
    hard = nn.CrossEntropyLoss(label_smoothing=smoothing, reduction="none")(logits, labels)
    divergence = nn.KLDivLoss(reduction="batchmean")
    soft = [
        divergence((a / 3)[None].log_softmax(1), (b / 3)[None].softmax(1))
        for a, b in zip(logits, teacher, strict=True)
    ]
    expected = 0.3 * hard + 0.7 * 9 * torch.stack(soft)
    torch.testing.assert_close(image_losses(logits, labels, teacher, recipe), expected)


def test_loss_without_teacher_is_cross_entropy() -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([0, 2, 1, 1])
    expected = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(image_losses(logits, labels, None, RECIPE), expected)
    without = Recipe(1, 0.1)
    torch.testing.assert_close(image_losses(logits, labels, logits, without), expected)


def test_teacher_alone_has_no_loss_where_both_agree() -> None:
    logits = torch.randn(4, 3)
    recipe = Recipe(1, 0.1, distillation=1.0)
    losses = image_losses(logits, torch.zeros(4, dtype=torch.long), logits, recipe)
    assert losses.tolist() == pytest.approx([0.0] * 4, abs=1e-5)


@pytest.mark.parametrize("longest", [0.01, None])
def test_a_cut_gradient_bounds_the_way_of_the_weights(longest: float | None) -> None:
    images, net = ToyImages(), tiny()
    start = [p.detach().clone() for p in net.parameters()]
    recipe = Recipe(1, 0.1, weight_decay=0.0, momentum=0.0, warmup_share=0.0, gradient_norm=longest)
    fit(net, images, recipe, CPU, stage="cut", checkpoint=Checkpoint(None), observer=Notes())
    moved = [p.detach() - old for p, old in zip(net.parameters(), start, strict=True)]
    way = float(torch.stack([change.norm() for change in moved]).norm())
    rates = [recipe.rate(s / images.steps_per_epoch) for s in range(images.steps_per_epoch)]
    bound = 0.01 * sum(rates)
    assert 0 < way <= bound * 1.001 if longest else way > bound


def test_rate_is_one_cycle() -> None:
    recipe = Recipe(epochs=10, learning_rate=0.4, warmup_share=0.25)
    assert recipe.rate(0.0) == pytest.approx(0.04)
    assert recipe.rate(0.125) == pytest.approx((0.04 + 0.4) / 2)
    assert recipe.rate(0.25) == pytest.approx(0.4)
    assert recipe.rate(0.625) == pytest.approx(0.2)  # half of the cosine
    assert recipe.rate(1.0) == pytest.approx(0.0, abs=1e-12)
    falling = [recipe.rate(step / 100) for step in range(25, 101)]
    assert falling == sorted(falling, reverse=True)
    assert max(recipe.rate(step / 100) for step in range(101)) <= 0.4
    assert Recipe(1, 0.4, warmup_share=0.0).rate(0.0) == pytest.approx(0.4)


def test_only_weights_decay() -> None:
    decayed, others = sgd(tiny(), RECIPE).param_groups
    assert [p.dim() for p in decayed["params"]] == [4, 2]
    assert all(p.dim() == 1 for p in others["params"])
    assert (decayed["weight_decay"], others["weight_decay"]) == (5e-4, 0.0)


def test_layers_with_one_output_decay_and_constants_of_their_shape_do_not() -> None:
    layers = nn.Linear(5, 1), nn.Conv2d(5, 1, 1), nn.Conv2d(1, 1, 1), nn.BatchNorm2d(5)
    constants = [Constant(torch.ones(shape), None, False) for shape in ((1, 5, 1, 1), (1, 5))]
    decayed, others = sgd(nn.ModuleList((*layers, *constants)), RECIPE).param_groups
    assert [id(p) for p in decayed["params"]] == [id(layer.weight) for layer in layers[:3]]
    rest = [*(layer.bias for layer in layers), layers[3].weight, *(c.value for c in constants)]
    assert {id(p) for p in others["params"]} == {id(p) for p in rest}


def run_fit(model: nn.Module, notes: Notes, path: Path | None = None, recipe: Recipe = RECIPE):
    teacher = tiny(9).eval()
    return fit(
        model,
        ToyImages(),
        recipe,
        CPU,
        stage="finetune",
        checkpoint=Checkpoint(path),
        observer=notes,
        teacher=teacher,
    )


def test_fit_learns_and_keeps_an_epoch_that_none_is_clearly_above() -> None:
    model, notes = tiny(), Notes()
    start = evaluate(model, ToyImages().validation(), CPU)
    top1 = run_fit(model, notes)
    by_epoch = [values["validation_top1"] for _, _, values in notes.epochs]
    assert [epoch for _, epoch, _ in notes.epochs] == [1, 2, 3, 4]
    assert top1 in by_epoch
    assert top1 > start
    assert evaluate(model, ToyImages().validation(), CPU) == top1
    assert not model.training


def test_a_checkpoint_may_come_from_a_device_that_is_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, resumed = tiny(), tiny()
    torch.manual_seed(1)
    run_fit(expected, Notes())
    torch.manual_seed(1)
    with monkeypatch.context() as elsewhere, pytest.raises(KeyboardInterrupt):
        elsewhere.setattr(torch.serialization, "location_tag", lambda _: "cuda:99")
        run_fit(tiny(), Notes(stop_in_epoch=3), tmp_path / "fit.pt")
    with pytest.raises(RuntimeError, match="(?i)cuda"):
        torch.load(tmp_path / "fit.pt", weights_only=True)
    run_fit(resumed, Notes(), tmp_path / "fit.pt")
    assert states_equal(resumed.state_dict(), expected.state_dict())


def test_fit_never_returns_something_clearly_worse() -> None:
    """A rate that ruins the network leaves the one that was given."""
    model = tiny()
    run_fit(model, Notes())
    good = copy.deepcopy(model.state_dict())
    before = evaluate(model, ToyImages().validation(), CPU)
    notes = Notes()
    after = run_fit(model, notes, recipe=Recipe(epochs=2, learning_rate=30.0))
    assert all(values["validation_top1"] < before for _, _, values in notes.epochs)
    assert after == before
    assert states_equal(model.state_dict(), good)


def test_no_epochs_changes_nothing() -> None:
    model = tiny()
    before = copy.deepcopy(model.state_dict())
    run_fit(model, Notes(), recipe=Recipe(epochs=0, learning_rate=0.1))
    assert states_equal(model.state_dict(), before)


def test_diverging_loss_is_named() -> None:
    model = tiny()
    model.head.weight.data.fill_(float("nan"))
    with pytest.raises(DivergedError, match="finetune: the loss became nan in epoch 1, also with"):
        run_fit(model, Notes())


@pytest.mark.parametrize("stopped_in", [1, 3])
def test_resumed_fit_is_the_undisturbed_one(stopped_in: int, tmp_path: Path) -> None:
    """Bit for bit, dropout included."""
    undisturbed = tiny()
    expected_notes = Notes()
    torch.manual_seed(5)
    expected = run_fit(undisturbed, expected_notes)

    path = tmp_path / "fit.pt"
    torch.manual_seed(5)
    with pytest.raises(KeyboardInterrupt):
        run_fit(tiny(), Notes(stop_in_epoch=stopped_in), path)
    resumed, notes = tiny(), Notes()
    torch.manual_seed(5 if stopped_in == 1 else 77)  # a new process has other random numbers
    found = run_fit(resumed, notes, path)

    assert found == expected
    assert states_equal(resumed.state_dict(), undisturbed.state_dict())
    assert notes.epochs == expected_notes.epochs[stopped_in - 1 :]


def test_finished_fit_is_not_repeated(tmp_path: Path) -> None:
    first, second, notes = tiny(), tiny(), Notes()
    top1 = run_fit(first, Notes(), tmp_path / "fit.pt")
    assert run_fit(second, notes, tmp_path / "fit.pt") == top1
    assert notes.steps == []
    assert states_equal(first.state_dict(), second.state_dict())


def run_search(kind: str, model: nn.Module, notes: Notes, path: Path | None) -> SearchResult:
    images = ToyImages()
    graph = channel_graph(model, images.x[:1])
    costs = NetworkCosts(graph)
    whole = torch.ones(graph.class_count, dtype=torch.float64)
    limits = Limits(costs, {"macs": 0.6 * float(costs.macs(whole))})
    prior = torch.arange(1.0, graph.class_count + 1)
    agents = PaperAgents(graph, 2.0) if kind == "paper" else GradientAgents(prior, limits)
    task = PruneTask(
        start=Shrinking.whole(model, graph),
        graph=graph,
        limits=limits,
        channel_step=1,
        images=images,
        recipe=RECIPE,
        compute=CPU,
        seed=3,
        checkpoint=Checkpoint(path),
        observer=notes,
        teacher=tiny(9).eval(),
    )
    return search(task, agents)


@pytest.mark.parametrize("kind", ["paper", "budget"])
def test_resumed_search_is_the_undisturbed_one(kind: str, tmp_path: Path) -> None:
    expected_notes = Notes()
    torch.manual_seed(5)
    expected = run_search(kind, tiny(), expected_notes, None)

    path = tmp_path / "search.pt"
    torch.manual_seed(5)
    with pytest.raises(KeyboardInterrupt):
        run_search(kind, tiny(), Notes(stop_in_epoch=3), path)
    notes = Notes()
    torch.manual_seed(77)
    found = run_search(kind, tiny(), notes, path)

    assert found.ranking.tolist() == expected.ranking.tolist()
    assert found.probabilities.tolist() == expected.probabilities.tolist()
    assert states_equal(found.left.model.state_dict(), expected.left.model.state_dict())
    assert notes.epochs == expected_notes.epochs[2:]


def test_search_tells_how_far_it_is() -> None:
    notes, model = Notes(), tiny()
    result = run_search("budget", model, notes, None)
    assert len(notes.steps) == RECIPE.epochs * ToyImages.steps_per_epoch
    last = notes.epochs[-1][2]
    assert set(last) == {
        "loss",
        "reward",
        "train_top1",
        "expected_load",
        "kept_share",
        "channels_left",
        "entropy_bits",
    }
    assert last["reward"] == pytest.approx(-last["loss"])
    assert last["expected_load"] == pytest.approx(1.0, rel=1e-3)
    p = result.probabilities
    assert last["kept_share"] == pytest.approx(p.mean())
    entropy = [-(q * math.log2(q) + (1 - q) * math.log2(1 - q)) for q in p.clip(1e-9, 1 - 1e-9)]
    assert last["entropy_bits"] == pytest.approx(sum(entropy) / len(entropy))
    assert result.ranking.shape == p.shape == (4,)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not model.training


def test_checkpoint_round_trip(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "deep" / "state.pt")
    assert checkpoint.load() is None
    checkpoint.save({"epoch": 3, "weights": torch.arange(4)})
    state = checkpoint.load()
    assert state is not None
    assert state["epoch"] == 3
    assert state["weights"].tolist() == [0, 1, 2, 3]
    assert [path.name for path in checkpoint.path.parent.iterdir()] == ["state.pt"]
    Checkpoint(None).save({"epoch": 1})
    assert Checkpoint(None).load() is None


def test_crash_while_saving_leaves_the_old_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint(tmp_path / "state.pt")
    checkpoint.save({"epoch": 1})

    def half_written(state: object, file) -> None:
        file.write(b"half a state")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", half_written)
    with pytest.raises(OSError, match="no space"):
        checkpoint.save({"epoch": 2})
    monkeypatch.undo()
    assert checkpoint.load() == {"epoch": 1}
    checkpoint.save({"epoch": 2})
    assert checkpoint.load() == {"epoch": 2}


def test_checkpoint_runs_no_code(tmp_path: Path) -> None:
    """A pickle that would call something is refused."""

    class Evil:
        def __reduce__(self):
            return (print, ("called",))

    path = tmp_path / "state.pt"
    torch.save({"epoch": Evil()}, path)
    with pytest.raises(Exception, match="[Ww]eights.only"):
        Checkpoint(path).load()
