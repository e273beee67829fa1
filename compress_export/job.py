"""One run of the main job: what it was given, checked and opened, and what it has found so far."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.console import Console

from boards import Board, Budgets, load_board
from compress_export.data.preprocessing import save_input
from compress_export.errors import UsageError
from compress_export.exporting import (
    Exports,
    chosen_formats,
    chosen_precisions,
    chosen_quantization,
    formats_for,
    refuse_idle_rules,
    refuse_pixels,
)
from compress_export.judging import check_judged
from compress_export.latency_target import refuse_unsearchable
from compress_export.options import JobOptions
from compress_export.outputs import OutputFolder, default_out
from compress_export.pace import Batches
from compress_export.progress import RunLog
from compress_export.provenance import environment, inputs_of, note_provenance
from compress_export.quantization_training import refuse_branches
from compress_export.schedule import Epochs, choose_epochs
from compress_export.signing import check_private_key
from compress_export.targets import Target, resolved_budgets
from compress_export.task import Task, load_task
from compress_export.trial_step import check_trains

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from boards.parts import FilePrecision
    from compress_export.codebook import CodebookFigures
    from compress_export.first_aid_figures import FirstAid
    from compress_export.fleet.sharing import Sharing
    from compress_export.precision_choice import Candidate
    from compress_export.pruning import Pruned
    from compress_export.quantization_training import QuantizationFigures
    from exporters import Exported
    from runtime_bench import Check


@dataclass
class Job:
    """One run and what it has found so far.

    Attributes:
        folder: claim on DIR and DIR.run.
        board: the descriptor, the user's limits in place of its own.
        exports: makes the model files.
        epochs: of every stage.
        baseline_score: its mean on the validation images, top-1 by default, a fraction.
        pruned: the slim network, None where nothing was pruned and no weights are shared.
        codebook: what sharing weights did, None where they are not shared.
        quantization: what training with rounding did, None where there was none.
        first_aid: what was tried for the accuracy of the quantized files, by format; empty where
            nothing was.
        precision_choice: what --precision auto or joint chose from.
        candidates: precisions that those choose from; all that the board can have where it is
            empty.
        ways: with --precision joint, a job for each precision that was pruned for; they share
            `reference`.
        branch: of such a job, its folder within DIR.run; "" for the job itself.
        stops_at_budgets: nothing is pruned where every budget is met; else the network gets as
            small as the accuracy allows.
        device_measurements: what devices measured of a finished folder, see docs/report.md.
        reference: files for comparison, unpruned or float.
        checks: budgets and targets decided so far.
        warnings: lines for the report.
        sharing: work that other jobs of the same fleet have done, None where it stands alone.
        inputs, made_by: what made the files, see docs/report.md.
    """

    options: JobOptions
    board: Board
    task: Task
    folder: OutputFolder
    log: RunLog
    exports: Exports
    epochs: Epochs
    baseline_score: float = 0.0
    target: Target | None = None
    pruned: Pruned | None = None
    codebook: CodebookFigures | None = None
    quantization: QuantizationFigures | None = None
    first_aid: tuple[FirstAid, ...] = ()
    precision_choice: list[Candidate] = field(default_factory=list)
    candidates: tuple[FilePrecision, ...] = ()
    ways: list[Job] = field(default_factory=list)
    branch: str = ""
    stops_at_budgets: bool = False
    device_measurements: list[dict[str, Any]] = field(default_factory=list)
    reference: list[Exported] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    sharing: Sharing | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    made_by: Mapping[str, Any] | None = None

    @property
    def baseline(self) -> nn.Module:
        """The network that pruning starts from."""
        return self.task.model

    @property
    def stage(self) -> str:
        """What the network that goes to the board is called in the names of files."""
        return "baseline" if self.pruned is None else "slim"

    @property
    def network(self) -> nn.Module:
        """The network that goes to the board."""
        return self.baseline if self.pruned is None else self.pruned.model

    @property
    def work(self) -> Path:
        """Where the trainings after the baseline's keep their checkpoints."""
        return self.folder.run / self.branch

    def save_network(self, model: nn.Module, name: str) -> None:
        """Save a torch network, so that a later run or another tool can go on from it."""
        from compressor.saved import save_model

        folder = self.folder.staged / "torch" / name
        save_model(model, self.task.architecture, len(self.task.data.classes), folder)
        save_input(self.task.preprocessing, folder)


