"""The command line: what reaches the pipeline, and which ending is which exit code."""

import errno
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from boards import BoardError
from compress_export import __version__
from compress_export.cli import app, main, main_job
from compress_export.exit_codes import ExitCode, verdict_code, worst
from compress_export.options import JobOptions
from compressor.errors import InputError

Seen = list[JobOptions]


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Seen]:
    """Install a pipeline that notes its options and ends as told."""

    def install(ending: int | BaseException = 0, plan: int = 0) -> Seen:
        seen: Seen = []

        def compress(options: JobOptions, console: Any) -> Any:
            seen.append(options)
            if isinstance(ending, BaseException):
                raise ending
            return types.SimpleNamespace(exit_code=ending)

        def plan_job(options: JobOptions, console: Any) -> int:
            seen.append(options)
            return plan

        module = types.ModuleType("compress_export.pipeline")
        module.compress = compress  # type: ignore[attr-defined]
        module.plan_job = plan_job  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "compress_export.pipeline", module)
        return seen

    return install


def test_options_reach_the_job(pipeline: Callable[..., Seen]) -> None:
    seen = pipeline()
    arguments = "--board jetson.yaml --model resnet56 --target-size 1MiB --seed 7 --force"
    assert main(arguments.split()) == 0
    assert seen == [
        JobOptions(board="jetson.yaml", model="resnet56", target_size="1MiB", seed=7, force=True)
    ]


def test_every_option_of_a_job_is_on_the_command_line() -> None:
    import inspect

    parameters = set(inspect.signature(main_job).parameters) - {"context", "version"}
    assert parameters - {"fleet"} == set(JobOptions.model_fields)


def test_every_option_is_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for field in JobOptions.model_fields:
        assert f"--{field.replace('_', '-')} " in shown


@pytest.mark.parametrize("code", [0, 1, 3, 4])
def test_the_jobs_code_is_the_exit_code(pipeline: Callable[..., Seen], code: int) -> None:
    pipeline(code)
    assert main(["--board", "jetson"]) == code


def test_dry_run_plans_and_does_not_run(pipeline: Callable[..., Seen]) -> None:
    seen = pipeline(ending=RuntimeError("must not run"), plan=0)
    assert main(["--board", "jetson", "--dry-run"]) == 0
    assert seen[0].dry_run


def test_a_job_file_joins(pipeline: Callable[..., Seen], tmp_path: Path) -> None:
    seen = pipeline()
    (tmp_path / "job.yaml").write_text("board: rpi4\nseed: 3\n")
    assert main(["--config", str(tmp_path / "job.yaml"), "--seed", "4"]) == 0
    assert (seen[0].board, seen[0].seed) == ("rpi4", 4)


