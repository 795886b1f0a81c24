"""`havre compose logs`, and printing the output of several containers with names as prefixes."""

from __future__ import annotations

import os
import sys
import threading

from havre.cli.compose.stage import Stage
from havre.cli.logs import timestamp
from havre.cli.stream import Demultiplexer, Raw
from havre.errors import HavreError
from havre.visible import Drawn, visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from havre.cli.session import Session
    from havre.client.api import Client, Query
    from havre.compose.state import Container
    from havre.golang.flags import Options

_COLOURS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)


class Printer:
    """Prints whole lines of several containers. Thread-safe."""

    def __init__(self, *, colour: bool, prefix: bool) -> None:
        self._colour = colour
        self._prefix = prefix
        self._lock = threading.Lock()
        self._width = 0
        self._order: list[str] = []

    def expect(self, names: Iterable[str]) -> None:
        """Announce names, so that columns can be aligned."""
        with self._lock:
            for name in names:
                if name not in self._order:
                    self._order.append(name)
                    self._width = max(self._width, len(name))

    def line(self, name: str, text: str, *, error: bool = False) -> None:
        """Write one line."""
        self.expect((name,))
        head = f"{visible(name):<{self._width}}  | " if self._prefix else ""
        if head and self._colour:
            head = f"\x1b[{_COLOURS[self._order.index(name) % len(_COLOURS)]}m{head}\x1b[0m"
        with self._lock:
            output = sys.stderr if error else sys.stdout
            output.write(Drawn(f"{head}{text}\n"))
            output.flush()

    def say(self, text: str) -> None:
        """Print a message to stderr."""
        with self._lock:
            sys.stdout.flush()
            print(text, file=sys.stderr, flush=True)

    def pump(self, client: Client, container: str, name: str, query: Query, *, tty: bool) -> None:
        """Print a container's log until it ends. Raises HavreError."""
        asked: Query = {"stdout": "1", "stderr": "1", "wide": "1", **query}
        response = client.call("GET", f"/containers/{container}/logs", asked)
        output: Raw | Demultiplexer = Raw() if tty else Demultiplexer()
        rest = {1: "", 2: ""}
        for data in response.chunks():
            for descriptor, part in output.feed(data):
                *lines, rest[descriptor] = (rest[descriptor] + part.decode("utf-8", "surrogateescape")).split("\n")
                for text in lines:
                    self.line(name, text.removesuffix("\r"), error=descriptor == 2)
        for descriptor, text in rest.items():
            if text:
                self.line(name, text, error=descriptor == 2)


def shown_name(container: Container, project: str) -> str:
    """A container's name without the project's prefix."""
    name = container.name
    for separator in "-_":
        name = name.removeprefix(project + separator)
    return name


def coloured(stage: Stage, *, never: bool) -> bool:
    """Report whether to colour lines: on a terminal, unless disabled."""
    if never or os.environ.get("NO_COLOR") or stage.group.ansi == "never":
        return False
    return stage.group.ansi == "always" or sys.stdout.isatty()


def logs(session: Session, options: Options, arguments: list[str]) -> int:
    """Print the logs of services, with a thread for each container."""
    stage = Stage(session, options)
    found = [c for c in stage.containers(arguments) if not options.index or c.number == options.index]
    query: Query = {"tail": options.tail}
    for flag in ("follow", "timestamps"):
        if getattr(options, flag):
            query[flag] = "1"
    for flag in ("since", "until"):
        if getattr(options, flag):
            query[flag] = timestamp(getattr(options, flag))
    printer = Printer(colour=coloured(stage, never=options.no_color), prefix=not options.no_log_prefix)
    project = found[0].labels["com.docker.compose.project"] if found else ""
    names = {container.id: shown_name(container, project) for container in found}
    printer.expect(names.values())
    failures: list[str] = []

    def pump(container: Container) -> None:
        client = stage.engine.client
        try:
            tty = client.get(f"/containers/{container.id}/json")["Config"]["Tty"]
            printer.pump(client, container.id, names[container.id], query, tty=tty)
        except HavreError as error:
            failures.append(f"{names[container.id]}: {error}")

    threads = [threading.Thread(target=pump, args=(container,), daemon=True) for container in found]
    for thread in threads:
        thread.start()
        if not options.follow:
            thread.join()
    for thread in threads:
        thread.join()
    return session.tell(failures)
