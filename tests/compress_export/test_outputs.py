"""The output folder: whole or not at all, and never somebody else's."""

import errno
import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from compress_export.errors import UsageError
from compress_export.outputs import OutputFolder, default_out, is_unfinished, run_folder


def finish(out: Path, text: str, *, force: bool = False) -> None:
    with OutputFolder(out, force=force) as output:
        output.claim_job({"seed": 0})
        (output.run / "search.csv").write_text("epoch\n1\n")
        (output.staged / "report.json").write_text(text)
        output.publish()


def leave_unfinished(out: Path) -> None:
    with OutputFolder(out) as output:
        output.claim_job({"seed": 0})
        (output.run / "checkpoints").mkdir()
        (output.run / "checkpoints" / "1.safetensors").write_bytes(b"weights")


def test_default_place() -> None:
    assert default_out("jetson") == Path("compress-export-out/jetson")


def test_the_folder_appears_whole_when_published(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with OutputFolder(out) as output:
        (output.staged / "report.json").write_text("{}")
        (output.run / "curves").write_text("kept")
        assert not out.exists()
        assert output.publish() == out
        assert [path.name for path in out.iterdir()] == ["report.json"]
    assert (tmp_path / "deep" / "out.run" / "curves").read_text() == "kept"
    assert not (tmp_path / "deep" / "out.run" / "staged").exists()


def test_a_failed_run_leaves_no_folder(tmp_path: Path) -> None:
    out = tmp_path / "a" / "out"
    with pytest.raises(ZeroDivisionError), OutputFolder(out) as output:
        (output.staged / "half").write_text("written")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []  # nor a run folder, nor the parents it made


def test_progress_survives_a_failed_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    leave_unfinished(out)
    assert not out.exists()
    with OutputFolder(out, resume=True) as output:
        assert (output.run / "checkpoints" / "1.safetensors").read_bytes() == b"weights"
        assert list(output.staged.iterdir()) == []


def test_an_unfinished_run_is_not_lost_by_accident(tmp_path: Path) -> None:
    out = tmp_path / "out"
    leave_unfinished(out)
    with pytest.raises(UsageError, match="unfinished run.*--resume.*--force"):
        OutputFolder(out)
    assert (tmp_path / "out.run" / "checkpoints" / "1.safetensors").exists()
    with OutputFolder(out, force=True) as output:
        output.claim_job({"seed": 1})
        assert not (output.run / "checkpoints").exists()


def test_a_mistake_does_not_cost_an_unfinished_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    leave_unfinished(out)
    with pytest.raises(UsageError, match="no such image"), OutputFolder(out, force=True):
        raise UsageError("no such image")  # before the job is claimed
    with OutputFolder(out, resume=True) as output:
        assert (output.run / "checkpoints" / "1.safetensors").read_bytes() == b"weights"


def test_measuring_again_leaves_the_curves_and_can_be_done_over(tmp_path: Path) -> None:
    out = tmp_path / "out"
    finish(out, "first")
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), OutputFolder(out, update=True) as output:
            (output.run / "samples.npz").write_bytes(b"what the bench reads")
            raise KeyboardInterrupt
        assert not is_unfinished(out)
    assert (out / "report.json").read_text() == "first"
    assert (tmp_path / "out.run" / "search.csv").read_text() == "epoch\n1\n"


def test_the_working_directory_has_a_run_folder_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run_folder(Path()) == tmp_path / "here.run"
    assert not is_unfinished(Path())


def test_an_existing_folder_is_refused_and_unchanged(tmp_path: Path) -> None:
    out = tmp_path / "out"
    finish(out, "first")
    with pytest.raises(UsageError, match="exists; replace it with --force"):
        OutputFolder(out)
    assert (out / "report.json").read_text() == "first"


def test_force_replaces_only_when_the_new_one_is_ready(tmp_path: Path) -> None:
    out = tmp_path / "out"
    finish(out, "first")
    with pytest.raises(ZeroDivisionError), OutputFolder(out, force=True):
        raise ZeroDivisionError
    assert (out / "report.json").read_text() == "first"
    finish(out, "second", force=True)
    assert (out / "report.json").read_text() == "second"
    assert not (tmp_path / "out.run" / "replaced").exists()


def test_force_does_not_replace_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years")
    with pytest.raises(UsageError, match="no report.json"):
        OutputFolder(tmp_path / "home", force=True)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "years"
    assert not (tmp_path / "home.run").exists()


@pytest.mark.parametrize("options", [{}, {"force": True}, {"update": True}, {"resume": True}])
def test_a_run_folder_that_is_not_ours_is_left_alone(
    tmp_path: Path, options: dict[str, bool]
) -> None:
    theirs = {"thesis.txt": "years", "lock": "ours", "staged/plan": "theirs", "zz.part": "x"}
    for name, text in theirs.items():
        path = tmp_path / "out.run" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with pytest.raises(UsageError, match=r"out\.run, which holds thesis\.txt.*another") as caught:
        OutputFolder(tmp_path / "out", **options)
    assert "--force" not in str(caught.value)
    for name, text in theirs.items():
        assert (tmp_path / "out.run" / name).read_text() == text


@pytest.mark.parametrize("name", ["film.part", "film.77.part", "staged/plan", "finished"])
def test_names_like_ours_make_no_run_folder(tmp_path: Path, name: str) -> None:
    theirs = tmp_path / "out.run" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    with pytest.raises(UsageError, match="another program made it"):
        OutputFolder(tmp_path / "out", force=True)
    assert theirs.read_text() == "theirs"


