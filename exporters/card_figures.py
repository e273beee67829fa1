"""What a model card takes from the job's report (docs/report.md): plain JSON in, Markdown out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from exporters.artifacts import Exported
from exporters.export import ACTIVATION_BITS

Report = Mapping[str, Any]


def top1_results(
    report: Report, files: Sequence[Exported], dataset_id: str | None
) -> list[dict[str, Any]]:
    """Return the `results` of a model-index: top-1 of each file, a fraction; [] without any."""
    name = PurePath(report["data"]).name
    metrics = [
        {"type": "accuracy", "name": f"Top-1 of {entry['name']}", "value": round(entry["top1"], 6)}
        for entry in _measured(report, files)
        if entry["top1"] is not None
    ]
    if not metrics:
        return []
    return [
        {
            "task": {"type": "image-classification", "name": "Image classification"},
            "dataset": {"name": name, "type": dataset_id or name, "split": "test"},
            "metrics": metrics,
        }
    ]


def how_made(report: Report, files: Sequence[Exported]) -> str:
    """Return what was done to the original network, one line each.

    Args:
        files: of the bundle; ranges are taken for those with static integers alone.
    """
    stages, options = report["stages"], report["options"]
    baseline, slim = stages.get("baseline"), stages.get("slim")
    lines = []
    if baseline is not None:
        lines.append(f"The original is {report['model']}: {_size_of(baseline)}.")
    if slim is not None and options.get("codebook") is not None:
        lines.append(f"Layers share {options['codebook']} weights each.")
    if slim is not None and report.get("target"):
        lines.append(
            f"Pruned with the method {options['method']} ({_recovery(options)}), to "
            f"{report['target']}: {_size_of(slim)}."
        )
    if training := report.get("quantization_training"):
        lines.append(f"Trained with the rounding of {training['precision']} files.")
    for aid in (report.get("first_aid"), *report.get("first_aid_further", ())):
        kept = [] if aid is None else [r["name"] for r in aid["remedies"] if r["kept"]]
        if kept:
            rounded = f"{aid['precision']} {aid['format']}"
            lines.append(f"For the accuracy of the {rounded} files: {', '.join(kept)}.")
    if any(file.precision in ACTIVATION_BITS for file in files):
        # The option is a limit: a small set has fewer.
        most = options["calibration_samples"]
        lines.append(f"Quantization took its ranges from training images, at most {most}.")
    return "".join(f"- {line}\n" for line in lines)


def _recovery(options: Mapping[str, Any]) -> str:
    """What came after the channels went; epochs that were left open are some."""
    # A search trains, too, and methods without one leave its epochs to fine-tuning.
    if options.get("search_epochs") == options.get("finetune_epochs") == 0:
        return "channels removed for good, without training"
    teacher = "by training" if options.get("distill") == "none" else "by distillation"
    return f"channels removed for good, accuracy recovered {teacher}"


def evaluation(report: Report, files: Sequence[Exported]) -> str:
    """Return accuracy, speed and memory of each file, and the board's budgets, as tables."""
    metric = report.get("metric", "top-1")
    own = metric != "top-1"
    rows = [_row(entry, own) for entry in _measured(report, files)]
    baseline = report["stages"].get("baseline", {}).get("score" if own else "top1")
    where = sorted({entry["measured_on"] for entry in _measured(report, files)})
    samples = next((e["samples"] for e in _measured(report, files) if e.get("samples")), None)
    images = "test images" if samples is None else f"{samples} test images"
    return (
        f"| File | {metric} | Same answer as the torch network | p50 / p90, ms | Peak RSS, MiB |\n"
        f"|---|---|---|---|---|\n{''.join(rows)}\n"
        f"On the {images}, measured on the {' and '.join(where) or 'host'}; the original network "
        f"in torch has {_number(baseline, '.4f')}. A dash: not measured. {_budgets(report)}"
    )


def provenance(report: Report) -> str:
    """Return with what the files were made."""
    environment = report["environment"]
    libraries = ", ".join(f"{n} {v}" for n, v in environment["libraries"].items() if v)
    return (
        f"Made with {report['tool']['name']} {report['tool']['version']} (seed {report['seed']}, "
        f"Python {environment['python']}, {libraries}). `report.json` of the run has the command, "
        "all options, every figure and what was tried besides.\n"
    )


def _measured(report: Report, files: Sequence[Exported]) -> list[Mapping[str, Any]]:
    sums = {file.sha256 for file in files}
    return [entry for entry in report["artifacts"] if entry["sha256"] in sums]


def _row(entry: Mapping[str, Any], own: bool) -> str:
    latency = entry["latency_ms"]
    times = "-" if latency is None else f"{latency['p50']:.3g} / {latency['p90']:.3g}"
    peak = entry["peak_rss_bytes"]
    return (
        f"| {entry['name']} | {_number(entry['score' if own else 'top1'], '.4f')} | "
        f"{_number(entry['agreement'], '.4f')} | {times} | "
        f"{_number(None if peak is None else peak / 2**20, '.1f')} |\n"
    )


def _budgets(report: Report) -> str:
    if not report["checks"]:
        return "The board has no budgets.\n"
    rows = "".join(
        f"| {check['file']} | {check['budget']} | {_number(check['value'], '.4g')} | "
        f"{check['limit']:.4g} {check['unit']} | {check['status']} |\n"
        for check in report["checks"]
    )
    return (
        "The board's budgets:\n\n"
        f"| File | Budget | Value | Limit | Status |\n|---|---|---|---|---|\n{rows}"
    )


def _size_of(stage: Mapping[str, Any]) -> str:
    return (
        f"{stage['params']:,} parameters, {stage['macs'] / 1e6:.4g}M multiply-accumulates per image"
    )


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
