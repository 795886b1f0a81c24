"""A block that is redrawn in place, as a person at the terminal sees it."""

from __future__ import annotations

import pytest

from havre.cli.screen import Screen
from support.terminals import picture

BLOCK = [(f"line {number}", "") for number in range(30)]


def test_blocks_are_drawn_over_one_another_and_stay_when_kept(capfd: pytest.CaptureFixture[str]) -> None:
    screen = Screen(1, coloured=False)
    screen.draw([("one", ""), ("two", ""), ("three", "")])
    screen.draw([("1", ""), ("2", "")])
    assert picture(capfd.readouterr().out) == ["1", "2", ""]
    screen.draw([("1", ""), ("2", ""), ("3", "")])
    screen.keep([("all", "")])
    screen.draw([("next", "")])
    screen.draw([("over", "")])
    assert picture("1\n2\n" + capfd.readouterr().out) == ["all", "over", ""]


def test_a_block_that_is_too_high_is_drawn_without_its_middle_until_it_is_kept(
    capfd: pytest.CaptureFixture[str],
) -> None:
    screen = Screen(1, coloured=False)
    screen.draw(BLOCK[:20])
    screen.draw(BLOCK)
    shown = capfd.readouterr().out
    assert picture(shown) == ["line 0", *(f"line {number}" for number in range(8, 30)), ""]
    screen.keep(BLOCK)
    assert picture(shown + capfd.readouterr().out) == [*(text for text, _ in BLOCK), ""]


def test_long_lines_are_cut_and_coloured_ones_end_their_colour(capfd: pytest.CaptureFixture[str]) -> None:
    Screen(1, coloured=True, top=True).draw([("x" * 200, "\x1b[31m"), ("\x1b[1m" + "y" * 200, "")])
    first, second = capfd.readouterr().out.split("\n")[:2]
    assert first == "\x1b[?25l\r\x1b[H\x1b[2K\x1b[31m" + "x" * 79 + "\x1b[0m"
    assert second == "\x1b[2K\x1b[1m" + "y" * 200
