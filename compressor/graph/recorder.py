"""What the label interpreter writes down while it walks through the network."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Size, Tensor, fx, nn

from compressor.graph.channel_graph import Geometry
from compressor.graph.labels import LabelSpace


@dataclass
class LayerRecord:
    """A convolution or linear layer as met on the way; see `channel_graph.Layer`."""

    module: str
    macs_per_pair: int
    weights_per_pair: int
    has_bias: bool
    groups: int
    depthwise: bool
    in_labels: Tensor
    out_labels: Tensor
    geometry: Geometry | None
    calls: int = 1


@dataclass
class Recorder:
    """Raw findings in terms of labels, turned into a `ChannelGraph` of classes at the end.

    Attributes:
        space: the labels and their unions.
        slices: (module, tensor, axis) -> labels along the axis.
        counts: (module, attribute) -> labels that the attribute counts.
        consumers: module -> (axis, labels of its input channels).
        joint_norms: module -> (axis, labels of its channels).
        layers: module -> layer, in order of execution.
        outputs: node -> (labels, elements of the whole tensor) of tensors that take memory.
        owners: node -> node whose memory it shares (activations in place, views).
        calls: module -> the nodes that call it.
        modules: name -> module, of those that are one node.
        shapes: node -> shape of the tensor that it makes.
        parts: labels of channels that the code takes out of others; some of each must stay.
        spoiled: (module, attribute) of integers that mean more than a number of channels.
        fixed: name -> reason.
    """

    space: LabelSpace = field(default_factory=LabelSpace)
    slices: dict[tuple[str, str, int], Tensor] = field(default_factory=dict)
    counts: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    consumers: dict[str, tuple[int, Tensor]] = field(default_factory=dict)
    joint_norms: dict[str, tuple[int, Tensor]] = field(default_factory=dict)
    layers: dict[str, LayerRecord] = field(default_factory=dict)
    outputs: dict[fx.Node, tuple[Tensor, int]] = field(default_factory=dict)
    owners: dict[fx.Node, fx.Node] = field(default_factory=dict)
    calls: dict[str, list[fx.Node]] = field(default_factory=dict)
    modules: dict[str, nn.Module] = field(default_factory=dict)
    shapes: dict[fx.Node, Size] = field(default_factory=dict)
    parts: list[Tensor] = field(default_factory=list)
    spoiled: set[tuple[str, str]] = field(default_factory=set)
    fixed: dict[str, str] = field(default_factory=dict)

    def allocate(self, node: fx.Node, labels: Tensor, elements: int) -> None:
        """Note a tensor that takes memory of its own."""
        self.outputs[node] = (labels, elements)

    def owner_of(self, node: fx.Node) -> fx.Node:
        """Return the node whose memory a node's tensor lives in."""
        while node in self.owners:
            node = self.owners[node]
        return node

    def add_layer(self, layer: LayerRecord) -> None:
        """Note a layer; one that is called again works again."""
        before = self.layers.get(layer.module)
        if before is not None:
            layer = replace(
                layer,
                macs_per_pair=before.macs_per_pair + layer.macs_per_pair,
                calls=before.calls + 1,
            )
        self.layers[layer.module] = layer

    def slice_axis(self, module: str, tensor: str, axis: int, labels: Tensor) -> None:
        """Note that an axis carries these labels; a tensor used twice unites both uses."""
        key = (module, tensor, axis)
        if key in self.slices:
            self.space.unite(self.slices[key], labels)
        else:
            self.slices[key] = labels

    def consume(self, module: str, axis: int, labels: Tensor) -> None:
        """Note that a module mixes input channels with these labels."""
        if module in self.consumers:
            self.space.unite(self.consumers[module][1], labels)
        else:
            self.consumers[module] = (axis, labels)

    def count(self, module: str, attribute: str, labels: Tensor) -> None:
        """Note that an attribute is the number of these channels, at every place that reads it."""
        known = self.counts.setdefault((module, attribute), labels)
        if known is not labels:
            self.space.unite(known, labels)

    def fix(self, name: str, labels: Tensor, reason: str) -> None:
        """Fix labels, and remember why for the report, unless they all were fixed before."""
        if not self.space.all_fixed(labels):
            self.space.fix(labels)
            self.fixed.setdefault(name, reason)

    def settle(self) -> None:
        """Fix the channels that an attribute counts which can't be set: it means something else."""
        for key in self.spoiled & self.counts.keys():
            reason = f"the number '{key[1]}' is used for something else, too"
            self.fix(key[0] or key[1], self.counts[key], reason)
