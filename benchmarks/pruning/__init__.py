"""Channel pruning compared on CIFAR-10: baselines, methods, peers, tables and plots."""
