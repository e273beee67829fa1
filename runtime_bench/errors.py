"""The errors of the bench: a user's mistake is a ValueError, a failed tool is a RuntimeError."""

from __future__ import annotations


class ManifestError(ValueError):
    """The model folder is incomplete, altered, or its manifest.json can't be read."""


class SignatureError(ManifestError):
    """The folder is not signed, not with this key, or was altered since."""


class CodebookError(ValueError):
    """A codebook file is missing, damaged, or of another version."""


class SamplesError(ValueError):
    """The samples file can't be read or doesn't fit the model folder."""


class BenchError(RuntimeError):
    """A measuring process failed, crashed or gave no answer in time."""


class RuntimeMissingError(BenchError):
    """No runtime that reads this file's format is installed here."""
