"""`havre attach`, `havre start`, and what they share with `run` and `exec`: attaching to a container's streams.

attach (hijacked, before the start, so that no output is missed)
wait   (its headers before the start, so that no exit is missed)
start, resize, copy until the stream ends, exit code from wait
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` imports enum, which costs as much as all the rest
import posix
import select
import sys
import time
from _thread import start_new_thread

from havre.cli.parser import StatusError
from havre.cli.stream import DETACHED, Copy, Signals
from havre.cli.tty import DEFAULT_DETACH_KEYS, DetachFilter, RawTerminal, parse_keys, size
from havre.errors import HavreError
from havre.golang.jsontext import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from havre.cli.session import Session
    from havre.client.api import Client
    from havre.client.endpoint import Stream
    from havre.client.http import Response
    from havre.golang.flags import Options

_PROXIED = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGABRT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGTERM", "SIGCONT", "SIGTSTP")
_SIZE_ATTEMPTS = 10
_SIZE_PAUSE_S = 0.01
_SIGNAL_NAMES = {getattr(_signal, name): name.removeprefix("SIG") for name in _PROXIED}


def check_tty(attach_stdin: bool, tty: bool) -> None:
    """Reject a container's terminal when our own stdin is not one. Raises StatusError."""
    if attach_stdin and tty and not posix.isatty(0):
        raise StatusError(1, "the input device is not a TTY")


def detach_keys(session: Session, options: Options) -> str:
    """The detach keys: the flag's, the config file's, or "" for the default."""
    keys = options.detach_keys or session.config.text("detachKeys")
    if keys:
        parse_keys(keys)
    return keys


class Conversation:
    """The attached streams of a container or exec; signals and window changes are forwarded.

    `resize_path` is the API path for the window size; `kill` sends a signal by name, or is None for no forwarding.
    """

    def __init__(
        self,
        session: Session,
        *,
        tty: bool,
        stdin: bool,
        keys: str,
        resize_path: str | None,
        kill: Callable[[str], None] | None,
    ) -> None:
        self._client = session.new_client()
        self._first_client = session.new_client()
        self._tty = tty
        self._stdin = 0 if stdin else None
        self._keys = keys
        self._resize_path = resize_path if tty else None
        self._kill = None if tty else kill
        wanted = [_signal.SIGWINCH] if self._resize_path else []
        if self._kill is not None:
            wanted += _SIGNAL_NAMES
        self.signals = Signals(wanted)

    def copy(self, stream: Stream, early: bytes, hidden: frozenset[int] = frozenset()) -> str:
        """Copy until the stream ends or the user detaches."""
        detach = DetachFilter(parse_keys(self._keys or DEFAULT_DETACH_KEYS)) if self._tty else None
        with RawTerminal(0 if self._tty and self._stdin is not None else -1):
            return Copy(
                stream,
                early,
                tty=self._tty,
                stdin=self._stdin,
                detach=detach,
                signals=self.signals,
                on_signal=self.on_signal,
                hidden=hidden,
            ).run()

    def on_signal(self, number: int) -> None:
        """Forward a window change or a signal; ignored when the container has ended."""
        try:
            if number == _signal.SIGWINCH:
                self.resize()
            elif self._kill is not None and number in _SIGNAL_NAMES:
                self._kill(_SIGNAL_NAMES[number])
        except HavreError:
            return

    def set_first_size(self) -> None:
        """Send the initial window size in a thread, retrying while the process is starting."""
        if self._resize_path:
            start_new_thread(self._keep_trying, ())

    def _keep_trying(self) -> None:
        for attempt in range(_SIZE_ATTEMPTS):
            try:
                self.resize(client=self._first_client)
            except HavreError:
                time.sleep(_SIZE_PAUSE_S * (attempt + 1))
            else:
                return

    def resize(self, grow: int = 0, client: Client | None = None) -> None:
        """Send the window size to the daemon, enlarged by `grow`."""
        rows, columns = size()
        if self._resize_path and rows and columns:
            query: dict[str, str | list[str]] = {"h": str(rows + grow), "w": str(columns + grow)}
            (client or self._client).call("POST", self._resize_path, query).read()

    def exit_code(self, waiting: Response) -> int:
        """The exit code from `wait`; forwards signals meanwhile. Raises StatusError for an error."""
        poll = select.poll()
        stream, early = waiting.hijack()
        poll.register(stream.fileno(), select.POLLIN)
        poll.register(self.signals.descriptor, select.POLLIN)
        while not (early or stream.buffered()):
            ready = dict(poll.poll())
            if self.signals.descriptor in ready:
                for number in self.signals.taken():
                    self.on_signal(number)
            if stream.fileno() in ready:
                break
        return read_exit_code(waiting)


