"""What every command here shares: its options, saved networks and their images."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.codebook.run import with_few_images
from benchmarks.pruning.setting import (
    CIFAR_MEAN,
    CIFAR_STD,
    NETWORKS,
    SPLIT_SEED,
    network_of,
    say,
)
from benchmarks.quantization import mobilenet
from boards import Board, load_board
from compress_export.data import calibration_indices
from compress_export.data.splits import strata
from compress_export.options import JobOptions
from compress_export.task import Task, load_task
from compressor.saved import read_description

FOLDER = Path(__file__).parents[1] / "results" / "quantization"
CALIBRATION_IMAGES = 512
"""As many as the product takes by default."""

SIZE = 32
"""Pixels of the images that all networks here were trained on."""


def newer_board() -> Board:
    """Return x86-64 for onnxruntime 1.18 and newer, which has 4-bit weights and 16-bit activations.

    The descriptor that is shipped allows 1.15, for which those files are refused.
    """
    board = load_board("x86-64")
    runtimes = tuple(
        runtime.model_copy(update={"min_version": "1.18.0"})
        if runtime.name == "onnxruntime"
        else runtime
        for runtime in board.runtimes
    )
    return board.model_copy(update={"runtimes": runtimes})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command here has."""
    parser.add_argument("--data", required=True, help="folder with train/CLASS and test/CLASS")
    parser.add_argument("--work", type=Path, required=True, help="files and unfinished runs")
    parser.add_argument("--results", type=Path, default=FOLDER, help="files of finished runs")
    parser.add_argument("--device", default="cpu", help="of training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--images", type=int, help="try it on so many images of each part")


def saved_options(folder: Path, data: str, device: str, size: int = SIZE) -> JobOptions:
    """Return the product's options for a network that `compressor.saved.save_model` wrote."""
    architecture = read_description(folder, code=mobilenet.ARCHITECTURE).architecture
    plan = NETWORKS.get(network_of(folder.name, architecture))
    return JobOptions(
        board="x86-64",
        model=architecture,
        weights=folder,
        data=data,
        input_size=size,
        mean=plan.mean if plan else CIFAR_MEAN,
        std=plan.std if plan else CIFAR_STD,
        calibration_samples=CALIBRATION_IMAGES,
        seed=SPLIT_SEED,
        device=device,
    )


def open_task(options: JobOptions, images: int | None, threads: int) -> Task:
    """Load a network with its images; sets PyTorch's threads.

    Args:
        images: at most so many of each part; None is all.
    """
    torch.set_num_threads(threads)
    task = load_task(options, say)
    return task if images is None else with_few_images(task, images)


def with_calibration(task: Task, seed: int) -> Task:
    """Return the task with other calibration samples, as many of every class."""
    chosen = calibration_indices(strata(task.data.train.labels), CALIBRATION_IMAGES, seed)
    return replace(task, calibration=chosen)
