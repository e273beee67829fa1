"""Codebook files: whatever goes in comes out, bit for bit, and takes the bytes that it should."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from exporters.codebook_file import index_bits, pack_indices, write_codebook_file
from runtime_bench.codebook_file import read_codebook_file, unpack_indices


@given(st.sampled_from([1, 2, 4, 8]), st.data())
def test_packed_indices_come_back(bits: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 50))
    indices = data.draw(arrays.arrays(np.int64, count, elements=st.integers(0, 2**bits - 1)))
    packed = pack_indices(indices, bits)
    assert len(packed) == -(-count * bits // 8)
    # the same number by another way: digits of base 2**bits, the first ones lowest
    number = sum(int(index) << (bits * place) for place, index in enumerate(indices))
    assert int.from_bytes(packed, "little") == number
    found = unpack_indices(np.frombuffer(packed, np.uint8), bits, count)
    assert found.tolist() == indices.tolist()


def test_an_index_has_the_fewest_bits_that_divide_a_byte() -> None:
    assert [index_bits(n) for n in (1, 2, 3, 4, 5, 16, 17, 64, 256)] == [1, 1, 2, 2, 4, 4, 8, 8, 8]


DTYPES = st.sampled_from(["f2", "f4", "f8", "i1", "i4", "i8", "u1", "?", ">f4"])


@settings(max_examples=50)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=9).filter(lambda name: name.isprintable()),
        arrays.arrays(DTYPES, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=6)),
        max_size=4,
    )
)
def test_any_tensors_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, state: dict[str, np.ndarray]
) -> None:
    path = tmp_path_factory.mktemp("any") / "any.codebook"
    write_codebook_file(state, path)
    found = read_codebook_file(path)
    assert list(found) == list(state)
    for name, array in state.items():
        assert found[name].shape == array.shape
        assert found[name].dtype == array.dtype.newbyteorder("<")
        little = array.astype(array.dtype.newbyteorder("<"))
        assert found[name].tobytes() == little.tobytes()  # also NaNs and negative zeros


def shared_weights(entries: int, count: int) -> np.ndarray:
    rng = np.random.default_rng(entries)
    codebook = rng.normal(size=entries).astype(np.float32)
    return codebook[np.concatenate([np.arange(entries), rng.integers(0, entries, count - entries)])]


@pytest.mark.parametrize("entries", [2, 4, 16, 256])
def test_shared_weights_take_little_more_than_their_entropy(entries: int, tmp_path: Path) -> None:
    """Uniform random indices can't be compressed: log2(entries) bits each, and the codebook."""
    count = 40_000
    weights = shared_weights(entries, count).reshape(40, 1000)
    written = write_codebook_file({"conv.weight": weights}, tmp_path / "slim.codebook")
    least = count * np.log2(entries) / 8 + 4 * entries
    assert least <= written.size_bytes <= 1.01 * least + 300
    assert written.entries == entries
    assert written.expanded_bytes == 4 * count


def test_what_is_known_of_a_file_is_true(tmp_path: Path) -> None:
    path = tmp_path / "slim.codebook"
    state = {"norm.weight": np.linspace(0, 1, 300, dtype=np.float32), "n": np.array(3)}
    written = write_codebook_file(state, path)
    content = path.read_bytes()
    assert written.path == "slim.codebook"
    assert written.size_bytes == len(content)
    assert written.sha256 == hashlib.sha256(content).hexdigest()
    assert written.entries == 0  # 300 different values, and a single one: both as they are
    assert write_codebook_file(state, tmp_path / "again").sha256 == written.sha256


def test_a_codebook_that_saves_nothing_is_not_used(tmp_path: Path) -> None:
    weights = np.arange(9, dtype=np.float32)  # nine values of nine: 36 bytes as they are
    assert write_codebook_file({"w": weights}, tmp_path / "w.codebook").entries == 0
