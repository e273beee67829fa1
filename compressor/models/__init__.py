"""Networks by name: the built-in CIFAR family, torchvision's classifiers, or a factory of yours."""

from compressor.models.registry import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    InputDefaults,
    build_model,
    builtin_models,
    default_input,
)

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "InputDefaults",
    "build_model",
    "builtin_models",
    "default_input",
]
