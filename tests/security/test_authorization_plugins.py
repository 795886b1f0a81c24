"""Authorization plugins, on both engines; what dockerd 26 lets through is tested on ours alone.

Every byte at the edge is tested in tests/unit/api/test_api_authorization.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.authzplugin import ALLOWED, AuthzPlugin, body_of
from support.certificates import make_certificates
from support.engines import HAVRED, Engine, serving
from support.plugged import PluggedDockerd, PluggedHavred
from support.raw import ask
from support.waiting import until

_PORT = 17377


def _denied(text: str) -> Any:
    """The verdict of who denies what has `text` in its URI."""
    return lambda asked: {"Allow": False, "Msg": "not here"} if text in asked["RequestUri"] else ALLOWED


@pytest.fixture(scope="module", params=[PluggedHavred, PluggedDockerd], ids=["havre", "dockerd"])
def _guarded(request: pytest.FixtureRequest, archive: Path) -> Iterator[tuple[Engine, AuthzPlugin]]:
    engine = request.param(["--authorization-plugin", "guard"])
    plugin = AuthzPlugin(engine.plugins / "guard.sock")
    try:
        with serving(engine, archive):
            yield engine, plugin
            plugin.reset()
    finally:
        plugin.close()


@pytest.fixture
def engine(_guarded: tuple[Engine, AuthzPlugin]) -> Engine:
    """The engine, under the name that the leak check knows."""
    return _guarded[0]


@pytest.fixture
def plugin(_guarded: tuple[Engine, AuthzPlugin]) -> AuthzPlugin:
    """The plugin that it asks, which allows everything."""
    _guarded[1].reset()
    return _guarded[1]


only_ours = pytest.mark.parametrize("_guarded", [PluggedHavred], indirect=True, ids=["havre"])


def test_what_is_allowed_works_and_is_shown(engine: Engine, plugin: AuthzPlugin) -> None:
    assert engine.out("run", "--rm", "-i", "busybox", "cat", stdin="input") == "input"
    asked = plugin.of("AuthZReq", "/containers/create")
    assert asked["RequestMethod"] == "POST"
    assert "User" not in asked
    assert asked["RequestHeaders"]["Content-Type"] == "application/json"
    assert json.loads(body_of(asked))["Cmd"] == ["cat"]
    answer = plugin.of("AuthZRes", "/containers/create")
    assert answer["ResponseStatusCode"] == 201
    assert "Id" in json.loads(body_of(answer, "ResponseBody"))
    for path in ("/_ping", "/attach", "/wait", "/start"):
        assert plugin.of("AuthZReq", path)
        assert plugin.of("AuthZRes", path)
    assert json.loads(engine.out("info", "-f", "{{json .Plugins.Authorization}}")) == ["guard"]
    context = engine.docker("build", "-q", "-", stdin="FROM busybox\nRUN true\n", check=0).stdout.strip()
    assert plugin.of("AuthZReq", "/grpc")["RequestMethod"] == "POST"
    engine.docker("rmi", context, check=0)


def test_a_request_is_denied(engine: Engine, plugin: AuthzPlugin) -> None:
    plugin.on_request = _denied("/containers/create")
    done = engine.docker("run", "--rm", "busybox", "true", check=125)
    assert "authorization denied by plugin guard: not here" in done.stderr
    reply = ask(engine.socket, "POST", "/containers/create", {"Image": "busybox"})
    assert (reply.status, reply.message) == (403, "authorization denied by plugin guard: not here")
    assert engine.out("ps", "-aq") == ""


def test_an_answer_is_denied(engine: Engine, plugin: AuthzPlugin) -> None:
    plugin.on_answer = _denied("/images/json")
    reply = ask(engine.socket, "GET", "/images/json")
    assert (reply.status, reply.message) == (403, "authorization denied by plugin guard: not here")
    assert ask(engine.socket, "GET", "/images/none/json").status == 404


def test_by_what_the_body_says(engine: Engine, plugin: AuthzPlugin) -> None:
    def unprivileged(asked: dict[str, Any]) -> Any:
        body = json.loads(body_of(asked) or b"{}")
        return {"Allow": not (body.get("HostConfig") or {}).get("Privileged")}

    plugin.on_request = unprivileged
    engine.docker("run", "--rm", "busybox", "true", check=0)
    assert "denied" in engine.docker("run", "--rm", "--privileged", "busybox", "true", check=125).stderr
    assert engine.out("ps", "-aq") == ""


@pytest.mark.parametrize("who", ["on_request", "on_answer"])
def test_a_plugin_that_fails_refuses(engine: Engine, plugin: AuthzPlugin, who: str) -> None:
    setattr(plugin, who, lambda asked: {"Err": "out of order"} if "/version" in asked["RequestUri"] else ALLOWED)
    reply = ask(engine.socket, "GET", "/version")
    call = "AuthZReq" if who == "on_request" else "AuthZRes"
    assert reply.status == 500
    assert reply.message == f"plugin guard failed with error: AuthZPlugin.{call}: out of order"


@only_ours
def test_cve_2026_34040_a_huge_body_does_not_pass_unseen(engine: Engine, plugin: AuthzPlugin) -> None:
    huge = b'{"Image": "busybox", "HostConfig": {"Privileged": true}, "Labels": {"x": "' + b"y" * (100 << 20) + b'"}}'
    for headers in ({}, {"Transfer-Encoding": "chunked"}):
        sent = b"%x\r\n%s\r\n0\r\n\r\n" % (len(huge), huge) if headers else huge
        try:
            reply = ask(engine.socket, "POST", "/containers/create", sent, headers)
        except ConnectionError:
            pass  # cut off while it was sent
        else:
            assert reply.status == 403
        assert not any("/create" in asked["RequestUri"] for _, asked in plugin.asked)
    assert engine.out("ps", "-aq") == ""


def test_exec_logs_and_copies_go_through(engine: Engine, plugin: AuthzPlugin, tmp_path: Path) -> None:
    id = engine.out("run", "-d", "busybox", "sh", "-c", "echo line; exec sleep 1000")
    assert engine.out("exec", "-i", id, "cat", stdin="in") == "in"
    until(lambda: engine.out("logs", id) == "line", "the line")
    (tmp_path / "f").write_text("content")
    engine.docker("cp", str(tmp_path / "f"), f"{id}:/f", check=0)
    assert engine.out("exec", id, "cat", "/f") == "content"
    # An archive whose type claims to be JSON is no JSON for anybody.
    sent = subprocess.run(["tar", "-c", "-C", str(tmp_path), "f"], capture_output=True, check=True).stdout
    ask(engine.socket, "PUT", f"/containers/{id}/archive?path=/tmp", sent, {"Content-Type": "application/json"})
    assert engine.out("exec", id, "cat", "/tmp/f") == "content"
    plugin.on_request = _denied("/exec/")
    assert "received 403" in engine.docker("exec", id, "true", check=1).stderr
    engine.docker("rm", "-f", id, check=0)


@pytest.mark.parametrize("kind", [PluggedHavred, PluggedDockerd], ids=["havre", "dockerd"])
def test_plugins_change_by_a_reload(kind: type[Engine]) -> None:
    engine = kind()
    file = engine.root / "daemon.json"
    file.write_text("{}")
    if engine.name == "dockerd":
        engine.extra = ["--config-file", str(file)]
    plugin = AuthzPlugin(engine.plugins / "guard.sock")  # type: ignore[attr-defined]
    plugin.on_request = _denied("/version")

    def reload(**settings: list[str]) -> int:
        """Settings and a label of their own; what becomes of a request that the plugin denies."""
        label = f"step=n{len(reloads)}"
        reloads.append(label)
        file.write_text(json.dumps({**settings, "labels": [label]}))
        os.kill(int((engine.root / "pid").read_text()), signal.SIGHUP)
        # dockerd sends nothing at all if its last plugin goes while it answers.
        until(lambda: label.encode() in ask(engine.socket, "GET", "/info").body, "the reload")
        return ask(engine.socket, "GET", "/version").status

    reloads: list[str] = []
    try:
        with serving(engine):
            assert ask(engine.socket, "GET", "/version").status == 200
            assert reload(**{"authorization-plugins": ["guard"]}) == 403
            assert reload(**{"authorization-plugins": ["guard"]}) == 403
            assert reload() == 200
            if engine.name == "havre":  # where dockerd ends itself
                file.write_text('{"authorization-plugins": ["guard", "none"]}')
                os.kill(engine.pid, signal.SIGHUP)
                until(lambda: "validate authorization plugin: none" in engine.log.read_text(), "the refusal")
                assert ask(engine.socket, "GET", "/version").status == 200
    finally:
        plugin.close()


def test_a_daemon_without_its_plugins_does_not_start(tmp_path: Path) -> None:
    command = [*_command(tmp_path / "x"), "--authorization-plugin", "none"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert 'failed to validate authorization plugin: none: plugin "none" not found' in done.stderr


def _command(place: Path) -> list[str]:
    place.mkdir()
    (place / "daemon.json").write_text("{}")
    return [
        *(str(HAVRED), "-H", f"unix://{place}/s", f"--config-file={place}/daemon.json", f"--pidfile={place}/pid"),
        *(f"--data-root={place}/data", f"--exec-root={place}/run"),
    ]


def test_a_client_is_known_by_its_certificate(tmp_path: Path) -> None:
    certs = tmp_path / "certs"
    make_certificates(certs)
    flags = [
        *("-H", f"tcp://127.0.0.1:{_PORT}", "--tlsverify", "--tlscacert", str(certs / "ca.pem")),
        *("--tlscert", str(certs / "server.pem"), "--tlskey", str(certs / "server-key.pem")),
        *("--authorization-plugin", "guard"),
    ]
    engine = PluggedHavred(flags)
    plugin = AuthzPlugin(engine.plugins / "guard.sock")
    try:
        with serving(engine):
            words = [
                *("--tlsverify", "--tlscacert", str(certs / "ca.pem"), "--tlscert", str(certs / "client.pem")),
                *("--tlskey", str(certs / "client-key.pem"), "-H", f"tcp://127.0.0.1:{_PORT}"),
            ]
            environment = {name: value for name, value in engine.env.items() if name != "DOCKER_HOST"}
            subprocess.run([*engine.inside, "docker", *words, "version"], env=environment, check=True)
            asked = plugin.of("AuthZReq", "/version")
            assert (asked["User"], asked["UserAuthNMethod"]) == ("client", "TLS")
            (certificate,) = asked["RequestPeerCertificates"]
            assert body_of({"RequestBody": certificate}).strip() == (certs / "client.pem").read_bytes().strip()
    finally:
        plugin.close()
