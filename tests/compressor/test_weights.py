"""Loading weights: what users bring, and what they get wrong."""

import argparse
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compressor.errors import InputError
from compressor.models import build_model
from compressor.weights import load_weights


@pytest.fixture
def trained() -> nn.Module:
    torch.manual_seed(0)
    model = build_model("resnet20", 10)
    with torch.no_grad():  # zeros and ones everywhere would hide a tensor that was not loaded
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand_like(tensor))
    return model


def fresh(name: str = "resnet20", num_classes: int = 10) -> nn.Module:
    torch.manual_seed(1)
    return build_model(name, num_classes)


def assert_same(model: nn.Module, expected: nn.Module, tolerance: float = 0.0) -> None:
    wanted = expected.state_dict()
    for key, tensor in model.state_dict().items():
        assert tensor.dtype == wanted[key].dtype
        torch.testing.assert_close(tensor, wanted[key], rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "nesting",
    [(), ("state_dict",), ("model",), ("model_state",), ("net",), ("model", "state_dict")],
)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_nested_and_prefixed_states_load(
    tmp_path: Path, trained: nn.Module, nesting: tuple[str, ...], prefix: str
) -> None:
    content: dict[str, object] = {prefix + k: v for k, v in trained.state_dict().items()}
    for key in reversed(nesting):
        content = {key: content, "best_prec1": 91.7, "epoch": 3}
    path = tmp_path / "weights.th"
    torch.save(content, path)
    model = fresh()
    load_weights(model, path)
    assert_same(model, trained)


@pytest.mark.parametrize("zipped", [True, False])
def test_both_file_forms_of_torch_load(tmp_path: Path, trained: nn.Module, zipped: bool) -> None:
    path = tmp_path / "weights.pt"
    torch.save(trained.state_dict(), path, _use_new_zipfile_serialization=zipped)
    model = fresh()
    load_weights(model, str(path))
    assert_same(model, trained)


def test_half_precision_safetensors_are_widened(tmp_path: Path, trained: nn.Module) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(
        {k: v.half() if v.is_floating_point() else v for k, v in trained.state_dict().items()}, path
    )
    model = fresh()
    load_weights(model, path)
    assert_same(model, trained, tolerance=2**-11)  # fp16 spacing below 1


def test_batch_counters_may_be_missing_and_training_leftovers_are_ignored(
    tmp_path: Path, trained: nn.Module
) -> None:
    state = {k: v for k, v in trained.state_dict().items() if "num_batches_tracked" not in k}
    state |= {"total_ops": torch.zeros(1), "AuxLogits.fc.weight": torch.zeros(2, 2)}
    torch.save(state, tmp_path / "old.pth")
    model = fresh()
    load_weights(model, tmp_path / "old.pth")
    assert_same(model, trained)


def test_own_submodule_called_module_keeps_its_name(tmp_path: Path) -> None:
    model = nn.ModuleDict({"module": nn.Linear(2, 2)})
    torch.save({"module.weight": torch.ones(2, 2), "module.bias": torch.ones(2)}, tmp_path / "w.pt")
    load_weights(model, tmp_path / "w.pt")
    assert torch.equal(model["module"].weight, torch.ones(2, 2))


def message_of(model: nn.Module, path: Path) -> str:
    """The error's message; it is one line, and the model is as it was before."""
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_weights(model, path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    return message


def test_missing_file_names_its_neighbours(tmp_path: Path, trained: nn.Module) -> None:
    torch.save(trained.state_dict(), tmp_path / "resnet20.th")
    assert "resnet20.th" in message_of(fresh(), tmp_path / "resnet21.th")


def test_missing_folder_is_said(tmp_path: Path) -> None:
    assert "folder" in message_of(fresh(), tmp_path / "nowhere" / "resnet20.th")


def test_folder_and_other_suffixes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "net.pth").mkdir()
    assert "folder" in message_of(fresh(), tmp_path / "net.pth")
    assert ".safetensors" in message_of(fresh(), tmp_path / "net.onnx")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.99])
def test_truncated_torch_file(
    tmp_path: Path, trained: nn.Module, zipped: bool, share: float
) -> None:
    path = tmp_path / "cut.th"
    torch.save(trained.state_dict(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "truncated or damaged" in message_of(fresh(), path)


def test_truncated_safetensors(tmp_path: Path, trained: nn.Module) -> None:
    path = tmp_path / "cut.safetensors"
    save_file(trained.state_dict(), path)
    path.write_bytes(path.read_bytes()[:100_000])
    assert "truncated or damaged" in message_of(fresh(), path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"\x93garbage" * 50, "truncated or damaged"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS"),
        (b"<!DOCTYPE html><html>404</html>", "web page"),
    ],
)
def test_files_that_are_no_weights(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert said in message_of(fresh(), path)


def test_pickles_that_need_code_are_refused(tmp_path: Path, trained: nn.Module) -> None:
    torch.save(trained, tmp_path / "module.pt")
    assert "CifarResNet" in message_of(fresh(), tmp_path / "module.pt")
    torch.save(
        {"state_dict": trained.state_dict(), "args": argparse.Namespace(lr=1)}, tmp_path / "args.pt"
    )
    assert "argparse.Namespace" in message_of(fresh(), tmp_path / "args.pt")


def test_file_without_tensors(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "epoch.pt")
    assert "no tensors" in message_of(fresh(), tmp_path / "epoch.pt")


def test_other_depth_is_named(tmp_path: Path) -> None:
    torch.save(build_model("resnet32", 10).state_dict(), tmp_path / "w.th")
    message = message_of(fresh(), tmp_path / "w.th")
    assert "72 tensors unexpected (first layer1.3.conv1.weight)" in message  # 6 blocks of 12
    assert "'resnet32'" in message


def test_imagenet_form_is_named(tmp_path: Path) -> None:
    torch.save(build_model("torchvision:resnet18", 1000).state_dict(), tmp_path / "w.pth")
    message = message_of(fresh("resnet18"), tmp_path / "w.pth")
    assert "conv1.weight: 64x3x7x7 in the file, 64x3x3x3 in the model" in message
    assert "'torchvision:resnet18'" in message


def test_unknown_network_gets_no_suggestion(tmp_path: Path) -> None:
    torch.save({"stem.weight": torch.zeros(3)}, tmp_path / "w.pth")
    message = message_of(fresh(), tmp_path / "w.pth")
    assert "first conv1.weight" in message
    assert "they fit" not in message


@pytest.mark.parametrize("name", ["resnet20", "vgg16-decore", "squeezenet1_1"])
def test_other_number_of_classes(tmp_path: Path, name: str) -> None:
    torch.save(build_model(name, 100).state_dict(), tmp_path / "w.pth")
    message = message_of(fresh(name), tmp_path / "w.pth")
    assert "has 100 classes, the data has 10" in message


def test_diverged_weights(tmp_path: Path, trained: nn.Module) -> None:
    state = trained.state_dict()
    state["layer2.0.conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(state, tmp_path / "w.pth")
    assert "layer2.0.conv1.weight" in message_of(fresh(), tmp_path / "w.pth")
