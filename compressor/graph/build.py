"""Build the channel graph of a network: trace, run on labels, turn labels into classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import torch
from torch import Tensor, fx, nn

from compressor.graph.branches import partition, removable_branches
from compressor.graph.channel_graph import (
    FIXED_CLASS,
    AxisSlice,
    ChannelGraph,
    Classes,
    Consumer,
    CountedAttribute,
    FeatureMap,
    Group,
    JointNorm,
    Layer,
)
from compressor.graph.image_rows import ImageRows, find_image_rows
from compressor.graph.interpreter import LabelInterpreter
from compressor.graph.labels import FIXED
from compressor.graph.recorder import Recorder
from compressor.graph.ties import stored_elsewhere, unite_shared
from compressor.graph.trace import NotFollowed, Trace
from compressor.modes import eval_mode
from compressor.user_code import first_line


class TraceError(ValueError):
    """The network can't be run on the example."""


def channel_graph(model: nn.Module, example: Tensor) -> ChannelGraph:
    """Find which channels of a network must live or die together.

    The model is run in eval mode, on one, two and three images; it is left as it was. What isn't
    understood keeps its channels, with the reason in `ChannelGraph.fixed`.

    Args:
        model: a network; anything that runs will do.
        example: one input image, shape (1, C, H, W); the values don't matter.

    Raises:
        TraceError: the network fails on the example.
    """
    opaque: dict[type[nn.Module], str] = {}
    # Running it in train mode would move the statistics of its batch norms.
    with eval_mode(model), torch.no_grad():
        while True:
            recorder = Recorder()
            trace = Trace(model, LabelInterpreter(model, recorder), opaque)
            try:
                trace.run(example)
                break
            except NotFollowed as found:
                opaque[type(found.module)] = found.reason
            except Exception as error:
                module = trace.innermost()
                _check_that_it_runs(model, example)
                if type(module) in opaque:
                    raise
                kind = type(error).__name__
                opaque[type(module)] = f"following it failed, {kind}: {first_line(error)}"
        rows = _image_rows(model, example, recorder)
    unite_shared(model, recorder)
    recorder.settle()
    return _in_classes(model, recorder, trace.graph, rows)


def _image_rows(model: nn.Module, example: Tensor, recorder: Recorder) -> dict[str, ImageRows]:
    """Return where images lie in what masked modules read; fix what can't be masked by image."""
    masked = {**recorder.joint_norms, **recorder.consumers}
    known = {}
    for name, rows in find_image_rows(model, example, masked).items():
        _, labels = masked[name]
        if rows is None:
            recorder.fix(name, labels, "which part of its input belongs to which image is unclear")
        known[name] = rows or ImageRows()
    return known


