"""VGG-16 for 32-pixel pictures, in the two sizes that the literature means by that name.

Simonyan and Zisserman 2014 (https://arxiv.org/abs/1409.1556), configuration D, with batch norm.
Module names are those of torchvision's `vgg16_bn`: `features.N`, `classifier.N`.
"""

import torch
from torch import nn

_WIDTHS: tuple[int | None, ...] = (  # None is a 2x2 max-pool
    64, 64, None, 128, 128, None, 256, 256, 256, None, 512, 512, 512, None, 512, 512, 512, None,
)  # fmt: skip


class CifarVgg(nn.Module):
    """Thirteen 3x3 convs with batch norm, then `classifier`.

    Input (N, 3, H, W) with H and W at least 32; output is the classifier's, (N, num_classes).
    """

    def __init__(self, classifier: nn.Sequential, conv_bias: bool) -> None:
        super().__init__()
        self.features = _features(conv_bias)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = classifier
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.features(x)  # (N, 512, H/32, W/32)
        logits: torch.Tensor = self.classifier(self.avgpool(out).flatten(1))
        return logits


def vgg16(num_classes: int = 10) -> CifarVgg:
    """With the two 4096-wide linear layers: 33,646,666 parameters for 10 classes."""
    return CifarVgg(
        nn.Sequential(
            nn.Linear(512, 4096),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(4096, num_classes),
        ),
        conv_bias=True,
    )


def vgg16_decore(num_classes: int = 10) -> CifarVgg:
    """The DECORE paper's (https://arxiv.org/abs/2106.06091): 512 -> 512 -> classes after the convs.

    14,986,698 parameters and 313,463,808 multiply-accumulates in convs and linear layers for
    10 classes at 32 px. The paper prints 14.98M and 313.73M; the latter counts multiplications and
    additions apart in the linear layers: 313,196,544 + 2 x 267,264 = 313,731,072.
    """
    return CifarVgg(
        nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, num_classes)), conv_bias=False
    )


def _features(conv_bias: bool) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for width in _WIDTHS:
        if width is None:
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [
            nn.Conv2d(channels, width, 3, padding=1, bias=conv_bias),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        channels = width
    return nn.Sequential(*layers)
