"""Progress as lines in a log and as bars on a terminal."""

from __future__ import annotations

import os
import pty
import termios
from contextlib import suppress
from typing import Any

import pytest

from havre.cli.progress import Failure, drain, show
from support.terminals import picture

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


def drawn(messages: list[dict[str, Any]], rows: int, columns: int) -> str:
    """What a terminal of this size gets."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (rows, columns))
    os.set_blocking(ours, False)
    show(messages, theirs)
    os.close(theirs)
    text = b""
    with suppress(OSError):  # EIO at the end
        while data := os.read(ours, 65536):
            text += data
    os.close(ours)
    return text.decode()


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (120, f"[{'=' * 25}>{' ' * 24}]      500B/1kB"),
        (80, f"[{'=' * 23}>{' ' * 22}]      500B/1kB"),
        (30, "    500B/1kB"),
    ],
)
def test_a_terminal_gets_a_line_for_each_layer_that_is_redrawn(columns: int, shown: str) -> None:
    text = drawn(MESSAGES, 24, columns)
    meanwhile = text[: text.index("Pull complete")].rpartition("\x1b[?25l")[0]
    assert picture(meanwhile) == ["latest: Pulling from library/x", f"aaa: Downloading {shown}",
                                  "bbb: Pulling fs layer", ""]  # fmt: skip
    assert len(f"aaa: Downloading {shown}") < columns
    assert picture(text) == ["latest: Pulling from library/x", "aaa: Pull complete", "bbb: Pulling fs layer",
                             "Status: done", "Loaded image: x", ""]  # fmt: skip


def test_more_layers_than_a_terminal_has_rows() -> None:
    layers = [f"layer{number}" for number in range(12)]
    messages = [
        {"status": status, "progressDetail": {}, "id": each} for status in ("Waiting", "Done") for each in layers
    ]
    assert picture(drawn([*messages, {"status": "over"}], 5, 80), 5) == [
        *(f"{each}: Done" for each in layers),
        "over",
        "",
    ]


@pytest.mark.parametrize("act", [drain, lambda messages: show(messages, 1)])
def test_an_error_in_the_stream_is_raised(act: Any) -> None:
    with pytest.raises(Failure, match="manifest unknown"):
        act([{"status": "x"}, {"errorDetail": {"message": "manifest unknown"}, "error": "manifest unknown"}])
