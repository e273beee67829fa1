"""Read and write ONNX files without their weights in memory.

In a `ModelProto` that `read_model` returns, every large initializer is still in its file: it is
external data whose location is that file's absolute path, be it the .onnx file itself.
`tensor_array` maps it, `write_model` copies it piece by piece. So a graph of any size can be
edited, checked and given to shape inference, none of which looks at weights, and none of which
takes more than the 2 GiB that a protobuf message may have.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from exporters.errors import ExportError

if TYPE_CHECKING:
    import onnx

LARGE_BYTES = 2**20  # tensors from this size on stay in their file
ONE_FILE_BYTES = 2**31 - 1  # what a protobuf message may have at most
SIDE_SUFFIX = ".data"  # of the file that holds the weights of a model beyond that
_ALIGNMENT = 4096
_CHUNK_BYTES = 16 * 2**20
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_NO_COPIES = "session.disable_prepacking"
# Numbers of fields in onnx.proto, and their tags where they hold bytes: number * 8 + 2.
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9


@dataclass(frozen=True)
class Stored:
    """Where a large initializer lies, in bytes."""

    path: Path
    offset: int
    length: int


def read_model(path: Path) -> onnx.ModelProto:
    """Read a file; large initializers stay where they are.

    Raises:
        ExportError: the file is no ONNX model, or its external data lies outside its folder.
    """
    import onnx
    from onnx import numpy_helper

    if path.stat().st_size == 0:
        raise ExportError(f"{path} is empty")
    path = path.resolve()  # side files lie beside what a link leads to
    model, graph = onnx.ModelProto(), bytearray()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        tensors = []
        for field in _fields(content, 0, len(content)):
            if field.number != _GRAPH:
                model.MergeFromString(content[field.start : field.end])
                continue
            for part in _fields(content, field.value, field.end):
                if part.number == _INITIALIZER:
                    tensors.append(_tensor(content, part, path.name))
                else:
                    graph += content[part.start : part.end]
    model.graph.MergeFromString(bytes(graph))
    model.graph.initializer.extend(tensors)
    for tensor in model.graph.initializer:
        place = stored(tensor)
        if place is None:
            continue
        inside = _inside(path.parent, str(place.path), tensor.name)
        _refer(tensor, str(inside), place.offset, place.length)
        if place.length < LARGE_BYTES:
            tensor.CopyFrom(numpy_helper.from_array(tensor_array(tensor), tensor.name))
    return model


def write_model(model: onnx.ModelProto, path: Path) -> None:
    """Check a model and write it: one file, beyond 2 GiB with its weights in a file beside it.

    The weights may come from the file that is replaced. There is no moment with half a file.

    Raises:
        onnx.checker.ValidationError: the model is not valid.
    """
    import onnx

    onnx.checker.check_model(without_weights(model), full_check=True)
    large = [tensor for tensor in model.graph.initializer if stored(tensor) is not None]
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    for index in reversed(range(len(rest.graph.initializer))):
        if stored(rest.graph.initializer[index]) is not None:
            del rest.graph.initializer[index]
    part, side = path.with_name(f"{path.name}.part"), side_file(path)
    side_part = side.with_name(f"{side.name}.part")
    total = rest.ByteSize() + sum(place.length for place in map(_place, large))
    with part.open("wb") as file:
        if total <= ONE_FILE_BYTES:
            _write_one(file, rest, large)
        else:
            _write_side(side_part, rest, large, side.name)
            file.write(rest.SerializeToString())
    if side_part.exists():
        side_part.replace(side)
    elif side.exists():
        side.unlink()  # of a larger model that was here before
    part.replace(path)


def side_file(path: Path) -> Path:
    """Where the weights of a model beyond 2 GiB lie."""
    return path.with_name(path.name + SIDE_SUFFIX)


def side_files(path: Path) -> tuple[Path, ...]:
    """The files that belong to a written model beside its own."""
    return tuple(side for side in (side_file(path),) if side.is_file())


def stored(tensor: onnx.TensorProto) -> Stored | None:
    """Where a tensor's values lie; None where the message itself holds them."""
    from onnx import TensorProto, helper

    if tensor.data_location != TensorProto.EXTERNAL:
        return None
    entries = {entry.key: entry.value for entry in tensor.external_data}
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    whole = dtype.itemsize * int(np.prod(tensor.dims))
    offset, length = int(entries.get("offset", 0)), int(entries.get("length", whole))
    return Stored(Path(entries["location"]), offset, length)


