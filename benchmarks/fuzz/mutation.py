"""Mutations that keep a file's outer form: otherwise most inputs end at the first checksum."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import lzma
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import yaml

Mutate = Callable[[bytes, random.Random], bytes]
"""Raises errors of nearly any type for an input that has lost its form."""

_LARGEST_TREE_BYTES = 2**16
_MOST_TRIES = 16  # one in four or five changes of an ONNX model fits its fields

_ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 255, 2**31, 2**53, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e308,
    float("nan"), float("inf"), "", "0", "a", "\x00", "\x1b[2J", "\n", "\ud800", "é", "x" * 5000,
    "../../../etc/passwd", "/etc/passwd", "os:system", "torchvision:resnet18", [], {}, [[]],
    [0] * 50, {"": None}, [{}] * 20, ["x"] * 2,
)  # fmt: skip


def json_tree(data: bytes, chance: random.Random) -> bytes:
    """Change one to three places of a JSON document, which doesn't grow beyond all bounds."""
    if len(data) > _LARGEST_TREE_BYTES:
        raise ValueError("too large already")
    return json.dumps(_changed(json.loads(data), chance)).encode()


def yaml_tree(data: bytes, chance: random.Random) -> bytes:
    """Change one to three places of a YAML document, or wrap it in aliases."""
    tree = _changed(yaml.safe_load(data), chance)
    text: str = yaml.safe_dump(tree, allow_unicode=True, default_flow_style=chance.random() < 0.3)
    if chance.random() < 0.1:
        text = text.replace(": ", f": &a{chance.randrange(3)} ", 1) + "alias: *a0\n"
    if chance.random() < 0.1:
        tag = chance.choice(
            ("!!int", "!!timestamp", "!!binary", "!!python/name:os.system", "!!set")
        )
        text = text.replace(": ", f": {tag} ", chance.randrange(3))
    return text.encode("utf-8", "surrogatepass")


def zip_members(data: bytes, chance: random.Random) -> bytes:
    """Change bytes of one member of a zip archive, whose checksums are right again."""
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(packed, "w") as new:
        members = old.infolist()
        victim = chance.choice(members).filename
        for member in members:
            content = old.read(member)
            if member.filename == victim:
                content = _flipped(content, chance)
            how = zipfile.ZIP_DEFLATED if chance.random() < 0.3 else zipfile.ZIP_STORED
            if chance.random() < 0.97:
                new.writestr(member.filename, content, how)
    return packed.getvalue()


def safetensors_header(data: bytes, chance: random.Random) -> bytes:
    """Change the JSON header of a safetensors file, whose length is right again."""
    (size,) = struct.unpack_from("<Q", data)
    header = json_tree(data[8 : 8 + size], chance)
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


def codebook_body(data: bytes, chance: random.Random) -> bytes:
    """Change the body of a codebook file, whose length and digest are right again."""
    body = lzma.decompress(data[52:])
    (size,) = struct.unpack_from("<I", body)
    header, rest = body[4 : 4 + size], body[4 + size :]
    if chance.random() < 0.7:
        header = json_tree(header, chance)
    else:
        rest = _flipped(rest, chance)
    body = struct.pack("<I", len(header)) + header + rest
    head = data[:12] + struct.pack("<Q", len(body)) + hashlib.sha256(body).digest()
    return head + lzma.compress(body, preset=0)


def onnx_tree(data: bytes, chance: random.Random) -> bytes:
    """Change one to three places of an ONNX model so that its fields still hold all of it."""
    import onnx
    from google.protobuf import json_format

    tree = json_format.MessageToDict(onnx.ModelProto.FromString(data))
    for _ in range(_MOST_TRIES):
        changed = _changed(copy.deepcopy(tree), chance)
        try:
            model = json_format.ParseDict(changed, onnx.ModelProto(), ignore_unknown_fields=True)
        except Exception:  # of several types, where a value doesn't fit its field
            continue
        content: bytes = model.SerializeToString()
        return content
    raise ValueError("no change fits the fields")


def _flipped(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        if not changed:
            return bytes(chance.randrange(256) for _ in range(8))
        place = chance.randrange(min(len(changed), 256) if chance.random() < 0.7 else len(changed))
        what = chance.random()
        if what < 0.6:
            changed[place] = chance.randrange(256)
        elif what < 0.8:
            del changed[place : place + chance.randint(1, 8)]
        else:
            changed[place:place] = changed[place : place + chance.randint(1, 8)]
    return bytes(changed)


def _changed(tree: Any, chance: random.Random) -> Any:
    box = [tree]
    for _ in range(chance.randint(1, 3)):
        places = _places(box)
        holder, key = chance.choice(places)
        what = chance.random()
        if what < 0.55:
            holder[key] = copy.deepcopy(chance.choice(_ODD))  # later changes go into it
        elif what < 0.7 and holder is not box:
            del holder[key]
        elif what < 0.85:
            other, other_key = chance.choice(places)
            holder[key] = json.loads(json.dumps(other[other_key], default=str))
        elif what < 0.95:
            holder[key] = [holder[key]] * chance.randint(1, 3)
        else:
            for _ in range(chance.choice((3, 40))):
                holder[key] = [holder[key]]
    return box[0]


def _places(holder: Any) -> list[tuple[Any, Any]]:
    """Every (list or mapping, key) below a value."""
    found: list[tuple[Any, Any]] = []
    left = [holder]
    while left:
        one = left.pop()
        if isinstance(one, dict | list):
            keys = list(one) if isinstance(one, dict) else list(range(len(one)))
            found += [(one, key) for key in keys]
            left += [one[key] for key in keys]
    return found
