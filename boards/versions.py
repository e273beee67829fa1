"""What each release of an ONNX runtime can read: the highest opset and the highest IR version.

A descriptor names the *oldest* version of a runtime that the board may have; the exporter must not
write a file that this version refuses, so opset and IR version are looked up here and never stated
by hand. A release that is not listed gets the row of the newest listed release before it, which can
only be too cautious, because later releases read everything that earlier ones read.
"""

from __future__ import annotations

import re
from typing import NamedTuple

Version = tuple[int, ...]

VERSION_PATTERN = r"^\d+\.\d+(\.\d+)*$"


class OnnxSupport(NamedTuple):
    """What a runtime release reads.

    Attributes:
        version: the first release with this support.
        opset_max: highest opset of the default operator domain that it officially supports.
        ir_max: highest ``ir_version`` of a model file that it loads.
    """

    version: Version
    opset_max: int
    ir_max: int


# Measured by loading a one-node model with rising ir_version and rising opset into each release's
# wheel on x86-64, up to the highest value that loads without an error. The project's own
# table (docs/Versioning.md and onnxruntime.ai/docs/reference/compatibility.html) lists opsets; for
# IR versions the reports "max supported IR version: N" agree: microsoft/onnxruntime #15874
# (1.14: 8), #20559 (1.17: 9), #23602 (1.20: 10).
ONNXRUNTIME: tuple[OnnxSupport, ...] = (
    OnnxSupport((1, 15), opset_max=19, ir_max=9),
    OnnxSupport((1, 17), opset_max=20, ir_max=9),
    OnnxSupport((1, 18), opset_max=21, ir_max=10),
    OnnxSupport((1, 22), opset_max=22, ir_max=10),
    OnnxSupport((1, 23), opset_max=23, ir_max=11),
    OnnxSupport((1, 24, 1), opset_max=25, ir_max=13),
    OnnxSupport((1, 31, 1), opset_max=26, ir_max=13),
)

# Opsets as stated in onnx-tensorrt's docs/operators.md of each release ("supports operators up to
# Opset 13" in 8.2, "17" in 8.6, "opset 9 to opset 24" in 10.15). For 10.0 to 10.14 the
# statement itself was not at hand: 20 is from memory and lies below the opset of the ONNX release
# that those parsers are built with. IR versions are those of the bundled ONNX release, 1.8 in 8.2
# (from memory), 1.13 in 8.6, 1.16 from 10.0 on (from memory; 1.17, with the same IR version 10,
# in 10.6 by onnx-tensorrt's docs/Changelog.md).
TENSORRT: tuple[OnnxSupport, ...] = (
    OnnxSupport((8, 2), opset_max=13, ir_max=7),
    OnnxSupport((8, 6), opset_max=17, ir_max=8),
    OnnxSupport((10, 0), opset_max=20, ir_max=10),
    OnnxSupport((10, 15), opset_max=24, ir_max=10),
)

ONNX_RUNTIMES: dict[str, tuple[OnnxSupport, ...]] = {
    "onnxruntime": ONNXRUNTIME,
    "tensorrt": TENSORRT,
}


def parse_version(text: str) -> Version:
    """``"1.20.1"`` to ``(1, 20, 1)``, so that 1.20 sorts after 1.9.

    Raises:
        ValueError: the text is not numbers joined by dots.
    """
    if re.match(VERSION_PATTERN, text) is None:
        raise ValueError(f"{text!r} is not a version: write numbers joined by dots, like 1.20.1")
    return tuple(int(part) for part in text.split("."))


def onnx_support(runtime: str, min_version: str) -> OnnxSupport | None:
    """What the given release of a runtime reads; None for a runtime that reads no ONNX.

    Args:
        runtime: a runtime's name as in a descriptor, e.g. ``"onnxruntime"``.
        min_version: the oldest release the board may have, e.g. ``"1.15.0"``.

    Raises:
        ValueError: the release is older than the oldest one whose support is known.
    """
    table = ONNX_RUNTIMES.get(runtime)
    if table is None:
        return None
    wanted = parse_version(min_version)
    rows = [row for row in table if row.version <= wanted]
    if not rows:
        oldest = ".".join(str(part) for part in table[0].version)
        raise ValueError(
            f"{runtime} {min_version} is older than {oldest}, the oldest release whose ONNX "
            f"support is known; name {oldest} or newer"
        )
    return rows[-1]
