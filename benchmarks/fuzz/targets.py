"""One target for each parser: what it reads, from which seeds, and how it may refuse."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.fuzz import mutation, seeds

Parse = Callable[[Path], Any]
Errors = tuple[type[Exception], ...]


@dataclass(frozen=True)
class Target:
    """One parser.

    Attributes:
        reads: what it reads, for the table.
        file: name of the input in the target's folder; its other files lie beside it.
        seeds: makes the first inputs.
        prepare: gets the folder once; returns what parses the file there, and its errors.
        mutate: changes an input within its outer form, besides plain changes of bytes.
    """

    reads: str
    file: str
    seeds: Callable[[], list[bytes]]
    prepare: Callable[[Path], tuple[Parse, Errors]]
    mutate: mutation.Mutate | None = None


def _board(folder: Path) -> tuple[Parse, Errors]:
    from boards import BoardError, load_board

    return load_board, (BoardError,)


def _job(folder: Path) -> tuple[Parse, Errors]:
    from compress_export.errors import UsageError
    from compress_export.job_file import resolve_options

    return lambda path: resolve_options({"config": path}), (UsageError,)


def _fleet(folder: Path) -> tuple[Parse, Errors]:
    from compress_export.errors import UsageError
    from compress_export.job_file import read_fleet_file

    return read_fleet_file, (UsageError,)


def _limits(folder: Path) -> tuple[Parse, Errors]:
    from compress_export.errors import UsageError
    from compress_export.gate.limits import read_limits

    return read_limits, (UsageError,)


def _manifest(folder: Path) -> tuple[Parse, Errors]:
    from runtime_bench import ManifestError, read_manifest, verify_files

    def read(path: Path) -> None:
        manifest = read_manifest(path.parent)
        with contextlib.suppress(ManifestError):  # its files are not there
            verify_files(manifest)

    return read, (ManifestError,)


def _sums(folder: Path) -> tuple[Parse, Errors]:
    from compress_export.deploy.payload import read_payload
    from compress_export.errors import UsageError
    from runtime_bench import ManifestError, verify_sums

    (folder / "file").write_text("x")
    (folder / "manifest.json").write_text("{}")

    def both(path: Path) -> None:
        try:
            verify_sums(path.parent)
        except ManifestError:
            read_payload(path.parent)
            raise

    return both, (ManifestError, UsageError)


def _codebook(folder: Path) -> tuple[Parse, Errors]:
    from runtime_bench import CodebookError, read_codebook_file

    return read_codebook_file, (CodebookError,)


def _samples(folder: Path) -> tuple[Parse, Errors]:
    from runtime_bench import SamplesError, open_samples

    def read(path: Path) -> None:
        found = open_samples(path)
        found.baseline_top1()
        for _ in found.batches(2):
            pass

    return read, (SamplesError,)


def _arrays(folder: Path) -> tuple[Parse, Errors]:
    from compress_export.data.arrays import open_arrays
    from compressor.errors import InputError

    return lambda path: open_arrays(path, seed=0), (InputError,)


def _list(folder: Path) -> tuple[Parse, Errors]:
    from compress_export.data.lists import open_list
    from compressor.errors import InputError

    for name in "abcdef":
        (folder / f"{name}.png").touch()
    return lambda path: open_list(path, seed=0), (InputError,)


def _weights(folder: Path) -> tuple[Parse, Errors]:
    from torch import nn

    from compressor.errors import InputError
    from compressor.weights import load_weights

    return lambda path: load_weights(nn.Linear(3, 2), path), (InputError,)


def _saved(folder: Path) -> tuple[Parse, Errors]:
    import torch

    from compressor.errors import InputError
    from compressor.models import build_model
    from compressor.saved import load_model, save_model

    save_model(build_model("resnet20", 10), "resnet20", 10, folder)

    def run(path: Path) -> None:
        model = load_model(path.parent)
        # the job traces a network first, and says which module fails
        with contextlib.suppress(RuntimeError, ValueError, TypeError, ArithmeticError):
            model(torch.zeros(1, 3, 32, 32))

    return run, (InputError,)


def _image(folder: Path) -> tuple[Parse, Errors]:
    from compress_export.data.decode import decode_all

    def read(path: Path) -> None:
        import numpy as np

        out = np.empty((1, 3, 32, 32), np.uint8)
        for place in (None, out):
            for broken in decode_all([path], 32, place, lambda count: None):
                raise ValueError(broken.reason)

    return read, (ValueError,)


def _report(folder: Path) -> tuple[Parse, Errors]:
    from rich.console import Console

    from compress_export.errors import UsageError
    from compress_export.gate.run import Asked, run_gate

    limits = folder / "limits.yaml"
    limits.write_text("limits: {size: 1MiB, latency: 5ms, drop: 1}\nregressions: {size: 2%}\n")
    old = folder / "old.json"
    old.write_bytes(seeds.reports()[0])

    def judge(path: Path) -> None:
        console = Console(file=io.StringIO(), width=100)
        for boards in ((), ("rpi4",)):
            asked = Asked(path, boards, limits, old, junit=folder / "gate.xml", annotations=True)
            run_gate(asked, console)

    return judge, (UsageError,)


def _history(folder: Path) -> tuple[Parse, Errors]:
    from compress_export.errors import UsageError
    from compress_export.gate.history import add_to_history

    return lambda path: add_to_history(path, ()), (UsageError,)


def _page(folder: Path) -> tuple[Parse, Errors]:
    from compress_export.errors import UsageError
    from compress_export.html_report.page import write_report_to

    return lambda path: write_report_to(path.parent, folder / "page.html"), (UsageError,)


def _answers(folder: Path) -> tuple[Parse, Errors]:
    import subprocess
    from unittest import mock

    from compress_export.deploy import device, steps
    from compress_export.deploy.answer import Expected
    from compress_export.deploy.destination import Destination
    from compress_export.deploy.errors import DeviceError
    from runtime_bench import read_manifest

    (folder / "manifest.json").write_bytes(seeds.manifests()[0])
    expected = Expected(read_manifest(folder))

    class Process:
        """An ssh that has said all that it will say."""

        def __init__(self, path: Path) -> None:
            self.stdin, self.stdout = io.BytesIO(), io.BytesIO(path.read_bytes())

        def wait(self) -> int:
            return 255

        kill = wait

    def converse(path: Path) -> None:
        place = Destination.parse("a@b:/c")
        request = steps.BenchRequest("python3", expected)
        with mock.patch.object(subprocess, "Popen", lambda *a, **k: Process(path)):
            steps.unmeasured(steps.bench(device.Ssh(), place, request))

    return converse, (DeviceError,)


def _onnx(folder: Path) -> tuple[Parse, Errors]:
    from compress_export.gate.onnx_layers import onnx_layers

    (folder / "side.bin").write_bytes(bytes(4096))
    return onnx_layers, (Exception,)  # gate.apart makes a UsageError of any


def _tflite(folder: Path) -> tuple[Parse, Errors]:
    from compress_export.gate.tflite_layers import tflite_layers

    return lambda path: tflite_layers(path, None), (Exception,)  # as above


TARGETS: dict[str, Target] = {
    "board": Target("board descriptors", "b.yaml", seeds.boards, _board, mutation.yaml_tree),
    "job": Target("job files", "job.yaml", seeds.jobs, _job, mutation.yaml_tree),
    "fleet": Target("fleet files", "fleet.yaml", seeds.fleets, _fleet, mutation.yaml_tree),
    "limits": Target("gate files", "gate.yaml", seeds.limits, _limits, mutation.yaml_tree),
    "manifest": Target(
        "manifests", "manifest.json", seeds.manifests, _manifest, mutation.json_tree
    ),
    "sums": Target("`SHA256SUMS`", "SHA256SUMS", seeds.sums, _sums),
    "codebook": Target(
        "codebook files", "c.codebook", seeds.codebooks, _codebook, mutation.codebook_body
    ),
    "samples": Target("`samples.npz`", "s.npz", seeds.samples, _samples, mutation.zip_members),
    "arrays": Target(
        "arrays of `--data`", "a.npz", seeds.data_arrays, _arrays, mutation.zip_members
    ),
    "list": Target("lists of `--data`", "list.csv", seeds.lists, _list),
    "image": Target("images", "i.img", seeds.images, _image),
    "weights-pt": Target(
        "`.pt`, `.pth`, `.th`", "w.pt", seeds.torch_files, _weights, mutation.zip_members
    ),
    "weights-safetensors": Target(
        "`.safetensors`", "w.safetensors", seeds.safetensors, _weights, mutation.safetensors_header
    ),
    "saved": Target("saved networks", "model.json", seeds.descriptions, _saved, mutation.json_tree),
    "report": Target("reports for `gate`", "r.json", seeds.reports, _report, mutation.json_tree),
    "history": Target("`gate --history`", "h.json", seeds.histories, _history, mutation.json_tree),
    "page": Target("reports for `report`", "report.json", seeds.reports, _page, mutation.json_tree),
    "device": Target("answers of a device", "said", seeds.figures, _answers),
    "onnx": Target("ONNX for `gate --why`", "m.onnx", seeds.onnx_files, _onnx, mutation.onnx_tree),
    "tflite": Target("TFLite for `gate --why`", "m.tflite", seeds.tflite_files, _tflite),
}


def fresh_folder(path: Path) -> Path:
    """Make a folder anew, for one session of a target."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
