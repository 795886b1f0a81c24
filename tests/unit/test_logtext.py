"""The daemon's log: how many lines one place in the code may say."""

from __future__ import annotations

import logging

from havre.logtext import RateLimit


def _record(line: int, level: int = logging.WARNING, name: str = "havre.api") -> logging.LogRecord:
    return logging.LogRecord(name, level, "x.py", line, "said by %s", ("web",), None)


def test_a_place_that_says_too_much_is_cut_short_and_counted() -> None:
    now = 0.0
    limit = RateLimit(burst=3, clock=lambda: now)
    assert [limit.filter(_record(1)) for _ in range(5)] == [True] * 3 + [False] * 2
    assert limit.filter(_record(2))  # another place
    now = 1.0
    told = _record(1)
    assert limit.filter(told)
    assert told.getMessage() == "said by web (2 similar lines were suppressed)"
    assert not limit.filter(_record(1))
    now = 1000.0
    assert [limit.filter(_record(1)) for _ in range(4)] == [True] * 3 + [False]


def test_debugging_lines_are_cut_short_only_where_containers_cause_them() -> None:
    limit = RateLimit(burst=1, clock=lambda: 0.0)
    assert [limit.filter(_record(1, logging.DEBUG)) for _ in range(3)] == [True] * 3
    assert [limit.filter(_record(2, logging.DEBUG, "havre.dataplane.relay")) for _ in range(2)] == [True, False]