@pytest.mark.parametrize(
    "mistake",
    [
        BoardError("board 'jetsen': no such board;\n  did you mean jetson?"),
        InputError("weights.th: no such file"),
    ],
)
def test_a_users_mistake_is_one_line_and_code_2(
    pipeline: Callable[..., Seen], capsys: pytest.CaptureFixture[str], mistake: Exception
) -> None:
    pipeline(mistake)
    assert main(["--board", "jetson"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert " ".join(str(mistake).split()) in shown.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "--board is missing"),
        (["--board", "jetson", "--target-macs", "1.5"], "--target-macs 1.5: must be above 0"),
        (["--board", "jetson", "--target-size", "3"], "not a size"),
        (["--board", "jetson", "--stages", "bake"], "'prune', 'quantize' or 'bench'"),
        (["--bord", "jetson"], "--board"),
        (["--board"], "--board"),
        (["jetson.yaml"], "jetson.yaml"),
        (["--config", "none.yaml"], "none.yaml"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(
    pipeline: Callable[..., Seen],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    seen = pipeline()
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert says in shown
    assert shown.count("\n") == 1
    assert seen == []


@pytest.mark.parametrize(
    "surprise",
    [
        RuntimeError("a tool\nbroke"),
        ValueError("not a user's mistake"),
        SystemExit(1),
        SystemExit(0),
    ],
)
def test_anything_unexpected_is_code_3_with_a_log_and_never_1(
    pipeline: Callable[..., Seen],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    surprise: BaseException,
) -> None:
    pipeline(surprise)
    (tmp_path / "out.run").mkdir()
    assert main(["--board", "jetson", "--out", str(tmp_path / "out")]) == 3
    shown = capsys.readouterr().err
    log = tmp_path / "out.run" / "error.log"
    assert shown.count("\n") == 1
    assert str(log) in shown
    assert "Traceback" not in shown
    assert "Traceback" in log.read_text()
    assert type(surprise).__name__ in log.read_text()


def test_without_a_run_folder_the_log_is_a_temporary_file(
    pipeline: Callable[..., Seen],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    pipeline(RuntimeError("early"))
    assert main(["--board", "jetson", "--out", str(tmp_path / "none")]) == 3
    (log,) = tmp_path.glob("compress-export-*.log")
    assert str(log) in capsys.readouterr().err
    assert "early" in log.read_text()


def test_an_unknown_code_of_a_job_is_a_failure(pipeline: Callable[..., Seen]) -> None:
    pipeline(17)
    assert main(["--board", "jetson"]) == 3


def test_interrupt(
    pipeline: Callable[..., Seen], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pipeline(KeyboardInterrupt())
    command = ["--board", "jetson", "--out", str(tmp_path / "out")]
    assert main(command) == 130
    assert "--resume" not in capsys.readouterr().err  # there is nothing to resume
    (tmp_path / "out.run").mkdir()
    (tmp_path / "out.run" / "baseline.pt").touch()
    assert main(command) == 130
    assert "interrupted; nothing is lost: go on with the same command and --resume" in (
        capsys.readouterr().err
    )


def wrapped(cause: BaseException) -> RuntimeError:
    """What a library makes of an error."""
    error = RuntimeError("step 3 failed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "x.pt"), "full, writing x.pt; nothing"),
        (wrapped(OSError(errno.EDQUOT, "Disk quota exceeded")), "the disk is full; nothing is"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "the disk is full"),
        (MemoryError(), "out of memory; nothing is lost: go on with the same command and --resume"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory"),
    ],
)
def test_what_has_run_out_is_one_line_and_leaves_no_log(
    pipeline: Callable[..., Seen],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    error: BaseException,
    said: str,
) -> None:
    pipeline(error)
    (tmp_path / "out.run").mkdir()
    (tmp_path / "out.run" / "baseline.pt").touch()
    assert main(["--board", "jetson", "--out", str(tmp_path / "out")]) == 3
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1
    assert [path.name for path in (tmp_path / "out.run").iterdir()] == ["baseline.pt"]


@pytest.mark.parametrize(
    ("ending", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted; nothing is lost: go on with the same command"),
        (RuntimeError("an unknown operator"), 3, "RuntimeError: an unknown operator (traceback in"),
    ],
)
def test_the_working_directory_may_be_the_output_folder(
    pipeline: Callable[..., Seen],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ending: BaseException,
    code: int,
    said: str,
) -> None:
    pipeline(ending)
    (tmp_path / "here").mkdir()
    (tmp_path / "here.run").mkdir()
    (tmp_path / "here.run" / "baseline.pt").touch()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["--board", "jetson", "--out", "."]) == code
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1


def test_a_training_that_diverges_is_one_line(
    pipeline: Callable[..., Seen], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from compressor.epochs import DivergedError

    pipeline(DivergedError("search: the loss became nan"))
    assert main(["--board", "jetson", "--out", str(tmp_path / "out")]) == 3
    assert capsys.readouterr().err == "compress-export: search: the loss became nan\n"


_WAITING_JOB = """
import sys, time, types
from compress_export.outputs import OutputFolder

def compress(options, console):
    with OutputFolder(options.out) as output:
        (output.staged / "half").write_text("written")
        print("ready", flush=True)
        try:
            time.sleep(60)
        except BaseException as error:  # as a library does that translates errors
            raise RuntimeError("callback failed") from error
    return 0

module = types.ModuleType("compress_export.pipeline")
module.compress = module.plan_job = compress
sys.modules["compress_export.pipeline"] = module
from compress_export.cli import main
sys.exit(main(["--board", "jetson", "--out", sys.argv[1]]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_clean_up_and_have_their_codes(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", _WAITING_JOB, str(tmp_path / "out")],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # as a shell script does for a job in the background
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_is_never_a_pass_nor_a_missed_budget() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    run = subprocess.run(
        [sys.executable, "-m", "compress_export", "--help"],
        cwd=Path(__file__).resolve().parents[2],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(write_end)
    assert run.returncode == 3
    assert run.stderr.count("\n") == 1


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"compress-export {__version__}\n"


def test_subcommands_join_without_changing_the_option_only_form(
    pipeline: Callable[..., Seen], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = pipeline()
    extended = typer.Typer()
    extended.callback(invoke_without_command=True)(main_job)

    @extended.command()
    def gate(folder: str) -> Callable[[], int]:
        return lambda: 4 if folder == "DIR" else 0

    monkeypatch.setattr("compress_export.cli.app", extended)
    assert main(["gate", "DIR"]) == 4
    assert seen == []
    assert main(["--board", "jetson"]) == 0
    assert len(seen) == 1
    assert app is not extended


@pytest.mark.parametrize(
    ("statuses", "required", "code"),
    [
        (["pass", "pass"], False, 0),
        ([], True, 0),
        (["pass", "unverified"], False, 0),
        (["pass", "unverified"], True, 4),
        (["fail", "unverified"], True, 1),
        (["fail", "pass"], False, 1),
    ],
)
def test_codes_of_a_verdict(statuses: list[str], required: bool, code: int) -> None:
    assert verdict_code(statuses, require_measured=required) == code


def test_an_unknown_status_never_passes() -> None:
    with pytest.raises(ValueError, match="maybe"):
        verdict_code(["pass", "maybe"], require_measured=False)


def test_precedence_of_codes() -> None:
    codes = [ExitCode.PASSED, ExitCode.NOT_MEASURED, ExitCode.BUDGET_MISSED, ExitCode.TOOL_FAILED]
    for last, code in enumerate(codes, start=1):
        assert worst(codes[:last]) is code
    with pytest.raises(ValueError, match="130"):
        worst([ExitCode.INTERRUPTED])
