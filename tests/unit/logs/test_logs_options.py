"""Log drivers' options: limits, attributes, tags, refusals."""

from __future__ import annotations

from pathlib import Path

import pytest

from havre.errors import InvalidInput
from havre.logs.options import LogLimits, check_driver, parse_limits
from havre.logs.plan import log_path
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
        ("syslog", {}, LogLimits(20 << 20, 5, True)),
        ("syslog", {"cache-max-size": "1k", "cache-max-file": "2"}, LogLimits(1024, 2, True)),
    ],
)
def test_limits(driver: str, options: dict[str, str], expected: LogLimits) -> None:
    assert parse_limits(driver, options) == expected


@pytest.mark.parametrize(
    ("driver", "options", "words"),
    [
        ("json-file", {"max-size": "odd"}, "failed to initialize logging driver: invalid size: 'odd'"),
        ("json-file", {"max-size": "1m", "max-file": "0"}, "max-file cannot be less than 1"),
        ("json-file", {"max-size": "1m", "max-file": "x"}, "invalid max-file"),
        ("json-file", {"compress": "true"}, "compress cannot be true"),
        ("json-file", {"compress": "maybe"}, 'strconv.ParseBool: parsing "maybe": invalid syntax'),
        ("json-file", {"odd": "1"}, "unknown log opt 'odd' for json-file log driver"),
        ("local", {"labels": "a"}, "unknown log opt 'labels' for log driver local"),
        ("odd", {}, "error looking up logging plugin odd"),
        ("local", {"mode": "odd"}, "logger: logging mode not supported: odd"),
        ("local", {"max-buffer-size": "1m"}, "max-buffer-size option is only supported with 'mode=non-blocking'"),
        ("local", {"mode": "non-blocking", "max-buffer-size": "x"}, "error parsing option max-buffer-size"),
        ("syslog", {"syslog-address": "odd://x"}, "unsupported scheme: 'odd'"),
        ("syslog", {"syslog-facility": "odd"}, "invalid syslog facility"),
        ("syslog", {"syslog-format": "odd"}, "Invalid syslog format"),
    ],
)
def test_refusals(driver: str, options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidInput, match=words.replace("(", r"\(")):
        check_driver(driver, options)


def test_files(tmp_path: Path) -> None:
    assert log_path("json-file", {}, tmp_path, "ID") == tmp_path / "ID-json.log"
    assert log_path("syslog", {}, tmp_path, "ID") == tmp_path / "container-cached.log"
    assert log_path("syslog", {"cache-disabled": "true"}, tmp_path, "ID") is None
    assert log_path("none", {}, tmp_path, "ID") is None


def test_the_alarm_rings_once_and_a_hold_holds() -> None:
    fanout, rung, room = Fanout(), [], []
    fanout.room = lambda: room.append(1)
    fanout.alarm(lambda: rung.append(1))
    assert fanout.publish(1, b"12345")
    assert fanout.publish(1, b"67890")
    assert rung == [1]
    fanout.hold(True)
    assert not fanout.publish(1, b"x")
    fanout.hold(False)
    assert room == [1]
    assert fanout.publish(1, b"x")


def test_durations_of_fluentd_are_gos() -> None:
    check_driver("fluentd", {"fluentd-retry-wait": "1m30s"})
