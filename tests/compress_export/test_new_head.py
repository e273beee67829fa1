"""--new-head: weights of other classes through the whole job."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_jobs import NETWORK, run_here

from compress_export.options import JobOptions
from compress_export.schedule import choose_epochs
from compress_export.task import load_task
from compressor.saved import load_model

DATA = "three_digits:images"
START = [*NETWORK, "--board", "x86-64", "--formats", "onnx", "--max-drop", "50"]


def options(weights: Path, **more: object) -> JobOptions:
    chosen: dict[str, object] = {
        "board": "x86-64",
        "model": "tiny_networks:two_blocks",
        "data": DATA,
        "input_size": 8,
        "weights": weights,
        "new_head": True,
    }
    return JobOptions(**(chosen | more))  # type: ignore[arg-type]


def test_all_but_the_last_layer_is_kept_and_the_seed_decides_the_rest(trained: Path) -> None:
    said: list[str] = []
    first = load_task(options(trained), said.append).model.state_dict()
    again, other = (load_task(options(trained, seed=seed)).model.state_dict() for seed in (0, 1))
    for name, tensor in torch.load(trained, weights_only=True).items():
        assert name.startswith("head.") or torch.equal(first[name], tensor)
    assert first["head.weight"].shape == (3, 64)
    assert torch.equal(first["head.weight"], again["head.weight"])
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert said[1:] == ["weights: the last layer is new (head), for 3 classes"]


def test_a_new_head_is_trained_even_where_nobody_says_how_long(trained: Path) -> None:
    assert choose_epochs(options(trained), 10, trained=True).baseline == 30
    assert choose_epochs(options(trained, new_head=False), 10, trained=True).baseline == 0
    assert choose_epochs(options(trained, baseline_epochs=2), 10, trained=True).baseline == 2


def test_the_job_goes_on_from_other_classes_and_back_again(tmp_path: Path, trained: Path) -> None:
    words = "--search-epochs 1 --finetune-epochs 2 --target-macs 0.5 --new-head --data"
    given = [*START, *words.split(), DATA, "--weights", trained, "--baseline-epochs", "4"]
    ended = run_here(tmp_path / "three", *given)
    assert ended.code == 0, ended.complained
    stages = ended.report["stages"]
    assert stages["baseline"]["top1"] > 0.8  # a third would be chance
    assert stages["slim"]["macs"] <= 0.5 * stages["baseline"]["macs"]
    assert load_model(ended.out / "torch" / "slim")(torch.zeros(1, 3, 8, 8)).shape == (1, 3)

    before = ended.report["artifacts"]
    measured = run_here(ended.out, "--board", "x86-64", "--stages", "bench", "--force")
    assert measured.code == 0, measured.complained
    assert [f["top1"] for f in measured.report["artifacts"]] == [f["top1"] for f in before]

    back = [*START, "--weights", ended.out / "torch" / "slim", "--data", "digits"]
    refused = run_here(tmp_path / "ten", *back)
    assert refused.code == 2
    assert "the network has 3 classes, the data has 10; " in refused.complained
    assert "--new-head" in refused.complained
    task = load_task(options(ended.out / "torch" / "slim", data="digits"))
    assert task.model.eval()(torch.zeros(1, 3, 8, 8)).shape == (1, 10)


def test_a_teacher_of_other_classes_is_refused_without_naming_the_option(
    tmp_path: Path, trained: Path
) -> None:
    ended = run_here(
        tmp_path / "out", *START, "--data", DATA, "--weights", trained, "--new-head",
        "--teacher", trained,
    )  # fmt: skip
    assert ended.code == 2
    assert ended.complained == (
        f"compress-export: --teacher: weights {trained}: its last layer (head) has 10 classes, the "
        "data has 3; it has to know the same classes\n"
    )


@pytest.mark.parametrize("key", ["new-head", "new_head"])
def test_the_job_file_says_it_too(tmp_path: Path, trained: Path, key: str) -> None:
    from compress_export.job_file import resolve_options

    path = tmp_path / "job.yaml"
    path.write_text(f"board: x86-64\nweights: {trained}\n{key}: true\n", encoding="utf-8")
    assert resolve_options({"config": str(path)}).new_head
