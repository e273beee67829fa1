"""DECORE: reinforcement learning decides which channels stay, one agent per class of channels."""
