"""Control characters made visible: what a registry, an image or a container says must not steer a terminal.

    visible("evil\\x1b[2J")  ->  the text  evil\\x1b[2J  in twelve characters, which clears no screen

Newlines and tabs stay; everything else that a terminal obeys is written as a program's source would write it: the
control characters of ASCII and of ISO 8859-1, single bytes of the latter, and what changes the direction of a text.

Standard output is `Guarded` where it is a terminal, standard error always. What we draw ourselves is `Drawn`:
its foreign parts have been through `visible`. Output of the user's own programs (run, exec, attach, logs, steps of
builds) goes past this, by descriptor, as with docker.

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
    return made | {0xDC00 + code: f"\\x{code:02x}" for code in range(0x80, 0xA0)}  # bytes that are no UTF-8


_TABLE = _table()


def visible(text: str) -> str:
    """`text` with its control characters shown instead of sent."""
    return text if text.isascii() and text.isprintable() else text.replace("\r\n", "\n").translate(_TABLE)


def for_terminal() -> Callable[[str], str] | None:
    """`visible` if standard output is a terminal; None if a program reads it, which gets values as they are."""
    import sys

    return visible if sys.stdout.isatty() else None


class Drawn(str):
    """Text whose control characters are ours."""

    __slots__ = ()


class Guarded:
    """A text stream that shows control characters, but for what is `Drawn`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write it; how much that was."""
        self._stream.write(text if isinstance(text, Drawn) else visible(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
