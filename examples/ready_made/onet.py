"""MTCNN's O-Net as the package facenet-pytorch ships it, made smaller without its training data.

Zhang et al. 2016 (https://arxiv.org/abs/1604.02878): the last of three networks that find faces.
It looks at a patch of 48 x 48 pixels and says how sure it is of a face, where the face's box is and
where its eyes, nose and mouth are. Nobody labelled the patches used here: the smaller network is to
agree with the one that was shipped.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

SIZE = 48
FACE_THRESHOLD = 0.7  # above it MTCNN keeps a patch

_PATCHES_OF_A_PICTURE = 6
_SPREAD_WEIGHT = 20.0  # of boxes and points, whose squared errors are far below a cross-entropy

Patches = NDArray[np.uint8]
Answers = NDArray[np.float32]
Outputs = tuple[Tensor, Tensor, Tensor]
"""What the network returns for N patches: the edges of the box (left, top, right, bottom) relative
to those of the patch, in sizes of the patch, (N, 4); five points, (N, 10); the chances of no face
and of a face, (N, 2)."""


def network(num_classes: int) -> nn.Module:
    """Return the network as it is, with the weights that lie in the package."""
    from facenet_pytorch.models.mtcnn import ONet

    if num_classes != 16:
        raise ValueError(f"O-Net answers with 16 numbers, the data names {num_classes}")
    return ONet().eval()


def patches() -> tuple[tuple[Patches, Answers], tuple[Patches, Answers], list[str]]:
    """Cut patches of pictures that packages ship; the labels are the shipped network's answers.

    scikit-image has 200 small pictures, 100 of them faces of Labeled Faces in the Wild,
    scikit-learn two photographs. What is tested with was cut from other pictures than what is
    trained with: the last 30 of each hundred, and the photograph of a flower.
    """
    from skimage.data import lfw_subset
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(0)
    small = [Image.fromarray(np.uint8(picture * 255)) for picture in lfw_subset()]
    china, flower = (Image.fromarray(picture) for picture in load_sample_images().images)
    train = [*small[:70], *small[100:170], *[china] * 30]
    test = [*small[70:100], *small[170:], *[flower] * 10]
    names = [
        *(f"box {edge}" for edge in ("left", "top", "right", "bottom")),
        *(f"point {axis}{number}" for axis in "xy" for number in range(1, 6)),
        "no face",
        "face",
    ]
    return _answered(_cut(train, random)), _answered(_cut(test, random)), names


def _cut(pictures: list[Image.Image], random: np.random.Generator) -> Patches:
    """Cut square windows of 0.7 to 1 of a small picture's side, or of 24 to 96 pixels of a large
    one, and bring them to 48 x 48."""
    found = []
    for picture in pictures:
        shorter = min(picture.size)
        low, high = (0.7 * shorter, shorter) if shorter < SIZE else (24, 96)
        for _ in range(_PATCHES_OF_A_PICTURE):
            side = random.uniform(low, high)
            left, top = (random.uniform(0, length - side) for length in picture.size)
            window = (left, top, left + side, top + side)
            patch = picture.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR, window)
            found.append(np.asarray(patch))
    return np.stack(found)


def _answered(images: Patches) -> tuple[Patches, Answers]:
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()  # (N, 3, 48, 48)
    with torch.no_grad():
        answers = network(16)((x - 127.5) / 128)
    return images, torch.cat(answers, dim=1).numpy()  # (N, 16)


def distance(outputs: Outputs, wanted: Tensor) -> Tensor:
    """Return how far answers are from the wanted ones, per patch, shape (N,).

    Cross-entropy of the chance of a face; where there is one, the squared errors of box and points.
    """
    box, points, face = outputs
    p, truth = face[:, 1].clamp(1e-6, 1 - 1e-6), wanted[:, 15]
    entropy = -(truth * p.log() + (1 - truth) * (1 - p).log())
    spread = (torch.cat((box, points), dim=1) - wanted[:, :14]).square().mean(dim=1)
    return entropy + _SPREAD_WEIGHT * truth * spread


def agreement(outputs: Outputs, wanted: Tensor) -> Tensor:
    """Return the agreement with the wanted answers, per patch, in 0..1, shape (N,).

    0 where one sees a face and the other does not, 1 where neither does, and the intersection over
    union of both boxes where both do.
    """
    box, _, face = outputs
    seen, truth = face[:, 1] > FACE_THRESHOLD, wanted[:, 15] > FACE_THRESHOLD
    patch = box.new_tensor([0.0, 0.0, 1.0, 1.0])
    overlap = _iou(box + patch, wanted[:, :4] + patch)
    return (seen == truth).float() * torch.where(truth, overlap, torch.ones_like(overlap))


def _iou(one: Tensor, other: Tensor) -> Tensor:
    low = torch.maximum(one[:, :2], other[:, :2])
    high = torch.minimum(one[:, 2:], other[:, 2:])
    both = (high - low).clamp_min(0).prod(dim=1)
    areas = [(box[:, 2:] - box[:, :2]).clamp_min(0).prod(dim=1) for box in (one, other)]
    return both / (areas[0] + areas[1] - both).clamp_min(1e-9)
