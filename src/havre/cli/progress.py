"""The progress of pull, push, load and import: redrawn in place on a terminal, as lines elsewhere.

On a terminal each layer has a line that is redrawn; elsewhere only changes of status are printed, to keep logs short.
Source: the Docker API's "ImageCreate" progress messages.
"""

from __future__ import annotations

import posix

from havre.cli.screen import Screen
from havre.cli.stream import write_all
from havre.errors import Failed
from havre.golang.texts import human_size
from havre.visible import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

_BAR, _SHORTEST = 50, 10


class Failure(Failed):
    """An error message in a stream; `code` is that of a failed command, else 0."""

    code = 0


def _failure(error: object) -> Failure:
    if not isinstance(error, dict):
        return Failure(str(error))
    failure = Failure(error.get("message", ""), error.get("hint"))
    failure.code = error.get("code") or 0
    return failure


def show(messages: Iterable[dict[str, Any]], output: int, on_aux: Callable[[Any], None] | None = None) -> None:
    """Show a stream of messages on descriptor `output`. Raises Failure for an error message."""
    drawer = _Terminal(output) if posix.isatty(output) else _Plain(output)
    try:
        for message in messages:
            if error := message.get("errorDetail") or message.get("error"):
                raise _failure(error)
            if "aux" in message:
                if on_aux is not None:
                    on_aux(message["aux"])
                continue
            drawer.draw(message)
    finally:
        drawer.end()


def drain(messages: Iterable[dict[str, Any]], on_aux: Callable[[Any], None] | None = None) -> None:
    """Read a stream without showing it. Raises Failure for an error message."""
    for message in messages:
        if error := message.get("errorDetail") or message.get("error"):
            raise _failure(error)
        if on_aux is not None and "aux" in message:
            on_aux(message["aux"])


class _Plain:
    def __init__(self, output: int) -> None:
        self._output = output

    def draw(self, message: dict[str, Any]) -> None:
        detail = message.get("progressDetail") or {}
        if detail.get("total") or detail.get("current"):
            return  # no progress bars in a log
        self._write(_line(message))

    def end(self) -> None:
        """Nothing to do."""

    def _write(self, text: str) -> None:
        if text:
            write_all(self._output, text.encode())


class _Terminal(_Plain):
    def __init__(self, output: int) -> None:
        super().__init__(output)
        self._screen = Screen(output)
        self._rows: dict[str, str] = {}

    def draw(self, message: dict[str, Any]) -> None:
        identifier = message.get("id", "")
        if not identifier or not ("progressDetail" in message or identifier in self._rows):
            self.end()  # the rows scroll away with this line
            self._write(_line(message))
            return
        text = visible(f"{identifier}: {message.get('status', '')} ")
        text += _bar(message.get("progressDetail") or {}, self._screen.columns + 1 - len(text))
        if text.rstrip() != self._rows.get(identifier):
            self._rows[identifier] = text.rstrip()
            self._screen.draw(self._lines(), head=0)

    def end(self) -> None:
        if self._rows:
            self._screen.keep(self._lines())
            self._rows.clear()

    def _lines(self) -> list[tuple[str, str]]:
        return [(text, "") for text in self._rows.values()]


def _line(message: dict[str, Any]) -> str:
    if "stream" in message:
        return visible(str(message["stream"]))
    status = message.get("status", "")
    if not status:
        return ""
    return visible(f"{message['id']}: {status}" if message.get("id") else status) + "\n"


def _bar(detail: dict[str, Any], room: int) -> str:
    """The progress, with a bar that fits into `room` columns."""
    current, total = detail.get("current") or 0, detail.get("total") or 0
    if not current and not total:
        return ""
    if detail.get("units"):
        return f"{current}/{total} {detail['units']}"
    if not total or current > total:
        return f"{human_size(current):>8}"
    numbers = f"{human_size(current):>8}/{human_size(total)}"
    width = min(_BAR, room - len(numbers) - len("[]  ") - 1)
    if width < _SHORTEST:
        return numbers
    filled = min(width, current * width // total)
    bar = "=" * filled + (">" if filled < width else "")
    return f"[{bar:<{width}}]  {numbers}"