@contextmanager
def open_job(options: JobOptions, console: Console | None = None) -> Iterator[Job]:
    """Check everything that the user gave, then hold the output folder until the block ends.

    A block that ends before `pipeline.publish` leaves no DIR; what it had trained can be resumed.

    Args:
        console: where progress is shown; standard output by default.

    Raises:
        UsageError, InputError, BoardError: the user's mistakes, before any work.
    """
    with ExitStack() as stack:
        yield _opened(options, console or Console(emoji=False), stack)


def _opened(options: JobOptions, console: Console, stack: ExitStack) -> Job:
    from compress_export.rebench import reopen
    from compressor import ranks

    board, formats = checked_board(options)
    out = options.out or default_out(board.id)
    if options.stages == ("bench",):
        return reopen(options, board, out, console, stack)
    folder = stack.enter_context(OutputFolder(out, force=options.force, resume=options.resume))
    folder.refuse_other_job(options.identity())
    log = stack.enter_context(RunLog(None, console))
    with log.timed("load"):
        task = checked_task(options, log.say, log.decoded)
    folder.claim_job(options.identity())
    if ranks.is_first():
        log.keep_in(folder.run)
    log.batches = Batches(task.batch_size, task.images("search").steps_per_epoch)
    epochs = choose_epochs(options, task.images("search").steps_per_epoch, task.trained)
    left_out: list[str] = []
    if "quantize" in options.stages:
        formats = formats_for(task.model, formats, left_out.append)
    precision, *compared = chosen_precisions(options, board, formats)
    exports = Exports(task, board, formats, precision, log.say, tuple(compared), options.raw_input)
    job = Job(options, board, task, folder, log, exports, epochs)
    job.inputs = inputs_of(options, board, task)
    other = note_provenance(folder.run, job.inputs, environment(task.compute))
    for line in other:
        log.say(line)
    job.warnings += [*other, *task.data.remarks, *left_out]
    return job


def checked_board(options: JobOptions) -> tuple[Board, tuple[str, ...]]:
    """Return the board, the user's limits and rules in place of its own, and the formats to make.

    Also sets the number of threads. Raises BoardError, or UsageError, also for a latency that can't
    be searched for on this machine.
    """
    import torch

    from exporters.support import FLOATS

    board = load_board(options.board)
    described = with_limits(options, board)
    formats = chosen_formats(options, board)
    precisions = chosen_precisions(options, board, formats)
    if options.qat_epochs and precisions[0] in FLOATS:
        raise UsageError(
            f"--qat-epochs {options.qat_epochs}: {precisions[0]} files round nothing to train for; "
            "choose --precision int8 or another with integers, on a board that has it"
        )
    refuse_pixels(options, board)
    refuse_idle_rules(options, board, formats)
    if options.sign_key is not None:
        check_private_key(options.sign_key)
    if "prune" in options.stages:
        refuse_unsearchable(options, board)
    if options.stages == ("prune", "bench"):
        raise UsageError(
            "--stages prune,bench: bench measures the files that quantize makes; add quantize"
        )
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    return described, formats


def with_limits(options: JobOptions, board: Board) -> Board:
    """Return the descriptor, the user's limits and rules in place of its own.

    Raises:
        UsageError: a rule that the board doesn't have.
    """
    budgets = Budgets(**resolved_budgets(options, board.budgets.limits()))
    quantization = chosen_quantization(options, board)
    return board.model_copy(update={"budgets": budgets, "quantization": quantization})


def checked_task(
    options: JobOptions,
    say: Callable[[str], None],
    progress: Callable[[int, int], None] | None = None,
) -> Task:
    """Load network and images, try a training step where the job has any, and trace the network:
    better known before hours of training.

    Raises InputError.
    """
    from compressor.errors import InputError
    from compressor.graph import channel_graph
    from compressor.graph.build import TraceError
    from compressor.methods.catalogue import CATALOGUE
    from compressor.methods.scores import norm_scales

    task = load_task(options, say, progress)
    check_judged(task)
    epochs = choose_epochs(options, task.images("search").steps_per_epoch, task.trained)
    if epochs.trains:
        check_trains(task, distills=epochs.taught > 0 and options.distill != "none")
    try:
        graph = channel_graph(task.model, task.example())
    except TraceError as error:
        raise InputError(f"--model {task.architecture}: {error}") from error
    if options.qat_epochs:
        refuse_branches(options, task)
    if "prune" not in options.stages:
        return task
    if graph.class_count == 0:
        raise InputError(f"--model {task.architecture}: none of its channels can be pruned")
    if CATALOGUE[options.method].by_norms:
        norm_scales(task.model, graph)  # raises where there are none
    return task
