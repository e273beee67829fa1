"""Errors of the exporters. Every message is one line and names the step that failed."""

from __future__ import annotations


class ExportError(RuntimeError):
    """A step of the export failed; `log` holds what the tool printed meanwhile."""

    def __init__(self, message: str, *, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class UnsupportedExportError(ExportError, ValueError):
    """The board and the wanted format or precision don't go together (the user's mistake)."""


class CalibrationError(ExportError, ValueError):
    """The calibration data is empty or not what the model takes."""


class CheckError(ExportError):
    """A written file was read back and isn't what it should be."""
