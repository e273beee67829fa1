"""The command line: reads options, runs the job, turns outcomes into exit codes.

Typer only parses. A command returns an action, which `main` runs under one policy for errors
and signals, so that later subcommands get the same exit codes. Heavy imports stay inside the
actions: `--help` has to answer at once.
"""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from boards.parts import CALIBRATION_METHODS, FILE_PRECISIONS
from compress_export.commands.deploy import deploy
from compress_export.commands.gate import gate
from compress_export.commands.report import report
from compress_export.commands.reproduce import reproduce
from compress_export.commands.sign import sign
from compress_export.commands.sweep import sweep
from compress_export.launch import by_torchrun, is_first
from compress_export.run_action import run_action
from compressor.methods.catalogue import CATALOGUE

if TYPE_CHECKING:
    from rich.console import Console

    from compress_export.options import JobOptions

Action = Callable[[], int]

_INPUT = "Input"
_IMAGES = "Images"
_SIZE = "How small, and the search for it"
_TRAINING = "Training"
_OUTPUT = "Output"
_RUN = "Run"

_HELP = (
    "Make a trained CNN small enough for a board, and check it against the board's budgets.\n\n"
    "Prunes channels with reinforcement learning (DECORE), recovers the accuracy, exports INT8 "
    "ONNX and TFLite files, and measures size, latency, memory and accuracy.\n\n"
    "Exit codes: 0 passed, 1 a budget missed, 2 wrong usage or input, 3 a tool failed, "
    "4 required but not measured, 130 interrupted, 143 terminated."
)

app = typer.Typer(
    name="compress-export",
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _option(panel: str, text: str, *names: str, metavar: str | None = None) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel, metavar=metavar or "")


def _show_version(wanted: bool) -> None:
    if wanted:
        from compress_export import __version__

        typer.echo(f"compress-export {__version__}")
        raise typer.Exit


