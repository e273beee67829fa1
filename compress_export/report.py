"""Put the report together: plain JSON, documented in docs/report.md."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress_export.table import report_markdown

if TYPE_CHECKING:
    from compress_export.codebook import CodebookFigures
    from compress_export.first_aid_figures import FirstAid
    from compress_export.options import JobOptions
    from compress_export.precision_choice import Candidate
    from compress_export.quantization_training import QuantizationFigures
    from compress_export.reached import Reached
    from runtime_bench import Check, Measurement

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class NetworkFigures:
    """What is known of a torch network.

    Attributes:
        params: parameters.
        macs: multiply-accumulates of one image.
        sha256: of its weights as a file.
        score: mean of the metric (top-1 by default) on the test images, a fraction; None where they
            were not read.
        validation_score: the same on the validation images.
    """

    params: int
    macs: int
    sha256: str
    score: float | None
    validation_score: float | None


def build_report(
    options: JobOptions,
    board_id: str,
    networks: Mapping[str, NetworkFigures],
    measurements: Sequence[Measurement],
    checks: Sequence[Check],
    warnings: Sequence[str],
    timings_seconds: Mapping[str, float],
    target: str,
    limits: Sequence[Reached],
    codebook: CodebookFigures | None = None,
    quantization: QuantizationFigures | None = None,
    precision_choice: Sequence[Candidate] = (),
    first_aid: Sequence[FirstAid] = (),
    *,
    inputs: Mapping[str, Any],
    environment: Mapping[str, Any],
    made_by: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the report as plain JSON values.

    Args:
        networks: "baseline" and, where the network was slimmed, "slim".
        checks: budgets and targets.
        target: what the search had to reach, for people.
        limits: how near the slimmed network came to it.
        codebook: what sharing weights did, where they are shared.
        quantization: what training with rounding did, where there was any.
        precision_choice: what --precision auto or joint chose from.
        first_aid: what was tried for the accuracy of the quantized files, by format.
        inputs: what the job was given, as `provenance.inputs_of` has it.
        environment: this machine, as `provenance.environment` has it.
        made_by: "command", "options" and "environment" of the job that made the files, where this
            one only measured them again.
    """
    from runtime_bench import overall, violations

    return {
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "compress-export", "version": metadata.version("compress-export")},
        "board": board_id,
        "model": options.model,
        "data": options.data,
        "seed": options.seed,
        "target": target,
        "limits": [entry.to_json() for entry in limits],
        "codebook": None if codebook is None else codebook.to_json(),
        "first_aid": first_aid[0].to_json() if first_aid else None,
        "first_aid_further": [figures.to_json() for figures in first_aid[1:]],
        "precision_choice": [candidate.to_json() for candidate in precision_choice],
        "quantization_training": None if quantization is None else quantization.to_json(),
        "inputs": dict(inputs),
        "environment": dict(environment),
        "made_by": made_by,
        "command": ["compress-export", *sys.argv[1:]],
        "options": options.identity(),
        "metric": options.metric or "top-1",
        "stages": {
            name: _stage(name, figures, measurements, own_metric=options.metric is not None)
            for name, figures in networks.items()
        },
        "artifacts": [_artifact(item) for item in measurements],
        "checks": [check.to_json() for check in checks],
        "violations": [check.to_json() for check in violations(checks)],
        "verdict": overall(checks),
        "warnings": list(warnings),
        "timings_seconds": dict(timings_seconds),
    }


def write_report(report: Mapping[str, Any], folder: Path) -> None:
    """Write report.json and report.md."""
    text = json.dumps(report, indent=2, allow_nan=False)
    (folder / "report.json").write_text(text + "\n", encoding="utf-8")
    (folder / "report.md").write_text(report_markdown(report), encoding="utf-8")


def _stage(
    name: str, figures: NetworkFigures, measurements: Sequence[Measurement], *, own_metric: bool
) -> dict[str, Any]:
    wanted = (name, "onnx", "float32")
    size = [m.size_bytes for m in measurements if (m.stage, m.format, m.precision) == wanted]
    return {
        "params": figures.params,
        "macs": figures.macs,
        "sha256": figures.sha256,
        "size_bytes": size[0] if size else None,
        "top1": None if own_metric else figures.score,
        "validation_top1": None if own_metric else figures.validation_score,
        "score": figures.score if own_metric else None,
        "validation_score": figures.validation_score if own_metric else None,
    }


def _artifact(item: Measurement) -> dict[str, Any]:
    entry = item.to_json()
    folder = Path(entry.pop("folder")).name
    return {**entry, "path": f"{folder}/{item.path}"}
