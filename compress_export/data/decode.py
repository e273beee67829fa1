"""One image, from whatever it is to uint8 RGB of the network's input size."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from compressor.user_code import first_line

Pixels = NDArray[np.uint8]
Progress = Callable[[int, int], None]
"""Called with the number of images done and the number of all."""

_SMALLEST_DRAFT = 256  # pixels: decoding at a fraction rounds the size, which must not show
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM")
"""No others: Pillow hands PostScript, which any suffix may hide, to another program."""
_MOST_PIXELS = 2**26  # several images are decoded at once, at three bytes a pixel or more
_CHUNK = 256  # images per task: small enough for progress, large enough to hide the pool's cost


class Broken(NamedTuple):
    """An image that could not be decoded."""

    row: int
    name: str
    reason: str


def decode_image(item: Any, size: int) -> Pixels:
    """Decode, turn upright, convert to RGB, resize the shorter side, crop the centre.

    Of a file with several frames the first is taken. Transparency is dropped, as torchvision's
    loader does it. 16-bit grey values are divided by 256.

    Args:
        item: path of a file, a Pillow image, or a uint8 array (H, W), (H, W, 1) or (H, W, 3).
        size: height and width of the result.

    Returns:
        uint8 (3, size, size).

    Raises:
        Exception: of nearly any type, since Pillow's decoders differ in what they raise.
    """
    if isinstance(item, Path):
        # JPEG: leave out detail far beyond the wanted size; resizing still antialiases the rest
        with _opened(item, max(2 * size, _SMALLEST_DRAFT)) as image:
            return _fit(_to_rgb(ImageOps.exif_transpose(image)), size)
    if isinstance(item, Image.Image):
        return _fit(_to_rgb(item), size)
    array = np.asarray(item)
    return _fit(_to_rgb(Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)), size)


def check_image(item: Any) -> None:
    """Raise what decoding would raise, at a fraction of its cost where the format allows that."""
    if isinstance(item, Path):
        with _opened(item, 1) as image:  # JPEG: at an eighth of the size
            _to_rgb(ImageOps.exif_transpose(image))


@contextmanager
def _opened(path: Path, side: int) -> Iterator[Image.Image]:
    """Open a file, its shorter side in JPEG at a fraction that is no smaller than `side`.

    Raises ValueError, before anything is decoded, for more pixels than are taken.
    """
    with Image.open(path, formats=FORMATS) as image:
        image.draft(None, (side, side))
        if image.width * image.height > _MOST_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels, at most {_MOST_PIXELS}")
        yield image


def decode_all(
    items: Sequence[Any], size: int, out: Pixels | None, progress: Callable[[int], None]
) -> list[Broken]:
    """Decode into `out` (N, 3, size, size), or only check each image where `out` is None.

    Returns:
        The broken ones, by row; their rows of `out` are undefined. `progress` gets the number of
        images finished since its last call.
    """

    def work(start: int) -> tuple[int, list[Broken]]:
        stop = min(start + _CHUNK, len(items))
        broken = []
        for index in range(start, stop):
            try:
                if out is None:
                    check_image(items[index])
                else:
                    out[index] = decode_image(items[index], size)
            except MemoryError:
                raise
            except Exception as error:
                broken.append(Broken(index, name_of(items, index), _reason(items, index, error)))
        return stop - start, broken

    found: list[Broken] = []
    pool = ThreadPoolExecutor(worker_count())
    try:
        for future in as_completed([pool.submit(work, s) for s in range(0, len(items), _CHUNK)]):
            count, broken = future.result()
            found += broken
            progress(count)
    finally:
        pool.shutdown(cancel_futures=True)  # an interrupted run does not decode the rest first
    return sorted(found)


def worker_count() -> int:
    """Threads that decode at once: Pillow leaves Python's lock while it decodes."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return min(8, cores)


def name_of(items: Sequence[Any], index: int) -> str:
    """The path of an image, as text that UTF-8 can hold, or its number."""
    # A dataset's own image is not fetched again only to be named.
    if isinstance(items, list) and isinstance(items[index], Path):
        return os.fsencode(items[index]).decode("utf-8", "replace")
    return f"image {index}"


def _reason(items: Sequence[Any], index: int, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        empty = isinstance(items, list) and Path(items[index]).stat().st_size == 0
        return "the file is empty" if empty else "not an image in a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the path, which is named already
    return first_line(error)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16-bit grey; Pillow would clip it at 255
        grey = np.asarray(image)
        image = Image.fromarray((grey.clip(0, 0xFFFF) >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("images of floating-point numbers have no agreed range")
    elif image.mode == "P":
        image = image.convert("RGBA")  # a palette with alpha values converts cleanly only this way
    return image.convert("RGB")


def _fit(image: Image.Image, size: int) -> Pixels:
    """Shorter side to `size` (bilinear, antialiased), then the centre, as torchvision's
    `Resize(size)` and `CenterCrop(size)` do."""
    width, height = image.size
    if (width, height) != (size, size):
        shorter = min(width, height)
        new = (int(size * width / shorter), int(size * height / shorter))
        if new[0] * new[1] > _MOST_PIXELS:
            raise ValueError(f"{width} x {height} pixels, one side too long for the other")
        if new != (width, height):
            image = image.resize(new, Image.Resampling.BILINEAR)
        left, top = round((new[0] - size) / 2), round((new[1] - size) / 2)
        image = image.crop((left, top, left + size, top + size))
    return np.asarray(image).transpose(2, 0, 1)  # (size, size, 3) -> (3, size, size)
