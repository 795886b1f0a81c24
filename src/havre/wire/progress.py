"""The JSON lines with the progress of pull, push, load, import and build.

One object per line, ended by CR LF. An error after the response's status line is a line of its own,
`{"errorDetail": {...}, "error": "..."}`; the status stays 200.

Source: moby's pkg/jsonmessage and pkg/streamformatter.
"""

from __future__ import annotations

from typing import Any

import msgspec

LINE_END = b"\r\n"
_WIDTH = 50


def render_line(value: Any) -> bytes:
    """Any value as one line."""
    return msgspec.json.encode(value) + LINE_END


def render_status(status: str, id: str = "", current: int = 0, total: int = 0, *, drawn: bool = False) -> bytes:
    """A status line; with `current`, clients draw it as a bar (both in bytes, `total` 0 if unknown).

    `drawn`: with the bar as text, for clients before 1.52.
    """
    line: dict[str, Any] = {"status": status}
    if id or current:
        line["progressDetail"] = _detail(current, total)
    if current and drawn:
        line["progress"] = render_bar(current, total)
    if id:
        line["id"] = id
    return render_line(line)


def render_stream(text: str) -> bytes:
    """A line of text printed unchanged (load, build)."""
    return render_line({"stream": text})


def render_error(message: str, code: int = 0, hint: str = "") -> bytes:
    """The error line; `code` is added where it is meaningful to the client, `hint` for our own."""
    detail: dict[str, Any] = {"code": code} if code else {}
    more = {"hint": hint} if hint else {}
    return render_line({"errorDetail": detail | {"message": message} | more, "error": message})


def _detail(current: int, total: int) -> dict[str, int]:
    return {key: value for key, value in (("current", current), ("total", total)) if value}


def render_bar(current: int, total: int) -> str:
    """`[=====>     ]    1.2MB/4MB`, which clients without a terminal print unchanged."""
    if total <= 0 or current > total:
        return f"{render_size(current):>8}"
    filled = current * _WIDTH // total
    return f"[{'=' * filled}>{' ' * (_WIDTH - filled)}] {render_size(current):>8}/{render_size(total)}"


def render_size(size_bytes: float) -> str:
    """Bytes as Docker writes them: decimal units, four significant digits."""
    units = ("B", "kB", "MB", "GB", "TB", "PB")
    index = 0
    while size_bytes >= 1000 and index < len(units) - 1:
        size_bytes /= 1000
        index += 1
    return f"{size_bytes:.4g}{units[index]}"
