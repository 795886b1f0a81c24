"""The terminal: raw mode that is always reset, size, colours, and detach keys.

Source: termios(3) "raw mode"; docker's "detach keys": `ctrl-p,ctrl-q`.
"""

from __future__ import annotations

import posix

from havre.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"
RED, GREEN, YELLOW, BLUE, DIM, OFF = "\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[34m", "\x1b[2m", "\x1b[0m"


def has_colours(descriptor: int) -> bool:
    """Report whether to use colours: a terminal that supports them, and no NO_COLOR."""
    dull = posix.environ.get(b"NO_COLOR") or posix.environ.get(b"TERM") == b"dumb"
    return not dull and posix.isatty(descriptor)


class RawTerminal:
    """Context manager: the terminal at `descriptor` in raw mode; does nothing if it is not a terminal."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        if not posix.isatty(self._descriptor):
            return
        import termios

        self._saved = termios.tcgetattr(self._descriptor)
        iflag, oflag, cflag, lflag, ispeed, ospeed, chars = termios.tcgetattr(self._descriptor)
        iflag &= ~(termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR
                   | termios.ICRNL | termios.IXON)  # fmt: skip
        lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        oflag &= ~termios.OPOST
        chars = list(chars)
        chars[termios.VMIN], chars[termios.VTIME] = 1, 0
        mode = [iflag, oflag, cflag, lflag, ispeed, ospeed, chars]
        termios.tcsetattr(self._descriptor, termios.TCSANOW, mode)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if posix.isatty(self._descriptor):
            import termios

            termios.tcsetattr(self._descriptor, termios.TCSANOW, self._saved)


def size(descriptor: int = 1) -> tuple[int, int]:
    """Rows and columns, zeros if it is not a terminal."""
    try:
        found = posix.get_terminal_size(descriptor)
    except OSError:
        return 0, 0
    return found.lines, found.columns


def parse_keys(text: str) -> bytes:
    """The bytes of detach keys such as `ctrl-p,x`. Raises InvalidInput."""
    keys = bytearray()
    for name in text.split(","):
        if len(name) == 1:
            keys += name.encode()
            continue
        letter = name.removeprefix("ctrl-")
        if letter == name or len(letter) != 1 or letter.isupper() or not ("@" <= letter.upper() <= "_"):
            raise InvalidInput(f"invalid detach keys ({text}): Unknown character: '{name}'")
        keys.append(ord(letter.upper()) - ord("@"))
    return bytes(keys)


class DetachFilter:
    """Finds the detach keys in the input; withholds a prefix of them until it is complete or not."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """The bytes to forward, and whether the keys are complete (input after them is dropped)."""
        passed = bytearray()
        for byte in data:
            if self._keys and byte == self._keys[self._held]:
                self._held += 1
                if self._held == len(self._keys):
                    return bytes(passed), True
                continue
            passed += self._keys[: self._held]
            self._held = 0
            if self._keys and byte == self._keys[0]:
                self._held = 1
            else:
                passed.append(byte)
        return bytes(passed), False
