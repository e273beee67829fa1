"""The output folder: appears whole at the end, or not at all.

DIR                 the result; made by one rename when everything in it is ready
DIR.run/            work in progress: checkpoints, curves, logs; --resume goes on from it
DIR.run/staged/     the result while it is being put together
DIR.run/lock        held while a process works there, and its number; the kernel frees it when the
                    process dies
DIR.run/publishing  inode of the folder that is to become DIR, and that of the one it replaces if
                    this run made that as well
DIR.run/options.json  which job this is, so that --resume cannot mix two
DIR.run/unpublished/  a finished result that the system would not rename to DIR

What an earlier job left in DIR.run stays until a new one is known to be free of mistakes. A DIR.run
that this program did not make is refused whatever the options.

A fleet's DIR (docs/fleet.md) is made in the same way, with a folder of this kind for every board.
"""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from compress_export.errors import UsageError
from compress_export.user_paths import expanded, looking_at
from compress_export.whole_files import write_whole
from compressor.whole_files import UNFINISHED_SUFFIX, sync

# Files that hold no progress: a run folder with nothing else in it is not worth keeping.
_BOOKKEEPING = frozenset({
    "lock", "options.json", "error.log", "publishing", "provenance.json", "samples.npz",
})  # fmt: skip
# All that a run folder can hold before its options.json: that of a run which was killed at its
# start, or which measured a finished DIR again.
_UNNAMED = frozenset({"staged", "replaced", "unpublished", "finished"}) | _BOOKKEEPING
_UNFINISHED = re.compile(rf"\.\d+{re.escape(UNFINISHED_SUFFIX)}$")

# A folder with one of these was made by this program.
FLEET_REPORT = "fleet.json"
_REPORTS = ("report.json", FLEET_REPORT)


def default_out(board_id: str) -> Path:
    """Where results go when --out is not given, relative to the working directory."""
    return Path("compress-export-out") / board_id


def run_folder(out: Path) -> Path:
    """DIR.run of DIR, absolute: "." has no name to put it beside."""
    whole = absolute(out)
    return whole.with_name(whole.name + ".run")


def absolute(out: Path) -> Path:
    """DIR from the root on, with its symlinks."""
    return Path(os.path.abspath(expanded(out)))  # noqa: PTH100 (keeps symlinks)


def is_unfinished(out: Path) -> bool:
    """Whether DIR.run holds work that --resume would go on with.

    Raises UsageError where that can't be looked at."""
    run = run_folder(out)
    with looking_at("--out", out):
        return _has_progress(run) and not (run / "finished").is_file()


def refuse_occupied(
    out: Path, *, force: bool = False, resume: bool = False, update: bool = False
) -> None:
    """Raise what `OutputFolder` raises for what lies there already; change nothing."""
    final, run = absolute(out), run_folder(out)
    with looking_at("--out", out):
        _refuse_foreign(run)
        _refuse_used(run)
        # Our own result, of a run that was killed before it could say so: it is made once more.
        ours = resume and _was_published(final, run)
        _check_replaceable(final, force=force or update or ours)
        _check_run_folder(final, run, force=force, resume=resume)


