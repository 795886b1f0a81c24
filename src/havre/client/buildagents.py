"""`--ssh`: SSH agents for a build, served over connections kept ready for havre's daemon.

    default, default=SOCKET     the agent of SSH_AUTH_SOCK, or of a socket
    id=KEY,KEY                  an agent of our own with these keys; it ends with this program, even if that is killed

A thread for each connection waits for a first byte, prepares the next connection, and relays to the agent.

Source: docker/buildx, "--ssh"; ssh-agent(1). The daemon's side is `api/agents.py`.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import subprocess
import tempfile
import threading

from havre.errors import Failed, HavreError, InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from havre.client.api import Client
    from havre.client.endpoint import Stream

_PIECE = 32 << 10


class Agents:
    """The agents of one build, by ID; as a context manager, it ends our own agents."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._wanted = dict(map(_parse, texts))
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._processes: list[subprocess.Popen[bytes]] = []

    @property
    def ids(self) -> list[str]:
        """The IDs sent to the daemon."""
        return list(self._wanted)

    def __enter__(self) -> Agents:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.communicate()  # closes its stdin, which ends it
        if self._directory is not None:
            self._directory.cleanup()

    def offer(self, new_client: Callable[[], Client], build_id: str) -> None:
        """Keep a connection ready for each agent from now on. Raises HavreError."""
        for id, paths in self._wanted.items():
            path = paths[0] if _is_socket(paths[0]) else self._start(id, paths)
            _Offers(new_client, build_id, id, path).make_ready()

    def _start(self, id: str, keys: list[str]) -> str:
        """Start an agent with keys, which ends when its stdin is closed."""
        self._directory = self._directory or tempfile.TemporaryDirectory(prefix="havre-ssh-")
        path = os.path.join(self._directory.name, str(len(self._processes)))
        script = 'ssh-add -q "$@" >&2 && echo ready && exec cat'
        command = ["ssh-agent", "-a", path, "sh", "-c", script, "sh", *keys]
        try:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except OSError as error:
            raise Failed(f"--ssh {id}: ssh-agent cannot be run: {error.strerror}") from error
        self._processes.append(process)
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            said = process.communicate()[1].decode(errors="replace").strip()
            raise InvalidInput(f"--ssh {id}: the keys cannot be loaded: {said}")
        return path


def _parse(text: str) -> tuple[str, list[str]]:
    id, _, paths = text.partition("=")
    found = [path for path in paths.split(",") if path]
    if not found and not (agent := os.environ.get("SSH_AUTH_SOCK", "")):
        raise InvalidInput(f"invalid empty ssh agent socket for {id or 'default'!r}: make sure SSH_AUTH_SOCK is set")
    return id or "default", found or [agent]


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError as error:
        raise InvalidInput(f"--ssh: {path}: {error.strerror}") from error


class _Offers:
    """The connections of one agent."""

    def __init__(self, new_client: Callable[[], Client], build_id: str, id: str, path: str) -> None:
        self._new_client = new_client
        self._query: dict[str, str | list[str]] = {"buildid": build_id, "id": id}
        self._path = path

    def make_ready(self) -> None:
        """Open a connection. Raises HavreError."""
        stream, early = self._new_client().hijack("/build/agent", self._query)
        threading.Thread(target=self._serve, args=(stream, early), daemon=True).start()

    def _serve(self, stream: Stream, early: bytes) -> None:
        try:
            if not (first := early or stream.recv(_PIECE)):
                return  # the build is over
            self.make_ready()
            with socket.socket(socket.AF_UNIX) as agent:
                agent.connect(self._path)
                agent.sendall(first)
                _relay(stream, agent)
        except (OSError, HavreError):
            return  # the build step that uses the agent reports the closed connection
        finally:
            stream.close()


def _relay(stream: Stream, agent: socket.socket) -> None:
    """Relay both directions until either side closes."""
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLIN)
    poll.register(agent, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            one, other = (agent, stream) if descriptor == agent.fileno() else (stream, agent)
            if not (data := one.recv(_PIECE)):
                return
            other.sendall(data)
