"""Shows a plan's progress: on a terminal one redrawn line per subject, with details (layers, build steps) below;
elsewhere a line per change.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TextIO

from havre.cli.screen import Screen
from havre.cli.tty import DIM, GREEN, RED
from havre.visible import visible


class Quiet:
    """Shows nothing."""

    def show(self, subject: str, status: str, *, over: bool, failed: bool = False) -> None:
        """Does nothing."""

    def tick(self, subject: str, lines: Sequence[str], said: Sequence[str]) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


class Plain:
    """One line per change, as docker compose prints without a terminal."""

    def __init__(self, output: TextIO) -> None:
        self._output = output

    def show(self, subject: str, status: str, *, over: bool, failed: bool = False) -> None:
        """Print the change."""
        self._output.write(f" {subject}  {status}\n")
        self._output.flush()

    def tick(self, subject: str, lines: Sequence[str], said: Sequence[str]) -> None:
        """Does nothing: the output would be endless."""

    def close(self) -> None:
        """Does nothing."""


class Log(Plain):
    """As Plain, plus every line of the steps' output."""

    def tick(self, subject: str, lines: Sequence[str], said: Sequence[str]) -> None:
        """Print the output."""
        self._output.write("".join(f" {subject}  {line}\n" for line in said))
        self._output.flush()


class Live:
    """All subjects with their durations, redrawn at each change.

    Nothing else may write to the terminal meanwhile.
    """

    def __init__(self, output: TextIO, *, colour: bool) -> None:
        self._output = output
        self._screen = Screen(output.fileno(), coloured=colour)
        self._rows: dict[str, tuple[str, bool, bool]] = {}
        self._begun: dict[str, float] = {}
        self._took: dict[str, str] = {}
        self._below: dict[str, Sequence[str]] = {}

    def show(self, subject: str, status: str, *, over: bool, failed: bool = False) -> None:
        """Redraw with the change."""
        subject, status = visible(subject), visible(status)
        self._rows[subject] = (status, over, failed)
        now = time.monotonic()
        begun = self._begun.setdefault(subject, now)
        if over:
            self._took[subject] = f"{now - begun:.1f}s"
        self._below.pop(subject, None)
        self._draw()

    def tick(self, subject: str, lines: Sequence[str], said: Sequence[str]) -> None:
        """Redraw with the lines."""
        subject, lines = visible(subject), [visible(line) for line in lines]
        if lines != self._below.get(subject, []):
            self._below[subject] = lines
            self._draw()

    def _draw(self) -> None:
        self._output.flush()
        self._screen.draw(self._lines())

    def _lines(self) -> list[tuple[str, str]]:
        over = sum(row[1] for row in self._rows.values())
        width = max(len(subject) for subject in self._rows)
        room = self._screen.columns
        lines = [(f"[+] Running {over}/{len(self._rows)}", "")]
        for subject, (status, ended, failed) in self._rows.items():
            mark, colour = ("✘", RED) if failed else ("✔", GREEN) if ended else ("⠿", DIM)
            text, took = f" {mark} {subject:<{width}}  {status}", self._took.get(subject, "")
            lines.append((f"{text[: room - len(took) - 1]:<{room - len(took)}}{took}" if took else text, colour))
            lines += [(f"     {line}", DIM) for line in self._below.get(subject, ())]
        return lines

    def close(self) -> None:
        """Keep what is drawn."""
        if self._rows:
            self._screen.keep(self._lines())


def choose(output: TextIO, progress: str, ansi: str) -> Quiet | Plain | Live:
    """The view for an output: `progress` is auto, tty, plain, quiet or log, `ansi` auto, never or always."""
    if progress in ("quiet", "none"):
        return Quiet()
    if progress == "log":
        return Log(output)
    colour = ansi != "never" and not os.environ.get("NO_COLOR")
    terminal = output.isatty() and os.environ.get("TERM") != "dumb"
    if progress == "tty" or (progress == "auto" and (terminal and ansi != "never")):
        return Live(output, colour=colour)
    return Plain(output)
