"""Peers: Torch-Pruning 1.6.1 chooses and cuts the channels, everything else is as with our method.

Source: Fang et al. 2023, DepGraph (https://arxiv.org/abs/2301.12900), and
https://github.com/VainF/Torch-Pruning, which shows two schedules:

* ``progressive``, as in its reproduce/main.py: 400 small steps towards a pruning ratio of 1, the
  importances estimated anew after each, on what is left. Taylor's gradients stay those of the
  whole network, cut along with the weights.
* ``one-shot``, as in its README: importances are estimated once.

The rounding is ours, so that only the choice of channels differs. Torch-Pruning's `round_to` is one
number for all layers and always rounds down: with 4, uniform pruning of ResNet-20 jumps from 57 %
of the MACs (ratio 0.25) to 37 % (0.26). In a single step, a layer that would be rounded to nothing
is left whole, so that MACs don't even fall with the ratio: 7 % at 0.74, 38 % at 0.76. The peers
therefore run unrounded, and the order in which their channels go is the ranking that
`compressor.decore.projection.project` turns into widths. It bisects the place in that order, rounds
to our steps per group (`class_step`) and gives steps back while they fit, exactly as it does for
our agents. Local pruning is thus uniform up to a step or two.

What the defaults do at the end: `max_pruning_ratio` is 1, but a group whose last channels would all
go in a step is passed over in that step, and one of width 1 always. Channels that outlive all steps
rank above all others. No layer is ever emptied, hence no residual branch removed, which our own
method may do.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any, Literal

import numpy as np
import torch_pruning as tp  # type: ignore[import-untyped]
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.pruning.peer_forms import Form, ignored_layers, supported_form
from compressor.compute import Compute
from compressor.cost import CostName, Limits, NetworkCosts, as_tensor
from compressor.decore.projection import project
from compressor.decore.taylor import PRIOR_BATCHES
from compressor.errors import InputError
from compressor.graph import ChannelGraph, Keep, channel_graph
from compressor.training import Images

PRUNING_STEPS = 400
"""As in the authors' reproduce/main.py."""

Schedule = Literal["progressive", "one-shot"]
Ranking = NDArray[np.float64]


@dataclass(frozen=True)
class Peer:
    """One of Torch-Pruning's methods.

    Attributes:
        importance: makes the importance estimator.
        pruner: makes the pruner.
        global_pruning: all layers compete; otherwise every layer loses the same share.
        gradients: the importance reads the gradients of the loss.
        sparse: the pruner has a regularizer for training before pruning.
    """

    importance: Callable[[], Any]
    pruner: Callable[..., Any]
    global_pruning: bool
    gradients: bool = False
    sparse: bool = False


def _local_and_global(name: str, **options: Any) -> dict[str, Peer]:
    return {
        f"tp-{name}-local": Peer(global_pruning=False, **options),
        f"tp-{name}-global": Peer(global_pruning=True, **options),
    }


# Without sparse training, the authors' `group_norm` is `magnitude` in all but name: the same
# importance and the same `BasePruner`. `tp-group-norm-*` has the normalizer of their `group_sl`,
# which ranks differently between layers; tp-group-norm-local equals tp-magnitude-local until it is
# trained sparsely. Batch-norm scale can't rank a group without batch norm (VGG's hidden linear
# layers), which therefore stays whole.
PEERS: Mapping[str, Peer] = {
    **_local_and_global(
        "magnitude",
        importance=partial(tp.importance.GroupMagnitudeImportance, p=2),
        pruner=tp.pruner.BasePruner,
    ),
    **_local_and_global(
        "taylor",
        importance=tp.importance.GroupTaylorImportance,
        pruner=tp.pruner.BasePruner,
        gradients=True,
    ),
    **_local_and_global(
        "bn-scale",
        importance=tp.importance.BNScaleImportance,
        pruner=partial(tp.pruner.BNScalePruner, reg=1e-5),
        sparse=True,
    ),
    **_local_and_global(
        "group-norm",
        importance=partial(tp.importance.GroupMagnitudeImportance, p=2, normalizer="max"),
        pruner=partial(tp.pruner.GroupNormPruner, reg=5e-4),
        sparse=True,
    ),
}
"""By name; the regularizers' strengths are those of the authors' CIFAR-10 commands."""


def prune_with_peer(
    name: str,
    model: nn.Module,
    images: Images,
    compute: Compute,
    *,
    shares: Mapping[CostName, float],
    channel_step: int,
    form: Form = "projection",
    schedule: Schedule = "progressive",
    sparse: nn.Module | None = None,
) -> nn.Module:
    """Return a slimmed dense network within shares of the given network's costs.

    The result is the largest within the limit in the sense of `project`: no group can be one step
    wider. It is a plain module for `channel_graph` and `fit`. `save_model` takes it unless it is in
    ``projection`` form, for which no architecture is registered.

    Args:
        name: key of `PEERS`.
        model: the trained network; left as it was.
        images: Taylor's gradients come from the first `PRIOR_BATCHES` training batches of epoch 0.
        compute: where Taylor's gradients and the importances are computed.
        shares: limits, of the costs of `model` without projections, by `NetworkCosts`.
        channel_step: multiple of the widths, as for our method.
        form: how zero-padded shortcuts are treated; without effect on networks that have none.
        schedule: how often importances are estimated.
        sparse: what `peer_training.sparse_train` made of `model` with the same name and form; it is
            pruned instead, to shares of the costs of `model`.

    Raises:
        InputError: no such peer, or a share outside of (0, 1].
        TargetError: the peer can't get as small as that.
    """
    peer = peer_named(name)
    for cost, share in shares.items():
        if not 0 < share <= 1:
            raise InputError(f"share of {cost} is {share}; it must be above 0 and at most 1")
    example = example_of(images)
    whole = channel_graph(copy.deepcopy(model).cpu(), example)
    limits = NetworkCosts(whole).shares(shares, as_tensor(whole.all_kept()))
    network = supported_form(model if sparse is None else sparse, form).cpu()
    network.zero_grad()
    graph = _never_empty(channel_graph(network, example))
    ranking = removal_order(peer, network, graph, images, compute, form, schedule)
    keep = project(ranking, graph, Limits(NetworkCosts(graph), limits), channel_step)
    return cut(network.eval(), graph, keep, example)