# Every option defaults to None, "not given", so that --config can supply it, and is text here:
# JobOptions holds the types, limits and defaults, for the command line and the file alike.
@app.callback(invoke_without_command=True, help=_HELP)
def main_job(
    context: typer.Context,
    board: Annotated[
        list[str] | None,
        _option(
            _INPUT,
            "Board: a shipped name (jetson), a file name or a path; several make a fleet.",
            metavar="BOARD",
        ),
    ] = None,
    fleet: Annotated[
        str | None,
        _option(_INPUT, "YAML file with the boards of a fleet.", metavar="FILE"),
    ] = None,
    model: Annotated[
        str | None,
        _option(
            _INPUT,
            "Network: built in (resnet20, vgg16, ...), a torchvision name, or "
            "package.module:factory. Default: resnet20.",
            metavar="MODEL",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        _option(
            _INPUT,
            "Trained weights: .pt, .pth, .th, .safetensors, or a saved network such as "
            "DIR/torch/slim. Without them a baseline is trained.",
            metavar="FILE",
        ),
    ] = None,
    new_head: Annotated[
        bool | None,
        _option(
            _INPUT,
            "Keep the weights but for the last layer, which is trained anew: for other classes.",
            "--new-head",
        ),
    ] = None,
    loss: Annotated[
        str | None,
        _option(
            _INPUT,
            "Loss of your own, package.module:function. Default: cross-entropy.",
            metavar="LOSS",
        ),
    ] = None,
    metric: Annotated[
        str | None,
        _option(
            _INPUT,
            "Metric of your own, package.module:function. Default: top-1.",
            metavar="METRIC",
        ),
    ] = None,
    config: Annotated[
        str | None,
        _option(
            _INPUT,
            "YAML file with these options, for one board; the command line wins.",
            metavar="FILE",
        ),
    ] = None,
    data: Annotated[
        str | None,
        _option(
            _IMAGES,
            "digits, a folder of images, a list (.csv), arrays (.npz), a torchvision dataset, or "
            "module:function. Default: digits.",
            metavar="DATA",
        ),
    ] = None,
    data_root: Annotated[
        str | None,
        _option(_IMAGES, "Where torchvision datasets lie.", metavar="DIR"),
    ] = None,
    input_size: Annotated[
        str | None, _option(_IMAGES, "Side of the square input, in pixels.", metavar="PIXELS")
    ] = None,
    mean: Annotated[
        str | None,
        _option(_IMAGES, "Mean of each channel, in 0..1.", metavar="R,G,B"),
    ] = None,
    std: Annotated[
        str | None,
        _option(_IMAGES, "Standard deviation of each channel.", metavar="R,G,B"),
    ] = None,
    validation_share: Annotated[
        str | None,
        _option(
            _IMAGES, "Share of the training images that is set aside to choose by.", metavar="SHARE"
        ),
    ] = None,
    calibration_samples: Annotated[
        str | None,
        _option(_IMAGES, "Training images that calibrate INT8. Default: 512.", metavar="N"),
    ] = None,
    augment: Annotated[
        str | None,
        _option(_IMAGES, "auto, none, crop or crop+flip. Default: auto.", metavar="NAME"),
    ] = None,
    strict: Annotated[
        bool | None, _option(_IMAGES, "Refuse a single broken image.", "--strict")
    ] = None,
    skip_broken: Annotated[
        bool | None,
        _option(_IMAGES, "Leave out broken images, however many they are.", "--skip-broken"),
    ] = None,
    target_macs: Annotated[
        str | None,
        _option(
            _SIZE,
            "Share of the original's MACs that may remain, above 0 and at most 1.",
            metavar="SHARE",
        ),
    ] = None,
    target_size: Annotated[
        str | None,
        _option(_SIZE, "Limit for each INT8 file, with a unit: 1MiB, 500KiB.", metavar="SIZE"),
    ] = None,
    target_latency: Annotated[
        str | None,
        _option(
            _SIZE,
            "Limit for the latency (p90) of each INT8 file, with a unit: 5ms, 250us. Needs a "
            "machine of the board's kind.",
            metavar="TIME",
        ),
    ] = None,
    max_drop: Annotated[
        str | None,
        _option(_SIZE, "Accuracy that may be lost, in percentage points.", metavar="POINTS"),
    ] = None,
    method: Annotated[
        str | None,
        _option(_SIZE, f"{', '.join(CATALOGUE)}. Default: decore.", metavar="NAME"),
    ] = None,
    rounds: Annotated[
        str | None,
        _option(_SIZE, "Prune in so many rounds, for methods that choose at once.", metavar="N"),
    ] = None,
    penalty: Annotated[
        str | None,
        _option(_SIZE, "Lambda of --method paper: the price of a wrong answer.", metavar="LAMBDA"),
    ] = None,
    baseline_epochs: Annotated[
        str | None,
        _option(_TRAINING, "Epochs that train the baseline, or adapt given weights.", metavar="N"),
    ] = None,
    search_epochs: Annotated[
        str | None, _option(_TRAINING, "Epochs of the channel search.", metavar="N")
    ] = None,
    finetune_epochs: Annotated[
        str | None,
        _option(_TRAINING, "Epochs that train the slim network from the baseline.", metavar="N"),
    ] = None,
    batch_size: Annotated[
        str | None, _option(_TRAINING, "Images per training step.", metavar="N")
    ] = None,
    learning_rate: Annotated[
        str | None, _option(_TRAINING, "Highest step of the weights.", metavar="RATE")
    ] = None,
    schedule: Annotated[
        str | None,
        _option(_TRAINING, "one-cycle or cosine. Default: one-cycle.", metavar="NAME"),
    ] = None,
    regularizer: Annotated[
        str | None, _option(_TRAINING, "l1 or l2. Default: l2.", metavar="NAME")
    ] = None,
    weight_decay: Annotated[
        str | None,
        _option(
            _TRAINING,
            "Strength of the regularizer; fine-tuning scales it to the slim network.",
            metavar="DECAY",
        ),
    ] = None,
    distill: Annotated[
        str | None,
        _option(
            _TRAINING,
            "What the teacher teaches: logits, features (both) or none. Default: logits.",
            metavar="NAME",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        _option(
            _TRAINING,
            "Teacher in place of the original: weights, or a saved network such as "
            "DIR/torch/baseline.",
            metavar="FILE",
        ),
    ] = None,
    teacher_model: Annotated[
        str | None,
        _option(
            _TRAINING, "Network of the teacher's weights. Default: the original's.", metavar="MODEL"
        ),
    ] = None,
    codebook: Annotated[
        str | None,
        _option(
            _TRAINING,
            "Let each layer's weights share N values, 2 to 256: smaller to store and send, no "
            "faster. Default: off.",
            metavar="N",
        ),
    ] = None,
    codebook_fit: Annotated[
        str | None,
        _option(
            _TRAINING,
            "How these values are found: kmeans, or mixture (of Gaussians). Default: kmeans.",
            metavar="FIT",
        ),
    ] = None,
    codebook_epochs: Annotated[
        str | None, _option(_TRAINING, "Epochs that train the shared values.", metavar="N")
    ] = None,
    qat_epochs: Annotated[
        str | None,
        _option(
            _TRAINING,
            "Epochs of quantization-aware training, with weights and activations rounded as in the "
            "files. Default: 0.",
            metavar="N",
        ),
    ] = None,
    stages: Annotated[
        str | None,
        _option(
            _OUTPUT,
            "Only these of prune,quantize,bench. Default: all.",
            metavar="LIST",
        ),
    ] = None,
    formats: Annotated[
        str | None,
        _option(_OUTPUT, "onnx,tflite. Default: what the board runs.", metavar="LIST"),
    ] = None,
    precision: Annotated[
        str | None,
        _option(
            _OUTPUT,
            f"{', '.join(FILE_PRECISIONS)}. The first goes to the board, others are compared. "
            "Or auto: all are measured, the best is taken; joint: each is pruned for. Default: "
            "the board's smallest.",
            metavar="LIST",
        ),
    ] = None,
    first_aid: Annotated[
        str | None,
        _option(
            _OUTPUT,
            "auto: bias correction, equalization and layers left in float, where they help the "
            "quantized files; none. Default: auto.",
            metavar="WORD",
        ),
    ] = None,
    raw_input: Annotated[
        bool | None,
        _option(_OUTPUT, "Files take uint8 pixels and normalise them.", "--raw-input"),
    ] = None,
    calibration: Annotated[
        str | None,
        _option(
            _OUTPUT,
            f"How INT8 ranges are found: {', '.join(CALIBRATION_METHODS)}. Default: the board's.",
            metavar="METHOD",
        ),
    ] = None,
    weight_scales: Annotated[
        str | None,
        _option(_OUTPUT, "per-channel or per-tensor. Default: the board's rule.", metavar="SCALES"),
    ] = None,
    activation_range: Annotated[
        str | None,
        _option(_OUTPUT, "symmetric or asymmetric. Default: the board's rule.", metavar="RANGE"),
    ] = None,
    latency_runs: Annotated[
        str | None, _option(_OUTPUT, "Timed runs of each file after warm-up.", metavar="N")
    ] = None,
    bundle_samples: Annotated[
        str | None,
        _option(
            _OUTPUT,
            "Test images to pack into the bundle, for runtime-bench --samples. Default: 0.",
            metavar="N",
        ),
    ] = None,
    require_measured: Annotated[
        bool | None,
        _option(
            _OUTPUT,
            "End with code 4 where a budget could not be measured.",
            "--require-measured",
        ),
    ] = None,
    sign_key: Annotated[
        str | None,
        _option(
            _OUTPUT,
            "Sign the bundle with this private key; needs the extra signing.",
            metavar="KEY.pem",
        ),
    ] = None,
    out: Annotated[
        str | None,
        _option(
            _OUTPUT,
            "Folder for the result. Default: compress-export-out/BOARD.",
            metavar="DIR",
        ),
    ] = None,
    force: Annotated[
        bool | None, _option(_OUTPUT, "Replace DIR, and drop an unfinished run.", "--force")
    ] = None,
    resume: Annotated[
        bool | None, _option(_RUN, "Go on with the unfinished run in DIR.run.", "--resume")
    ] = None,
    dry_run: Annotated[
        bool | None,
        _option(
            _RUN, "Say what would be done, which budgets bind and how long it takes.", "--dry-run"
        ),
    ] = None,
    seed: Annotated[
        str | None, _option(_RUN, "Seed of everything random. Default: 0.", metavar="N")
    ] = None,
    device: Annotated[
        str | None,
        _option(_RUN, "cpu, cuda, cuda:N, mps or auto. Default: cpu.", metavar="DEVICE"),
    ] = None,
    threads: Annotated[
        str | None, _option(_RUN, "Threads for training and timing.", metavar="N")
    ] = None,
    version: Annotated[
        bool | None,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            metavar="",
            help="Show the version and end.",
            rich_help_panel=_RUN,
        ),
    ] = None,
) -> Action | None:
    """The option-only form, which is the default command; `_HELP` is what users read of it."""
    if context.invoked_subcommand is not None:
        return None
    given = {name: value for name, value in context.params.items() if name != "version"}
    return lambda: _compress(given)


app.command("deploy")(deploy)
app.command("gate")(gate)
app.command("report")(report)
app.command("reproduce")(reproduce)
app.command("sign")(sign)
app.command("sweep")(sweep)


def _compress(given: dict[str, Any]) -> int:
    """The main job. Imports torch and the rest by way of the pipeline, after the options."""
    from rich.console import Console

    from compress_export.errors import UsageError
    from compress_export.job_file import resolve_jobs
    from compress_export.run_action import note_job

    console = Console(quiet=not is_first(), emoji=False)
    options, *others = jobs = resolve_jobs(given)
    if others and by_torchrun():
        raise UsageError("several boards under torchrun: start one job for each --board")
    if others:
        return _compress_fleet(jobs, console)
    note_job(options)
    from compress_export.pipeline import compress, plan_job

    if options.dry_run:
        return plan_job(options, console)
    if by_torchrun():
        from compress_export.together import compress_together

        return compress_together(options, console)
    return int(compress(options, console).exit_code)


def _compress_fleet(jobs: Sequence["JobOptions"], console: "Console") -> int:
    from compress_export.fleet.run import compress_fleet, plan_fleet

    if jobs[0].dry_run:
        return plan_fleet(jobs, console)
    return int(compress_fleet(jobs, console).exit_code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; the console script's entry point."""
    parsed = sys.argv[1:] if arguments is None else list(arguments)
    return run_action(lambda: _parse_and_run(parsed))


def _parse_and_run(arguments: list[str]) -> int:
    outcome = typer.main.get_command(app).main(
        arguments, prog_name="compress-export", standalone_mode=False
    )
    return outcome() if callable(outcome) else int(outcome or 0)
