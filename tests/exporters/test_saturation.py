"""U8S8 without VNNI: full-range weights go wrong, the profile's 7-bit weights don't."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np
from vpmaddubsw import exact, layers, saturating

from boards import load_board
from exporters.errors import CheckError
from exporters.onnx_int8 import export_int8_onnx
from exporters.profiles.select import check_profile


@pytest.fixture(scope="module")
def seven_bits(pc_folder, calibration, tmp_path_factory):
    """The net for x86-64-avx2."""
    path = tmp_path_factory.mktemp("avx2") / "slim.int8.onnx"
    export_int8_onnx(
        pc_folder.path / "slim.float32.onnx",
        path,
        calibration=calibration,
        rules=load_board("x86-64-avx2").quantization.onnx,
        input_shape=(3, 16, 16),
    )
    return path


def test_the_instruction_saturates():
    rows = np.array([[255, 255]], np.uint8)
    assert exact(rows, np.array([[127], [127]], np.int8)).item() == 64_770
    assert saturating(rows, np.array([[127], [127]], np.int8)).item() == 32_767
    assert saturating(rows, np.array([[-127], [-127]], np.int8)).item() == -32_768
    assert saturating(rows, np.array([[64], [64]], np.int8)).item() == 32_640
    assert saturating(rows, np.array([[65], [65]], np.int8)).item() == 32_767 < 255 * 65 * 2


@given(st.data())
def test_seven_bits_never_saturate(data):
    n, k, m = (data.draw(st.integers(1, 6)) for _ in range(3))
    rows = data.draw(st_np.arrays(np.uint8, (n, k)))
    weights = data.draw(st_np.arrays(np.int8, (k, m), elements=st.integers(-64, 64)))
    np.testing.assert_array_equal(saturating(rows, weights), exact(rows, weights))


def test_the_emulation_multiplies_what_the_file_multiplies(pc_folder, validation_images):
    """Exact sums, scaled, are onnxruntime's own results."""
    for layer in layers(pc_folder.path / "slim.int8.onnx", validation_images[:8]):
        sums = exact(layer.rows, layer.weights) - layer.zero * layer.weights.sum(0, dtype=np.int32)
        found = sums * layer.scale + layer.bias
        limit = 1e-4 * np.abs(layer.result).max()
        np.testing.assert_allclose(found, layer.result, atol=limit, err_msg=layer.name)


def test_full_range_weights_go_wrong_without_vnni(pc_folder, validation_images):
    found = list(layers(pc_folder.path / "slim.int8.onnx", validation_images[:24]))
    wrong = {layer.name: float(layer.error_steps.max()) for layer in found}
    assert sum(error > 0.5 for error in wrong.values()) >= 2
    first = found[0]
    assert first.name == "conv1"
    assert (first.error_steps > 0).mean() > 0.02  # of its results
    assert first.error_steps.max() > 20  # of 255 steps


def test_seven_bit_weights_don_t(seven_bits, validation_images):
    for layer in layers(seven_bits, validation_images[:24]):
        assert int(np.abs(layer.weights.astype(int)).max()) <= 64
        assert not layer.error_steps.any(), layer.name


def test_the_profile_tells_them_apart(pc_folder, seven_bits):
    board = load_board("x86-64-avx2")
    assert check_profile(seven_bits, board, "onnx").name == "x86-without-vnni"
    with pytest.raises(CheckError, match="x86-without-vnni: weight of conv1 reaches 127.*linear"):
        check_profile(pc_folder.path / "slim.int8.onnx", board, "onnx")
    assert check_profile(seven_bits, load_board("x86-64"), "onnx").name == "x86-vnni"


def test_int8_activations_are_no_way_out(pc_folder, calibration, tmp_path):
    """onnxruntime makes them uint8 on x86, so that the same rule holds; the report says it."""
    path = tmp_path / "s8s8.onnx"
    export_int8_onnx(
        pc_folder.path / "slim.float32.onnx",
        path,
        calibration=calibration,
        rules=load_board("rpi4").quantization.onnx,
        input_shape=(3, 16, 16),
    )
    with pytest.raises(CheckError, match="weight of conv1 reaches 127"):
        check_profile(path, load_board("x86-64-avx2"), "onnx")
    (remark,) = check_profile(path, load_board("x86-64"), "onnx").remarks
    assert "leaves some convolutions in float" in remark
