"""deploy over a real OpenSSH server, which runs as an ordinary process on loopback."""

from __future__ import annotations

import json

import pytest
from deploy_bundles import contents, make_bundle

from benchmarks.deploy import sshd
from compress_export.cli import main

_REASON = sshd.why_not()
pytestmark = pytest.mark.skipif(bool(_REASON), reason=_REASON or "runs")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with sshd.serve(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def bundle(tmp_path):
    return make_bundle(tmp_path / "run" / "bundle")


def _deploy(config, *words):
    return main(["deploy", "--ssh-config", str(config), *map(str, words)])


def test_deploy_bench_and_back(server, bundle, tmp_path):
    (bundle.parent / "report.json").write_text("{}")
    at = f"board:{tmp_path}/device/a model's folder"
    assert _deploy(server.config, bundle, at, "--bench") == 0
    assert contents(tmp_path / "device/a model's folder/current") == contents(bundle)
    (measured,) = json.loads((bundle.parent / "report.json").read_text())["device_measurements"]
    assert measured["device"] == at
    assert measured["measurements"][0]["measured_on"] == "board"
    second = make_bundle(tmp_path / "second" / "bundle", b"other")
    assert _deploy(server.config, second, at) == 0
    assert _deploy(server.config, "--rollback", at) == 0
    assert contents(tmp_path / "device/a model's folder/current") == contents(bundle)


def test_unknown_host_key(server, bundle, tmp_path, capsys):
    (server.folder / "nobody").write_text("")
    config = server.write_config(
        UserKnownHostsFile=f'"{server.folder}/nobody"', StrictHostKeyChecking="no"
    )
    assert _deploy(config, bundle, f"board:{tmp_path}/m") == 3
    assert "the host key is not known" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
    assert (server.folder / "nobody").read_text() == ""  # nor was it accepted by the way


def test_changed_host_key(server, bundle, tmp_path, capsys):
    key = (server.folder / "other_key.pub").read_text().rsplit(" ", 1)[0]
    (server.folder / "changed").write_text(f"[127.0.0.1]:{server.port} {key}\n")
    config = server.write_config(UserKnownHostsFile=f'"{server.folder}/changed"')
    assert _deploy(config, bundle, f"board:{tmp_path}/m") == 3
    assert "another one than known_hosts has" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"IdentityFile": '"{folder}/other_key"'}, "authentication failed"),
        ({"Port": "1"}, "cannot be reached"),
        ({"HostName": "no-such-host.invalid"}, "cannot be reached"),
    ],
)
def test_no_way_to_the_device(server, bundle, capsys, changes, message):
    changes = {name: value.format(folder=server.folder) for name, value in changes.items()}
    assert _deploy(server.write_config(**changes), bundle, "board:/m") == 3
    assert message in capsys.readouterr().err


def test_one_device_of_two_is_down(server, bundle, tmp_path):
    out = tmp_path / "out.json"
    words = ["--json", out, f"board:{tmp_path}/m", "127.0.0.1:/m"]  # the second: no such key
    assert _deploy(server.config, bundle, *words) == 3
    assert [one["code"] for one in json.loads(out.read_text())["devices"]] == [0, 3]