def removal_order(
    peer: Peer,
    network: nn.Module,
    graph: ChannelGraph,
    images: Images,
    compute: Compute,
    form: Form,
    schedule: Schedule,
) -> Ranking:
    """Return in which order a peer removes classes, shape (classes,): low first, infinite never."""
    network = compute.place(copy.deepcopy(network)).eval()
    if peer.gradients:
        _accumulate_gradients(network, images, compute)
    scores = _Remembered(peer.importance())
    pruner = make_pruner(peer, network, graph, form, scores, example_of(images), compute)
    if schedule == "one-shot":
        return _ranked_once(pruner, scores, network, graph)
    return _ranked_by_removal(pruner, scores, network, graph)


def _ranked_once(
    pruner: Any, scores: _Remembered, network: nn.Module, graph: ChannelGraph
) -> Ranking:
    """Rank by importance, among all classes or, for local pruning, by place in the own group."""
    names = {module: name for name, module in network.named_modules()}
    classes = {layer.module: layer.out_classes for layer in graph.layers}
    ranking = np.full(graph.class_count, math.inf)
    for group in pruner.DG.get_all_groups(pruner.ignored_layers, pruner.root_module_types):
        if scores(group) is None:
            continue
        root = group[0].dep.target.module
        score = scores.last[root].double().numpy()
        if not pruner.global_pruning:
            score = (np.argsort(np.argsort(score)) + 0.5) / len(score)
        numbers = classes[names[root]]
        ranking[numbers[numbers >= 0]] = score[numbers >= 0]
    return ranking


def _ranked_by_removal(
    pruner: Any, scores: _Remembered, network: nn.Module, graph: ChannelGraph
) -> Ranking:
    """Rank by the step of removal, within a step by importance; prunes the network to the end."""
    names = {module: name for name, module in network.named_modules()}
    left = {layer.module: layer.out_classes for layer in graph.layers}
    removed: list[tuple[int, float, int]] = []
    for step in range(PRUNING_STEPS):
        for group in pruner.step(interactive=True):
            dependency, indices = group[0]
            root = dependency.target.module
            classes, score = left[names[root]], scores.last[root]
            removed += [
                (step, float(score[i]), int(classes[i])) for i in indices if classes[i] >= 0
            ]
            left[names[root]] = np.delete(classes, indices)
            group.prune()
    ranking = np.full(graph.class_count, math.inf)
    for position, (_, _, number) in enumerate(sorted(removed)):
        ranking[number] = position
    return ranking


def cut(network: nn.Module, graph: ChannelGraph, keep: Keep, example: Tensor) -> nn.Module:
    """Let Torch-Pruning remove the dropped channels, in place, and return the network."""
    dependencies = tp.DependencyGraph().build_dependency(network, example_inputs=example)
    names = {module: name for name, module in network.named_modules()}
    classes = {layer.module: layer.out_classes for layer in graph.layers}
    for group in dependencies.get_all_groups():
        numbers = classes[names[group[0].dep.target.module]]
        dropped = np.flatnonzero((numbers >= 0) & ~keep[numbers]).tolist()
        if dropped:
            group.prune(idxs=dropped)
    return network


class _Remembered:
    """An importance estimator whose last answer for every root layer can be looked up."""

    def __init__(self, importance: Any) -> None:
        self._importance = importance
        self.last: dict[nn.Module, Tensor] = {}

    def __call__(self, group: Any) -> Tensor | None:
        scores: Tensor | None = self._importance(group)
        if scores is not None:
            self.last[group[0].dep.target.module] = scores.cpu()
        return scores


def make_pruner(
    peer: Peer,
    network: nn.Module,
    graph: ChannelGraph,
    form: Form,
    importance: Any,
    example: Tensor,
    compute: Compute,
) -> Any:
    return peer.pruner(
        network,
        compute.images(example),
        importance=importance,
        global_pruning=peer.global_pruning,
        pruning_ratio=1.0,
        iterative_steps=PRUNING_STEPS,
        ignored_layers=ignored_layers(network, graph, form),
    )


def _accumulate_gradients(network: nn.Module, images: Images, compute: Compute) -> None:
    """Add up the gradients of the cross-entropy, in eval mode as in the authors' comparison."""
    network.zero_grad()
    for x, labels in islice(images.train(0), PRIOR_BATCHES):
        F.cross_entropy(network(compute.images(x)), labels.to(compute.device)).backward()


def _never_empty(graph: ChannelGraph) -> ChannelGraph:
    groups = tuple(replace(group, removable=False) for group in graph.groups)
    return replace(graph, groups=groups)


def example_of(images: Images) -> Tensor:
    """Return one image, shape (1, C, H, W)."""
    x, _ = next(iter(images.validation()))
    return x[:1]


def peer_named(name: str) -> Peer:
    if name not in PEERS:
        raise InputError(f"no peer {name!r}; there are {', '.join(PEERS)}")
    return PEERS[name]
