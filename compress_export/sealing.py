"""The last things that are done to a bundle: its model card, its sums, its signature."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compress_export.job import Job


def seal_bundle(job: Job, report: Mapping[str, Any]) -> None:
    """Write what was measured into the bundle's model card, then sums and, with a key, signature.

    A signature of an earlier run goes: it can't hold any more.

    Args:
        report: what is in report.json.
    """
    from compress_export.signing import sign_bundle
    from exporters import write_sums
    from exporters.model_card import complete_card
    from runtime_bench.signature import SIGNATURE_NAME

    bundle = job.folder.staged / "bundle"
    if not bundle.is_dir():
        return
    (bundle / SIGNATURE_NAME).unlink(missing_ok=True)
    dataset_id = public_name(job.options.data)
    complete_card(bundle, board=job.board, report=report, dataset_id=dataset_id)
    write_sums(bundle)
    if job.options.sign_key is not None:
        sign_bundle(bundle, job.options.sign_key)
        job.log.say(f"bundle signed with {job.options.sign_key}")


def public_name(data: str) -> str | None:
    """Return what others call the images of --data, None where they are the user's own."""
    from compress_export.data.torchvision_sets import dataset_names

    if Path(data).expanduser().exists() and data != "digits":
        return None
    return data.lower() if data == "digits" or data.lower() in dataset_names() else None
