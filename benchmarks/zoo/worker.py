"""One network in a process of its own: `python -m benchmarks.zoo.worker REQUEST`.

REQUEST is JSON: {"model", "size", "seed", "formats", "peer"}. Each finished stage answers with one
JSON object a line on stdout, {"fields": {...}} or {"error": message, "stage": name}; what came
before a crash is thus kept.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.zoo.analysis import (
    analyse,
    branches_emptied,
    exactness,
    half_kept,
    parameters,
)
from benchmarks.zoo.files import convert
from benchmarks.zoo.images import crops
from benchmarks.zoo.models import CLASSES
from benchmarks.zoo.peer import prune_with_peer
from benchmarks.zoo.values import fit_head, randomize, settle
from compressor.models import build_model
from compressor.slim import slim
from compressor.verify import mask_effect

CALIBRATION_IMAGES = 32
FITTING_IMAGES = 160
IMAGES = 64
EXACT_IMAGES = 2
MESSAGE_CHARACTERS = 400

Answer = Callable[[dict[str, Any]], None]


class Failed(Exception):
    """A stage failed and has said so; what builds on it is left out."""


@contextmanager
def stage(name: str, answer: Answer) -> Iterator[dict[str, Any]]:
    """Collect the fields of a stage and answer with them, or with why it failed."""
    fields: dict[str, Any] = {}
    try:
        yield fields
    except Exception as error:
        traceback.print_exc()
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        answer({"stage": name, "error": f"{text[:MESSAGE_CHARACTERS]} ({place_of(error)})"})
        raise Failed from error
    answer({"fields": fields})


def place_of(error: BaseException) -> str:
    """File and line that raised, from its package on: the cause may be a tool's."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    parts = Path(frame.filename).parts
    start = parts.index("site-packages") + 1 if "site-packages" in parts else -3
    return f"{'/'.join(parts[start:])}:{frame.lineno}"


def take_through(request: dict[str, Any], answer: Answer) -> None:
    """Build, analyse, slim, convert and run one network."""
    size, seed = request["size"], request["seed"]
    with stage("build", answer) as fields:
        model = prepared(request["model"], size, seed)
        fields["parameters"] = parameters(model)
    if request["peer"]:
        with stage("prune", answer) as fields:
            fields.update(prune_with_peer(model, torch.from_numpy(crops(EXACT_IMAGES, size, 0)[0])))
        return
    with stage("analysis", answer) as fields:
        graph, found = analyse(model, torch.zeros(1, 3, size, size))
        fields.update(found)
    with stage("slim", answer) as fields:
        keep = half_kept(graph, seed)
        images = torch.from_numpy(crops(EXACT_IMAGES, size, seed)[0])
        fields["effect"] = mask_effect(model, graph, keep, images)
        fields["error_half"] = exactness(model, graph, keep, images)
        fields["error_emptied"] = exactness(model, graph, branches_emptied(graph, keep), images)
        slimmed = slim(model, graph, keep).eval()
        fields["parameters_left"] = parameters(slimmed)
    with stage("fit", answer) as fields:
        fields.update(fitted(slimmed, size, seed))
    for format in request["formats"]:
        with going_on(), stage(format, answer) as fields:
            fields[format] = converted(slimmed, format, size, seed)


@contextmanager
def going_on() -> Iterator[None]:
    """Go on after a stage that nothing else builds on."""
    try:
        yield
    except Failed:
        return


def prepared(name: str, size: int, seed: int) -> nn.Module:
    """A network in eval mode with values that show mistakes."""
    torch.manual_seed(seed)
    model = build_model(name, CLASSES).eval()
    randomize(model, seed)
    settle(model, torch.from_numpy(crops(CALIBRATION_IMAGES, size, seed)[0]))
    return model


def fitted(slimmed: nn.Module, size: int, seed: int) -> dict[str, Any]:
    """Make a classifier of a slimmed network, in place; how many of new crops it tells right."""
    settle(slimmed, torch.from_numpy(crops(CALIBRATION_IMAGES, size, seed)[0]))
    images, labels = (torch.from_numpy(part) for part in crops(FITTING_IMAGES, size, seed + 1))
    fitted = fit_head(slimmed, images, labels)
    images, labels = (torch.from_numpy(part) for part in crops(IMAGES, size, seed + 2))
    with torch.no_grad():
        right = (slimmed(images).argmax(1) == labels).float().mean()
    return {"head_fitted": fitted, "top1_float": round(float(right), 4)}


def converted(slimmed: nn.Module, format: str, size: int, seed: int) -> dict[str, Any]:
    """The fields of one format."""
    calibration, _ = crops(CALIBRATION_IMAGES, size, seed)
    images, _ = crops(IMAGES, size, seed + 2)
    with tempfile.TemporaryDirectory() as folder:
        return convert(slimmed, format, calibration, images, Path(folder))


def warm_up() -> None:
    """Load what the first analysis of a process would load, so that no network is charged it."""
    analyse(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)).eval(), torch.zeros(1, 3, 4, 4))


def main() -> int:
    """Answer one request."""
    # Native libraries print to fd 1 as they please: give them stderr, keep stdout for answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(content: dict[str, Any]) -> None:
        answers.write(json.dumps(content) + "\n")
        answers.flush()

    torch.set_num_threads(1)
    warm_up()
    with going_on():  # a stage that failed has said so
        take_through(json.loads(sys.argv[1]), answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
