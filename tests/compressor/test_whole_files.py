"""A file is the old one or the new one, never half of either."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from compressor.whole_files import UNFINISHED_SUFFIX, whole_file


def test_a_new_file_and_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "new.txt"
    with whole_file(path) as unfinished:
        unfinished.write_text("all of it")
        assert not path.exists()
        assert unfinished.parent == path.parent
        assert unfinished.suffix == UNFINISHED_SUFFIX
    assert path.read_text() == "all of it"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_alone(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "state"
    path.write_text("old")
    with pytest.raises(type(error)) as raised, whole_file(path) as unfinished:
        unfinished.write_text("ha")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    if isinstance(raised.value, OSError):  # the user reads which file it was
        assert raised.value.errno == errno.ENOSPC
        assert raised.value.filename == str(path)


def test_a_killed_process_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("old")
    child = os.fork()
    if child == 0:
        try:
            with whole_file(path) as unfinished:
                unfinished.write_text("ha")
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)  # or it would go on with the tests
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert path.read_text() == "old"


def test_a_link_is_followed(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    with whole_file(link) as unfinished:
        unfinished.write_text("new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_a_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with whole_file(pipe) as place:
        place.write_text("through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert pipe.is_fifo()
