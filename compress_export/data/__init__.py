"""Labelled images: where they come from, how they are decoded, split and handed out in batches."""

from compress_export.data.batches import eval_batches, train_batches, train_order
from compress_export.data.calibration import calibration_batches, calibration_indices
from compress_export.data.image_set import ImageSet
from compress_export.data.loading import ImageData, load_data
from compress_export.data.preprocessing import Preprocessing
from compress_export.data.splits import stratified_split

__all__ = [
    "ImageData",
    "ImageSet",
    "Preprocessing",
    "calibration_batches",
    "calibration_indices",
    "eval_batches",
    "load_data",
    "stratified_split",
    "train_batches",
    "train_order",
]
