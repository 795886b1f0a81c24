"""The restart policy, by value."""

from __future__ import annotations

import pytest

from havre.containers.life.restart import Restart, decide_after_exit, wants_start_with_daemon
from havre.wire.config import RestartPolicy


def decide(policy: str, count: int = 0, **given: float) -> Restart | None:
    facts = {"exit_code": 1, "stopped_by_user": False, "restarts": 0, "ran_s": 1.0, "last_delay_s": 0.0, **given}
    return decide_after_exit(RestartPolicy(name=policy, maximum_retry_count=count), **facts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("policy", "exit_code", "again"),
    [
        ("no", 1, False),
        ("", 1, False),
        ("always", 0, True),
        ("unless-stopped", 0, True),
        ("on-failure", 0, False),
        ("on-failure", 1, True),
    ],
)
def test_policy_decides(policy: str, exit_code: int, again: bool) -> None:
    assert (decide(policy, exit_code=exit_code) is not None) == again


def test_user_stop_beats_every_policy() -> None:
    assert decide("always", stopped_by_user=True) is None


def test_on_failure_counts() -> None:
    assert decide("on-failure", 2, restarts=1) is not None
    assert decide("on-failure", 2, restarts=2) is None


def test_delay_doubles_up_to_a_minute_and_starts_over() -> None:
    delays = [0.0]
    for _ in range(12):
        restart = decide("always", last_delay_s=delays[-1])
        assert restart is not None
        delays.append(restart.delay_s)
    assert delays[1:4] == [0.1, 0.2, 0.4]
    assert delays[-1] == 60.0
    assert decide("always", last_delay_s=60.0, ran_s=10.0) == Restart(0.1)


@pytest.mark.parametrize(
    ("policy", "stopped", "was_running", "starts"),
    [
        ("always", True, False, True),
        ("unless-stopped", True, False, False),
        ("unless-stopped", False, False, True),
        ("on-failure", False, True, True),
        ("on-failure", False, False, False),
        ("no", False, True, False),
    ],
)
def test_start_with_daemon(policy: str, stopped: bool, was_running: bool, starts: bool) -> None:
    wanted = wants_start_with_daemon(
        RestartPolicy(name=policy),
        ever_started=True,
        exit_code=1,
        stopped_by_user=stopped,
        was_running=was_running,
        restarts=0,
    )
    assert wanted == starts


def test_never_started_stays_so() -> None:
    facts = {"exit_code": 0, "stopped_by_user": False, "was_running": False, "restarts": 0}
    assert not wants_start_with_daemon(RestartPolicy(name="always"), ever_started=False, **facts)  # type: ignore[arg-type]
