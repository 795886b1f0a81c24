"""What an image, a container, a registry or a daemon says never steers the terminal, whatever view shows it."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from support.engines import HAVRE, Engine
from support.imagery import archive, config_of, layer_tar
from support.raw import ask
from support.terminals import Terminal

EVIL = "\x1b]0;evil\x07\x9b2J\u202e"
SHOWN = r"\x1b]0;evil\x07"


def shown(command: tuple[str, ...], env: dict[str, str]) -> str:
    """What a command shows on a terminal, where nothing foreign steers it."""
    with Terminal([str(HAVRE), *command], {"TERM": "xterm", **env}, columns=1000) as terminal:
        _, text = terminal.end()
    for steering in ("\x1b]", "\x07", "\x9b", "\u202e", "evil\x1b"):
        assert steering not in text, command
    return text


@pytest.fixture
def hostile(havred: Engine, tmp_path: Path) -> Iterator[Engine]:
    """An engine with an image, a container, a volume and a network that say EVIL wherever they can."""
    layer = layer_tar("f")
    config = json.loads(config_of(layer, Labels={"l": EVIL}, Env=[f"E={EVIL}"], Cmd=[EVIL]))
    config |= {"author": EVIL, "history": [{"created_by": EVIL, "comment": EVIL, "author": EVIL}]}
    manifest = [{"Config": "config.json", "RepoTags": ["evil:1"], "Layers": ["layer.tar"]}]
    files = {
        "manifest.json": json.dumps(manifest).encode(),
        "config.json": json.dumps(config).encode(),
        "layer.tar": layer,
    }
    (tmp_path / "image.tar").write_bytes(archive(files))
    havred.docker("load", "-i", str(tmp_path / "image.tar"), check=0)
    labels = {"l": EVIL, "com.docker.compose.project": "p", "com.docker.compose.service": EVIL}
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", f"touch '/{EVIL[:-1]}'; while sleep 1000; do :; done # {EVIL}"],
        "Labels": labels,
    }
    id = ask(havred.socket, "POST", "/containers/create?name=evil", body).json["Id"]
    havred.docker("start", id, check=0)
    assert ask(havred.socket, "POST", "/volumes/create", {"Name": "evil", "Labels": {"l": EVIL}}).status == 201
    assert ask(havred.socket, "POST", "/networks/create", {"Name": "evil", "Labels": {"l": EVIL}}).status == 201
    yield havred
    for words in (("rm", "-f", "evil"), ("volume", "rm", "evil"), ("network", "rm", "evil"), ("rmi", "-f", "evil:1")):
        havred.docker(*words, check=0)


VIEWS: tuple[tuple[str, ...], ...] = (
    ("ps", "--no-trunc", "--format", "{{.Labels}} {{.Command}}"),
    ("ps", "--no-trunc", "--format", "table {{.Labels}}\t{{.Command}}"),
    ("inspect", "evil"),
    ("inspect", "--format", "{{.Config.Labels}} {{.Config.Cmd}}", "evil"),
    ("inspect", "--format", "{{json .Config.Labels}}", "evil"),
    ("image", "inspect", "--format", "{{.Author}} {{.Config.Labels}}", "evil:1"),
    ("history", "--no-trunc", "evil:1"),
    ("history", "--no-trunc", "--format", "{{.CreatedBy}} {{.Comment}}", "evil:1"),
    ("diff", "evil"),
    ("volume", "inspect", "--format", "{{.Labels}}", "evil"),
    ("volume", "ls", "--format", "{{.Labels}}"),
    ("network", "inspect", "--format", "{{.Labels}}", "evil"),
    ("network", "ls", "--format", "{{.Labels}}"),
    ("events", "--since", "1h", "--until", "0s", "--filter", "container=evil", "--filter", "event=create"),
    ("events", "--since", "1h", "--until", "0s", "--filter", "container=evil", "--format", "{{.Actor.Attributes.l}}"),
    ("exec", "-w", EVIL, "evil", "true"),
    ("run", "--rm", f"no/{EVIL}"),
    (EVIL,),
    ("ps", f"--{EVIL}"),
)


def test_no_view_of_what_is_here(hostile: Engine) -> None:
    env = {**hostile.env, "LANG": "C.UTF-8"}
    for view in VIEWS:
        text = shown(view, env)
        assert SHOWN in text or r"\u001b]0;evil" in text or r"\a" in text, (view, text)
    for view in (
        ("ps",),
        ("top", "evil"),
        ("image", "ls", "--tree"),
        ("inspect", "evil:1"),
        ("compose", "-p", "p", "ps"),
    ):
        shown(view, env)
    # A program that reads the values gets them as they are.
    assert hostile.havre("inspect", "-f", "{{.Config.Labels.l}}", "evil", check=0).stdout == EVIL + "\n"


class _Daemon(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """A daemon that passes on what a hostile registry says, or is hostile itself."""

    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].removeprefix("/v1.45")
        answers: dict[str, Any] = {
            "/_ping": "OK",
            "/images/search": [{"name": EVIL, "description": EVIL, "star_count": 1, "is_official": False}],
            "/info": {"Name": EVIL, "OperatingSystem": EVIL, "Warnings": [EVIL], "Labels": [EVIL], "Driver": EVIL},
            "/images/create": [
                {"status": EVIL, "id": EVIL},
                {"status": EVIL, "id": EVIL, "progressDetail": {"current": 1, "total": 2}},
                {"errorDetail": {"message": EVIL}, "error": EVIL},
            ],
            "/images/load": [{"stream": f"Loaded image: {EVIL}\n"}],
            "/auth": {"Status": EVIL, "IdentityToken": ""},
            "/containers/x/json": {"message": EVIL},
            "/containers/create": {"Id": EVIL, "Warnings": [EVIL]},
        }
        answer = answers.get(path, {"message": EVIL})
        status = 200 if path in answers and path != "/containers/x/json" else 500
        lines = answer if path in ("/images/create", "/images/load") else [answer]
        data = b"OK" if path == "/_ping" else b"".join(json.dumps(line).encode() + b"\r\n" for line in lines)
        self.send_response(status)
        self.send_header("Api-Version", "1.45")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.rfile.read(size + 2)
            self.rfile.readline()
        self.do_GET()

    do_HEAD = do_DELETE = do_GET

    def address_string(self) -> str:
        return "the client"

    def log_message(self, format: str, *arguments: Any) -> None:
        return


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of clients of a hostile daemon."""
    with _Daemon(str(tmp_path / "s"), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        home = {"HOME": str(tmp_path), "DOCKER_CONFIG": str(tmp_path), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
        yield {**home, "DOCKER_HOST": f"unix://{tmp_path}/s"}
        server.shutdown()
        thread.join()


def test_no_view_of_what_a_registry_or_a_daemon_says(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"x" * 1024)
    for view in (
        ("search", "x"),
        ("search", "--format", "{{.Name}} {{.Description}}", "x"),
        ("pull", "x"),
        ("load", "-i", str(tmp_path / "x.tar")),
        ("login", "-u", "u", "-p", "p", "registry.example"),
        ("inspect", "--type", "container", "x"),
        ("info", "--format", "{{.Name}}"),
        ("create", "x"),
        ("rm", "x"),
        ("volume", "ls"),
    ):
        assert SHOWN in shown(view, env), view