def _check_that_it_runs(model: nn.Module, example: Tensor) -> None:
    try:
        model(example)
    except Exception as error:
        shape = tuple(example.shape)
        raise TraceError(
            f"{type(model).__name__} can't be run on an input of shape {shape}: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error


def _in_classes(
    model: nn.Module, recorder: Recorder, graph: fx.Graph, rows: Mapping[str, ImageRows]
) -> ChannelGraph:
    class_of = _number_classes(recorder)
    class_count = int(class_of.max(initial=FIXED_CLASS)) + 1

    def classes(labels: Tensor) -> Classes:
        return class_of[labels.reshape(-1).numpy()]

    slices = tuple(AxisSlice(*key, classes(labels)) for key, labels in recorder.slices.items())
    consumers = tuple(
        Consumer(module, axis, classes(labels), rows[module])
        for module, (axis, labels) in recorder.consumers.items()
    )
    norm_behind = _norm_behind(recorder)
    stored = stored_elsewhere(model, recorder, norm_behind)
    layers = tuple(
        Layer(
            record.module,
            record.macs_per_pair,
            0 if record.module in stored else record.weights_per_pair,
            record.has_bias,
            record.groups,
            record.depthwise,
            classes(record.in_labels),
            classes(record.out_labels),
            record.geometry,
            record.calls,
        )
        for record in recorder.layers.values()
    )
    branches = removable_branches(recorder, consumers, layers)
    parts = [classes(labels) for labels in recorder.parts]
    return ChannelGraph(
        class_count=class_count,
        slices=slices,
        counts=tuple(
            CountedAttribute(*key, classes(labels)) for key, labels in recorder.counts.items()
        ),
        consumers=consumers,
        joint_norms=tuple(
            JointNorm(module, axis, classes(labels), rows[module])
            for module, (axis, labels) in recorder.joint_norms.items()
        ),
        layers=layers,
        feature_maps=_feature_maps(recorder, graph, classes),
        groups=_groups(class_count, slices, layers, branches.removable_classes, parts),
        branch_ends=branches.ends,
        swallowed=branches.swallowed,
        norm_behind=norm_behind,
        fixed=dict(recorder.fixed),
    )


def _norm_behind(recorder: Recorder) -> dict[str, str]:
    found = {}
    for name, calls in recorder.calls.items():
        if len(calls) != 1 or len(calls[0].users) != 1:
            continue
        (user,) = calls[0].users
        norm = recorder.modules.get(str(user.target)) if user.op == "call_module" else None
        once = norm is not None and len(recorder.calls[str(user.target)]) == 1
        if once and isinstance(norm, nn.modules.batchnorm._BatchNorm) and norm.track_running_stats:
            found[name] = str(user.target)
    return found


def _number_classes(recorder: Recorder) -> Classes:
    """Number the classes that can be pruned, in the order of the layers that make them.

    A class must be consumed by a layer (or dropping it would change nothing) and be cut somewhere.

    Returns:
        The class of every label.
    """
    roots = recorder.space.all_roots()
    consumed = np.zeros(len(roots), dtype=np.bool_)
    for _, labels in recorder.consumers.values():
        consumed[roots[labels.numpy()]] = True
    consumed[FIXED] = False
    numbers = np.full(len(roots), FIXED_CLASS, dtype=np.int64)
    count = 0
    for labels in recorder.slices.values():
        found, first = np.unique(roots[labels.numpy()], return_index=True)
        new = found[np.argsort(first)]
        new = new[consumed[new] & (numbers[new] == FIXED_CLASS)]
        numbers[new] = np.arange(count, count + len(new))
        count += len(new)
    return numbers[roots]


def _groups(
    class_count: int,
    slices: tuple[AxisSlice, ...],
    layers: tuple[Layer, ...],
    removable: frozenset[int],
    parts: list[Classes],
) -> tuple[Group, ...]:
    """Partition the classes by the layers that make them, and by the parts that the code takes.

    So that one channel per group is enough for every layer to have an input.
    """
    made_by = [(layer.module, layer.out_classes) for layer in layers if not layer.depthwise]
    made_by += [(cut.module, cut.classes) for cut in slices if cut.tensor == "value"]
    alike = partition(
        class_count,
        [*(classes for _, classes in made_by), np.array(sorted(removable), dtype=np.int64), *parts],
    )
    _, firsts, group_of = np.unique(alike, return_index=True, return_inverse=True)
    order = np.argsort(group_of, kind="stable")
    members = np.split(order, np.cumsum(np.bincount(group_of))[:-1]) if class_count else []
    producers: list[list[str]] = [[] for _ in members]
    multiplicity = [1] * len(members)
    for module, classes in made_by:
        counts = np.bincount(classes[classes != FIXED_CLASS], minlength=class_count)[firsts]
        for index in np.flatnonzero(counts).tolist():
            if not producers[index]:
                multiplicity[index] = int(counts[index])
            producers[index].append(module)
    return tuple(
        Group(
            name=producers[index][0] if producers[index] else "free",
            classes=members[index],
            multiplicity=multiplicity[index],
            removable=int(firsts[index]) in removable,
            producers=tuple(producers[index]),
        )
        for index in np.argsort(firsts).tolist()
    )


def _feature_maps(
    recorder: Recorder, graph: fx.Graph, classes: Callable[[Tensor], Classes]
) -> tuple[FeatureMap, ...]:
    order = {node: index for index, node in enumerate(graph.nodes)}
    last_use = {
        node: max((order[user] for user in node.users), default=order[node]) for node in order
    }
    dies: dict[fx.Node, int] = {}
    for node in order:
        owner = recorder.owner_of(node)
        dies[owner] = max(dies.get(owner, 0), last_use[node])
    return tuple(
        FeatureMap(
            node.name,
            elements // labels.numel(),
            classes(labels),
            order[node],
            dies[node],
            _maker(recorder, node),
        )
        for node, (labels, elements) in recorder.outputs.items()
    )


def _maker(recorder: Recorder, node: fx.Node) -> Literal["layer", "input", "elementwise"]:
    if node.op in ("placeholder", "get_attr"):
        return "input"
    return "layer" if node.op == "call_module" and node.target in recorder.layers else "elementwise"
