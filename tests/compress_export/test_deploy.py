"""deploy against a folder of this machine: what is left on a device, and what the user reads."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from io import BytesIO
from itertools import count

import pytest
from deploy_bundles import contents, fake_ssh, make_bundle, write_sums

from compress_export.cli import main
from compress_export.deploy.destination import Destination
from compress_export.deploy.device import Ssh
from compress_export.deploy.payload import read_payload
from compress_export.errors import UsageError
from compress_export.gate.reported import read_reports


@pytest.fixture
def device(tmp_path, monkeypatch):
    """A folder's parent on a "device" that the program reaches by its own ssh."""
    monkeypatch.setenv("PATH", f"{fake_ssh(tmp_path / 'bin')}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "device"
    folder.mkdir()
    return folder


@pytest.fixture
def bundles(tmp_path):
    """Two versions, of 40 kB each."""
    return [
        make_bundle(tmp_path / name / "bundle", name.encode() * 20_000) for name in ("v1", "v2")
    ]


def _deploy(*words):
    return main(["deploy", *map(str, words)])


def _now(folder):
    return contents(folder / "current")


@pytest.mark.parametrize(
    "name", ["model", "a b", "ü 'n' \"q\"", "-dash", "$(touch oops)", "a;b*?", "x\\n"]
)
def test_any_folder_name_gets_the_bundle(device, bundles, name):
    assert _deploy(bundles[0], f"me@board:{device}/{name}") == 0
    assert _now(device / name) == contents(bundles[0])
    assert not list(device.parent.glob("**/oops"))


def test_versions_current_previous_and_back(device, bundles, capsys):
    at = f"board:{device}/m"
    assert _deploy(bundles[0], at) == 0
    assert _deploy(bundles[1], at) == 0
    assert _now(device / "m") == contents(bundles[1])
    assert contents(device / "m/previous") == contents(bundles[0])
    assert _deploy("--rollback", at) == 0
    assert _now(device / "m") == contents(bundles[0])
    assert _deploy("--rollback", at) == 0
    assert _now(device / "m") == contents(bundles[1])
    name = (device / "m/current").readlink().parts[1]
    sums = (device / "m/versions" / name / "sums").read_bytes()
    assert name.endswith(hashlib.sha256(sums).hexdigest())
    capsys.readouterr()
    assert _deploy(bundles[1], at) == 0
    assert "has this version already" in capsys.readouterr().out


def test_only_two_versions_stay(device, tmp_path):
    for number in range(4):
        bundle = make_bundle(tmp_path / str(number) / "bundle", bytes([number]))
        assert _deploy(bundle, f"board:{device}/m") == 0
    assert len(list((device / "m/versions").iterdir())) == 2
    assert sorted(p.name for p in (device / "m").iterdir()) == [
        ".compress-export", "current", "previous", "versions",
    ]  # fmt: skip


def test_killed_before_any_command_the_device_has_old_or_new(device, bundles, tmp_path):
    """The program on the device is killed, with all it started, before the 1st, 2nd, ... command
    that changes files: these are all the states that it can leave."""
    assert _deploy(bundles[0], f"board:{device}/before") == 0
    old, new = map(contents, bundles)
    run, seen = _cut_deploys(bundles[1], tmp_path), []
    for step in count(1):
        folder = device / str(step)
        shutil.copytree(device / "before", folder, symlinks=True)
        finished = run(folder, step)
        seen.append(_now(folder))
        assert seen[-1] in (old, new), f"a mixture before command {step}"
        if finished:
            break
    assert seen[0] == old and seen[-1] == new and len(seen) > 10
    # the switch happens once, and never back
    assert sum(a != b for a, b in zip(seen, seen[1:], strict=False)) == 1
    # and the next deploy leaves no trace of any of them
    third = make_bundle(tmp_path / "v3" / "bundle", b"3")
    cut = [f"board:{device}/{step}" for step in range(1, len(seen), 3)]
    assert _deploy(third, *cut) == 0
    for step in range(1, len(seen), 3):
        assert len(list((device / str(step) / "versions").iterdir())) == 2
        assert not list((device / str(step)).glob("*.new"))


def test_cut_anywhere_the_previous_version_is_not_lost(device, bundles, tmp_path):
    """After a deploy or a rollback that was killed, a rollback finds the other version."""
    for bundle in bundles:
        assert _deploy(bundle, f"board:{device}/before") == 0
    third = make_bundle(tmp_path / "v3" / "bundle", b"3")
    versions = [contents(bundle) for bundle in (*bundles, third)]
    behind = {0: 1, 1: 0, 2: 1}
    for number, run in enumerate((_cut_deploys(third, tmp_path), _cut_rollbacks(tmp_path))):
        for step in count(1):
            folder = device / f"{number}-{step}"
            shutil.copytree(device / "before", folder, symlinks=True)
            finished, now = run(folder, step), _now(folder)
            assert _deploy("--rollback", f"board:{folder}") == 0
            expected = versions[behind[versions.index(now)]]
            assert _now(folder) == expected, f"killed before command {step}"
            if finished:
                break
        assert step > 5


def _cut_deploys(bundle, tmp_path):
    """Return a function of a folder and a step: deploy `bundle` there, killed before the command
    `step` that changes files; it says whether the deploy ended before that."""
    payload = read_payload(bundle)
    archive = b"".join(payload.tar_chunks())
    name = payload.version_name()
    return _cut_runs(lambda folder: f"deploy\n{folder}\n{name}\n".encode() + archive, tmp_path)


def _cut_rollbacks(tmp_path):
    """The same for going back."""
    return _cut_runs(lambda folder: f"rollback\n{folder}\n".encode(), tmp_path)


def _cut_runs(given, tmp_path):
    shims, counter = tmp_path / "shims", tmp_path / "counter"
    shims.mkdir(exist_ok=True)
    for name in ("mkdir", "touch", "rm", "tar", "sync", "mv", "ln"):
        (shims / name).write_text(
            "#!/bin/sh\n"
            'read left < "$COUNTER"; echo $((left - 1)) > "$COUNTER"\n'
            '[ "$left" -gt 1 ] || kill -9 0\n'
            f'exec {shutil.which(name, path=os.defpath)} "$@"\n'
        )
        (shims / name).chmod(0o755)

    def run(folder, step):
        counter.write_text(f"{step}\n")
        done = subprocess.run(
            ["sh", "-c", Ssh().command("board")[-1]],
            input=given(folder),
            env={"PATH": f"{shims}:{os.defpath}", "COUNTER": str(counter)},
            start_new_session=True,
            capture_output=True,
            check=False,
        )
        return done.returncode == 0

    return run


@pytest.mark.skipif(shutil.which("busybox") is None, reason="no busybox here")
def test_busybox_is_enough(device, bundles, tmp_path):
    tools = tmp_path / "busybox"
    tools.mkdir()
    for name in ("sh", "mkdir", "ls", "touch", "readlink", "sha256sum", "grep", "sed", "tr", "rm",
                 "tar", "sync", "mv", "ln"):  # fmt: skip
        (tools / name).symlink_to(shutil.which("busybox"))
    for bundle in bundles:
        payload = read_payload(bundle)
        lines = f"deploy\n{device}/m\n{payload.version_name()}\n".encode()
        _run_program(lines + b"".join(payload.tar_chunks()), tools)
    assert _now(device / "m") == contents(bundles[1])
    _run_program(f"rollback\n{device}/m\n".encode(), tools)
    assert _now(device / "m") == contents(bundles[0])
    (device / "m/previous/slim.int8.onnx").write_bytes(b"evil")
    with pytest.raises(subprocess.CalledProcessError) as error:
        _run_program(f"rollback\n{device}/m\n".encode(), tools)
    assert error.value.stdout.strip() == b"compress-export: error altered slim.int8.onnx"


def _run_program(given, tools):
    """Run the program of the device with the commands in one folder and no others."""
    command = [str(tools / "sh"), "-c", Ssh().command("board")[-1]]
    subprocess.run(command, input=given, env={"PATH": str(tools)}, capture_output=True, check=True)


def test_cut_transfer_leaves_the_old_version(device, bundles):
    """Whatever part of the archive arrives, it isn't taken for the whole."""
    assert _deploy(bundles[0], f"board:{device}/m") == 0
    payload = read_payload(bundles[1])
    stream = b"".join(payload.tar_chunks())
    lines = f"deploy\n{device}/m\n{payload.version_name()}\n".encode()
    for share in (0, 0.3, 0.9):
        cut = stream[: int(len(stream) * share)]
        done = subprocess.run(
            ["sh", "-c", Ssh().command("board")[-1]],
            input=lines + cut, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert _now(device / "m") == contents(bundles[0])
        assert len(list((device / "m/versions").iterdir())) == 1


def test_altered_bundle_is_not_sent(device, bundles, capsys):
    (bundles[0] / "slim.int8.onnx").write_bytes(b"other")
    (bundles[0] / "more" / "empty.txt").unlink()
    (bundles[0] / "stray").touch()
    assert _deploy(bundles[0], f"board:{device}/m") == 2
    said = capsys.readouterr().err
    assert "more/empty.txt is missing, slim.int8.onnx was altered, stray is not listed" in said
    assert not (device / "m").exists()


def test_altered_on_the_device(device, bundles, capsys):
    at = f"board:{device}/m"
    for bundle in bundles:
        assert _deploy(bundle, at) == 0
    (device / "m/previous/slim.int8.onnx").write_bytes(b"evil")
    assert _deploy("--rollback", at) == 3
    assert "altered on the device (slim.int8.onnx)" in capsys.readouterr().err
    (device / "m/current/slim.int8.onnx").write_bytes(b"evil")
    assert _deploy(bundles[1], at) == 0
    assert "had been altered (slim.int8.onnx) and was replaced" in capsys.readouterr().out
    assert _now(device / "m") == contents(bundles[1])


def test_sums_altered_with_the_files_are_found_by_the_name(device, bundles, capsys):
    at = f"board:{device}/m"
    for bundle in bundles:
        assert _deploy(bundle, at) == 0
    version = (device / "m/previous").resolve().parent
    (version / "bundle/slim.int8.onnx").write_bytes(b"evil")
    digest = hashlib.sha256(b"evil").hexdigest()
    lines = (version / "sums").read_text().splitlines()
    lines = [f"{digest}  slim.int8.onnx" if "slim.int8" in line else line for line in lines]
    (version / "sums").write_text("\n".join(lines) + "\n")
    assert _deploy("--rollback", at) == 3
    assert "altered on the device (sums)" in capsys.readouterr().err


def test_folder_of_somebody_else_is_left_alone(device, bundles, capsys):
    (device / "home").mkdir()
    (device / "home/versions").touch()
    assert _deploy(bundles[0], f"board:{device}/home") == 3
    assert "the folder holds other files" in capsys.readouterr().err
    assert [p.name for p in (device / "home").iterdir()] == ["versions"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rollback", "board:{device}/m"], "nothing was deployed to this folder"),
        (["{bundle}", "board:{device}/file/m"], "Not a directory"),
        (["{bundle}", "--bench", "--python", "/no/python", "board:{device}/m"], "no such Python"),
    ],
)
def test_failures_on_the_device(device, bundles, capsys, words, message):
    (device / "file").touch()
    assert _deploy(*(word.format(device=device, bundle=bundles[0]) for word in words)) == 3
    assert message in capsys.readouterr().err


def test_first_version_has_no_previous(device, bundles, capsys):
    assert _deploy(bundles[0], f"board:{device}/m") == 0
    assert _deploy("--rollback", f"board:{device}/m") == 3
    assert "no previous version" in capsys.readouterr().err


def test_one_at_a_time(device, bundles, capsys):
    if shutil.which("flock") is None:
        pytest.skip("no flock here")
    assert _deploy(bundles[0], f"board:{device}/m") == 0
    command = ["flock", str(device / "m/.compress-export"), "sh", "-c", "echo; read x"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline()
        assert _deploy(bundles[1], f"board:{device}/m") == 3
        holder.stdin.close()
    assert "another deploy is at work" in capsys.readouterr().err
    assert _now(device / "m") == contents(bundles[0])


def test_bench_brings_figures_home(device, bundles, tmp_path):
    report = bundles[0].parent / "report.json"
    report.write_text(json.dumps({"schema_version": 1, "board": "jetson"}))
    words = ["--bench", "--threads", 2, "--runs", 7, "--json", tmp_path / "out.json"]
    assert _deploy(bundles[0].parent, f"a:{device}/1", f"b:{device}/2", *words) == 0
    first, second = json.loads(report.read_text())["device_measurements"]
    assert (first["device"], second["device"]) == (f"a:{device}/1", f"b:{device}/2")
    (file,) = first["measurements"]
    assert file["measured_on"] == "board" and file["latency_ms"]["p90"] == 2.0
    assert first["host"]["arguments"][-4:] == ["--threads", "2", "--runs", "7"]
    written = json.loads((tmp_path / "out.json").read_text())
    assert [one["code"] for one in written["devices"]] == [0, 0]
    assert written["devices"][0]["measured"] == first


def test_the_verdict_on_a_device_is_reached_here(device, tmp_path):
    """The stand-in says "pass" of no budget at all."""
    for limit, code in ((2.5, 0), (1.5, 1)):
        budgets = {"latency_p90_ms": limit, "accuracy_drop_points": 1.0}
        bundle = make_bundle(tmp_path / str(limit) / "bundle", budgets=budgets)
        report = bundle.parent / "report.json"
        report.write_text(
            json.dumps(
                {"board": "jetson", "artifacts": [], "checks": [], "stages": {},
                 "environment": {"host": {}}}
            )
        )  # fmt: skip
        assert _deploy(bundle, "--bench", f"board:{device}/m") == code
        (entry,) = json.loads(report.read_text())["device_measurements"]
        assert [(check["budget"], check["status"]) for check in entry["checks"]] == [
            ("latency_p90_ms", "pass" if code == 0 else "fail"),
            ("accuracy_drop_points", "unverified"),
        ]
        (read,) = read_reports(report)  # as the gate does
        assert read.devices[0][0].name == f"board:{device}/m"
        worst = code or 4
        assert _deploy(bundle, "--bench", "--require-measured", f"board:{device}/m") == worst


def test_figures_of_other_files_are_none(device, tmp_path, capsys):
    bundle = make_bundle(tmp_path / "v" / "bundle", answer="of another file")
    report = bundle.parent / "report.json"
    report.write_text("{}")
    assert _deploy(bundle, "--bench", f"board:{device}/m") == 3
    assert "the bench wrote no figures of this bundle" in capsys.readouterr().err
    assert report.read_text() == "{}"


@pytest.mark.parametrize(("answer", "code"), [("unmeasured", 4), ("broken", 3)])
def test_bench_that_fails_is_no_pass(device, tmp_path, capsys, answer, code):
    bundle = make_bundle(tmp_path / "v" / "bundle", answer=answer)
    assert _deploy(bundle, "--bench", f"board:{device}/m") == code
    said = capsys.readouterr().err
    assert {4: "no onnxruntime here", 3: "bench: the runtime crashed"}[code] in said
    assert _now(device / "m") == contents(bundle)  # deployed it is


def test_one_bad_device_does_not_stop_the_others(device, bundles):
    (device / "file").touch()
    assert _deploy(bundles[0], f"a:{device}/file/m", f"b:{device}/m") == 3
    assert _now(device / "m") == contents(bundles[0])


def test_figures_do_not_go_into_a_folder(device, bundles, capsys, tmp_path):
    assert _deploy(bundles[0], "--bench", "--json", tmp_path, f"board:{device}/m") == 2
    assert "is a folder; give the name of a file" in capsys.readouterr().err
    assert not (device / "m").exists()


def test_dry_run_sends_nothing(device, bundles, capsys):
    assert _deploy(bundles[0], "--dry-run", f"board:{device}/m") == 0
    assert "slim.int8.onnx" in capsys.readouterr().out
    assert not (device / "m").exists()


@pytest.mark.parametrize(
    "text",
    ["board", "board:", "board:/", "board:~", "board:~you/m", "-oProxyCommand=x:/m", "me@-x:/m",
     "a b:/m", "board:/m\nrm", "me@board:.", "board:/m/..", "board;ls:/m", "fe80::1:/m"],
)  # fmt: skip
def test_refused_destinations(text):
    with pytest.raises(UsageError):
        Destination.parse(text)


@pytest.mark.parametrize(
    ("text", "host", "path"),
    [
        ("me@board:/opt/m/", "me@board", "/opt/m"),
        ("board:models/cats", "board", "./models/cats"),
        ("board:~/m", "board", "./m"),
        ("me@[fe80::1%eth0]:/m", "me@fe80::1%eth0", "/m"),
        ("board:-m", "board", "./-m"),
        ("board:/a:b", "board", "/a:b"),
    ],
)
def test_destinations(text, host, path):
    found = Destination.parse(text)
    assert (found.host, found.path) == (host, path)


def test_payload_is_a_tar_archive(bundles):
    payload = read_payload(bundles[0])
    stream = BytesIO(b"".join(payload.tar_chunks()))
    with tarfile.open(fileobj=stream) as archive:
        names = archive.getnames()
        found = {n: archive.extractfile(n).read() for n in names}
    assert {n.removeprefix("bundle/"): c for n, c in found.items() if n != "sums"} == contents(
        bundles[0]
    )
    assert hashlib.sha256(found["sums"]).hexdigest() == payload.digest


def test_links_and_odd_names_are_refused(bundles):
    (bundles[0] / "more/link").symlink_to("/etc/passwd")
    with pytest.raises(UsageError, match="plain files only"):
        read_payload(write_sums(bundles[0]))
    (bundles[0] / "more/link").unlink()
    (bundles[0] / "new\nline").touch()
    with pytest.raises(UsageError, match="rename it"):
        read_payload(bundles[0])


def test_ssh_is_called_with_its_checks_and_nothing_of_the_user_in_the_command():
    one, other = Ssh().command("me@board"), Ssh().command("other")
    assert one[-1] == other[-1] and one[-2] == "me@board" and one[-3] == "--"
    assert "StrictHostKeyChecking=yes" in one and "BatchMode=yes" in one
    assert one[-1].count("'") == 2