def tensor_array(tensor: onnx.TensorProto) -> np.ndarray:
    """The values of an initializer: mapped, read-only, where they lie in a file."""
    from onnx import helper, numpy_helper

    place = stored(tensor)
    if place is None:
        return numpy_helper.to_array(tensor)
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
    if place.length == 0:  # nothing can't be mapped
        return np.zeros(tuple(tensor.dims), dtype)
    if dtype.itemsize * int(np.prod(tensor.dims)) == place.length:
        return np.memmap(place.path, dtype, "r", place.offset, tuple(tensor.dims))
    content = np.memmap(place.path, np.uint8, "r", place.offset, (place.length,))
    packed = helper.make_tensor("", tensor.data_type, tensor.dims, content.tobytes(), raw=True)
    return numpy_helper.to_array(packed)  # several values to a byte


@contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """A folder on the disk that `beside` lies on; gone at the end."""
    with tempfile.TemporaryDirectory(dir=beside.resolve().parent, prefix=".") as folder:
        yield Path(folder)


@contextmanager
def scratch_file(beside: Path) -> Iterator[BinaryIO]:
    """A file for `put_aside` in such a folder."""
    with scratch_folder(beside) as folder, (folder / "weights").open("wb") as file:
        yield file


def put_aside(tensor: onnx.TensorProto, values: np.ndarray, file: BinaryIO) -> None:
    """Append the values of an initializer to a file; the initializer only says where they are."""
    offset = file.tell()
    file.write(np.ascontiguousarray(values).data)
    file.flush()
    _refer(tensor, file.name, offset, values.nbytes)


