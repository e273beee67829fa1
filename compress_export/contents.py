"""What a finished DIR holds of the job's; whatever else lies there is the user's own."""

from __future__ import annotations

import shutil
from pathlib import Path

from compress_export.first_aid_plot import FIRST_AID_PICTURE
from compress_export.precision_plot import PICTURE

FOLDERS = frozenset({"bundle", "reference", "torch", "evidence"})
_REPORTS = frozenset({"report.json", "report.md", "report.html"})
_MADE = FOLDERS | _REPORTS | {PICTURE, FIRST_AID_PICTURE}


def is_made(name: str) -> bool:
    """Whether jobs make a file.

    Args:
        name: relative to DIR, with slashes; all that is in a job's folder counts as the job's.
    """
    return name.split("/")[0] in _MADE


def copy_contents(folder: Path, to: Path) -> None:
    """Copy a finished DIR, the user's own files with it, but for the reports.

    Args:
        to: an empty folder, which is to take the place of DIR.

    Raises:
        OSError: a file can't be read, or is neither file, folder nor link.
    """
    for path in folder.iterdir():
        if path.name in _REPORTS:
            continue
        # The job's files are changed where they are copied to, so none of them may be a link. The
        # user's links stay what they are, as they may lead anywhere.
        ours = path.name in FOLDERS
        if path.is_dir() and (ours or not path.is_symlink()):
            shutil.copytree(path, to / path.name, symlinks=not ours)
        else:
            shutil.copy2(path, to, follow_symlinks=False)
