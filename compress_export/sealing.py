"""The last things that are done to a bundle: its model card, its sums, its signature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boards import Board
    from compress_export.options import JobOptions


def seal_bundle(
    bundle: Path,
    report: Mapping[str, Any],
    *,
    board: Board,
    options: JobOptions,
    say: Callable[[str], None],
) -> None:
    """Write what was measured into the bundle's model card, then sums and, with a key, signature.

    A signature of an earlier run goes: it can't hold any more.

    Args:
        bundle: the folder; where there is none, nothing is done.
        report: what is in report.json.
    """
    from compress_export.signing import sign_bundle
    from exporters import write_sums
    from exporters.model_card import complete_card
    from runtime_bench.signature import SIGNATURE_NAME

    if not bundle.is_dir():
        return
    (bundle / SIGNATURE_NAME).unlink(missing_ok=True)
    dataset_id = public_name(options.data)
    complete_card(bundle, board=board, report=report, dataset_id=dataset_id)
    write_sums(bundle)
    if options.sign_key is not None:
        sign_bundle(bundle, options.sign_key)
        say(f"bundle signed with {options.sign_key}")


def public_name(data: str) -> str | None:
    """Return what others call the images of --data, None where they are the user's own."""
    from compress_export.data.torchvision_sets import dataset_names

    if Path(data).expanduser().exists() and data != "digits":
        return None
    return data.lower() if data == "digits" or data.lower() in dataset_names() else None
