"""Reading conmon's log file."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from havre.engine.logs import BLOCK, LogOptions, parse_record, read_log, tail_place

LOG = b"""\
2026-11-24T13:00:01.000000001+00:00 stdout F one
2026-11-24T13:00:02.000000002+00:00 stderr F two
2026-11-24T13:00:03.000000003+00:00 stdout P thr
2026-11-24T13:00:03.500000003+00:00 stdout F ee
2026-11-24T13:00:04.000000004+00:00 stdout P unfinished
"""
AT_TWO = 1795525202.0


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "ctr.log"
    path.write_bytes(LOG)
    return path


def read(path: Path, **options: object) -> bytes:
    async def collect() -> bytes:
        return b"".join([data async for lines in read_log(path, LogOptions(**options), None) for _, data in lines])  # type: ignore[arg-type]

    return asyncio.run(collect())


def test_parts_are_joined_and_an_unfinished_line_has_no_newline(log: Path) -> None:
    assert read(log) == b"one\ntwo\nthree\nunfinished"


def test_one_stream(log: Path) -> None:
    assert read(log, stdout=False) == b"two\n"


def test_time_stamps_stand_once_a_line(log: Path) -> None:
    assert read(log, timestamps=True, tail=2) == (
        b"2026-11-24T13:00:03.000000003Z three\n2026-11-24T13:00:04.000000004Z unfinished"
    )


@pytest.mark.parametrize(
    ("tail", "expected"),
    [(0, b""), (1, b"unfinished"), (2, b"three\nunfinished"), (9, b"one\ntwo\nthree\nunfinished")],
)
def test_tail(log: Path, tail: int, expected: bytes) -> None:
    assert read(log, tail=tail) == expected


def test_since_and_until(log: Path) -> None:
    assert read(log, since=AT_TWO) == b"two\nthree\nunfinished"
    assert read(log, until=AT_TWO - 0.5) == b"one\n"


def test_no_file_is_no_output(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == b""


def test_rubbish_is_skipped() -> None:
    assert parse_record(b"cut sho") is None
    assert parse_record(b"") is None
    assert parse_record(b"t stdout X text") is None


@pytest.mark.parametrize("tail", [1, 7, 100, 5000])
def test_tail_over_block_boundaries(tmp_path: Path, tail: int) -> None:
    stamp = b"2026-11-24T13:00:01.000000001+00:00 stdout F "
    lines = [b"%d " % number + b"x" * (number % 97) for number in range(9000)]
    path = tmp_path / "ctr.log"
    path.write_bytes(b"".join(stamp + line + b"\n" for line in lines))
    assert path.stat().st_size > 2 * BLOCK
    assert read(path, tail=tail) == b"".join(line + b"\n" for line in lines[-tail:])


def test_tail_of_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert tail_place([descriptor], 3) == (0, 0)
    finally:
        os.close(descriptor)