def read_exit_code(waiting: Response) -> int:
    """The exit code in the body of a `wait` response. Raises StatusError for an error."""
    answer = decode(waiting.read())
    if (error := answer.get("Error")) and error.get("Message"):
        raise StatusError(125, f"Error waiting for container: {error['Message']}")
    return int(answer["StatusCode"])


def hijack_query(*, stdin: bool, stdout: bool, stderr: bool, keys: str) -> dict[str, str | list[str]]:
    """The query of an attach call."""
    query: dict[str, str | list[str]] = {"stream": "1"}
    for name, wanted in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
        if wanted:
            query[name] = "1"
    if keys:
        query["detachKeys"] = keys
    return query


def killer(session: Session, container: str) -> Callable[[str], None]:
    """A function that sends a signal to a container."""
    client = session.new_client()
    return lambda name: client.call("POST", f"/containers/{container}/kill", {"signal": name}).close()


def attach(session: Session, options: Options, arguments: list[str]) -> int:
    """Attach to a running container."""
    name = arguments[0]
    client = session.client
    container = client.get(f"/containers/{name}/json")
    state = container["State"]
    if not state["Running"]:
        raise StatusError(1, "You cannot attach to a stopped container, start it first")
    if state["Paused"]:
        raise StatusError(1, "You cannot attach to a paused container, unpause it first")
    if state["Restarting"]:
        raise StatusError(1, "You cannot attach to a restarting container, wait until it is running")
    tty = container["Config"]["Tty"]
    stdin = not options.no_stdin and container["Config"]["OpenStdin"]
    check_tty(not options.no_stdin, tty)
    keys = detach_keys(session, options)
    waiting = session.new_client().call("POST", f"/containers/{name}/wait")
    stream, early = client.hijack(
        f"/containers/{name}/attach", hijack_query(stdin=stdin, stdout=True, stderr=True, keys=keys)
    )
    kill = killer(session, name) if options.sig_proxy else None
    talk = Conversation(session, tty=tty, stdin=stdin, keys=keys, resize_path=f"/containers/{name}/resize", kill=kill)
    if tty:
        talk.resize(grow=1)  # resizing, and back, makes a shell redraw its prompt
        talk.resize()
    if talk.copy(stream, early) == DETACHED:
        raise StatusError(1, "read escape sequence")
    return talk.exit_code(waiting)


def start(session: Session, options: Options, arguments: list[str]) -> int:
    """Start containers, or one with its streams attached."""
    if options.checkpoint or not (options.attach or options.interactive):
        query: dict[str, str | list[str]] = {}
        if options.checkpoint:
            query = {"checkpoint": options.checkpoint, "checkpoint-dir": options.checkpoint_dir}
        code = session.each(arguments, lambda name: session.client.post(f"/containers/{name}/start", query))
        if code:
            session.warn("Error: failed to start containers: " + ", ".join(arguments))
        return code
    if len(arguments) > 1:
        raise StatusError(1, "you cannot start and attach multiple containers at once")
    return _start_attached(session, options, arguments[0])


def _start_attached(session: Session, options: Options, name: str) -> int:
    client = session.client
    container = client.get(f"/containers/{name}/json")
    config: dict[str, Any] = container["Config"]
    stdin = bool(options.interactive and config["OpenStdin"])
    keys = detach_keys(session, options)
    query = hijack_query(stdin=stdin, stdout=True, stderr=True, keys=keys)
    stream, early = client.hijack(f"/containers/{container['Id']}/attach", query)
    condition = "removed" if container["HostConfig"]["AutoRemove"] else "next-exit"
    waiting = session.new_client().call("POST", f"/containers/{container['Id']}/wait", {"condition": condition})
    talk = Conversation(
        session,
        tty=config["Tty"],
        stdin=stdin,
        keys=keys,
        resize_path=f"/containers/{container['Id']}/resize",
        kill=killer(session, container["Id"]),
    )
    client.post(f"/containers/{container['Id']}/start")
    talk.set_first_size()
    sys.stdout.flush()
    if talk.copy(stream, early) == DETACHED:
        return 0
    return talk.exit_code(waiting)
