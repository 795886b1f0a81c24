"""Reading logs, in both forms: streams, times, the last lines, files that came after others."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from havre.logs.files import BLOCK, compress, files_of, open_all, shift
from havre.logs.reading import Follower, LogOptions, read_files, tail_place
from havre.logs.records import JSON, PLAIN, Form, JsonRenderer

LOG = b"""\
2026-11-24T13:00:01.000000001+00:00 stdout F one
2026-11-24T13:00:02.000000002+00:00 stderr F two
2026-11-24T13:00:03.000000003+00:00 stdout P thr
2026-11-24T13:00:03.500000003+00:00 stdout F ee
2026-11-24T13:00:04.000000004+00:00 stdout P unfinished
"""
AT_TWO = 1795525202.0


@pytest.fixture(params=["plain", "json"])
def form(request: pytest.FixtureRequest) -> Form:
    return PLAIN if request.param == "plain" else JSON


def put(path: Path, form: Form, data: bytes) -> Path:
    path.write_bytes(data if form is PLAIN else JsonRenderer({}).render(data, {}, final=True)[0])
    return path


@pytest.fixture
def log(tmp_path: Path, form: Form) -> Path:
    return put(tmp_path / "log", form, LOG)


def read(path: Path, form: Form, **options: object) -> bytes:
    async def collect() -> bytes:
        batches = read_files(open_all(path), form, LogOptions(**options), None)  # type: ignore[arg-type]
        return b"".join([data async for lines in batches for _, data in lines])

    return asyncio.run(collect())


def test_parts_are_joined_and_an_unfinished_line_has_no_newline(log: Path, form: Form) -> None:
    assert read(log, form) == b"one\ntwo\nthree\nunfinished"


def test_one_stream(log: Path, form: Form) -> None:
    assert read(log, form, stdout=False) == b"two\n"


def test_time_stamps_and_details_stand_once_a_line(log: Path, form: Form) -> None:
    assert read(log, form, timestamps=True, tail=2) == (
        b"2026-11-24T13:00:03.000000003Z three\n2026-11-24T13:00:04.000000004Z unfinished"
    )
    assert read(log, form, details=True) == b" one\n two\n three\n unfinished"


@pytest.mark.parametrize(
    ("tail", "expected"),
    [(0, b""), (1, b"unfinished"), (2, b"three\nunfinished"), (9, b"one\ntwo\nthree\nunfinished")],
)
def test_tail(log: Path, form: Form, tail: int, expected: bytes) -> None:
    assert read(log, form, tail=tail) == expected


def test_since_and_until(log: Path, form: Form) -> None:
    assert read(log, form, since=AT_TWO) == b"two\nthree\nunfinished"
    assert read(log, form, until=AT_TWO - 0.5) == b"one\n"


def test_no_file_is_no_output(tmp_path: Path, form: Form) -> None:
    assert read(tmp_path / "none", form) == b""
    assert read(tmp_path / "none", form, tail=0) == b""


@pytest.mark.parametrize("tail", [1, 7, 100, 5000])
def test_tail_over_block_boundaries(tmp_path: Path, form: Form, tail: int) -> None:
    stamp = b"2026-11-24T13:00:01.000000001+00:00 stdout F "
    lines = [b"%d " % number + b"x" * (number % 97) for number in range(9000)]
    path = put(tmp_path / "log", form, b"".join(stamp + line + b"\n" for line in lines))
    assert path.stat().st_size > 2 * BLOCK
    assert read(path, form, tail=tail) == b"".join(line + b"\n" for line in lines[-tail:])


def test_tail_of_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert tail_place([descriptor], 3, PLAIN) == (0, 0)
    finally:
        os.close(descriptor)


def record(number: int) -> bytes:
    return b"2026-11-24T13:00:%02d.000000000+00:00 stdout F line %d\n" % (number, number)


def test_files_move_on_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for number in range(6):
        path.write_bytes(record(number))
        if number == 5:
            break
        shift(path, 4)
        compress(tmp_path / "log.1")
    assert [file.name for file in files_of(path)] == ["log", "log.1.gz", "log.2.gz", "log.3.gz"]
    assert read(path, PLAIN) == b"line 2\nline 3\nline 4\nline 5\n"


def test_a_follower_reads_what_came_after(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(record(1))

    async def follow() -> bytes:
        follower, got = Follower(9), b""
        batches = read_files(open_all(path), PLAIN, LogOptions(follow=True), follower)
        got += (await anext(batches))[0][1]
        with path.open("ab") as old:
            old.write(record(2))  # not told of before the next file is there
        shift(path, 9)
        path.write_bytes(record(3))
        begun = os.open(path, os.O_RDONLY)
        follower.tell([begun])
        os.close(begun)
        got += (await anext(batches))[0][1] + (await anext(batches))[0][1]
        follower.end()
        async for lines in batches:
            got += lines[0][1]
        follower.close()
        return got

    assert asyncio.run(follow()) == b"line 1\nline 2\nline 3\n"
