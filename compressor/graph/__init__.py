"""Which channels of a network must live or die together, found by running it on channel labels."""

from compressor.graph.build import channel_graph
from compressor.graph.channel_graph import ChannelGraph, Group, Keep, kept_indices

__all__ = ["ChannelGraph", "Group", "Keep", "channel_graph", "kept_indices"]