class OutputFolder:
    """One run's claim on an output folder; a context manager that gives it back.

    Attributes:
        final: DIR as the user named it, made absolute.
        run: DIR.run, which exists and is locked while the claim is held.
        staged: DIR.run/staged, an empty folder at first; `publish` turns it into DIR.
    """

    def __init__(
        self, out: Path, *, force: bool = False, resume: bool = False, update: bool = False
    ) -> None:
        """Claim `out`; `update` may replace a finished DIR, but not drop an unfinished run.

        Raises UsageError, before anything was changed, where DIR exists without `force`, DIR or
        DIR.run is not ours to replace, nothing is there to resume, an unfinished run would be lost,
        the place cannot be written to, or another process is at work there."""
        self.final = absolute(out)
        self.run = run_folder(self.final)
        self.staged = self.run / "staged"
        refuse_occupied(self.final, force=force, resume=resume, update=update)
        ours = resume and _was_published(self.final, self.run)
        self._force, self._resume = force or update or ours, resume
        self._made_parents = _make_folder(self.run)
        self._lock_fd: int | None = _lock(self.run)
        _restore_interrupted_publish(self.run, self.final)
        try:
            # again: a restored one may be there now
            _check_replaceable(self.final, force=self._force)
        except UsageError:
            self.close()
            raise
        for leftover in list(self.run.rglob(f"*{UNFINISHED_SUFFIX}")):
            _remove(leftover)
        _remove(self.staged)
        self.staged.mkdir()

    def refuse_other_job(self, identity: Mapping[str, Any]) -> None:
        """On --resume compare the job with what was noted at its start.

        identity: JobOptions.identity(), plain JSON. Raises UsageError naming what differs.
        """
        noted_path = self.run / "options.json"
        if not self._resume or not noted_path.is_file():
            return
        noted = json.loads(noted_path.read_text(encoding="utf-8"))
        differing = [name for name in identity if identity[name] != noted.get(name)]
        if differing:
            changes = ", ".join(
                f"--{name.replace('_', '-')} was {noted.get(name)} and is {identity[name]}"
                for name in differing
            )
            raise UsageError(
                f"--resume: {self.run} belongs to another job ({changes}); "
                "give the same options or start anew with --force"
            )

    def claim_job(self, identity: Mapping[str, Any]) -> None:
        """Note which job this is. Unless it is resumed, what an earlier one left in DIR.run goes.

        To be called when the user's mistakes have been looked for: none of them may cost hours of
        work. Compares like `refuse_other_job`.
        """
        self.refuse_other_job(identity)
        if not self._resume:
            _empty(self.run)
        write_whole(self.run / "options.json", json.dumps(dict(identity), indent=2) + "\n")

    def publish(self) -> Path:
        """Turn DIR.run/staged into DIR; with force an old DIR is replaced at this moment only.

        Returns DIR. A process killed between the two renames leaves the old DIR in
        DIR.run/replaced, from where the next run puts it back. Raises UsageError where DIR can't
        be renamed, such as a mount point; the result is then kept in DIR.run/unpublished.
        """
        replaced, unpublished = self.run / "replaced", self.run / "unpublished"
        for path in (self.staged, *self.staged.rglob("*")):
            sync(path)
        note, inode = self.run / "publishing", str(self.staged.stat().st_ino)
        earlier = self.final.stat().st_ino if _was_published(self.final, self.run) else ""
        write_whole(note, f"{inode} {earlier}")
        try:
            if self.final.exists():
                _check_replaceable(self.final, force=self._force)
                _remove(replaced)
                self.final.rename(replaced)
            self.staged.rename(self.final)
        except (OSError, UsageError) as error:
            _restore_interrupted_publish(self.run, self.final)
            _remove(unpublished)
            self.staged.rename(unpublished)
            reason = getattr(error, "strerror", None) or str(error)
            raise UsageError(
                f"--out {self.final}: the finished result cannot be put there ({reason}); it is "
                f"whole in {unpublished}: move it from there, or clear the way and --resume"
            ) from error
        _remove(replaced)
        _remove(unpublished)
        write_whole(note, inode)
        sync(self.final.parent)
        (self.run / "finished").touch()
        return self.final

    def close(self) -> None:
        """Give the claim back; a run folder without progress goes, so a mistake leaves nothing."""
        if self._lock_fd is None:
            return
        with suppress(OSError):
            _remove(self.staged)
        if not _has_progress(self.run):
            with suppress(OSError):  # the lock goes last: a rest with it is known for ours
                _empty(self.run)
            shutil.rmtree(self.run, ignore_errors=True)
            for folder in self._made_parents:
                with suppress(OSError):  # not empty: somebody else uses it by now
                    folder.rmdir()
        os.close(self._lock_fd)
        self._lock_fd = None

    def __enter__(self) -> "OutputFolder":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _check_replaceable(final: Path, *, force: bool) -> None:
    """An existing DIR may go only with --force, and only where this program made it."""
    if not final.exists() and not final.is_symlink():
        return
    if not final.is_dir() or final.is_symlink():
        raise UsageError(f"--out {final}: exists and is not a folder; choose another name")
    if os.path.ismount(final):
        raise UsageError(
            f"--out {final}: is a mount point, which no result can take the place of; name a "
            f"folder in it, such as {final / 'out'}"
        )
    ours = any((final / name).is_file() for name in _REPORTS)
    if not any(final.iterdir()) or (force and ours):
        return
    if force:
        raise UsageError(
            f"--out {final}: holds no report.json, so --force will not replace it; "
            "choose another folder or remove it yourself"
        )
    raise UsageError(f"--out {final}: exists; replace it with --force or choose another folder")


