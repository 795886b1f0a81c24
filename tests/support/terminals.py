"""A program on a pseudo-terminal, used like a person would."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from types import TracebackType


class Terminal:
    """Runs `command` on its own terminal; `expect` waits for text, `type` sends keys."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], rows: int = 24, columns: int = 80) -> None:
        self._ours, theirs = pty.openpty()
        self.seen = ""
        self.resize(rows, columns)
        # The terminal must be the controlling one, or changes of size are not signalled.
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *command], stdin=theirs, stdout=theirs, stderr=theirs, env=dict(env)
        )
        os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._ours)

    def resize(self, rows: int, columns: int) -> None:
        """Set the terminal's size; the program receives SIGWINCH."""
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, keys: str) -> None:
        """Send keys like a keyboard."""
        os.write(self._ours, keys.encode())

    def expect(self, text: str, timeout_s: float = 15.0) -> str:
        """Read until `text` is shown. Returns and consumes everything up to and including it."""
        deadline = time.monotonic() + timeout_s
        while text not in self.seen:
            if not self._read(deadline):
                raise AssertionError(f"{text!r} was not shown; seen: {self.seen!r}")
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def shows(self, text: str, within_s: float) -> bool:
        """Report whether `text` is shown within a time; nothing is consumed."""
        deadline = time.monotonic() + within_s
        while text not in self.seen and self._read(deadline):
            pass
        return text in self.seen

    def end(self, timeout_s: float = 15.0) -> tuple[int, str]:
        """Wait for the program's exit. Returns its exit code and the output since the last `expect`."""
        deadline = time.monotonic() + timeout_s
        while self._read(deadline):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic())), self.seen

    def _read(self, deadline: float) -> bool:
        if not select.select([self._ours], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return False
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # EIO: the other side is closed (pty(7))
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)


_SEQUENCE = re.compile(r"\x1b\[(\??\d*)([A-Za-z])|[^\x1b]")


def picture(text: str, rows: int = 24) -> list[str]:
    """The lines of a terminal with so many rows after `text`, preceded by those scrolled off; colours omitted.

    Supports the sequences of our screens (`cli/screen.py`): CUP to the corner, CUU, ED, EL, SGR, CR, LF.
    """
    lines, row, column = [""], 0, 0
    for found in _SEQUENCE.finditer(text):
        number, kind = found.groups()
        top = max(0, len(lines) - rows)
        if kind == "A":
            row = max(top, row - int(number or 1))
        elif kind == "H":
            row, column = top, 0
        elif kind == "K":
            lines[row] = "" if number == "2" else lines[row][:column]
        elif kind == "J":
            lines[row:] = [lines[row][:column]]
        elif kind:
            assert kind in "mhl", found[0]
        elif found[0] == "\n":
            row, column = row + 1, 0  # as with ONLCR
            lines += [""] * (row + 1 - len(lines))
        elif found[0] == "\r":
            column = 0
        else:
            lines[row] = f"{lines[row][:column]:<{column}}{found[0]}{lines[row][column + 1 :]}"
            column += 1
    return [line.rstrip() for line in lines]
