"""A log's limits and files, without conmon."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from havre.engine.logfiles import LogLimits, compress, files_of, open_all, open_newer, parse_limits, shift
from havre.errors import InvalidInput
from havre.runtime.fanout import Fanout


@pytest.mark.parametrize(
    ("driver", "options", "expected"),
    [
        ("json-file", {}, LogLimits(0, 1, False)),
        ("json-file", {"max-size": "10m"}, LogLimits(10 << 20, 1, False)),
        ("json-file", {"max-size": "10k", "max-file": "3", "compress": "true"}, LogLimits(10 << 10, 3, True)),
        ("json-file", {"max-size": "-1"}, LogLimits(0, 1, False)),
        ("local", {}, LogLimits(20 << 20, 5, True)),
        ("local", {"max-size": "1.5k", "max-file": "1"}, LogLimits(1536, 1, False)),
    ],
)
def test_limits(driver: str, options: dict[str, str], expected: LogLimits) -> None:
    assert parse_limits(driver, options) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"max-size": "odd"},
        {"max-size": "1m", "max-file": "0"},
        {"max-size": "1m", "max-file": "x"},
        {"compress": "true"},
        {"compress": "maybe"},
    ],
)
def test_bad_limits(options: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="failed to initialize logging driver"):
        parse_limits("json-file", options)


def record(number: int) -> bytes:
    return b"2026-11-24T13:00:%02d.000000000+00:00 stdout F line %d\n" % (number, number)


def contents(descriptors: list[int]) -> list[bytes]:
    read = [os.pread(descriptor, 1000, 0) for descriptor in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    return read


def test_files_move_on_and_the_oldest_goes(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for number in range(6):
        path.write_bytes(record(number))
        if number == 5:
            break
        shift(path, 4)
        compress(tmp_path / "log.1")
    assert [file.name for file in files_of(path)] == ["log", "log.1.gz", "log.2.gz", "log.3.gz"]
    assert contents(open_all(path)) == [record(2), record(3), record(4), record(5)]


def test_what_came_after_a_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(record(1))
    held = open_all(path)
    assert open_newer(path, held[0]) == []
    shift(path, 9)
    assert open_newer(path, held[0]) == []
    path.write_bytes(record(2))
    shift(path, 9)
    compress(tmp_path / "log.1")
    assert contents(open_newer(path, held[0])) == [record(2)]
    path.touch()
    assert contents(open_newer(path, held[0])) == [record(2), b""]
    contents(held)


def test_no_log_has_no_files(tmp_path: Path) -> None:
    assert open_all(tmp_path / "log") == []


def test_the_alarm_rings_once() -> None:
    fanout, rung = Fanout(), []
    fanout.alarm(10, lambda: rung.append(1))
    fanout.publish(1, b"12345")
    assert not rung
    fanout.publish(1, b"67890")
    fanout.publish(1, b"67890")
    assert rung == [1]
