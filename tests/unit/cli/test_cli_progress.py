"""Progress as lines in a log and as bars on a terminal."""

from __future__ import annotations

import os
import pty
import termios
from typing import Any

import pytest

from havre.cli.progress import Failure, drain, show

MESSAGES: list[dict[str, Any]] = [
    {"status": "Pulling from library/x", "id": "latest"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "aaa"},
    {"status": "Pulling fs layer", "progressDetail": {}, "id": "bbb"},
    {"status": "Downloading", "progressDetail": {"current": 500, "total": 1000}, "id": "aaa"},
    {"status": "Pull complete", "progressDetail": {}, "id": "aaa"},
    {"aux": {"ID": "sha256:1"}},
    {"status": "Status: done"},
    {"stream": "Loaded image: x\n"},
]


def test_a_log_gets_lines_without_bars(capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[Any] = []
    show(MESSAGES, 1, seen.append)
    assert capfd.readouterr().out == (
        "latest: Pulling from library/x\naaa: Pulling fs layer\nbbb: Pulling fs layer\naaa: Pull complete\n"
        "Status: done\nLoaded image: x\n"
    )
    assert seen == [{"ID": "sha256:1"}]


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (120, f"[{'=' * 25}>{' ' * 24}]      500B/1kB"),
        (80, f"[{'=' * 23}>{' ' * 22}]      500B/1kB"),
        (30, "    500B/1kB"),
    ],
)
def test_a_terminal_gets_a_line_for_each_layer_that_is_redrawn(columns: int, shown: str) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    show(MESSAGES, theirs)
    text = ""
    while not text.endswith("Loaded image: x\r\n"):  # a terminal passes on what was written piece by piece
        text += os.read(ours, 10_000).decode()
    os.close(theirs)
    os.close(ours)
    assert f"\x1b[2A\r\x1b[2Kaaa: Downloading {shown}\r\x1b[2B" in text
    assert len(f"aaa: Downloading {shown}") < columns
    assert text.endswith("Status: done\r\nLoaded image: x\r\n")


@pytest.mark.parametrize("act", [drain, lambda messages: show(messages, 1)])
def test_an_error_in_the_stream_is_raised(act: Any) -> None:
    with pytest.raises(Failure, match="manifest unknown"):
        act([{"status": "x"}, {"errorDetail": {"message": "manifest unknown"}, "error": "manifest unknown"}])
