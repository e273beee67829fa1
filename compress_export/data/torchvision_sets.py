"""Datasets that torchvision can read, from files that are already there: nothing is downloaded."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress_export.data.raw import TEST_SHARE, RawData, RawSet
from compress_export.data.splits import stratified_split
from compress_export.user_paths import refuse_unreachable
from compressor.errors import InputError
from compressor.user_code import first_line

# Characters, digits and signs: mirrored, they are something else.
_NO_FLIP = frozenset(
    {"MNIST", "EMNIST", "KMNIST", "QMNIST", "USPS", "SVHN", "GTSRB", "RenderedSST2"}
)
# LSUN unpickles a file of the working folder.
_NO_DATASETS = frozenset({"VisionDataset", "DatasetFolder", "ImageFolder", "LSUN", "LSUNClass"})
_TRAIN_SPLITS = ("train", "trainval")
_TEST_SPLITS = ("test", "val", "valid")


def dataset_names() -> Mapping[str, str]:
    """Lower-case name -> name of each dataset that can be opened from a root folder."""
    from torchvision import datasets

    return {
        name.lower(): name
        for name in datasets.__all__
        if "root" in inspect.signature(getattr(datasets, name)).parameters
        and name not in _NO_DATASETS
    }


def open_torchvision(name: str, root: Path, seed: int) -> RawData:
    """Open the training and the test part; a dataset without parts is split with the seed.

    Raises:
        InputError: files not there, or labels that are no classes.
    """
    from torchvision import datasets

    constructor = getattr(datasets, name)
    parameters = inspect.signature(constructor).parameters
    _refuse_unfillable(name, parameters)
    refuse_unreachable("--data-root", root)
    if not root.is_dir():  # some datasets would make it
        raise _not_found(constructor, root, "there is no such folder")
    options: dict[str, Any] = {"root": str(root)}
    if "download" in parameters:
        options["download"] = False
    if "train" in parameters:
        train = _open(constructor, [options | {"train": True}])
        test = _open(constructor, [options | {"train": False}])
    elif "split" in parameters:
        train = _open(constructor, [options | {"split": s} for s in _TRAIN_SPLITS])
        test = _open(constructor, [options | {"split": s} for s in _TEST_SPLITS])
    else:
        train, test = _open(constructor, [options]), None
    return _to_raw(name, train, test, root, seed)


def _open(constructor: Any, attempts: list[dict[str, Any]]) -> Any:
    """The first of the attempts that the dataset knows; ValueError means an unknown split."""
    name = constructor.__name__
    problem = ""
    for options in attempts:
        try:
            return constructor(**options)
        except ValueError as error:
            problem = problem or first_line(error)
        except ImportError as error:
            raise InputError(f"data {name!r}: {first_line(error)}; install that package") from error
        except Exception as error:
            raise _not_found(constructor, Path(options["root"]), first_line(error)) from error
    raise _not_by_name(name, problem)


def _refuse_unfillable(name: str, parameters: Mapping[str, inspect.Parameter]) -> None:
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [
        p.name
        for p in parameters.values()
        if p.default is p.empty and p.kind not in variable and p.name not in ("root", "split")
    ]
    if needed:
        raise _not_by_name(name, f"it needs {', '.join(needed)}, too")


def _not_by_name(name: str, why: str) -> InputError:
    return InputError(
        f"data {name!r}: this dataset can't be opened by name ({why}); write a function that "
        "returns its arrays and name it as package.module:function"
    )


def _not_found(constructor: Any, root: Path, why: str) -> InputError:
    name = constructor.__name__
    fetch = ""
    if "download" in inspect.signature(constructor).parameters:
        fetch = f", or fetch it once with torchvision.datasets.{name}({str(root)!r}, download=True)"
    return InputError(
        f"data {name!r}: not found under {root} ({why.rstrip('.')}); name the folder that holds it "
        f"with --data-root{fetch}"
    )


def _to_raw(name: str, train: Any, test: Any, root: Path, seed: int) -> RawData:
    train_set = RawSet(_Images(train), _labels(name, train))
    if test is None:
        stay, aside = stratified_split(train_set.labels, TEST_SHARE, seed)
        train_set, test_set = (
            RawSet(_Images(train, rows), train_set.labels[rows]) for rows in (stay, aside)
        )
    else:
        test_set = RawSet(_Images(test), _labels(name, test))
    return RawData(
        name=name,
        classes=_class_names(train, train_set.labels),
        train=train_set,
        validation=None,
        test=test_set,
        flip_allowed=name not in _NO_FLIP,
        description=f"torchvision's {name} from {root.name}/",
    )


class _Images(Sequence[Any]):
    """The images of a dataset (or of some of its rows) without their labels."""

    def __init__(self, dataset: Any, rows: NDArray[np.int64] | None = None) -> None:
        self._dataset = dataset
        self._rows = np.arange(len(dataset)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._dataset[int(self._rows[index])][0]


def _labels(name: str, dataset: Any) -> NDArray[np.int64]:
    for attribute in ("targets", "labels", "_labels"):
        held = getattr(dataset, attribute, None)
        if held is not None and len(held) == len(dataset):
            break
    else:
        held = [label for _, label in getattr(dataset, "_samples", ())]
        if len(held) != len(dataset):
            held = list(_labels_one_by_one(dataset))
    try:
        labels = np.asarray(held)
    except ValueError:  # lists of different lengths
        labels = np.empty(0)
    if labels.shape != (len(dataset),) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"data {name!r}: its labels are no class numbers; a classification dataset is needed"
        )
    return labels.astype(np.int64)


def _labels_one_by_one(dataset: Any) -> Iterator[Any]:
    for index in range(len(dataset)):
        yield dataset[index][1]


def _class_names(dataset: Any, labels: NDArray[np.int64]) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None) or getattr(dataset, "categories", None)
    if names is None:
        return tuple(str(label) for label in range(int(labels.max()) + 1))
    return tuple(name[0] if isinstance(name, tuple) else str(name) for name in names)
