"""Which layer is the last one, and what stays when it is new."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from compressor.errors import InputError, OtherClassesError
from compressor.graph import channel_graph
from compressor.head import find_head
from compressor.models import build_model
from compressor.saved import load_model, save_model
from compressor.slim import slim
from compressor.weights import load_weights


class Renamed(nn.Module):
    """The head is neither called nor placed like one, and a norm follows it."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.answer = nn.Conv2d(8, num_classes, 1)
        self.behind = nn.BatchNorm2d(num_classes)
        self.before = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.behind(self.answer(self.before(x))).mean(dim=(2, 3))  # (N, classes)


def renamed(num_classes: int) -> nn.Module:
    return Renamed(num_classes)


def fixed(num_classes: int) -> nn.Module:
    return Renamed(10)


@pytest.mark.parametrize(
    ("architecture", "layers"),
    [
        ("resnet20", ["linear"]),
        ("squeezenet1_1", ["classifier.1"]),
        ("torchvision:mobilenet_v3_small", ["classifier.3"]),
        (f"{__name__}:renamed", ["answer", "behind"]),
    ],
)
def test_the_head_is_what_follows_the_number_of_classes(
    architecture: str, layers: list[str]
) -> None:
    head = find_head(architecture, 3)
    assert list(head.layers) == layers
    shapes = {n: t.shape for n, t in build_model(architecture, 3).state_dict().items()}
    assert all(shapes[name][0] == 3 for name in head.tensors)


@pytest.mark.parametrize(
    ("architecture", "layers"),
    [
        ("timm:lcnet_035", ["classifier"]),
        ("timm:repghostnet_050", ["classifier"]),
        ("timm:levit_128s", ["head.linear", "head_dist.linear"]),
    ],
)
def test_heads_of_timm_one_or_two(architecture: str, layers: list[str]) -> None:
    pytest.importorskip("timm")
    assert list(find_head(architecture, 3).layers) == layers


def test_a_network_that_ignores_the_number_of_classes_has_no_head() -> None:
    with pytest.raises(InputError, match="no tensor follows the number of classes"):
        find_head(f"{__name__}:fixed", 3)


@pytest.mark.parametrize("classes_in_file", [10, 3, None])
def test_all_but_the_head_comes_from_the_file(tmp_path: Path, classes_in_file: int | None) -> None:
    torch.manual_seed(0)
    state = build_model("squeezenet1_1", classes_in_file or 10).state_dict()
    if classes_in_file is None:  # a file without a head
        state = {name: tensor for name, tensor in state.items() if "classifier" not in name}
    torch.save(state, tmp_path / "w.pth")
    model = build_model("squeezenet1_1", 3)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    head = find_head("squeezenet1_1", 3)
    load_weights(model, tmp_path / "w.pth", head)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, (before if name in head.tensors else state)[name])


def test_without_a_new_head_other_classes_are_an_error_of_their_own(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    torch.save(build_model("timm:levit_128s", 5).state_dict(), tmp_path / "w.pth")
    with pytest.raises(OtherClassesError) as caught:
        load_weights(build_model("timm:levit_128s", 3), tmp_path / "w.pth")
    assert str(caught.value).endswith(
        "its last layer (head.linear, head_dist.linear) has 5 classes, the data has 3"
    )


def test_a_slimmed_network_gets_a_head_for_the_channels_it_has_left(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, x = build_model("resnet20", 10).eval(), torch.randn(2, 3, 16, 16)
    graph = channel_graph(model, x)
    keep = graph.all_kept()
    keep[::2] = False
    slimmed = slim(model, graph, keep)
    save_model(slimmed, "resnet20", 10, tmp_path / "slim")
    renewed = load_model(tmp_path / "slim", find_head("resnet20", 3))
    assert renewed(x).shape == (2, 3)
    assert renewed.linear.in_features == slimmed.linear.in_features < 64
    old = slimmed.state_dict()
    for name, tensor in renewed.state_dict().items():
        assert torch.equal(tensor, old[name]) or name.startswith("linear.")
    save_model(renewed, "resnet20", 3, tmp_path / "renewed")
    assert torch.equal(load_model(tmp_path / "renewed")(x), renewed(x))
