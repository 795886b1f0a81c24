"""A block of lines redrawn in place: progress of pulls, builds and plans, and `stats`.

    draw, draw, ..., keep     each draw replaces the previous block; `keep` leaves it, and the next begins below

A block taller than the terminal is drawn without some middle lines; `keep` draws all, and the first ones scroll away.
Texts have been sanitised by `visible`. Nothing else may write to the terminal while a block is redrawn.

Source: ECMA-48 (CUP, CUU, ED, EL); xterm's "Control Sequences" (DECTCEM, which hides the cursor).
"""

from __future__ import annotations

from havre.cli.stream import write_all
from havre.cli.tty import OFF, has_colours, size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Line = tuple[str, str]  # a text and its colour, "" for none


class Screen:
    """The terminal at `descriptor`; with `top`, blocks begin at its upper left corner, not at the cursor.

    `coloured` None: use colours if the terminal supports them.
    """

    def __init__(self, descriptor: int, *, coloured: bool | None = None, top: bool = False) -> None:
        self._descriptor = descriptor
        self._coloured = has_colours(descriptor) if coloured is None else coloured
        self._top = top
        self._drawn = 0  # lines of the block on the screen

    @property
    def columns(self) -> int:
        """Maximum length of a line."""
        return (size(self._descriptor)[1] or 80) - 1

    def draw(self, lines: Sequence[Line], *, head: int = 1) -> None:
        """Redraw the block; if it is too tall, the first `head` lines and the last ones."""
        room = max(head + 1, (size(self._descriptor)[0] or 24) - 1)
        self._write(lines if len(lines) <= room else [*lines[:head], *lines[len(lines) - room + head :]])

    def keep(self, lines: Sequence[Line]) -> None:
        """Redraw the whole block and keep it."""
        self._write(lines)
        self._drawn = 0

    def _write(self, lines: Sequence[Line]) -> None:
        columns = self.columns
        back = "\x1b[H" if self._top else f"\x1b[{self._drawn}A" if self._drawn else ""
        body = "".join(f"\x1b[2K{self._paint(text, colour, columns)}\n" for text, colour in lines)
        write_all(self._descriptor, f"\x1b[?25l\r{back}{body}\x1b[J\x1b[?25h".encode("utf-8", "replace"))
        self._drawn = len(lines)

    def _paint(self, text: str, colour: str, columns: int) -> str:
        cut = text if "\x1b" in text else text[:columns]  # a user's template may contain escape sequences
        return paint(cut, colour if self._coloured else "")


def paint(text: str, colour: str) -> str:
    """The text in a colour, unless that is ""."""
    return f"{colour}{text}{OFF}" if colour else text
