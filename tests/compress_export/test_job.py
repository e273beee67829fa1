"""The whole job on a tiny network: what it leaves behind, and how its options change that."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from tiny_jobs import NETWORK, QUICK, Ended, run_here

from boards import load_board
from compress_export.exit_codes import verdict_code
from compress_export.reproducing import figure_differences
from compressor.saved import load_model
from runtime_bench import open_samples, read_manifest, verify_files, verify_sums

ROOT = Path(__file__).parents[2]
Job = Callable[..., Ended]


@pytest.fixture(scope="session")
def jetson(tmp_path_factory: pytest.TempPathFactory, trained: Path) -> Ended:
    """All stages for the Jetson. Tests only read it."""
    out = tmp_path_factory.mktemp("jetson") / "out"
    wanted = "--board jetson.yaml --target-macs 0.5 --max-drop 60 --bundle-samples 20"
    return run_here(out, *NETWORK, *QUICK, "--weights", trained, *wanted.split())


# -- what one job leaves ---------------------------------------------------------------------------


def test_every_file_is_there(jetson: Ended) -> None:
    assert jetson.complained == ""
    found = {path.relative_to(jetson.out).as_posix() for path in jetson.out.rglob("*.*")}
    kinds = [f"{p}.{f}" for p in ("float32", "int8") for f in ("onnx", "tflite")]
    saved = ("model.json", "model.safetensors", "input.json")
    assert found == {
        "report.json",
        "report.md",
        "report.html",
        *(f"evidence/{name}.json" for name in ("agents", "latency", "layers", "memory")),
        *(f"evidence/{name}.npz" for name in ("answers", "changed")),
        "bundle/slim.int8.onnx",
        "bundle/slim.int8.tflite",
        "bundle/manifest.json",
        "bundle/labels.txt",
        "bundle/example.py",
        "bundle/README.md",
        "bundle/bench.pyz",
        "bundle/samples.npz",
        *(f"reference/baseline.{kind}" for kind in kinds),
        "reference/slim.float32.onnx",
        "reference/slim.float32.tflite",
        "reference/manifest.json",
        *(f"torch/{network}/{name}" for network in ("baseline", "slim") for name in saved),
    }
    assert not (jetson.run / "staged").exists()


def test_evidence_is_what_the_reports_figures_were_made_of(jetson: Ended) -> None:
    folder = jetson.out / "evidence"

    def read(name: str) -> Any:
        return json.loads((folder / name).read_text())

    latency, memory = read("latency.json"), read("memory.json")
    answers = np.load(folder / "answers.npz")
    for entry in jetson.report["artifacts"]:
        name = entry["name"]
        assert len(latency[name]) == entry["latency_runs"] == 5
        assert np.percentile(latency[name], 50) == pytest.approx(entry["latency_ms"]["p50"], 1e-3)
        assert max(memory[name]["live_bytes"]) == entry["activation_bytes"]
        assert len(memory[name]["operators"]) == len(memory[name]["live_bytes"])
        assert (answers[name] == answers["labels"]).mean() == pytest.approx(entry["top1"])
    for stage, figures in jetson.report["stages"].items():
        found = answers[f"torch {stage}"]
        assert (found == answers["labels"]).mean() == pytest.approx(figures["top1"])
    nets = [load_model(jetson.out / "torch" / name) for name in ("baseline", "slim")]
    for layer in read("layers.json"):
        widths = [net.get_submodule(layer["layer"]).weight.shape[0] for net in nets]
        assert widths == [layer["channels"], layer["kept"]]
    (agents,) = read("agents.json")
    assert agents["progress"][-1] == 1.0
    assert np.sum(agents["certainty"], axis=1) == pytest.approx(1.0, abs=1e-3)
    page = (jetson.out / "report.html").read_text()
    for key in ("layers", "certainty-rung-1", "latency", "memory", "before", "after"):
        assert f'id="{key}-title"' in page


def test_the_code_agrees_with_the_verdict(jetson: Ended) -> None:
    report = jetson.report
    statuses = [check["status"] for check in report["checks"]]
    assert report["verdict"] == "unverified"  # the Jetson's memory can't be measured here
    assert jetson.code == verdict_code(statuses, require_measured=False) == 0
    assert report["violations"] == []
    limits = load_board("jetson").budgets.limits() | {"accuracy_drop_points": 60.0}
    assert {c["budget"]: c["limit"] for c in report["checks"]} == limits


def documented_keys(heading: str) -> set[str]:
    """The first column of the table below a heading of docs/report.md."""
    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    section = re.split(r"^## ", text, flags=re.MULTILINE)
    (body,) = [part for part in section if part.startswith(heading)]
    cells = re.findall(r"^\| (`.*?`) \|", body, flags=re.MULTILINE)
    return set(re.findall(r"`(\w+)`", " ".join(cells)))


def test_the_report_has_exactly_the_documented_keys(jetson: Ended) -> None:
    report = jetson.report
    assert report["schema_version"] == 1
    assert set(report) == documented_keys("Top level")
    for stage in ("baseline", "slim"):
        assert set(report["stages"][stage]) == documented_keys("stages.baseline")
    for artifact in report["artifacts"]:
        assert set(artifact) == documented_keys("artifacts[]")
        assert set(artifact["latency_ms"]) == {"p50", "p90", "p99"}
    for check in report["checks"]:
        assert set(check) == documented_keys("checks[]")


def test_figures_of_the_report_are_those_of_the_files(jetson: Ended) -> None:
    artifacts = jetson.report["artifacts"]
    assert len(artifacts) == 8
    for entry in artifacts:
        path = jetson.out / entry["path"]
        assert path.stat().st_size == entry["size_bytes"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]
        assert entry["measured_on"] == "host"
        assert entry["samples"] == 359
        assert 0 < entry["top1"] <= 1
        assert entry["agreement"] > 0.9
        assert 0 < entry["latency_ms"]["p50"] <= entry["latency_ms"]["p90"]
    sizes = {entry["name"]: entry["size_bytes"] for entry in artifacts}
    for stage in ("baseline", "slim"):
        for kind in ("onnx", "tflite"):
            assert sizes[f"{stage}.int8.{kind}"] < 0.6 * sizes[f"{stage}.float32.{kind}"]
        assert jetson.report["stages"][stage]["size_bytes"] == sizes[f"{stage}.float32.onnx"]


def test_target_macs_is_met_exactly(jetson: Ended) -> None:
    stages = jetson.report["stages"]
    share = stages["slim"]["macs"] / stages["baseline"]["macs"]
    assert 0.49 <= share <= 0.5
    assert stages["slim"]["params"] < stages["baseline"]["params"]


def test_the_bundle_stands_alone(jetson: Ended) -> None:
    manifest = read_manifest(jetson.out / "bundle")
    verify_files(manifest)
    sums = (jetson.out / "bundle" / "SHA256SUMS").read_text().split()[1::2]
    assert {*sums, "SHA256SUMS"} == {path.name for path in (jetson.out / "bundle").iterdir()}
    verify_sums(jetson.out / "bundle")
    assert manifest.board.id == "jetson"
    assert manifest.image_shape == (3, 8, 8)
    assert manifest.classes == tuple("0123456789")
    by_format = {file.format: file for file in manifest.files}
    assert by_format["onnx"].input.dtype == "float32"
    assert by_format["tflite"].input.dtype == by_format["tflite"].output.dtype == "int8"
    card = (jetson.out / "bundle" / "README.md").read_text()
    assert "trtexec --onnx=slim.int8.onnx" in card
    assert "model-index:" in card and "Top-1 of slim.int8.onnx" in card


def test_the_bundle_measures_itself(jetson: Ended, tmp_path: Path) -> None:
    bundle = shutil.copytree(jetson.out / "bundle", tmp_path / "elsewhere")
    packed = open_samples(bundle / "samples.npz", (3, 8, 8), 10)
    assert np.bincount(packed.labels).tolist() == [2] * 10
    figures = tmp_path / "figures.json"
    command = [sys.executable, str(bundle / "bench.pyz"), "--samples", "--runs", "2"]
    done = subprocess.run(
        [*command, "--json", str(figures)], capture_output=True, text=True, check=False
    )
    found = json.loads(figures.read_text())
    assert (found["verdict"], done.returncode) == ("unverified", 0), done.stderr
    assert {item["samples"] for item in found["measurements"]} == {20}


@pytest.mark.parametrize("name", ["slim.int8.onnx", "slim.int8.tflite"])
def test_the_example_classifies_an_image(jetson: Ended, tmp_path: Path, name: str) -> None:
    bundle = shutil.copytree(jetson.out / "bundle", tmp_path / "elsewhere")
    with np.load(jetson.run / "samples.npz") as samples:
        image, expected = samples["images"][3], samples["predictions_slim"][3]
    Image.fromarray(image).save(tmp_path / "digit.png")
    done = subprocess.run(
        [sys.executable, "example.py", str(tmp_path / "digit.png"), name],
        cwd=bundle,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"{expected} ")
    assert name in done.stdout


def test_the_table_is_printed(jetson: Ended) -> None:
    lines = jetson.said.splitlines()
    rows = [line.split("  ")[0].strip() for line in lines]
    assert [r for r in rows if r in ("baseline", "slim", "ONNX INT8", "TFLite INT8")] == [
        "baseline",
        "slim",
        "ONNX INT8",
        "TFLite INT8",
    ]
    assert "verdict: unverified" in lines
    assert "\x1b" not in jetson.said
    assert jetson.said.endswith(f"written to {jetson.out}\n")


def test_curves_and_rows_are_kept(jetson: Ended) -> None:
    for stage in ("search", "finetune"):
        with (jetson.run / "rung-1" / f"{stage}.csv").open(newline="") as file:
            assert [row["epoch"] for row in csv.DictReader(file)] == ["1"]
    assert list((jetson.run / "tensorboard").iterdir())


def test_saved_networks_go_on(jetson: Ended, tmp_path: Path) -> None:
    """Architecture and input come from the folder: neither --model nor --input-size is given."""
    options = "--board x86-64 --stages quantize --formats onnx --baseline-epochs 0"
    slim = jetson.out / "torch" / "slim"
    again = run_here(tmp_path / "again", *options.split(), "--weights", slim)
    assert again.code == 0, again.complained
    before, after = jetson.report["stages"]["slim"], again.report["stages"]["baseline"]
    assert (after["params"], after["macs"]) == (before["params"], before["macs"])
    assert after["validation_top1"] == before["validation_top1"]
    shape = read_manifest(again.out / "bundle").image_shape
    assert shape == read_manifest(jetson.out / "bundle").image_shape == (3, 8, 8)


def test_bench_alone_measures_a_folder_again(jetson: Ended, tmp_path: Path) -> None:
    shutil.copytree(jetson.out, tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    options = "--board jetson --stages bench --latency-runs 5 --require-measured --max-drop 60"
    again = run_here(tmp_path / "out", *options.split(), "--bundle-samples", "30")
    assert again.code == 4, again.complained  # the Jetson's memory was not measured on one
    old, new = jetson.report, again.report
    assert new["stages"] == old["stages"]
    for name in ("sha256", "top1", "path"):
        assert [a[name] for a in new["artifacts"]] == [a[name] for a in old["artifacts"]]
    assert len(open_samples(again.out / "bundle" / "samples.npz")) == 30
    verify_sums(again.out / "bundle")
    assert figure_differences(old, new) == []
    assert (again.out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--max-drop 1", "--max-drop: --stages bench measures files as they are, which were made"),
        ("--seed 9", "--seed: --stages bench measures files as they are, which were made with 0"),
    ],
)
def test_measuring_again_refuses_what_it_can_not_do(
    jetson: Ended, tmp_path: Path, words: str, said: str
) -> None:
    shutil.copytree(jetson.out, tmp_path / "out")
    refused = run_here(tmp_path / "out", "--board", "jetson", "--stages", "bench", *words.split())
    assert refused.code == 2
    assert said in refused.complained
    assert refused.complained.count("\n") == 1


# -- options ---------------------------------------------------------------------------------------


def test_prune_alone_then_force(job: Job, tmp_path: Path) -> None:
    words = "--board jetson --stages prune --target-macs 0.4"
    first = job(words)
    assert first.code == 0, first.complained
    assert sorted(path.name for path in first.out.iterdir()) == [
        "evidence",
        "report.html",
        "report.json",
        "report.md",
        "torch",
    ]
    assert first.report["artifacts"] == []
    assert first.report["verdict"] == "pass"
    weights = (first.out / "torch" / "slim" / "model.safetensors").read_bytes()

    refused = job(words)
    assert refused.code == 2
    assert "--force" in refused.complained

    second = job(words, "--force")
    assert second.code == 0, second.complained
    assert second.report["stages"] == first.report["stages"]
    assert (second.out / "torch" / "slim" / "model.safetensors").read_bytes() == weights


def test_quantize_alone(job: Job) -> None:
    ended = job("--board jetson --stages quantize --formats onnx")
    assert ended.code == 0, ended.complained
    report = ended.report
    assert set(report["stages"]) == {"baseline"}
    names = {artifact["path"] for artifact in report["artifacts"]}
    assert names == {"bundle/baseline.int8.onnx", "reference/baseline.float32.onnx"}
    assert {a["top1"] for a in report["artifacts"]} == {None}
    decided = {c["budget"]: c["status"] for c in report["checks"]}
    assert decided["file_size_mib"] == "pass"
    assert decided["accuracy_drop_points"] == "unverified"


def test_a_size_is_met(job: Job) -> None:
    ended = job("--board jetson --stages prune,quantize --formats onnx --target-size 30KiB")
    assert ended.code == 0, ended.complained
    sizes = {a["name"]: a["size_bytes"] for a in ended.report["artifacts"]}
    assert sizes["baseline.int8.onnx"] > 30 * 1024
    assert 20 * 1024 < sizes["slim.int8.onnx"] <= 30 * 1024


def test_a_size_that_cannot_be_met_is_code_1_and_says_by_how_much(job: Job) -> None:
    ended = job("--board jetson --stages prune,quantize --formats onnx --target-size 4KiB")
    assert ended.code == 1, ended.complained
    assert ended.complained == ""
    report = ended.report
    assert report["verdict"] == "fail"
    by_budget = {check["budget"]: check for check in report["violations"]}
    assert set(by_budget) == {"target", "file_size_mib"}
    missed = by_budget["file_size_mib"]
    assert missed["limit"] == pytest.approx(4 / 1024)
    assert f"over by {missed['value'] - missed['limit']:.4g} MiB" in ended.said
    verify_files(read_manifest(ended.out / "bundle"))
    assert (ended.out / "report.md").read_text().startswith("# tiny_networks:two_blocks")


def test_a_share_of_macs_that_cannot_be_met(job: Job) -> None:
    ended = job("--board jetson --stages prune --target-macs 0.001")
    assert ended.code == 1
    (missed,) = ended.report["violations"]
    assert missed["budget"] == "target"
    assert missed["value"] > 1
    assert f"over by {missed['value'] - 1:.4g} times the target" in ended.said


def test_rounds_train_between_them(job: Job) -> None:
    words = "--board jetson --stages prune --method taylor --rounds 2 --target-macs 0.4"
    ended = job(f"{words} --search-epochs 2")
    assert ended.code == 0, ended.complained
    stages = ended.report["stages"]
    assert stages["slim"]["macs"] <= 0.4 * stages["baseline"]["macs"]
    with (ended.run / "rung-1" / "round 1.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]


def test_options_of_the_files_reach_them(job: Job) -> None:
    words = "--precision int8,int8-dynamic --raw-input --calibration percentile"
    ended = job(f"--board x86-64 --stages quantize,bench --formats onnx --max-drop 90 {words}")
    assert ended.code == 0, ended.complained
    assert {artifact["path"] for artifact in ended.report["artifacts"]} == {
        "bundle/baseline.int8.onnx",
        "reference/baseline.int8-dynamic.onnx",
        "reference/baseline.float32.onnx",
    }
    (shipped,) = read_manifest(ended.out / "bundle").files
    assert shipped.input.dtype == "uint8"
    scores = [artifact["top1"] for artifact in ended.report["artifacts"]]
    assert min(scores) > max(scores) - 0.1


def test_the_papers_method(job: Job) -> None:
    ended = job("--board jetson --stages prune --method paper --penalty 2 --target-macs 0.6")
    assert ended.code == 0, ended.complained
    stages = ended.report["stages"]
    assert stages["slim"]["macs"] <= 0.6 * stages["baseline"]["macs"]


def test_the_ladder_keeps_the_rows_of_every_rung(job: Job) -> None:
    ended = job("--board jetson --stages prune --max-drop 100")
    assert ended.code == 0, ended.complained
    rungs = sorted(path.name for path in ended.run.glob("rung-*"))
    assert len(rungs) > 1
    shares = []
    for rung in rungs:
        with (ended.run / rung / "search.csv").open(newline="") as file:
            (row,) = csv.DictReader(file)
        shares.append(float(row["kept_share"]))
        assert (ended.run / rung / "finetune.csv").is_file()
    assert shares[0] != shares[1]
    assert "smallest net within 100 points" in ended.report["target"]


def test_a_job_file(job: Job, tmp_path: Path) -> None:
    content = {"board": "rpi4", "stages": ["prune"], "target-macs": 0.7, "seed": 5}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(content))
    ended = job("--target-macs 0.5 --config", tmp_path / "job.yaml")
    assert ended.code == 0, ended.complained
    report = ended.report
    assert (report["board"], report["seed"]) == ("rpi4", 5)
    assert report["options"]["target_macs"] == 0.5


def test_a_dry_run_writes_nothing(job: Job, tmp_path: Path) -> None:
    ended = job("--board esp32s3 --dry-run")
    assert ended.code == 0, ended.complained
    assert list(tmp_path.iterdir()) == []
    for said in ("ESP32-S3", "does not bind", "smallest net within 1 points", "training: about"):
        assert said in ended.said


def test_a_dry_run_plans_the_stages_that_are_named(job: Job, jetson: Ended) -> None:
    ended = job("--board jetson --stages quantize,bench --dry-run")
    assert ended.code == 0, ended.complained
    assert "search 0, fine-tuning 0" in ended.said
    assert "target:" not in ended.said and "rung" not in ended.said
    occupied = run_here(jetson.out, *NETWORK, "--board", "jetson", "--dry-run")
    assert occupied.code == 2
    assert "exists; replace it with --force" in occupied.complained
    again = run_here(jetson.out, "--board", "jetson", "--stages", "bench", "--dry-run")
    assert again.code == 0, again.complained
    assert again.said.startswith("stages:   bench, of the files in")
    nothing = job("--board jetson --stages bench --dry-run")
    assert nothing.code == 2
    assert "holds no bundle/" in nothing.complained


def test_a_board_without_int8_gets_float16(job: Job) -> None:
    ended = job("--board jetson-nano --stages quantize --formats onnx")
    assert ended.code == 0, ended.complained
    artifacts = {a["path"]: a for a in ended.report["artifacts"]}
    small, whole = "bundle/baseline.float16.onnx", "reference/baseline.float32.onnx"
    assert set(artifacts) == {small, whole}
    assert artifacts[small]["size_bytes"] < 0.6 * artifacts[whole]["size_bytes"]


def test_a_microcontrollers_memory_binds(job: Job, tmp_path: Path) -> None:
    """TFLite alone, activations within the budget, widths in the board's steps."""
    board = yaml.safe_load((ROOT / "boards" / "esp32s3.yaml").read_text())
    board["budgets"]["activation_memory_mib"] = 3500 / 2**20
    board["budgets"]["accuracy_drop_points"] = 90.0
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(board))
    ended = job("--stages prune,quantize --board", tmp_path / "small.yaml")
    assert ended.code == 0, ended.complained
    report = ended.report
    assert "misses activation_memory_mib" in report["target"]
    deployed = [a for a in report["artifacts"] if a["path"].startswith("bundle/")]
    assert [a["name"] for a in deployed] == ["slim.int8.tflite"]
    assert deployed[0]["activation_bytes"] <= 3500
    edits = json.loads((ended.out / "torch" / "slim" / "model.json").read_text())["edits"]
    widths = [edit["out_channels"] for edit in edits.values() if "out_channels" in edit]
    assert widths
    assert all(width % 8 == 0 for width in widths)
