"""--codebook: a job whose network has shared weights, and what it says and leaves about it."""

from __future__ import annotations

import lzma
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_jobs import NETWORK, QUICK, Ended, run_here

from compress_export import JobOptions, load_model
from compress_export.errors import UsageError
from compress_export.job_file import resolve_options
from compress_export.schedule import choose_epochs, codebook_recipe
from compressor.codebook.fitting import FITS
from compressor.codebook.sharing import entries_of
from runtime_bench import ManifestError, read_codebook_file, read_manifest, verify_files

ROOT = Path(__file__).parents[2]
Job = Callable[..., Ended]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Ended:
    """Pruned, then 8 weights a layer; ONNX alone. Tests only read it."""
    out = tmp_path_factory.mktemp("codebook") / "out"
    words = (
        "--board x86-64 --formats onnx --target-macs 0.6 --max-drop 90 --method taylor "
        "--codebook 8 --codebook-epochs 2 --stages prune,quantize"
    )
    return run_here(out, *NETWORK, *QUICK, "--weights", trained, *words.split())


def test_the_network_that_is_left_has_few_weights(shared: Ended) -> None:
    assert shared.complained == ""
    slim, baseline = (load_model(shared.out / "torch" / n) for n in ("slim", "baseline"))
    assert set(entries_of(slim).values()) == {8}
    assert min(entries_of(baseline).values()) > 8
    stages = shared.report["stages"]
    assert stages["slim"]["macs"] <= 0.6 * stages["baseline"]["macs"]
    assert (shared.run / "codebook.csv").read_text().count("\n") == 3  # a heading and two epochs


def test_the_bundle_has_the_same_network_as_codebooks(shared: Ended) -> None:
    bundle = shared.out / "bundle"
    manifest = read_manifest(bundle)
    verify_files(manifest)
    assert manifest.codebook is not None
    assert (manifest.codebook.path, manifest.codebook.entries) == ("slim.codebook", 8)
    state = read_codebook_file(bundle / manifest.codebook.path)
    wanted = load_model(shared.out / "torch" / "slim").state_dict()
    assert {name: torch.from_numpy(array).shape for name, array in state.items()} == {
        name: value.shape for name, value in wanted.items()
    }
    assert all(np.array_equal(state[name], value.numpy()) for name, value in wanted.items())
    assert "slim.codebook" in (bundle / "README.md").read_text()


def test_the_report_says_what_it_costs_and_saves(shared: Ended) -> None:
    found, bundle = shared.report["codebook"], shared.out / "bundle"
    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## codebook\n(.*?)^## ", text, flags=re.MULTILINE | re.DOTALL)
    documented = re.findall(r"^\| (`.*?`) \|", section, flags=re.MULTILINE)
    assert set(found) == set(re.findall(r"`(\w+)`", " ".join(documented)))
    assert (found["entries"], found["epochs"], found["fit"]) == (8, 2, "kmeans")
    assert found["size_bytes"] == (shared.out / found["path"]).stat().st_size
    state = read_codebook_file(shared.out / found["path"])
    assert found["expanded_bytes"] == sum(array.nbytes for array in state.values())
    assert found["size_bytes"] < 0.35 * found["expanded_bytes"]
    packed = len(lzma.compress((bundle / "slim.int8.onnx").read_bytes()))
    assert found["download_bytes"] == {"slim.int8.onnx": packed}
    assert found["validation_score_shared"] <= found["validation_score"]
    assert found["validation_score"] == shared.report["stages"]["slim"]["validation_top1"]
    for said in (shared.said, (shared.out / "report.md").read_text()):
        assert "8 weights a layer by kmeans: validation" in said
        assert "bundle/slim.codebook" in said


def test_a_damaged_codebook_file_is_noticed(shared: Ended, tmp_path: Path) -> None:
    bundle = shutil.copytree(shared.out / "bundle", tmp_path / "bundle")
    path = bundle / "slim.codebook"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"\0")
    with pytest.raises(ManifestError, match=r"slim\.codebook has sha256"):
        verify_files(read_manifest(bundle))
    path.unlink()
    with pytest.raises(ManifestError, match=r"slim\.codebook is missing"):
        verify_files(read_manifest(bundle))


