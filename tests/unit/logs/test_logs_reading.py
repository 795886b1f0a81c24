"""Reading logs, in both forms: streams, times, the last lines, files that came after others."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from havre.logs.files import BLOCK, compress, files_of, open_all, shift
from havre.logs.jsonfile import JSON, json_renderer
from havre.logs.reading import Follower, LogOptions, read_files, tail_place
from havre.logs.records import PLAIN, Form, Record

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
    path.write_bytes(data if form is PLAIN else json_renderer({}).render(data, {}, final=True)[0])
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


@pytest.fixture
def long_log(tmp_path: Path, form: Form) -> Path:
    """A line a second, 20,000 of them, in three files."""
    path = tmp_path / "long"
    begun = datetime.fromtimestamp(AT_TWO, UTC)
    lines = [
        b"%s.000000000+00:00 stdout F %d %s\n"
        % ((begun + timedelta(seconds=number)).isoformat()[:19].encode(), number, b"x" * (number % 97))
        for number in range(20_000)
    ]
    for part in (lines[:9000], lines[9000:9001], lines[9001:]):
        shift(path, 3)
        put(path, form, b"".join(part))
    return path


def numbers(shown: bytes) -> list[int]:
    return [int(line.split()[0]) for line in shown.splitlines()]


@pytest.mark.parametrize("first", [0, 1, 4321, 8999, 9000, 9001, 19_999, 20_000])
def test_since_is_found_in_long_files(long_log: Path, form: Form, first: int) -> None:
    assert numbers(read(long_log, form, since=AT_TWO + first)) == list(range(first, 20_000))
    assert numbers(read(long_log, form, since=AT_TWO + first - 0.5)) == list(range(first, 20_000))
    assert numbers(read(long_log, form, until=AT_TWO + first)) == list(range(min(first + 1, 20_000)))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"since": AT_TWO + 19_990}, range(19_990, 20_000)),
        ({"since": AT_TWO + 8_990, "until": AT_TWO + 9_010}, range(8_990, 9_011)),
        ({"until": AT_TWO + 5}, range(6)),
        ({"tail": 5}, range(19_995, 20_000)),
    ],
)
def test_few_lines_of_long_files_cost_little(
    long_log: Path, form: Form, options: dict[str, float], expected: range, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed = 0

    def counting(line: bytes) -> Record | None:
        nonlocal parsed
        parsed += 1
        return form.parse(line)

    counted = Form(counting, form.show, form.count)
    size = sum(file.stat().st_size for file in files_of(long_log))
    taken, pread = 0, os.pread

    def measuring(file: int, length: int, offset: int) -> bytes:
        nonlocal taken
        taken += len(data := pread(file, length, offset))
        return data

    monkeypatch.setattr(os, "pread", measuring)
    assert numbers(read(long_log, counted, **options)) == list(expected)
    assert parsed < 7_000
    assert taken < size / 2


@pytest.mark.parametrize("tail", [1, 10_998, 10_999, 11_000, 15_000, 19_999, 20_001])
def test_tail_over_files(long_log: Path, form: Form, tail: int) -> None:
    assert numbers(read(long_log, form, tail=tail)) == list(range(max(0, 20_000 - tail), 20_000))


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
