"""From a trained PyTorch CNN to a smaller dense one: models, channel graph, DECORE, slimming."""