def test_measuring_again_keeps_what_is_known(shared: Ended, tmp_path: Path) -> None:
    shutil.copytree(shared.out, tmp_path / "out")
    words = "--board x86-64 --stages bench --latency-runs 5 --max-drop 90"
    again = run_here(tmp_path / "out", *words.split())
    assert again.code == 0, again.complained
    assert again.report["codebook"] == shared.report["codebook"]
    scores = {a["name"]: a["top1"] for a in again.report["artifacts"]}
    assert scores["slim.float32.onnx"] == again.report["stages"]["slim"]["top1"]


def test_a_network_can_share_weights_without_being_pruned(job: Job) -> None:
    ended = job("--board x86-64 --stages quantize --formats onnx --codebook 2 --codebook-epochs 0")
    assert ended.code in (0, 1), ended.complained
    report = ended.report
    assert report["stages"]["slim"]["macs"] == report["stages"]["baseline"]["macs"]
    assert set(entries_of(load_model(ended.out / "torch" / "slim")).values()) == {2}
    found = report["codebook"]
    assert found["validation_score"] == found["validation_score_shared"]
    assert {a["path"] for a in report["artifacts"]} == {
        "bundle/slim.int8.onnx",
        "reference/slim.float32.onnx",
        "reference/baseline.int8.onnx",
        "reference/baseline.float32.onnx",
    }


def test_weights_are_found_by_the_fit_that_is_named(job: Job) -> None:
    ended = job(
        "--board x86-64 --stages quantize --formats onnx --codebook 4 --codebook-fit mixture "
        "--codebook-epochs 0"
    )
    assert ended.code in (0, 1), ended.complained
    assert ended.report["codebook"]["fit"] == "mixture"
    assert "4 weights a layer by mixture: validation" in ended.said
    dense, slim = (load_model(ended.out / "torch" / name) for name in ("baseline", "slim"))
    state = read_codebook_file(ended.out / ended.report["codebook"]["path"])
    for name in entries_of(slim):
        values = dense.get_submodule(name).weight.detach().numpy().ravel().astype(np.float64)
        by_mixture, by_kmeans = (FITS[fit](values, 4, 0) for fit in ("mixture", "kmeans"))
        wanted = by_mixture.centroids[by_mixture.indices]
        assert state[f"{name}.weight"].ravel() == pytest.approx(wanted, rel=1e-5)
        assert not np.array_equal(by_mixture.indices, by_kmeans.indices)


def test_another_fit_is_another_job() -> None:
    one, other = (
        JobOptions(board="x86-64", codebook=8, codebook_fit=fit).identity()
        for fit in ("kmeans", "mixture")
    )
    assert {name for name in one if one[name] != other[name]} == {"codebook_fit"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"codebook": "1"}, "--codebook 1: must be greater than or equal to 2"),
        ({"codebook": "257"}, "--codebook 257: must be less than or equal to 256"),
        ({"codebook_epochs": "3"}, "--codebook-epochs 3: without --codebook no weights"),
        ({"codebook_fit": "kmeans"}, "--codebook-fit kmeans: without --codebook no weights"),
        (
            {"codebook": "8", "codebook_fit": "linear"},
            "--codebook-fit linear: must be 'kmeans' or 'mixture'",
        ),
    ],
)
def test_wrong_values_are_refused(options: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        resolve_options({"board": "x86-64", **options})


def test_epochs_and_recipe() -> None:
    def epochs(steps: int, **given: int) -> int:
        return choose_epochs(JobOptions(board="x86-64", **given), steps, trained=True).codebook

    assert (epochs(350), epochs(350, codebook=16), epochs(10, codebook=16)) == (0, 5, 15)
    assert epochs(350, codebook=16, codebook_epochs=2) == 2
    options = JobOptions(board="x86-64", codebook=16, distill="features")
    recipe = codebook_recipe(options, choose_epochs(options, 350, trained=True), 128)
    assert recipe.distills and recipe.attention > 0
    rates = [recipe.rate(progress) for progress in (0.0, 0.5, 1.0)]
    assert rates == pytest.approx([recipe.learning_rate, recipe.learning_rate / 2, 0.0])
