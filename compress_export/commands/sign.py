"""`compress-export sign BUNDLE --key KEY.pem`: sign a finished bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer


def sign(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="DIR or DIR/bundle.")],
    key: Annotated[
        Path,
        typer.Option(metavar="KEY.pem", help="Private elliptic-curve key, without a passphrase."),
    ],
) -> Callable[[], int]:
    r"""Sign a bundle with the OpenSSF model-signing tool, for deploy and runtime-bench to check.

    The bundle has to be as its SHA256SUMS says. Needs pip install 'compress-export\[signing]'.
    """

    def action() -> int:
        from compress_export.deploy.payload import read_payload
        from compress_export.signing import sign_bundle

        typer.echo(f"signed: {sign_bundle(read_payload(bundle).folder, key)}")
        return 0

    return action