@pytest.mark.parametrize("left", [[], ["lock"], ["lock", "options.json.77.part", "staged/x"]])
def test_a_run_folder_of_a_run_killed_at_its_start_is_ours(tmp_path: Path, left: list[str]) -> None:
    (tmp_path / "out.run").mkdir()
    for name in left:
        (tmp_path / "out.run" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "out.run" / name).write_text("")
    finish(tmp_path / "out", "first")
    assert (tmp_path / "out" / "report.json").read_text() == "first"


def test_a_mount_point_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "volume").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path / "volume")
    for force in (False, True):
        with pytest.raises(UsageError, match="mount point.*name a folder in it"):
            OutputFolder(tmp_path / "volume", force=force)
    assert [path.name for path in tmp_path.iterdir()] == ["volume"]
    finish(tmp_path / "volume" / "out", "first")


@pytest.mark.parametrize("stuck", ["out", "staged"])
def test_a_result_that_cannot_be_renamed_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stuck: str
) -> None:
    """As a mount point that nobody could tell from a folder."""
    out, rename = tmp_path / "out", Path.rename
    finish(out, "first")

    def busy(path: Path, target: Path) -> Path:
        if path.name == stuck and target.name in ("replaced", "out"):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", busy)
    with pytest.raises(UsageError, match=r"resource busy.*whole in .*out\.run/unpublished"):
        finish(out, "second", force=True)
    assert (out / "report.json").read_text() == "first"
    unpublished = tmp_path / "out.run" / "unpublished"
    assert (unpublished / "report.json").read_text() == "second"
    monkeypatch.undo()
    assert is_unfinished(out)  # so no repeated command loses it
    with OutputFolder(out, force=True, resume=True) as output:
        assert (unpublished / "report.json").read_text() == "second"
        (output.staged / "report.json").write_text("third")
        output.publish()
    assert not unpublished.exists()


def test_an_empty_folder_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    finish(tmp_path / "out", "first")
    assert (tmp_path / "out" / "report.json").read_text() == "first"


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError, match="not a folder"):
        OutputFolder(tmp_path / "out", force=True)


def test_an_unwritable_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        OutputFolder(tmp_path / "file" / "out")
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(UsageError, match="cannot write"):
            OutputFolder(tmp_path / "locked" / "out")


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to resume.*does not exist"):
        OutputFolder(tmp_path / "out", resume=True)
    assert list(tmp_path.iterdir()) == []
    finish(tmp_path / "out", "first")
    with pytest.raises(UsageError, match="nothing to resume.*finished"):
        OutputFolder(tmp_path / "out", resume=True, force=True)


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    with OutputFolder(tmp_path / "out") as output:
        output.claim_job({"seed": 0})
        (output.run / "checkpoint").write_text("1")
        for resume in (False, True):  # not what lies there, which may change at any moment
            with pytest.raises(UsageError, match=rf"another process \({os.getpid()}\)"):
                OutputFolder(tmp_path / "out", resume=resume)
        assert output.staged.is_dir()
    OutputFolder(tmp_path / "out", resume=True).close()


def _work_until_killed(out: Path, ready: Any) -> None:
    output = OutputFolder(out)
    output.claim_job({"seed": 0})
    (output.run / "checkpoint").write_text("1")
    ready.set()
    signal.pause()


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    child = context.Process(target=_work_until_killed, args=(tmp_path / "out", ready))
    child.start()
    assert ready.wait(timeout=60)
    child.kill()
    child.join()
    with OutputFolder(tmp_path / "out", resume=True) as output:
        assert (output.run / "checkpoint").read_text() == "1"


def test_a_replacement_cut_short_is_undone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    finish(out, "first")
    out.rename(tmp_path / "out.run" / "replaced")  # where a kill between two renames leaves it
    with pytest.raises(UsageError, match="exists"):
        OutputFolder(out)
    assert (out / "report.json").read_text() == "first"


def test_a_result_that_nobody_was_told_of_is_made_again(tmp_path: Path) -> None:
    """Killed after the last rename: --resume is not stopped by its own DIR, also a second time."""
    out = tmp_path / "out"
    finish(out, "first")
    finished = tmp_path / "out.run" / "finished"
    finished.unlink()
    for text in ("second", "third"):
        with OutputFolder(out, resume=True) as output:
            (output.staged / "report.json").write_text(text)
            output.publish()
        assert (out / "report.json").read_text() == text
        finished.unlink()
    out.rename(tmp_path / "elsewhere")
    out.mkdir()
    (out / "report.json").write_text("another's")
    with pytest.raises(UsageError, match="exists"):
        OutputFolder(out, resume=True)


def test_half_written_files_of_a_killed_run_go(tmp_path: Path) -> None:
    out = tmp_path / "out"
    leave_unfinished(out)
    half = tmp_path / "out.run" / "checkpoints" / "2.safetensors.77.part"
    half.write_bytes(b"we")
    with OutputFolder(out, resume=True):
        assert not half.exists()


def test_resume_refuses_another_job(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with OutputFolder(out) as output:
        output.claim_job({"seed": 0, "target_macs": None})
        (output.run / "checkpoint").write_text("1")
    with OutputFolder(out, resume=True) as output:
        output.claim_job({"seed": 0, "target_macs": None})
        with pytest.raises(UsageError, match="--seed was 0 and is 1"):
            output.claim_job({"seed": 1, "target_macs": None})


def test_a_run_that_is_dropped_keeps_its_name_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OutputFolder(tmp_path / "out") as output:
        output.claim_job({"seed": 0})
        for name in ("baseline.pt", "search.csv", "zero"):
            (output.run / name).write_text("1")
    gone = []
    monkeypatch.setattr("compress_export.outputs._remove", lambda path: gone.append(path.name))
    with OutputFolder(tmp_path / "out", force=True) as output:
        gone.clear()
        output.claim_job({"seed": 1})
        assert sorted(gone) == ["baseline.pt", "options.json", "search.csv", "zero"]
        assert gone[-1] == "options.json"
