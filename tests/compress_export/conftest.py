"""One trained checkpoint of the tiny network, and jobs that start from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_jobs import NETWORK, QUICK, Ended, run_here


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the tiny network, trained on the digits for a few seconds."""
    import torch
    from tiny_networks import two_blocks

    from compress_export.data import load_data

    torch.manual_seed(0)
    torch.set_num_threads(1)
    data = load_data("digits", input_size=8)
    images, labels = data.train.batch(range(len(data.train)))
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, None, :, None, None]
    x = (images / 255 - mean) / std  # (N, 3, 8, 8)
    model = two_blocks(10).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(8):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - epoch / 8)
        for rows in torch.randperm(len(x)).split(64):
            loss = torch.nn.functional.cross_entropy(model(x[rows]), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    path = tmp_path_factory.mktemp("weights") / "trained.pt"
    torch.save(model.state_dict(), path)
    return path


@pytest.fixture
def job(tmp_path: Path, trained: Path) -> Callable[..., Ended]:
    """Run a quick job from the trained weights; DIR is `tmp_path/out`, the words are options."""

    def run(words: str, *more: str | Path) -> Ended:
        start = [*NETWORK, *QUICK, "--weights", trained]
        return run_here(tmp_path / "out", *start, *words.split(), *more)

    return run
