"""Ask a module whether it does what the rule of its base class says.

Libraries derive from PyTorch's layers: a batch norm with an activation inside, a convolution that
pads as TensorFlow does. Whether the rule of the base class holds is found out by cutting a copy:
the masked module and the cut one must answer alike.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from compressor.cut import cut_tensor, follow_layer, set_count
from compressor.graph.interpreter import LabelInterpreter
from compressor.graph.labels import FIXED, along_axis
from compressor.graph.recorder import Recorder
from compressor.joint_norm import masked_norm

_TOLERANCE = 1e-4
"""Relative, in float32."""


def obeys(module: nn.Module, rule: Callable[..., Any], example: Tensor, axis: int) -> bool:
    """Return whether a module, cut as its rule says, answers as the masked one does.

    Args:
        rule: a rule of `module_rules`.
        example: an input; only its shape, dtype and device are used.
        axis: where it has its channels.
    """
    generator = torch.Generator().manual_seed(0)
    if example.shape[axis] < 2:
        return False
    x = torch.randn(example.shape, generator=generator).to(example)
    try:
        return _compare(_copy(module), rule, x, axis % x.dim())
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return False


def _copy(module: nn.Module) -> nn.Module:
    """Return a copy without hooks: those that trace the network lead to the whole of it."""
    before = [(m, m._forward_pre_hooks, m._forward_hooks) for m in module.modules()]
    try:
        for inner, *_ in before:
            inner._forward_pre_hooks, inner._forward_hooks = OrderedDict(), OrderedDict()
        return copy.deepcopy(module)
    finally:
        for inner, pre_hooks, hooks in before:
            inner._forward_pre_hooks, inner._forward_hooks = pre_hooks, hooks


def _compare(module: Any, rule: Callable[..., Any], x: Tensor, axis: int) -> bool:
    whole = module(x.clone())
    recorder = Recorder()
    run = LabelInterpreter(module, recorder)
    graph = fx.Graph()
    node = graph.create_node("call_module", "", (source := graph.placeholder("x"),), {}, "leaf")
    run.see(source, x)
    before = run.space.fresh(x.shape[axis])
    run.labels[source] = along_axis(before, axis, x.dim())
    after = rule(run, node, module, whole)
    if recorder.fixed or recorder.space.all_fixed(before):
        return False
    kept = _kept_roots(recorder)

    def positions(labels: Tensor) -> np.ndarray:
        roots = recorder.space.roots(labels.reshape(-1)).tolist()
        return np.flatnonzero([root in kept for root in roots])

    chosen = torch.from_numpy(positions(before))
    mask = along_axis(torch.zeros(x.shape[axis]).index_fill(0, chosen, 1.0).to(x), axis, x.dim())
    expected = module(x * mask) if recorder.consumers else whole
    if recorder.joint_norms:
        expected = masked_norm(module, x, mask, axis)
    out_axis = next(a for a, size in enumerate(after.shape) if size > 1)
    expected = expected.index_select(out_axis, torch.from_numpy(positions(after)))
    for (_, tensor, along), labels in recorder.slices.items():
        cut_tensor(module, tensor, along, positions(labels))
    for layer in recorder.layers.values():
        follow_layer(module, layer.depthwise)
    for (_, attribute), labels in recorder.counts.items():
        set_count(module, attribute, len(positions(labels)))
    found = module(x.index_select(axis, chosen))
    difference = (found - expected).abs().max() / expected.abs().max().clamp_min(1e-12)
    return found.shape == expected.shape and bool(difference <= _TOLERANCE)


def _kept_roots(recorder: Recorder) -> set[int]:
    """Keep every other class."""
    roots: list[int] = []
    for labels in recorder.slices.values():
        roots.extend(recorder.space.roots(labels).tolist())
    return {FIXED, *list(dict.fromkeys(roots))[::2]}
