"""Signals as Docker names them."""

from __future__ import annotations

import pytest

from havre.errors import InvalidInput
from havre.golang.signals import parse_signal


@pytest.mark.parametrize(
    ("text", "number"),
    [("SIGTERM", 15), ("term", 15), ("9", 9), ("HUP", 1), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("RTMIN", 34)],
)
def test_signals(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "-1", "SIG", "_DFL", "SIG_DFL", "RTMIN+40", "9x"])
def test_bad_signals(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"invalid signal|does not support signal"):
        parse_signal(text)
