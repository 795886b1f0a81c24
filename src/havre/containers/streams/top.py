"""`top`: runs ps(1) on the host and selects one container's processes."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from havre.errors import Failed, InvalidInput

DEFAULT_ARGS = "-ef"
_RENAMED_PID = re.compile(r"\s+pid\s*=\s*(\w+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Top:
    """Columns and rows of ps(1)."""

    titles: list[str]
    processes: list[list[str]]


async def read_top(pids: Collection[int], ps_args: str) -> Top:
    """The output of ps(1) for `pids`. Raises `Failed` with its error message."""
    arguments = parse_arguments(ps_args or DEFAULT_ARGS)
    process = await asyncio.create_subprocess_exec(
        "ps", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, error = await process.communicate()
    if process.returncode != 0:
        reason = error.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise Failed(f"ps: {reason[0]}")
    return parse_ps(out.decode(errors="replace"), pids)


def parse_arguments(ps_args: str) -> list[str]:
    """Split the arguments. Refuses to rename the PID column. Raises `InvalidInput`."""
    for match in _RENAMED_PID.finditer(ps_args):
        raise InvalidInput(f'specifying "pid={match[1]}" is not allowed')
    try:
        return shlex.split(ps_args)
    except ValueError as error:
        raise InvalidInput(f"ps_args: {error}") from None


def parse_ps(text: str, pids: Collection[int]) -> Top:
    """Titles, and the rows of `pids`; the last column takes the rest of the line."""
    lines = text.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise Failed("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = [_fields(line, len(titles)) for line in lines[1:] if line.strip()]
    return Top(titles, [row for row in rows if _is_wanted(row, column, pids)])


def _fields(line: str, count: int) -> list[str]:
    return line.split(None, count - 1)


def _is_wanted(row: Sequence[str], column: int, pids: Collection[int]) -> bool:
    return len(row) > column and row[column].isdecimal() and int(row[column]) in pids