def row_slices(values: np.ndarray) -> Iterator[slice]:
    """Slices of the first axis of a large array, to be worked on one after the other."""
    step = max(1, _CHUNK_BYTES * len(values) // values.nbytes)
    return (slice(start, start + step) for start in range(0, len(values), step))


def without_weights(model: onnx.ModelProto, but: Collection[str] = ()) -> onnx.ModelProto:
    """A copy in which large initializers are inputs of the graph: all of it but their values.

    Args:
        but: names of large initializers to take into memory instead.
    """
    import onnx
    from onnx import helper, numpy_helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = copy.graph.initializer
    for index in reversed(range(len(constants))):
        tensor = constants[index]
        if stored(tensor) is None:
            continue
        if tensor.name in but:
            tensor.CopyFrom(numpy_helper.from_array(tensor_array(tensor), tensor.name))
            continue
        shape = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        copy.graph.input.append(shape)
        del constants[index]
    return copy


def with_weights(edited: onnx.ModelProto, whole: onnx.ModelProto) -> onnx.ModelProto:
    """What was made of `without_weights(whole)` with its weights where they were; in place."""
    large = {t.name: t for t in whole.graph.initializer if stored(t) is not None}
    for index in reversed(range(len(edited.graph.input))):
        name = edited.graph.input[index].name
        if name in large:
            del edited.graph.input[index]
            edited.graph.initializer.append(large[name])
    return edited


def session_source(model: onnx.ModelProto, options: Any) -> bytes:
    """What an onnxruntime session takes in place of a path: weights are mapped, not copied.

    Args:
        options: the session's; told where the weights lie. They all lie in one folder.
    """
    import onnx

    relative = onnx.ModelProto()
    relative.CopyFrom(model)
    for tensor in relative.graph.initializer:
        place = stored(tensor)
        if place is not None:
            _refer(tensor, place.path.name, place.offset, place.length)
            folder = str(place.path.parent)
            options.add_session_config_entry(_WEIGHTS_FOLDER, folder)
            options.add_session_config_entry(_NO_COPIES, "1")
    return relative.SerializeToString()


@dataclass(frozen=True)
class _Field:
    """A field of a protobuf message: [start, end) with its tag, [value, end) without it."""

    number: int
    start: int
    value: int
    end: int


def _fields(content: mmap.mmap, start: int, end: int) -> Iterator[_Field]:
    """The fields of the message in [start, end). https://protobuf.dev/programming-guides/encoding"""
    while start < end:
        tag, value = _varint(content, start)
        kind = tag & 7
        if kind == 2:
            length, value = _varint(content, value)
            stop = value + length
        elif kind == 0:
            _, stop = _varint(content, value)
        elif kind in (1, 5):
            stop = value + (8 if kind == 1 else 4)
        else:
            raise ExportError(f"byte {start} starts no field of a protobuf message")
        if stop > end:
            raise ExportError(f"the file is cut off: a field ends at byte {stop} of {end}")
        yield _Field(tag >> 3, start, value, stop)
        start = stop


def _varint(content: mmap.mmap, at: int) -> tuple[int, int]:
    """A number and where it ends: seven bits a byte, the lowest first."""
    number = shift = 0
    while True:
        if at >= len(content) or shift > 63:
            raise ExportError(f"no number at byte {at} of the file")
        byte = content[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at


def _encoded(number: int) -> bytes:
    """The same the other way round."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*found, number))


def _tensor(content: mmap.mmap, field: _Field, name: str) -> onnx.TensorProto:
    """An initializer; what is large of it stays in the file."""
    import onnx

    tensor = onnx.TensorProto()
    if field.end - field.value < LARGE_BYTES:
        tensor.ParseFromString(content[field.value : field.end])
        return tensor
    raw = None
    for part in _fields(content, field.value, field.end):
        if part.number == _RAW_DATA:
            raw = part
        else:
            tensor.MergeFromString(content[part.start : part.end])
    if raw is not None:
        _refer(tensor, name, raw.value, raw.end - raw.value)
    return tensor


def _inside(folder: Path, location: str, name: str) -> Path:
    """The file that holds a tensor's values, which no name and no link may lead elsewhere."""
    path = (folder / location).resolve()
    if PurePosixPath(location).is_absolute() or not path.is_relative_to(folder):
        raise ExportError(f"the values of {name!r} lie outside of the model's folder: {location!r}")
    return path


def _refer(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    """Let a tensor's values be those at a place in a file."""
    from onnx import TensorProto

    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))


def _place(tensor: onnx.TensorProto) -> Stored:
    place = stored(tensor)
    assert place is not None
    return place


def _write_one(file: BinaryIO, rest: onnx.ModelProto, large: list[onnx.TensorProto]) -> None:
    """Write the message of the whole model, large tensors straight from their files."""
    import onnx

    graph = rest.graph.SerializeToString()
    heads = []
    for tensor in large:
        head = onnx.TensorProto()
        head.CopyFrom(tensor)
        del head.external_data[:]
        head.ClearField("data_location")
        raw = _tag(_RAW_DATA, _place(tensor).length)
        content = head.SerializeToString() + raw
        heads.append(_tag(_INITIALIZER, len(content) + _place(tensor).length) + content)
    total = len(graph) + sum(map(len, heads)) + sum(_place(tensor).length for tensor in large)
    rest.ClearField("graph")
    file.write(rest.SerializeToString() + _tag(_GRAPH, total) + graph)
    for tensor, head in zip(large, heads, strict=True):
        file.write(head)
        _copy(_place(tensor), file)


def _tag(number: int, length: int) -> bytes:
    """What stands before a field of so many bytes."""
    return bytes((number << 3 | 2,)) + _encoded(length)


def _write_side(
    side: Path, rest: onnx.ModelProto, large: list[onnx.TensorProto], location: str
) -> None:
    """Write large tensors into a side file and let the rest refer to it."""
    with side.open("wb") as file:
        for tensor in large:
            offset = -(-file.tell() // _ALIGNMENT) * _ALIGNMENT
            file.seek(offset)
            _copy(_place(tensor), file)
            reference = rest.graph.initializer.add()
            reference.CopyFrom(tensor)
            _refer(reference, location, offset, _place(tensor).length)


def _copy(place: Stored, target: BinaryIO) -> None:
    with place.path.open("rb") as source:
        source.seek(place.offset)
        left = place.length
        while left:
            chunk = source.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise ExportError(f"{os.fspath(place.path)} is cut off: {left} bytes are missing")
            target.write(chunk)
            left -= len(chunk)
