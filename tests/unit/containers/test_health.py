"""The health state machine, by value."""

from __future__ import annotations

import pytest

from havre.containers.container import Health, HealthResult
from havre.containers.probes import begin, cease, delay_s, first_delay_s, judge, probe_command
from havre.wire.config import Config, Healthcheck
from havre.wire.times import from_seconds

SECOND = 1_000_000_000
CHECK = Healthcheck(
    test=["CMD", "true"], retries=2, start_period=10 * SECOND, start_interval=SECOND, interval=7 * SECOND
)


def result(code: int) -> HealthResult:
    return HealthResult(start="a", end="b", exit_code=code, output="x")


def after(*codes: int, since_start_s: float = 60.0) -> Health:
    health = begin(None)
    for code in codes:
        health = judge(health, CHECK, result(code), since_start_s=since_start_s)
    return health


@pytest.mark.parametrize(
    ("codes", "status", "streak"),
    [
        ((), "starting", 0),
        ((0,), "healthy", 0),
        ((1,), "starting", 1),
        ((1, 1), "unhealthy", 2),
        ((0, 1), "healthy", 1),
        ((0, 1, 0, 1), "healthy", 1),
        ((0, -1, 137), "unhealthy", 2),
        ((1, 1, 1, 0), "healthy", 0),
    ],
)
def test_states(codes, status, streak):
    health = after(*codes)
    assert (health.status, health.failing_streak) == (status, streak)


def test_failures_of_the_start_period_do_not_count_until_the_first_success():
    assert after(1, 1, 1, since_start_s=5.0).status == "starting"
    assert after(1, 1, 1, since_start_s=5.0).failing_streak == 0
    assert after(0, 1, 1, since_start_s=5.0).status == "unhealthy"


def test_the_last_five_results_are_kept_even_over_a_restart():
    health = after(*range(8))
    assert [each.exit_code for each in health.log] == [3, 4, 5, 6, 7]
    again = begin(health)
    assert (again.status, again.failing_streak, len(again.log)) == ("starting", 0, 5)
    ended = cease(again)
    assert ended is not None
    assert ended.status == "unhealthy"
    assert cease(None) is None


def test_retries_are_three_by_default():
    check = Healthcheck(test=["CMD", "x"])
    health = begin(None)
    for expected in ("starting", "starting", "unhealthy"):
        health = judge(health, check, result(1), since_start_s=0.0)
        assert health.status == expected


def test_delays():
    assert delay_s(begin(None), CHECK, since_start_s=1.0) == 1.0
    assert delay_s(begin(None), CHECK, since_start_s=11.0) == 7.0
    assert delay_s(after(0), CHECK, since_start_s=1.0) == 7.0
    assert delay_s(begin(None), Healthcheck(), since_start_s=0.0) == 30.0
    assert delay_s(begin(None), Healthcheck(start_period=SECOND), since_start_s=0.0) == 5.0


def test_the_first_probe_of_a_new_daemon_comes_when_it_was_due():
    last = from_seconds(1000.0)
    result = HealthResult(start=last, end=last, exit_code=0, output="")

    def first(health: Health, now: float) -> float:
        return first_delay_s(health, CHECK, started=900.0, now=now)

    healthy = judge(begin(None), CHECK, result, since_start_s=60.0)
    assert first(healthy, 1002.0) == 5.0
    assert first(healthy, 2000.0) == 0.0
    assert first(begin(healthy), 1002.0) == 7.0


def test_commands():
    assert probe_command(Config()) == []
    assert probe_command(Config(healthcheck=Healthcheck(test=["NONE"]))) == []
    assert probe_command(Config(healthcheck=Healthcheck(test=[]))) == []
    assert probe_command(Config(healthcheck=Healthcheck(test=["CMD", "a", "b"]))) == ["a", "b"]
    shell = Config(healthcheck=Healthcheck(test=["CMD-SHELL", "a b"]))
    assert probe_command(shell) == ["/bin/sh", "-c", "a b"]
    shell.shell = ["/bin/ash", "-ec"]
    assert probe_command(shell) == ["/bin/ash", "-ec", "a b"]
