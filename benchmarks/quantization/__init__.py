"""Quantization measured: files of every precision, training with rounding, and pruning with it."""
