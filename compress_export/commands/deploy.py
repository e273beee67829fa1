"""`compress-export deploy`: bring a bundle to devices over OpenSSH."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from compress_export.deploy.destination import Destination
    from compress_export.deploy.many import Plan
    from compress_export.deploy.payload import Payload

SAMPLES = "samples.npz"  # that --bundle-samples packs


def _option(text: str, *names: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=text, metavar=metavar or "")


def deploy(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="BUNDLE HOST...",
            help="DIR or DIR/bundle, then user@host:/path for each device; no BUNDLE with "
            "--rollback.",
        ),
    ],
    bench: Annotated[
        bool, _option("Run bench.pyz there and bring its figures home.", "--bench")
    ] = False,
    rollback: Annotated[
        bool, _option("Go back to the previous version there.", "--rollback")
    ] = False,
    dry_run: Annotated[bool, _option("Say what would be sent, and end.", "--dry-run")] = False,
    python: Annotated[str, _option("Python on the device.", metavar="PATH")] = "python3",
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Threads of the bench there.")
    ] = None,
    runs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Timed runs of the bench there.")
    ] = None,
    require_measured: Annotated[
        bool, _option("End with code 4 where a budget is unverified.", "--require-measured")
    ] = False,
    verify_key: Annotated[
        Path | None,
        _option("Check the bundle's signature with this public key first.", metavar="PUB.pem"),
    ] = None,
    ssh_config: Annotated[
        Path | None, _option("ssh configuration in place of your own.", metavar="FILE")
    ] = None,
    json: Annotated[
        Path | None, _option("Write what was done and measured.", metavar="FILE")
    ] = None,
) -> Callable[[], int]:
    """Bring a bundle to devices over OpenSSH, switch to it in one step, and measure it there.

    Nothing is asked, and host keys are always checked. See docs/deploy.md.
    """
    wanted = (python, threads, runs) if bench else None

    def action() -> int:
        from compress_export.deploy.many import Plan
        from compress_export.errors import UsageError

        bundle, destinations = _targets(targets, rollback=rollback)
        if bundle is None and (bench or verify_key is not None):
            raise UsageError("--rollback sends nothing: --bench and --verify-key don't go with it")
        _check_places(json, ssh_config)
        payload = None if bundle is None else _checked_payload(bundle, verify_key)
        if dry_run:
            return _say_plan(payload, destinations)
        plan = Plan(_ssh(ssh_config), payload, _bench_request(payload, wanted), require_measured)
        return _run(plan, destinations, json)

    return action


def _targets(words: Sequence[str], *, rollback: bool) -> tuple[Path | None, list[Destination]]:
    """Tell the bundle from the devices; every mistake is found before anything is done."""
    from compress_export.deploy.destination import Destination
    from compress_export.errors import UsageError

    hosts = words if rollback else words[1:]
    if not hosts:
        raise UsageError("deploy: name at least one device, user@host:/path, after the bundle")
    destinations = [Destination.parse(word) for word in hosts]
    places = [(one.host, one.path) for one in destinations]
    if len(set(places)) < len(places):
        raise UsageError("deploy: the same device and folder is named twice")
    return None if rollback else Path(words[0]), destinations


def _check_places(json: Path | None, ssh_config: Path | None) -> None:
    from compress_export.errors import UsageError
    from compress_export.user_paths import refuse_no_place, refuse_unreachable

    refuse_no_place("--json", json)
    refuse_unreachable("--ssh-config", ssh_config)
    if ssh_config is not None and not ssh_config.is_file():
        raise UsageError(f"--ssh-config {ssh_config}: no such file")


def _checked_payload(bundle: Path, verify_key: Path | None) -> Payload:
    from compress_export.deploy.payload import read_payload

    payload = read_payload(bundle)
    if verify_key is not None:
        from compress_export.signing import verify_bundle

        verify_bundle(payload.folder, verify_key)
    return payload


def _bench_request(payload: Payload | None, wanted: tuple[Any, ...] | None) -> Any:
    """Return how to measure, None where nothing is to be measured."""
    from compress_export.deploy.answer import Expected
    from compress_export.deploy.destination import remote_path
    from compress_export.deploy.steps import BenchRequest
    from compress_export.errors import UsageError

    if wanted is None or payload is None:
        return None
    from runtime_bench import ManifestError, SamplesError, open_samples, read_manifest

    python, threads, runs = wanted
    if "/" in python:
        python = remote_path(python, python)
    elif not python or not python.isprintable() or python.startswith("-"):
        raise UsageError(f"--python {python!r}: not the name or path of a program")
    numbers = (("--threads", threads), ("--runs", runs))
    words = [word for name, n in numbers if n is not None for word in (name, str(n))]
    samples, baseline_top1 = payload.folder / SAMPLES, None
    try:
        if samples.is_file():
            words.append("--samples")
            baseline_top1 = open_samples(samples).baseline_top1()
        expected = Expected(read_manifest(payload.folder), baseline_top1)
    except (ManifestError, SamplesError) as error:
        raise UsageError(str(error)) from None
    return BenchRequest(python, expected, tuple(words))


def _ssh(config: Path | None) -> Any:
    from compress_export.deploy.device import Ssh

    return Ssh(config=config)


def _say_plan(payload: Payload | None, destinations: Sequence[Destination]) -> int:
    from compress_export.sizes import mib

    for file in () if payload is None else payload.files:
        typer.echo(f"{file.sha256}  {file.size_bytes:>10}  {file.name}")
    for one in destinations:
        if payload is None:
            typer.echo(f"{one.text}: current and previous would change places")
        else:
            typer.echo(f"{one.text}: {mib(payload.size_bytes)} MiB, version {payload.digest}")
    return 0


def _run(plan: Plan, destinations: Sequence[Destination], json_path: Path | None) -> int:
    import json

    from rich.console import Console

    from compress_export.deploy.home import bring_home, outcomes_json, print_outcomes
    from compress_export.deploy.many import run_all
    from compress_export.exit_codes import worst
    from compress_export.shown import print_line
    from compress_export.whole_files import write_whole

    console = Console(emoji=False)
    outcomes = run_all(plan, destinations, console)
    print_outcomes(outcomes, console, Console(stderr=True, emoji=False))
    if json_path is not None:
        text = json.dumps(outcomes_json(outcomes), indent=2) + "\n"
        write_whole(json_path, text)
    if plan.payload is not None and (report := bring_home(outcomes, plan.payload.folder)):
        from compress_export.html_report import redraw  # seconds of imports

        print_line(console, f"figures of the devices are in {report}")
        redraw(report.parent, lambda line: print_line(console, line))
    return int(worst(one.code for one in outcomes))
