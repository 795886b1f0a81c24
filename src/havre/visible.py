"""Makes control characters visible, so that text from a registry, image or container cannot control the terminal.

    visible("evil\\x1b[2J")  ->  the text  evil\\x1b[2J  in twelve characters, which does not clear the screen

Newlines and tabs are kept; all other control characters are escaped: those of ASCII and ISO 8859-1, single bytes of the
latter, and characters that change the direction of text.

Standard output is `Guarded` if it is a terminal, standard error always. Our own drawing is `Drawn`: its foreign parts
have been through `visible`. Output of the user's programs (run, exec, attach, logs, build steps) bypasses this, by
descriptor, as in docker.

Source: ECMA-48, "Control Functions for Coded Character Sets"; Unicode, "Bidirectional Algorithm" (explicit formatting).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TextIO

_KEPT = "\n\t"
_DIRECTIONS = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))


def _table() -> dict[int, str]:
    made = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F) if chr(code) not in _KEPT}
    made |= {code: f"\\u{code:04x}" for code in (*range(0x80, 0xA0), *_DIRECTIONS)}
    return made | {0xDC00 + code: f"\\x{code:02x}" for code in range(0x80, 0xA0)}  # bytes that are not UTF-8


_TABLE = _table()


def visible(text: str) -> str:
    """`text` with its control characters escaped."""
    return text if text.isascii() and text.isprintable() else text.replace("\r\n", "\n").translate(_TABLE)


def for_terminal() -> Callable[[str], str] | None:
    """`visible` if standard output is a terminal; None otherwise: a program gets values unchanged."""
    import sys

    return visible if sys.stdout.isatty() else None


class Drawn(str):
    """Text whose control characters are our own."""

    __slots__ = ()


class Guarded:
    """A text stream that escapes control characters, except in `Drawn` text."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write; returns the length written."""
        self._stream.write(text if isinstance(text, Drawn) else visible(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
