"""Built-in networks, torchvision's, and factories of the user's own."""

import sys
from pathlib import Path

import pytest
import torch
from torch import fx, nn
from torch.nn import functional as F

from compressor.errors import InputError
from compressor.models import IMAGENET_MEAN, build_model, builtin_models, default_input
from compressor.models.layers import ChannelPad


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # He et al. 2015, table 6 (in millions: 0.27, 0.46, 0.66, 0.85, 1.7); the others by hand.
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        ("resnet110", 1_727_962),
        ("resnet18", 11_173_962),
        ("vgg16", 33_646_666),
        ("vgg16-decore", 14_986_698),
    ],
)
def test_sizes_of_the_built_in_networks(name: str, expected: int) -> None:
    with torch.device("meta"):
        model = build_model(name, 10)
    assert parameters(model) == expected
    assert name in builtin_models()


def test_every_built_in_network_is_sized_above() -> None:
    assert len(builtin_models()) == 8


@pytest.mark.parametrize("name", ["resnet20", "resnet18", "vgg16", "vgg16-decore"])
def test_built_in_networks_trace_and_train(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, 7)
    x = torch.randn(2, 3, 32, 32)
    assert model(x).shape == (2, 7)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.eval()
    torch.testing.assert_close(fx.symbolic_trace(model)(x), model(x))


def test_macs_of_vgg_are_the_paper_s() -> None:
    """313.73M in the paper, which counts multiplications and additions of linear layers apart."""
    model = build_model("vgg16-decore", 10).eval()
    macs = {nn.Conv2d: 0, nn.Linear: 0}

    def count(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        macs[type(module)] += weight[0].numel() * output.numel()

    for module in model.modules():
        if type(module) in macs:
            module.register_forward_hook(count)
    model(torch.zeros(1, 3, 32, 32))
    assert round((macs[nn.Conv2d] + 2 * macs[nn.Linear]) / 1e6, 2) == 313.73


def test_names_are_those_of_published_checkpoints() -> None:
    keys = set(build_model("resnet20", 10).state_dict())
    assert {
        "conv1.weight",
        "bn1.running_mean",
        "layer1.0.conv1.weight",
        "layer3.2.bn2.bias",
        "linear.weight",
        "linear.bias",
    } <= keys
    assert not any("shortcut" in key for key in keys)


def test_shortcut_is_option_a() -> None:
    """Against the published formulation: a quarter of the new width on either side."""
    x = torch.randn(2, 16, 8, 8)
    shortcut = build_model("resnet20", 10).get_submodule("layer2.0.shortcut")
    expected = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 32 // 4, 32 // 4), "constant", 0)
    assert torch.equal(shortcut(x), expected)
    assert not list(shortcut.parameters())


def test_channel_pad_reads_its_numbers_at_each_call() -> None:
    pad = ChannelPad(front=1, back=2, stride=2)
    x = torch.randn(1, 3, 4, 4)
    assert pad(x).shape == (1, 6, 2, 2)
    pad.front = 0
    assert torch.equal(pad(x)[:, :3], x[:, :, ::2, ::2])


@pytest.mark.parametrize("name", ["squeezenet1_1", "googlenet", "torchvision:resnet18"])
def test_torchvision_classifiers(name: str) -> None:
    model = build_model(name, 5).eval()
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 5)


def test_torchvision_prefix_gives_the_imagenet_form() -> None:
    assert build_model("torchvision:resnet18", 10).get_submodule("conv1").kernel_size == (7, 7)
    assert build_model("resnet18", 10).get_submodule("conv1").kernel_size == (3, 3)


def test_default_inputs() -> None:
    assert default_input("resnet20").size == 32
    assert default_input("torchvision:resnet18").size == 224
    assert default_input("inception_v3").size == 299
    assert default_input("torchvision:inception_v3").size == 299
    assert default_input("mine:net") == (224, IMAGENET_MEAN, (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("resnet21", "resnet20"),
        ("mobilnet_v2", "mobilenet_v2"),
        ("torchvision:resnt50", "resnet50"),
    ],
)
def test_unknown_name_names_close_ones(name: str, close: str) -> None:
    with pytest.raises(InputError, match=close) as caught:
        build_model(name, 10)
    assert "\n" not in str(caught.value)


def test_detectors_are_no_classifiers() -> None:
    with pytest.raises(InputError, match="fasterrcnn"):
        build_model("fasterrcnn_resnet50_fpn", 10)


FACTORY = """
from torch import nn
import {imported}
width = 4
def build(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(3, num_classes))
def tensor(num_classes):
    return 3
def nothing():
    return None
"""


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # puts sys.path back at the end
    (tmp_path / "user_networks.py").write_text(FACTORY.format(imported="math"))
    (tmp_path / "user_broken.py").write_text(FACTORY.format(imported="no_such_library"))
    (tmp_path / "user_syntax.py").write_text("def build(:\n")
    return tmp_path


def test_factory_in_the_current_directory(in_folder: Path) -> None:
    model = build_model("user_networks:build", 6)
    assert model(torch.zeros(2, 3, 1, 1)).shape == (2, 6)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("user_nowhere:build", "no module 'user_nowhere'"),
        ("user_broken:build", "no module 'no_such_library'"),
        ("user_syntax:build", "SyntaxError"),
        ("user_networks:biuld", "it has build, nothing, tensor"),
        ("user_networks:width", "no function 'width'"),
        ("user_networks:tensor", "returned int"),
        ("user_networks:nothing", "TypeError"),
        ("user networks:build", "package.module:function"),
    ],
)
def test_mistakes_with_factories(in_folder: Path, spec: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        build_model(spec, 6)
    assert "\n" not in str(caught.value)


def test_number_of_classes_is_positive() -> None:
    with pytest.raises(InputError, match="at least one class"):
        build_model("resnet20", 0)


def test_networks_of_timm() -> None:
    pytest.importorskip("timm")
    assert build_model("timm:lcnet_035", 7).eval()(torch.randn(1, 3, 32, 32)).shape == (1, 7)
    for name in ("timm:efficientnet_b1", "timm:lcnet_035"):  # one is unusual
        config = build_model(name, 2).pretrained_cfg
        found = default_input(name)
        assert (3, found.size, found.size) == config["input_size"]
        assert (found.mean, found.std) == (config["mean"], config["std"])
    with pytest.raises(InputError, match="'timm:lcnett_050': did you mean timm:lcnet"):
        build_model("timm:lcnett_050", 7)


def test_timm_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "timm.models", None)
    assert default_input("timm:lcnet_050") == default_input("resnet50")
    with pytest.raises(InputError, match=r"needs the package timm.*compress-export\[timm\]"):
        build_model("timm:lcnet_050", 7)
