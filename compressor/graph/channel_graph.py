"""The channel graph as a value: which channels are coupled, who consumes them, what they cost.

A *class* is a set of channels that live or die together, numbered from 0; one DECORE agent decides
over one class. Arrays of classes use ``FIXED_CLASS`` for channels that are never dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compressor.graph.image_rows import ImageRows

FIXED_CLASS = -1

Classes = NDArray[np.int64]
Keep = NDArray[np.bool_]


@dataclass(frozen=True)
class AxisSlice:
    """One axis of a parameter or buffer that shrinks when channels go.

    Attributes:
        module: qualified name of the module that owns the tensor.
        tensor: the tensor's name in that module, such as ``weight``.
        axis: the axis that is cut.
        classes: class of every index along the axis, shape (size of the axis,).
    """

    module: str
    tensor: str
    axis: int
    classes: Classes


@dataclass(frozen=True)
class CountedAttribute:
    """An integer attribute of a module that says how many of some channels there are (padding)."""

    module: str
    attribute: str
    classes: Classes


@dataclass(frozen=True)
class Consumer:
    """A module that mixes its input channels: the place where a mask acts.

    Attributes:
        module: qualified name.
        axis: axis of the module's input that holds the channels (1 for convolutions, -1 for linear
            layers).
        classes: class of every input channel.
        rows: where the images of a batch lie in its input.
    """

    module: str
    axis: int
    classes: Classes
    rows: ImageRows = ImageRows()


@dataclass(frozen=True)
class JointNorm:
    """A norm whose statistics run over channels (`joint_norm`): masked ones don't count in them.

    Attributes:
        module: qualified name.
        axis: axis of the module's input that holds the channels.
        classes: class of every channel.
        rows: where the images of a batch lie in its input.
    """

    module: str
    axis: int
    classes: Classes
    rows: ImageRows = ImageRows()


@dataclass(frozen=True)
class Geometry:
    """What a layer computes, its widths aside: what its latency depends on beside them.

    Attributes:
        kind: "depthwise" for a convolution whose outputs each see just one input channel;
            "elementwise" for an operation without weights.
        kernel, stride, padding, dilation: (height, width) each; 1, 1, 0, 1 for a linear layer.
        input_size: (height, width) of its input; rows and 1 for a linear layer, elements per
            channel and 1 for an elementwise one.
        groups: of a grouped convolution, else 1.
    """

    kind: Literal["conv", "depthwise", "linear", "elementwise"]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    input_size: tuple[int, int]
    groups: int


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer as cost functions see it.

    Its multiply-accumulates are ``macs_per_pair * inputs * outputs``, where `inputs` counts the
    kept input channels that one output sees (1 for a depthwise convolution).

    Attributes:
        module: qualified name.
        macs_per_pair: output positions x kernel positions, for one image.
        weights_per_pair: kernel positions; 0 where another layer has the same weight, stored once.
        has_bias: whether the layer, or the batch norm that is folded into it, gives a bias per
            output.
        groups: number of groups of a grouped convolution whose groups all stay, else 1.
        depthwise: every output channel sees just its own input channel.
        in_classes: class of every input channel.
        out_classes: class of every output channel.
        geometry: None where it is neither a two-dimensional convolution nor a linear layer.
        calls: how often it runs for one image.
    """

    module: str
    macs_per_pair: int
    weights_per_pair: int
    has_bias: bool
    groups: int
    depthwise: bool
    in_classes: Classes
    out_classes: Classes
    geometry: Geometry | None = None
    calls: int = 1


@dataclass(frozen=True)
class FeatureMap:
    """A tensor that exists while the network runs.

    Attributes:
        name: name of the operation that makes it.
        elements_per_channel: elements per entry of `classes`, for one image.
        classes: class of every channel.
        born: index of the operation that makes it.
        dies: index of the last operation that reads it.
        made_by: "layer", "input", or "elementwise" for all that moves numbers without weights:
            additions, pools, pads, concatenations.
    """

    name: str
    elements_per_channel: int
    classes: Classes
    born: int
    dies: int
    made_by: Literal["layer", "input", "elementwise"] = "elementwise"


@dataclass(frozen=True)
class Group:
    """Classes that appear in the same tensors: the channels of one layer, or of a residual stream.

    Attributes:
        name: the first module that makes these channels.
        classes: sorted class numbers.
        multiplicity: channels of the first producing layer that one class stands for.
        removable: all classes may go, because what the group feeds becomes an added constant.
        producers: names of all modules that make these channels.
    """

    name: str
    classes: Classes
    multiplicity: int
    removable: bool
    producers: tuple[str, ...]


@dataclass(frozen=True)
class BranchEnd:
    """How the last layer of a branch that may be empty meets the addition.

    Attributes:
        norms: names of the batch norms behind the layer, which become part of the constant.
        added_in_place: the code may add to the branch's tensor in place, so it must have its full
            size.
    """

    norms: tuple[str, ...]
    added_in_place: bool


@dataclass(frozen=True)
class ChannelGraph:
    """All couplings of a network's channels, found for one input shape.

    Attributes:
        class_count: number of classes, which is the number of agents.
        slices: every axis that is cut.
        counts: every integer attribute that must follow.
        consumers: where masks act.
        joint_norms: norms that must leave masked channels out of their statistics.
        layers: convolutions and linear layers in order of execution.
        feature_maps: tensors in order of execution.
        groups: partition of the classes.
        branch_ends: consumers whose output becomes a constant when their branch is empty.
        swallowed: consumers that vanish with the empty group they gate (squeeze and excitation).
        norm_behind: layer -> the batch norm with statistics that alone reads it, both called once.
        fixed: module or operation name -> why its channels are not pruned.
    """

    class_count: int
    slices: tuple[AxisSlice, ...]
    counts: tuple[CountedAttribute, ...]
    consumers: tuple[Consumer, ...]
    joint_norms: tuple[JointNorm, ...]
    layers: tuple[Layer, ...]
    feature_maps: tuple[FeatureMap, ...]
    groups: tuple[Group, ...]
    branch_ends: dict[str, BranchEnd]
    swallowed: frozenset[str]
    norm_behind: dict[str, str]
    fixed: dict[str, str]

    def all_kept(self) -> Keep:
        """Return the keep set that drops nothing, shape (class_count,)."""
        return np.ones(self.class_count, dtype=np.bool_)

    def group_of_class(self) -> NDArray[np.int64]:
        """Return the index of the group of every class, shape (class_count,)."""
        groups = np.empty(self.class_count, dtype=np.int64)
        for index, group in enumerate(self.groups):
            groups[group.classes] = index
        return groups


def kept_indices(classes: Classes, keep: Keep) -> NDArray[np.int64]:
    """Return the positions of an axis that stay: fixed ones and those of kept classes."""
    # FIXED_CLASS is -1, so fixed channels read the appended last entry.
    return np.flatnonzero(np.append(keep, True)[classes])
