"""Resolve the name of a network to a fresh `nn.Module` and to its usual input.

torch and torchvision are imported inside the functions: the command line lists the built-in names
in its help text and must stay quick.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from compressor.errors import InputError
from compressor.user_code import first_line, load_callable

if TYPE_CHECKING:
    from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_FORCE_TORCHVISION = "torchvision:"
_FROM_TIMM = "timm:"
_OTHER_SIZES = {"inception_v3": 299}

_BUILTIN: Mapping[str, str] = MappingProxyType(
    {
        "resnet20": "CIFAR ResNet-20, zero-padded shortcuts, 0.27M parameters, 32 px",
        "resnet32": "CIFAR ResNet-32, zero-padded shortcuts, 0.46M parameters, 32 px",
        "resnet44": "CIFAR ResNet-44, zero-padded shortcuts, 0.66M parameters, 32 px",
        "resnet56": "CIFAR ResNet-56, zero-padded shortcuts, 0.85M parameters, 32 px",
        "resnet110": "CIFAR ResNet-110, zero-padded shortcuts, 1.73M parameters, 32 px",
        "resnet18": "ResNet-18 with a 3x3 stem and no max-pool, 11.17M parameters, 32 px",
        "vgg16": "VGG-16 with batch norm and two 4096-wide linear layers, 33.6M parameters, 32 px",
        "vgg16-decore": "VGG-16 of the DECORE paper, one hidden linear layer, 14.98M parameters",
    }
)


class InputDefaults(NamedTuple):
    """What a network expects where the user says nothing.

    Attributes:
        size: height and width in pixels.
        mean, std: per RGB channel, of images scaled to 0..1.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def builtin_models() -> Mapping[str, str]:
    """Built-in names, each with one line of description."""
    return _BUILTIN


def default_input(spec: str) -> InputDefaults:
    """Usual input of a network: 32 px for the CIFAR family, otherwise 224 (299 for inception_v3).

    The statistics are ImageNet's; a network of timm has size and statistics of its own. Nothing is
    built, so an unknown name gets the torchvision defaults.
    """
    if spec.startswith(_FROM_TIMM):
        return _timm_input(spec.removeprefix(_FROM_TIMM))
    name = spec.removeprefix(_FORCE_TORCHVISION)
    size = 32 if spec in _BUILTIN else _OTHER_SIZES.get(name, 224)
    return InputDefaults(size, IMAGENET_MEAN, IMAGENET_STD)


def build_model(spec: str, num_classes: int) -> nn.Module:
    """Build a network with fresh weights.

    Args:
        spec: looked up in this order: a built-in name; `torchvision:NAME`; `timm:NAME`, where timm
            is installed; `package.module:factory`, called as `factory(num_classes=N)`; the name of
            a torchvision classifier.
        num_classes: number of outputs.

    Raises:
        InputError: unknown name (with the closest ones), or a factory that fails or returns
            something other than a module.
    """
    if num_classes < 1:
        raise InputError(f"a network needs at least one class, got {num_classes}")
    if spec in _BUILTIN:
        return _build_builtin(spec, num_classes)
    if spec.startswith(_FORCE_TORCHVISION):
        return _build_torchvision(spec.removeprefix(_FORCE_TORCHVISION), num_classes)
    if spec.startswith(_FROM_TIMM):
        return _build_timm(spec.removeprefix(_FROM_TIMM), num_classes)
    if ":" in spec:
        return _build_with_factory(spec, num_classes)
    return _build_torchvision(spec, num_classes)


def _build_builtin(name: str, num_classes: int) -> nn.Module:
    from compressor.models import cifar_resnet, cifar_vgg

    if name == "resnet18":
        return cifar_resnet.resnet18(num_classes)
    if name == "vgg16":
        return cifar_vgg.vgg16(num_classes)
    if name == "vgg16-decore":
        return cifar_vgg.vgg16_decore(num_classes)
    return cifar_resnet.CifarResNet(depth=int(name.removeprefix("resnet")), num_classes=num_classes)


def _build_torchvision(name: str, num_classes: int) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise InputError(_unknown_name(name, [*_BUILTIN, *known]))
    # Auxiliary heads serve only training from scratch at 224 px and more, and googlenet's and
    # inception's own initialisation takes up to half a minute.
    has_auxiliary = name in {"googlenet", "inception_v3"}
    options = {"aux_logits": False, "init_weights": False} if has_auxiliary else {}
    model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **options)
    return model


def _build_timm(name: str, num_classes: int) -> nn.Module:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise InputError(
            f"model 'timm:{name}' needs the package timm, which is not installed: "
            "pip install 'compress-export[timm]'"
        ) from error
    known = timm.list_models()
    # A tag after the point names trained weights of one architecture, which we don't download.
    if name.partition(".")[0] not in known:
        close = difflib.get_close_matches(name, known, n=5, cutoff=0.5)
        hint = f"did you mean {', '.join(f'timm:{one}' for one in close)}? " if close else ""
        raise InputError(f"unknown model 'timm:{name}': {hint}timm {timm.__version__} knows others")
    try:
        model: nn.Module = timm.create_model(name, pretrained=False, num_classes=num_classes)
    except Exception as error:
        raise InputError(
            f"model 'timm:{name}': building it with num_classes={num_classes} failed with "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
    return model


def _timm_input(name: str) -> InputDefaults:
    usual = InputDefaults(224, IMAGENET_MEAN, IMAGENET_STD)
    try:
        from timm.models import get_pretrained_cfg, is_model
    except ModuleNotFoundError:
        return usual  # building the network says what is missing
    config = get_pretrained_cfg(name) if is_model(name.partition(".")[0]) else None
    if config is None:
        return usual
    (red, green, blue), (red_std, green_std, blue_std) = config.mean, config.std
    return InputDefaults(config.input_size[-1], (red, green, blue), (red_std, green_std, blue_std))


def _build_with_factory(spec: str, num_classes: int) -> nn.Module:
    from torch import nn

    factory = load_callable(spec, "model")
    try:
        model = factory(num_classes=num_classes)
    except Exception as error:
        raise InputError(
            f"model {spec!r}: calling it with num_classes={num_classes} failed with "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        raise InputError(
            f"model {spec!r} returned {type(model).__name__}; a torch.nn.Module is needed"
        )
    return model


def _unknown_name(name: str, known: list[str]) -> str:
    close = list(dict.fromkeys(difflib.get_close_matches(name, known, n=5, cutoff=0.5)))
    hint = f"did you mean {', '.join(close)}? " if close else ""
    return (
        f"unknown model {name!r}: {hint}Allowed are {', '.join(_BUILTIN)}, the name of a "
        "torchvision classifier, timm:NAME, or package.module:factory"
    )
