"""The networks of the zoo: torchvision's classifiers and the timm ones of edge engineers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from compressor.errors import InputError

CLASSES = 10
TIMM = "timm:"


@dataclass(frozen=True)
class Entry:
    """A network of the zoo.

    Attributes:
        name: as `compressor.models.build_model` takes it.
        family: what it is counted with.
        convolutional: mostly convolutions; attention and mixers are counted apart.
        size: height and width that it needs in pixels, None where it takes any.
    """

    name: str
    family: str
    convolutional: bool = True
    size: int | None = None

    @property
    def source(self) -> str:
        return "timm" if self.name.startswith(TIMM) else "torchvision"


def _entries(family: str, names: str, *, conv: bool = True, size: int | None = None) -> list[Entry]:
    return [Entry(name, family, conv, size) for name in names.split()]


def _timm(family: str, names: str, *, conv: bool = True, size: int | None = None) -> list[Entry]:
    return [Entry(f"{TIMM}{name}", family, conv, size) for name in names.split()]


TORCHVISION: Sequence[Entry] = (
    *_entries("AlexNet", "alexnet"),
    *_entries("VGG", "vgg11 vgg11_bn vgg13_bn vgg16 vgg16_bn vgg19_bn"),
    *_entries("ResNet", "resnet18 resnet34 resnet50 resnet101"),
    *_entries("ResNeXt", "resnext50_32x4d resnext101_32x8d"),
    *_entries("Wide ResNet", "wide_resnet50_2"),
    *_entries("DenseNet", "densenet121 densenet161 densenet169"),
    *_entries("GoogLeNet", "googlenet"),
    *_entries("Inception", "inception_v3", size=96),  # below 75 px its last maps are empty
    *_entries("SqueezeNet", "squeezenet1_0 squeezenet1_1"),
    *_entries("MobileNet", "mobilenet_v2 mobilenet_v3_small mobilenet_v3_large"),
    *_entries("MNASNet", "mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3"),
    *_entries(
        "ShuffleNet", "shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0"
    ),
    *_entries(
        "EfficientNet",
        "efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3 efficientnet_b4",
    ),
    *_entries("EfficientNetV2", "efficientnet_v2_s efficientnet_v2_m"),
    *_entries("RegNetX", "regnet_x_400mf regnet_x_800mf regnet_x_1_6gf regnet_x_3_2gf"),
    *_entries("RegNetY", "regnet_y_400mf regnet_y_800mf regnet_y_1_6gf regnet_y_3_2gf"),
    *_entries("ConvNeXt", "convnext_tiny convnext_small"),
    *_entries("ViT", "vit_b_32 vit_b_16", conv=False, size=224),
    *_entries("Swin", "swin_t swin_s swin_v2_t", conv=False),
    *_entries("MaxViT", "maxvit_t", conv=False, size=224),
)

EDGE: Sequence[Entry] = (
    *_timm("MobileNetV4", "mobilenetv4_conv_small mobilenetv4_conv_medium"),
    *_timm("MobileNetV4 hybrid", "mobilenetv4_hybrid_medium", conv=False),
    *_timm("MobileNetV3", "mobilenetv3_small_050 mobilenetv3_large_100"),
    *_timm("MobileNet", "mobilenetv1_100 mobilenetv2_035"),
    *_timm("LCNet", "lcnet_050 lcnet_100"),
    *_timm("TinyNet", "tinynet_a tinynet_e"),
    *_timm("EfficientNet", "efficientnet_lite0 efficientnet_es tf_efficientnetv2_b0 mixnet_s"),
    *_timm(
        "Searched", "hardcorenas_a hardcorenas_f fbnetc_100 fbnetv3_b spnasnet_100 mnasnet_small"
    ),
    *_timm("GhostNet", "ghostnet_100 ghostnetv2_100"),
    *_timm("RepVGG", "repvgg_a0 repvgg_b0"),
    *_timm("MobileOne", "mobileone_s0 mobileone_s1"),
    *_timm("RepGhost, RepViT", "repghostnet_050 repvit_m0_9"),
    *_timm("ResNet", "resnet10t resnet14t resnet26d ecaresnet26t legacy_seresnet18"),
    *_timm("RexNet", "rexnet_100"),
    *_timm("RegNetZ", "regnetz_005"),
    *_timm("VoVNet", "ese_vovnet19b_dw"),
    *_timm("SelecSLS", "selecsls42b"),
    *_timm("DLA", "dla46_c"),
    *_timm("HRNet", "hrnet_w18_small"),
    *_timm("CSPDarkNet", "cspdarknet53"),
    *_timm("StarNet", "starnet_s1"),
    *_timm("ConvNeXt", "convnext_atto convnextv2_atto"),
    *_timm("PoolFormer", "poolformer_s12"),
    *_timm("FastViT", "fastvit_t8 fastvit_s12", conv=False),
    *_timm("EfficientViT", "efficientvit_b0 efficientvit_b1", conv=False),
    *_timm("EfficientViT (MSRA)", "efficientvit_m0", conv=False, size=224),
    *_timm("EdgeNeXt", "edgenext_xx_small edgenext_x_small", conv=False),
    *_timm("MobileViT", "mobilevit_xxs mobilevitv2_050", conv=False),
    *_timm("LeViT, DeiT", "levit_128s deit_tiny_patch16_224", conv=False, size=224),
)

ZOO: Sequence[Entry] = (*TORCHVISION, *EDGE)


def chosen(names: Iterable[str] | None) -> list[Entry]:
    """The entries of these names in the zoo's order; all of them for None.

    Any other name that `build_model` takes is an entry of its own, so that a user's network or one
    more of timm's can be tried.

    Raises:
        InputError: a name is given twice.
    """
    if names is None:
        return list(ZOO)
    wanted = list(names)
    known = {entry.name: entry for entry in ZOO}
    if len(set(wanted)) != len(wanted):
        raise InputError(f"a model is named twice in {', '.join(wanted)}")
    return [known.get(name, Entry(name, "other")) for name in wanted]
