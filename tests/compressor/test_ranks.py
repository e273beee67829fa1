"""Several processes do what one does: the same steps, the same choice, to rounding."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ranks_worker import everything
from torch import Tensor

from compressor import ranks
from compressor.ranks import Share

HERE = Path(__file__).parent
LIMIT_S = 600
TOLERANCE = 1e-5
"""Of what float32 adds up in another order, relative to the largest value."""


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return everything()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What three processes end with."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "3"]
    paths = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    subprocess.run(
        [*command, str(HERE / "ranks_worker.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=LIMIT_S,
        capture_output=True,
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(3)]


def difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest one of a tensor, relative to its largest value."""
    assert ours.keys() == theirs.keys()
    return max(
        float((ours[name] - theirs[name]).abs().max() / theirs[name].abs().max().clamp_min(1e-6))
        for name in theirs
        if theirs[name].is_floating_point()
    )


def test_training_with_frozen_statistics_is_that_of_one_process(
    alone: dict[str, Any], together: list[dict[str, Any]]
) -> None:
    expected, found = alone["frozen"], together[0]["frozen"]
    assert found["score"] == expected["score"]
    assert found["losses"] == pytest.approx(expected["losses"], rel=TOLERANCE)
    assert difference(found["weights"], expected["weights"]) < TOLERANCE


def test_the_search_chooses_the_channels_of_one_process(
    alone: dict[str, Any], together: list[dict[str, Any]]
) -> None:
    expected, found = alone["search"], together[0]["search"]
    assert 0 < sum(expected["keep"]) < len(expected["keep"])
    assert found["keep"] == expected["keep"]
    assert found["left"] == expected["left"]
    ranked = torch.tensor(expected["left"])
    assert found["ranking"][ranked] == pytest.approx(expected["ranking"][ranked], rel=1e-3)
    assert difference(found["weights"], expected["weights"]) < TOLERANCE


def test_all_processes_end_with_the_same(together: list[dict[str, Any]]) -> None:
    """Also with batch norms that each see their own images."""
    for other in together[1:]:
        for part in ("frozen", "plain", "search"):
            ours, theirs = together[0][part], other[part]
            assert ours.keys() == theirs.keys()
            weights = zip(ours["weights"].values(), theirs["weights"].values(), strict=True)
            assert all(torch.equal(a, b) for a, b in weights)
        assert other["plain"]["losses"] == together[0]["plain"]["losses"]
        assert other["first"]["from"][0] == 0
        assert torch.equal(other["first"]["from"][1], torch.tensor([0.5]))


def test_batch_norm_sees_the_images_of_its_process(
    alone: dict[str, Any], together: list[dict[str, Any]]
) -> None:
    """Running means are of the whole batch all the same, where all shares are equal."""
    expected, found = alone["plain"]["weights"], together[0]["plain"]["weights"]
    assert difference(found, expected) > TOLERANCE
    assert found["bn1.running_mean"] == pytest.approx(expected["bn1.running_mean"], abs=0.1)


def test_one_process_computes_as_if_there_were_no_others() -> None:
    losses = torch.rand(7, requires_grad=True)
    share = ranks.share(7)
    assert share == Share(7)
    assert share.of(losses) is losses
    assert share.union(losses) is losses
    assert torch.equal(share.mean(losses), losses.mean())
    assert (ranks.count(), ranks.rank(), ranks.is_first()) == (1, 0, True)


@given(images=st.integers(1, 40), count=st.integers(2, 9), first=st.integers(0, 40))
def test_shares_cover_a_batch(images: int, count: int, first: int) -> None:
    rows, early, mean = [], 0, 0.0
    for rank in range(count):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ranks, "count", lambda: count)
            patch.setattr(ranks, "rank", lambda rank=rank: rank)
            share = ranks.share(images)
            own = share.of(torch.arange(images, dtype=torch.float64))
            assert len(own) >= min(2, images)
            assert share.first(first) == int((own < first).sum())
            mean += float(share.mean(own))
            early += share.first(first)
        rows.append(own.int().tolist())
    everything = list(range(images))
    if images >= 2 * count:
        assert sorted(sum(rows, [])) == everything
        assert early == min(first, images)
    else:
        assert rows == [everything] * count
    assert mean == pytest.approx((images - 1) / 2)


def test_tensors_of_the_first_process_do_not_arrive_on_its_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    buffer = io.BytesIO()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(torch.serialization, "location_tag", lambda _: "cuda:99")
        torch.save({"weights": torch.arange(3)}, buffer)
    content = torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
    sent = iter([torch.tensor(len(content)), content])
    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr(ranks, "rank", lambda: 1)
    monkeypatch.setattr(ranks.group, "broadcast", lambda tensor, _: tensor.copy_(next(sent)))
    received = ranks.from_first(lambda: {})
    assert received["weights"].tolist() == [0, 1, 2]
    assert received["weights"].device == torch.device("cpu")
