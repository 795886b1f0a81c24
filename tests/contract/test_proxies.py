"""Proxies: those of config.json in containers and builds, the daemon's own on its way to registries."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.building import write_context
from support.engines import HAVRE, Engine, Havred, serving
from support.waiting import until

CLIENTS = pytest.mark.parametrize("client", ["docker", str(HAVRE)], ids=["docker", "havre"])

# Notes the first line of each request, and refuses it.
PROXY = """
import socketserver, sys
class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        print(self.rfile.readline().decode().strip(), flush=True)
        self.wfile.write(b"HTTP/1.1 503 Later\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
with socketserver.ThreadingTCPServer(("127.0.0.1", 3128), Handler) as server:
    print("listens", flush=True)
    server.serve_forever()
"""


def _run(engine: Engine, folder: Path, proxies: dict[str, dict[str, str]], *words: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"proxies": proxies}))
    env = {**engine.env, "DOCKER_CONFIG": str(folder)}
    env.pop("no_proxy", None)
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def _variables(lines: str) -> dict[str, str]:
    pairs = (line.rpartition(" ")[2].strip().partition("=") for line in lines.splitlines())
    return {name: value for name, _, value in pairs if name.lower().endswith("_proxy")}


@CLIENTS
def test_containers_have_those_that_nothing_else_sets(havred: Engine, tmp_path: Path, client: str) -> None:
    default = {"httpProxy": "http://h:1", "httpsProxy": "http://s:2", "noProxy": "a,b", "ftpProxy": "f", "allProxy": ""}
    environment = ("-e", "HTTP_PROXY=own", "-e", "no_proxy")
    said = _run(havred, tmp_path, {"default": default}, client, "run", "--rm", *environment, "busybox", "env")
    assert _variables(said) == {
        "HTTP_PROXY": "own", "http_proxy": "http://h:1", "HTTPS_PROXY": "http://s:2", "https_proxy": "http://s:2",
        "FTP_PROXY": "f", "ftp_proxy": "f", "NO_PROXY": "a,b",
    }  # fmt: skip


@CLIENTS
def test_the_entry_of_the_daemon_wins(havred: Engine, tmp_path: Path, client: str) -> None:
    proxies = {"default": {"httpProxy": "http://h:1"}, havred.url: {"noProxy": "only"}}
    container = _run(havred, tmp_path, proxies, client, "create", "busybox").strip()
    environment = json.loads(havred.out("inspect", "-f", "{{json .Config.Env}}", container))
    assert _variables("\n".join(environment)) == {"NO_PROXY": "only", "no_proxy": "only"}
    havred.out("rm", container)


@CLIENTS
def test_builds_have_them_as_arguments(havred: Engine, tmp_path: Path, client: str) -> None:
    context = write_context(tmp_path / "context", "FROM busybox\nRUN env\n", {})
    command = (client, "build", "--no-cache", "--progress", "plain", "--build-arg", "HTTP_PROXY=own", str(context))
    said = _run(havred, tmp_path / "config", {"default": {"httpProxy": "http://h:1", "noProxy": "x"}}, *command)
    expected = {"HTTP_PROXY": "own", "http_proxy": "own", "NO_PROXY": "x", "no_proxy": "x"}
    assert _variables(said) == expected


@CLIENTS
def test_services_and_their_builds_have_them(havred: Engine, tmp_path: Path, client: str) -> None:
    text = "FROM busybox\nRUN env | grep -i proxy | sort > /built\nCMD cat /built; env\n"
    context = write_context(tmp_path / "proxied", text, {})
    service = {"build": ".", "environment": {"http_proxy": "own"}, "network_mode": "none"}
    (context / "compose.yaml").write_text(json.dumps({"services": {"app": service}}))
    compose = (client, "compose", "-f", str(context / "compose.yaml"))
    config = {"default": {"httpProxy": "http://h:1", "noProxy": "x"}}
    try:
        built = {"HTTP_PROXY": "http://h:1", "http_proxy": "http://h:1", "NO_PROXY": "x", "no_proxy": "x"}
        _run(havred, tmp_path / "config", config, *compose, "build", "--no-cache")
        for command in (("run", "--rm", "app"), ("up", "--no-color")):
            lines = _run(havred, tmp_path / "config", config, *compose, *command).splitlines()
            seen = [line.rpartition(" ")[2] for line in lines if "proxy=" in line.lower()]
            assert dict(text.split("=") for text in seen[:4]) == built
            assert dict(text.split("=") for text in seen[4:]) == built | {"http_proxy": "own"}
    finally:
        _run(havred, tmp_path / "config", config, *compose, "down", "--rmi", "local")


@contextmanager
def _proxy(engine: Engine, log: Path) -> Iterator[None]:
    """A proxy beside the engine."""
    with log.open("wb") as output:
        process = subprocess.Popen([*engine.inside, sys.executable, "-c", PROXY], stdout=output)
    try:
        until(lambda: "listens" in log.read_text(), "the proxy to listen")
        yield
    finally:
        process.terminate()
        process.wait(10)


def test_the_daemon_asks_registries_through_its_own(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    daemon = Havred(["--config-file", str(file)])
    proxies = {"http-proxy": "http://me:secret@127.0.0.1:3128", "https-proxy": "http://127.0.0.1:3128"}
    proxies["no-proxy"] = "near.example,192.0.2.0/24"
    file.write_text(json.dumps({"proxies": proxies}))
    with serving(daemon), _proxy(daemon, tmp_path / "log"):
        for name in ("far.example", "near.example", "b.near.example", "192.0.2.1"):
            daemon.docker("pull", f"{name}/image", check=1)
        asked = (tmp_path / "log").read_text().splitlines()[1:]
        assert {line.split()[1] for line in asked} == {"far.example:443"}
        shown = daemon.out("info", "-f", "{{.HTTPProxy}} {{.HTTPSProxy}} {{.NoProxy}}")
        assert shown == f"http://xxxxx:xxxxx@127.0.0.1:3128 {proxies['https-proxy']} {proxies['no-proxy']}"
