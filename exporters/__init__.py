"""Dense torch models to the files that a board runs. See docs/exporters.md."""

from exporters.artifacts import Exported, TensorSpec
from exporters.bundle import write_bundle, write_manifest, write_sums
from exporters.calibration import Calibration
from exporters.codebook_file import CodebookFile, write_codebook_file
from exporters.errors import CalibrationError, CheckError, ExportError, UnsupportedExportError
from exporters.export import export_files
from exporters.firmware import write_firmware
from exporters.raw_input import Normalisation

__all__ = [
    "Calibration",
    "CalibrationError",
    "CheckError",
    "CodebookFile",
    "ExportError",
    "Exported",
    "Normalisation",
    "TensorSpec",
    "UnsupportedExportError",
    "export_files",
    "write_bundle",
    "write_codebook_file",
    "write_firmware",
    "write_manifest",
    "write_sums",
]
