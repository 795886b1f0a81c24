"""Volumes of a plugin: a small real one, a process of its own, beside havre and beside dockerd."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from support.engines import Engine, serving
from support.plugged import PluggedDockerd, PluggedHavred
from support.raw import ask, streaming
from support.volumeplugin import VolumePlugin
from support.waiting import until


@pytest.fixture(scope="module", params=[PluggedHavred, PluggedDockerd], ids=["havre", "dockerd"])
def _plugged(request: pytest.FixtureRequest, archive: Path) -> Iterator[Engine]:
    engine = request.param()
    engine.plugins.mkdir(parents=True)
    with serving(engine, archive):
        yield engine


@pytest.fixture
def engine(_plugged: Engine) -> Engine:
    """The engine, under the name that the leak check knows."""
    return _plugged


@pytest.fixture
def plugin(engine: Engine, tmp_path: Path) -> Iterator[VolumePlugin]:
    """The plugin `plug`, running."""
    directory: Path = engine.plugins  # type: ignore[attr-defined]
    plugin = VolumePlugin(directory / "plug.sock", tmp_path)
    plugin.start()
    yield plugin
    if ids := engine.out("ps", "-aq").split():
        engine.docker("rm", "-f", "-v", *ids, check=0)
    if names := engine.out("volume", "ls", "-q").split():
        engine.docker("volume", "rm", *names, check=0)
    plugin.kill()


def inspected(engine: Engine, volume: str) -> dict[str, Any]:
    (shown,) = json.loads(engine.out("volume", "inspect", volume))
    return {key: value for key, value in shown.items() if key != "Mountpoint"}


def users(calls: Sequence[dict[str, Any]]) -> list[str]:
    return [call["ID"] for call in calls]


def test_a_volume_is_made_used_and_removed(engine: Engine, plugin: VolumePlugin) -> None:
    engine.out("volume", "create", "-d", "plug", "-o", "a=b", "-o", "c=d", "--label", "team=x", "first")
    assert plugin.calls("Create") == [{"Name": "first", "Opts": {"a": "b", "c": "d"}}]
    assert inspected(engine, "first") == {
        "CreatedAt": "2020-01-02T03:04:05Z", "Driver": "plug", "Labels": {"team": "x"}, "Name": "first",
        "Options": {"a": "b", "c": "d"}, "Scope": "global", "Status": {"made": "here"},
    }  # fmt: skip
    assert engine.out("volume", "ls", "--format", "{{.Driver}} {{.Name}}", "--filter", "driver=plug") == "plug first"
    assert "plug" in json.loads(engine.out("info", "--format", "{{json .Plugins.Volume}}"))
    engine.out("run", "--rm", "-v", "first:/x", "busybox", "sh", "-c", "echo hello > /x/f")
    assert (plugin.root / "volumes/first/f").read_text() == "hello\n"
    until(lambda: plugin.calls("Unmount"), "the plugin to be told")
    (mounted,), (unmounted,) = plugin.calls("Mount"), plugin.calls("Unmount")
    assert mounted == unmounted
    assert mounted["Name"] == "first"
    engine.out("volume", "prune", "-af")
    engine.out("volume", "rm", "first")
    assert plugin.calls("Remove") == [{"Name": "first"}]
    assert engine.out("volume", "ls", "-q") == ""


def test_the_driver_of_a_run(engine: Engine, plugin: VolumePlugin) -> None:
    engine.out("run", "-d", "--name", "one", "-v", "kept:/x", "-v", "/anon", "--volume-driver", "plug",
               "busybox", "sleep", "1000")  # fmt: skip
    assert len(plugin.calls("Create")) == len(plugin.calls("Mount")) == 2
    points = json.loads(engine.out("inspect", "--format", "{{json .Mounts}}", "one"))
    named = next(point for point in points if point["Destination"] == "/x")
    assert (named["Name"], named["Driver"], named["Mode"], named["RW"]) == ("kept", "plug", "", True)
    assert "volume is in use" in engine.docker("volume", "rm", "kept", check=1).stderr
    engine.out("run", "--rm", "-v", "kept:/y:ro", "busybox", "ls", "/y")
    engine.docker("rm", "-f", "-v", "one", check=0)
    assert sorted(users(plugin.calls("Mount"))) == sorted(users(plugin.calls("Unmount")))
    assert len(plugin.calls("Remove")) == 1, "the anonymous one"
    mount = "type=volume,src=more,dst=/x,volume-driver=plug,volume-opt=k=v"
    engine.out("run", "--rm", "--mount", mount, "busybox", "true")
    assert plugin.calls("Create")[-1] == {"Name": "more", "Opts": {"k": "v"}}


def test_what_is_refused(engine: Engine, plugin: VolumePlugin) -> None:
    engine.out("volume", "create", "-d", "plug", "taken")
    refused = engine.docker("volume", "create", "-d", "plug", "-o", "fail=no room", "bad", check=1).stderr
    assert "create bad: VolumeDriver.Create: no room" in refused
    assert "bad" not in engine.out("volume", "ls", "-q").split()
    other = engine.docker("volume", "create", "-d", "local", "taken", check=1).stderr
    assert "create taken: driver 'plug' already has volume 'taken': volume name must be unique" in other
    assert "no such volume" in engine.docker("volume", "rm", "nope", check=1).stderr


def test_what_a_plugin_would_not_mount_is_not_unmounted(engine: Engine, plugin: VolumePlugin) -> None:
    engine.out("volume", "create", "-d", "plug", "-o", 'Mount={"Err": "not today"}', "shy")
    refused = engine.docker("run", "--rm", "-v", "shy:/x", "busybox", "true", check=125).stderr
    assert "error while mounting volume" in refused
    assert "not today" in refused
    engine.out("volume", "create", "-d", "plug", "willing")
    engine.out("run", "--rm", "-v", "willing:/x", "busybox", "true")
    until(lambda: plugin.calls("Unmount"), "the other volume to be unmounted")
    assert [call["Name"] for call in plugin.calls("Unmount")] == ["willing"]


@pytest.mark.parametrize("answer", ["null", '{"ERR": null, "mountpoint": null}'])
def test_answers_that_say_nothing(engine: Engine, plugin: VolumePlugin, answer: str) -> None:
    engine.out("volume", "create", "-d", "plug", "-o", f"Create={answer}", "-o", f"Unmount={answer}", "quiet")
    engine.out("run", "--rm", "-v", "quiet:/x", "busybox", "touch", "/x/f")
    assert (plugin.root / "volumes/quiet/f").exists()
    until(lambda: plugin.calls("Unmount"), "the plugin to be told")


def test_volumes_that_the_plugin_has_already(engine: Engine, plugin: VolumePlugin) -> None:
    (plugin.root / "volumes/foreign").mkdir()
    assert engine.out("volume", "ls", "-q") == "foreign"
    assert inspected(engine, "foreign")["Driver"] == "plug"
    assert engine.out("volume", "create", "-d", "plug", "foreign") == "foreign"
    assert plugin.calls("Create") == []
    engine.out("run", "--rm", "-v", "foreign:/x", "busybox", "touch", "/x/f")
    assert (plugin.root / "volumes/foreign/f").exists()
    engine.out("volume", "rm", "foreign")
    assert plugin.calls("Remove") == [{"Name": "foreign"}]


@pytest.mark.parametrize("_plugged", [PluggedHavred], indirect=True, ids=["havre"])
def test_after_a_kill_the_same_user_is_unmounted(engine: Engine, plugin: VolumePlugin) -> None:
    for name in ("goes-on", "ends"):
        engine.out("run", "-d", "--name", name, "-v", f"{name}:/x", "--volume-driver", "plug",
                   "busybox", "sh", "-c", "until [ -e /x/end ]; do sleep 0.1; done")  # fmt: skip
    by_volume = {call["Name"]: call["ID"] for call in plugin.calls("Mount")}
    engine.stop(signal.SIGKILL)
    (plugin.root / "volumes/ends/end").touch()
    engine.start()
    until(lambda: users(plugin.calls("Unmount")) == [by_volume["ends"]], "the one that ended to be unmounted")
    engine.out("rm", "-f", "goes-on")
    assert users(plugin.calls("Unmount")) == [by_volume["ends"], by_volume["goes-on"]]


@pytest.mark.parametrize("_plugged", [PluggedHavred], indirect=True, ids=["havre"])
def test_a_dead_plugin_holds_nothing_up(engine: Engine, plugin: VolumePlugin) -> None:
    engine.out("run", "-d", "--name", "one", "-v", "data:/x", "--volume-driver", "plug", "busybox", "sleep", "1000")
    (mounted,) = users(plugin.calls("Mount"))
    plugin.kill()
    listed = ask(engine.socket, "GET", "/volumes").json
    assert [volume["Name"] for volume in listed["Volumes"]] == ["data"]
    assert "plugin plug does not answer" in listed["Warnings"][0]
    assert "plugin plug does not answer" in engine.docker("volume", "create", "-d", "plug", "new", check=1).stderr
    engine.docker("rm", "-f", "one", check=0)
    plugin.start()
    until(lambda: users(plugin.calls("Unmount")) == [mounted], "the plugin to be told at last")


@pytest.mark.parametrize("_plugged", [PluggedHavred], indirect=True, ids=["havre"])
def test_a_hanging_plugin_holds_no_port(engine: Engine, plugin: VolumePlugin) -> None:
    engine.out("volume", "create", "-d", "plug", "-o", "hang=Unmount", "hung")
    port = ("-p", "127.0.0.1:18099:80", "busybox", "sleep", "1000")
    engine.out("run", "-d", "--name", "one", "-v", "hung:/x", *port)
    engine.out("create", "--name", "two", *port)
    engine.out("kill", "one")
    until(lambda: plugin.calls("Unmount"), "the plugin to be asked")
    engine.out("start", "two")
    plugin.kill()  # whoever waits for its answer goes on
    (plugin.root / "hung.json").unlink()
    plugin.start()


@pytest.mark.parametrize("_plugged", [PluggedHavred], indirect=True, ids=["havre"])
def test_a_hanging_plugin_holds_no_reader_of_output(engine: Engine, plugin: VolumePlugin) -> None:
    engine.out("volume", "create", "-d", "plug", "-o", "hang=Unmount", "hung")
    waits = ("busybox", "sh", "-c", "echo said; until [ -e /x/end ]; do sleep 0.05; done")
    engine.out("run", "-d", "--name", "one", "-v", "hung:/x", "-p", "127.0.0.1:18098:80", *waits)
    with streaming(engine.socket, "POST", "/containers/one/attach?stream=1&stdout=1&logs=1") as attached:
        (plugin.root / "volumes/hung/end").touch()
        assert b"said" in attached.read()
    assert engine.out("logs", "-f", "one") == "said"
    assert plugin.calls("Unmount")
    assert engine.out("inspect", "-f", "{{.State.Status}}", "one") == "exited"
    plugin.kill()  # whoever waits for its answer goes on
    (plugin.root / "hung.json").unlink()
    plugin.start()