def _check_run_folder(final: Path, run: Path, *, force: bool, resume: bool) -> None:
    unfinished = is_unfinished(final)
    if resume and not unfinished:
        why = "that run is finished" if run.is_dir() else f"{run} does not exist"
        raise UsageError(f"--resume: nothing to resume for {final}, {why}; leave --resume out")
    if unfinished and not resume and not force:
        raise UsageError(
            f"{run} holds an unfinished run: go on with --resume or start anew with --force"
        )


def _has_progress(run: Path) -> bool:
    if not run.is_dir():
        return False
    staged = run / "staged"
    return any(
        path.is_file()
        and staged not in path.parents
        and path.suffix != UNFINISHED_SUFFIX
        and path.relative_to(run).as_posix() not in _BOOKKEEPING
        for path in run.rglob("*")
    )


def _make_folder(folder: Path) -> tuple[Path, ...]:
    """Make `folder` and check that it can be written to; returns the parents it had to make,
    innermost first."""
    try:
        missing = [parent for parent in folder.parents if not parent.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / "lock"
        probe.touch()
    except OSError as error:
        raise UsageError(
            f"--out: cannot write to {folder.parent} ({error.strerror}); choose another folder"
        ) from None
    return tuple(missing)


def _refuse_foreign(run: Path) -> None:
    """A folder that only happens to be called DIR.run is neither emptied nor written to."""
    if not run.is_dir() or (run / "options.json").is_file():
        return
    names = sorted(path.name for path in run.iterdir())
    strange = [name for name in names if _UNFINISHED.sub("", name) not in _UNNAMED]
    if names and "lock" not in names:  # it comes first, and stays
        strange = strange or names
    if strange:
        raise UsageError(
            f"--out: its work would go to {run}, which holds {strange[0]} and no options.json, so "
            "another program made it; choose another --out or move that folder"
        )


def _refuse_used(run: Path) -> None:
    """Say who works there before anything is said about what lies there."""
    if (run / "lock").is_file() and os.access(run / "lock", os.W_OK):
        os.close(_lock(run))


def _lock(run: Path) -> int:
    """Hold DIR.run/lock. The kernel drops it with the process, so kill -9 leaves no stale lock."""
    descriptor = os.open(run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(descriptor, 20).decode("ascii", "replace")
        os.close(descriptor)
        raise UsageError(
            f"another process ({holder or 'that has just started'}) is working in {run}; wait for "
            "it or choose another --out"
        ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())
    return descriptor


def _was_published(final: Path, run: Path) -> bool:
    """Whether DIR is what an unfinished run made, which was killed right after the last rename."""
    note = run / "publishing"
    if not note.is_file() or not final.is_dir():
        return False
    return str(final.stat().st_ino) in note.read_text(encoding="ascii").split()


def _restore_interrupted_publish(run: Path, final: Path) -> None:
    replaced = run / "replaced"
    if replaced.is_dir() and not final.exists():
        replaced.rename(final)


def _empty(run: Path) -> None:
    # What says whose the rest is goes last: a process killed here leaves nothing without a name.
    for path in sorted(run.iterdir(), key=lambda path: path.name == "options.json"):
        if path.name not in ("lock", "staged"):
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
