"""Weights and saved networks from elsewhere: no code, no memory beyond the file, one line."""

from __future__ import annotations

import json
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from compressor.errors import InputError
from compressor.saved import DESCRIPTION_FILE, load_model, read_description, save_model
from compressor.weights import load_weights

STATE = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}


def refusal(path: Path) -> str:
    network = nn.Linear(3, 2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_weights(network, path)
    assert all(torch.equal(before[name], t) for name, t in network.state_dict().items())
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, zipped: bool) -> None:
    path, mark = tmp_path / "w.pt", tmp_path / "harm"
    torch.save({**STATE, "extra": Harmful(mark)}, path, _use_new_zipfile_serialization=zipped)
    refusal(path)
    assert not mark.exists()
    path.write_bytes(pickle.dumps(Harmful(mark)))
    refusal(path)
    assert not mark.exists()


def test_an_archive_that_would_unpack_to_more_than_itself(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(4096, 256)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for member in plain.infolist():
            bomb.writestr(member.filename, plain.read(member))
    assert "would unpack to" in refusal(tmp_path / "w.pt")


def nested_in_itself() -> dict[str, Any]:
    state: dict[str, Any] = {}
    state["state_dict"] = state
    return state


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (lambda: {**STATE, "weight": STATE["weight"].to_sparse()}, "weight is sparse"),
        (lambda: {**STATE, "weight": torch.empty(2, 3, device="meta")}, "without values"),
        (lambda: nested_in_itself(), "no tensors by name"),
        (lambda: {(1, 2): STATE["weight"]}, "no tensors by name"),
        (lambda: [STATE], "no tensors by name"),
    ],
)
def test_states_that_are_no_plain_tensors(
    tmp_path: Path, content: Callable[[], Any], why: str
) -> None:
    torch.save(content(), tmp_path / "w.pt")
    assert why in refusal(tmp_path / "w.pt")


@pytest.mark.parametrize(
    "header",
    [
        {"weight": {"dtype": "F32", "shape": [10**9, 10**9], "data_offsets": [0, 4]}},
        {"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**62]}},
        {"weight": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}},
        [[[[]]]],
    ],
)
def test_safetensors_with_a_wrong_header(tmp_path: Path, header: Any) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    assert "truncated or damaged" in refusal(tmp_path / "w.safetensors")


def described(folder: Path, **changes: Any) -> Path:
    """A saved ResNet-20 whose model.json was changed."""
    from compressor.models import build_model

    save_model(build_model("resnet20", 10), "resnet20", 10, folder)
    path = folder / DESCRIPTION_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


WINDOW = {"kernel": [3, 3], "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1]}


@pytest.mark.parametrize(
    "changes",
    [
        {"num_classes": 10**9},
        {"num_classes": "ten"},
        {"architecture": ["resnet20"]},
        {"edits": [1]},
        {"edits": {"conv1": {"padding": [10**6, 10**6]}}},
        {"edits": {"conv1": {"out_channels": 1e400}}},
        {"edits": {"forward": {"replaced_by": "Identity"}}},
        {"edits": {"conv1": {"replaced_by": "Conv2d"}}},
        {"edits": {"conv1": {"replaced_by": "Nothing", "window": {**WINDOW, "stride": [0, 0]}}}},
        {"edits": {"conv1": {"replaced_by": "Nothing", "window": {**WINDOW, "kernel": [10**9]}}}},
    ],
)
def test_a_description_made_to_harm(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        load_model(described(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_a_description_of_great_depth(tmp_path: Path) -> None:
    described(tmp_path)
    (tmp_path / DESCRIPTION_FILE).write_text("[" * 100_000)
    with pytest.raises(InputError):
        load_model(tmp_path)


def test_a_folder_does_not_choose_the_code_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the user's own words, or an import, start a factory that a folder names."""
    mark, spec = tmp_path / "ran", "factory_of_a_stranger:make"
    (tmp_path / "factory_of_a_stranger.py").write_text(
        f"from pathlib import Path\nfrom torch import nn\nPath({str(mark)!r}).touch()\n"
        "def make(num_classes):\n    return nn.Linear(3, num_classes)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    folder = described(tmp_path / "net", architecture=spec)
    with pytest.raises(InputError, match=f"say so with --model {spec}"):
        load_model(folder)
    assert not mark.exists()
    assert read_description(folder, spec).architecture == spec
    with pytest.raises(InputError, match="don't belong together"):  # now its network is built
        load_model(folder, code=spec)
    assert mark.exists()
