import json
from pathlib import Path

import bench_models
import pytest

from runtime_bench import ManifestError, read_manifest, verify_files
from runtime_bench.manifest import ModelFile

NAME = "slim.float32.onnx"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return bench_models.write_folder(tmp_path / "bundle", [NAME])


def change(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change_file(folder: Path, **changes: object) -> None:
    entry = json.loads((folder / "manifest.json").read_text())["files"][0]
    change(folder, files=[{**entry, **changes}])


def test_an_intact_folder_is_read_and_verified(folder: Path) -> None:
    manifest = read_manifest(folder)
    verify_files(manifest)
    assert manifest.board.id == "bench-board"
    assert manifest.budgets == {"file_size_mib": 1.0, "accuracy_drop_points": 1.0}
    assert manifest.image_shape == (3, 4, 5)
    assert manifest.files[0].input.shape == (-1, 3, 4, 5)
    assert not manifest.files[0].input.quantized


def test_a_model_file_survives_the_trip_to_the_worker(folder: Path) -> None:
    from dataclasses import asdict

    file = read_manifest(folder).files[0]
    assert ModelFile.from_json(json.loads(json.dumps(asdict(file))), "test") == file


def test_one_changed_byte_is_detected(folder: Path) -> None:
    path = folder / NAME
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ManifestError, match=r"slim\.float32\.onnx has sha256 .* manifest says"):
        verify_files(read_manifest(folder))


def test_a_truncated_and_a_missing_file_are_both_named(tmp_path: Path) -> None:
    folder = bench_models.write_folder(tmp_path / "bundle", [NAME, "slim.int8.onnx"])
    (folder / NAME).write_bytes((folder / NAME).read_bytes()[:-10])
    (folder / "slim.int8.onnx").unlink()
    with pytest.raises(ManifestError) as caught:
        verify_files(read_manifest(folder))
    assert f"{NAME} has" in str(caught.value)
    assert "slim.int8.onnx is missing" in str(caught.value)


def test_side_files_count_and_are_hashed(folder: Path) -> None:
    (folder / "weights.data").write_bytes(b"12345")
    size = (folder / NAME).stat().st_size
    wrong = "0" * 64
    change_file(folder, side_files=["weights.data"], size_bytes=size)
    with pytest.raises(ManifestError, match=f"has {size + 5} bytes, the manifest says {size}"):
        verify_files(read_manifest(folder))
    change_file(folder, size_bytes=size + 5)
    verify_files(read_manifest(folder))
    change_file(folder, side_files=[{"path": "weights.data", "sha256": wrong}])
    with pytest.raises(ManifestError, match=r"weights\.data has sha256"):
        verify_files(read_manifest(folder))


@pytest.mark.parametrize("path", ["../outside.onnx", "/etc/passwd", "a/../../b", "..\\b", ""])
def test_a_path_out_of_the_folder_is_refused(folder: Path, path: str) -> None:
    change_file(folder, path=path)
    with pytest.raises(ManifestError, match="does not stay inside the folder"):
        read_manifest(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 2}, "schema_version is 2, this bench reads 1"),
        ({"budgets": {"size_mb": 1}}, "unknown budget 'size_mb'; known are file_size_mib"),
        ({"budgets": {"latency_p90_ms": "5"}}, "'latency_p90_ms' is '5', expected int or float"),
        ({"budgets": {"latency_p90_ms": float("nan")}}, "not a finite number"),
        ({"board": {"id": "x"}}, "board: 'kind' is missing"),
        ({"files": [3]}, r"files\[0\]: 3 is not an object"),
        ({"preprocessing": {"mean": [0.5], "std": [0]}}, "std above 0"),
    ],
)
def test_a_wrong_field_is_named(folder: Path, changes: dict[str, object], message: str) -> None:
    change(folder, **changes)
    with pytest.raises(ManifestError, match=message):
        read_manifest(folder)


def test_a_quantized_tensor_needs_its_scale(tmp_path: Path) -> None:
    folder = bench_models.write_folder(tmp_path / "bundle", ["slim.int8.tflite"])
    entry = json.loads((folder / "manifest.json").read_text())["files"][0]
    change_file(folder, input={**entry["input"], "scale": 0.0})
    with pytest.raises(ManifestError, match=r"input: scale 0\.0 is not a positive number"):
        read_manifest(folder)
    change_file(folder, input={**entry["input"], "scale": None})
    with pytest.raises(ManifestError, match="'scale' is None, expected int or float"):
        read_manifest(folder)


def test_a_missing_or_broken_manifest(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="No such file"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ManifestError, match="not JSON"):
        read_manifest(tmp_path)
