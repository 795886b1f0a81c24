"""Dialogues: start, end, stop, kill, restart by policy and by the user, `--rm`."""

from __future__ import annotations

import signal

import pytest

from havre.containers.life.vocabulary import (
    BeginHealth,
    CancelRestart,
    CeaseHealth,
    DelayOver,
    Drain,
    EndPending,
    EndRun,
    HostStops,
    KillAsked,
    Launch,
    PatienceOver,
    Persist,
    PolicyChanged,
    Publish,
    Remove,
    RestartAsked,
    RestartGivenUp,
    ScheduleRestart,
    Signal,
    StartAsked,
    StartFailed,
    StopAsked,
    TakeDown,
    WakeWaiters,
)
from havre.containers.states import Ending, Running, stored
from havre.errors import Conflict, NotModified, Unavailable
from havre.wire.config import RestartPolicy
from havre.wire.times import from_seconds
from havre.wire.values import ZERO_TIME
from unit.containers.lives import PID, START_S, STARTED, Dialogue, ended, running, terms

TERM = (Signal(15), Publish("kill", {"signal": "15"}))
KILL = (Signal(9), Publish("kill", {"signal": "9"}))


def died(code: int, seconds: int = 1) -> Publish:
    return Publish("die", {"exitCode": str(code), "execDuration": str(seconds)})


def test_start_is_launched_recorded_and_told() -> None:
    life = Dialogue()
    assert life.tell(StartAsked()) == (Launch(),)
    assert life.status == "created"
    assert life.tell(STARTED) == (Persist(must=True), Publish("start"), BeginHealth())
    shown = stored(life.life)
    assert (shown.status, shown.running, shown.pid, shown.started_at) == ("running", True, PID, STARTED.at)


def test_an_end_wakes_waiters_before_everything_is_taken_down() -> None:
    life, woken = running(), WakeWaiters("not-running", 42)
    wanted = life.tell(ended(42))
    assert wanted == (CeaseHealth(), EndRun(), woken, Persist(), TakeDown(), died(42), woken)
    shown = stored(life.life)
    assert (shown.status, shown.running, shown.pid, shown.exit_code) == ("exited", False, 0, 42)
    assert shown.finished_at == from_seconds(START_S + 1)


def test_who_waits_for_one_with_ports_finds_them_free() -> None:
    wanted = running().tell(ended(0, publishes=True))
    assert wanted.count(WakeWaiters("not-running", 0)) == 1
    assert wanted.index(WakeWaiters("not-running", 0)) > wanted.index(TakeDown())


def test_the_policy_restarts_after_an_exit_until_the_user_stops() -> None:
    life = running("always")
    assert life.tell(ended(42))[-1] == ScheduleRestart(0.1)
    assert (life.status, stored(life.life).running) == ("restarting", True)
    assert life.tell(DelayOver()) == (Launch(),)
    assert life.status == "restarting"
    life.tell(STARTED)
    assert life.tell(StopAsked(15)) == (Persist(), *TERM)
    wanted = life.tell(ended(143))
    assert not any(isinstance(effect, ScheduleRestart) for effect in wanted)
    assert life.status == "exited"
    assert life.life.facts.stopped_by_user
    assert life.life.facts.restarts == 1


def test_the_back_off_doubles_and_starts_over_after_ten_seconds() -> None:
    life, delays = running("always"), []
    for after_s in (1, 1, 1, 10):
        (delay,) = (effect for effect in life.tell(ended(1, after_s)) if isinstance(effect, ScheduleRestart))
        delays.append(delay.delay_s)
        life.tell(DelayOver(), STARTED)
    assert delays == [0.1, 0.2, 0.4, 0.1]
    assert life.life.facts.restarts == 4
    life.tell(ended(1), StartAsked(), STARTED)
    assert life.life.facts.restarts == 0
    assert ScheduleRestart(0.1) in life.tell(ended(1))


def test_on_failure_gives_up() -> None:
    life = running("on-failure", 2)
    for _ in range(2):
        life.tell(ended(1), DelayOver(), STARTED)
    life.tell(ended(1))
    assert (life.status, life.life.facts.restarts) == ("exited", 2)


def test_an_updated_policy_is_asked_at_the_next_exit() -> None:
    life = running("always")
    life.tell(PolicyChanged(RestartPolicy(name="no")), ended(1))
    assert life.status == "exited"
    life = running()
    life.tell(PolicyChanged(RestartPolicy(name="on-failure")))
    assert life.tell(ended(1))[-1] == ScheduleRestart(0.1)


@pytest.mark.parametrize("event", [StopAsked(15), KillAsked(15, ends=True), KillAsked(1, ends=False)])
def test_a_restart_to_come_does_not_once_the_user_stops(event: StopAsked | KillAsked) -> None:
    life = running("always")
    life.tell(ended(1))
    assert life.tell(event) == (CancelRestart(), Persist(), Publish("stop"))
    assert (life.status, life.life.facts.stopped_by_user) == ("exited", True)
    assert life.tell(DelayOver()) == ()


def test_a_restart_that_cannot_start_is_the_last() -> None:
    life = running("always")
    life.tell(ended(1), DelayOver())
    assert life.tell(StartFailed(128, "no space")) == (EndPending(), Persist())
    shown = stored(life.life)
    assert (shown.status, shown.exit_code, shown.error) == ("exited", 128, "no space")


def test_a_first_start_that_fails_leaves_it_created() -> None:
    life = Dialogue()
    assert life.tell(StartAsked(), StartFailed(127, "not found")) == (EndPending(), Persist())
    shown = stored(life.life)
    assert (shown.status, shown.exit_code, shown.error, shown.started_at) == ("created", 127, "not found", ZERO_TIME)
    life.tell(StartAsked(), STARTED)
    assert (stored(life.life).exit_code, stored(life.life).error) == (0, "")


def test_a_start_whose_row_cannot_be_written_is_undone() -> None:
    life = running()
    assert life.tell(StartFailed(128, "disk full")) == (EndPending(), Persist())
    assert (life.status, stored(life.life).pid) == ("exited", 0)


def test_stop_thaws_drains_signals_and_insists() -> None:
    life = running()
    assert life.tell(StopAsked(15, drain_s=3)) == (Persist(), Drain(3), *TERM)
    assert life.tell(PatienceOver()) == KILL
    life.tell(ended(137))
    with pytest.raises(NotModified):
        life.tell(StopAsked(15))


def test_a_signal_that_does_not_end_it_changes_nothing() -> None:
    life = running("always")
    assert life.tell(KillAsked(1, ends=False)) == (Signal(1), Publish("kill", {"signal": "1"}))
    assert life.tell(ended(0))[-1] == ScheduleRestart(0.1)


def test_kill_of_what_does_not_run_is_refused() -> None:
    with pytest.raises(Conflict, match="container c0ffee is not running"):
        Dialogue().tell(KillAsked(signal.SIGKILL, ends=True))


def test_the_host_stops_it_and_the_policy_still_wants_it() -> None:
    life = running("unless-stopped")
    assert life.tell(HostStops(15)) == TERM
    assert life.tell(PatienceOver()) == KILL
    assert life.tell(ended(137))[-1] == ScheduleRestart(0.1)
    assert life.tell(DelayOver(closing=True)) == ()
    assert life.status == "restarting"
    with pytest.raises(Unavailable):
        life.tell(StartAsked(closing=True))


def test_rm_removes_after_the_end_and_leaves_the_rest_for_later() -> None:
    life, woken = running(rm=True), WakeWaiters("not-running", 0)
    wanted = life.tell(ended(0))
    gone = Remove(volumes=True, later=True)
    assert wanted == (CeaseHealth(), EndRun(), woken, TakeDown(bundle=False), died(0), woken, gone)
    assert life.status == "removing"
    wanted = running(rm=True).tell(ended(0, alone=False))
    assert TakeDown(bundle=True) in wanted


def test_rm_removes_what_cannot_start() -> None:
    life = Dialogue(terms(rm=True))
    wanted = life.tell(StartAsked(), StartFailed(127, "not found"))
    assert wanted == (EndPending(), Remove(volumes=True, later=True))
    assert life.life.facts.exit_code == 127


def test_a_restart_by_the_user_keeps_what_was_made_with_rm() -> None:
    life = running(rm=True)
    life.tell(RestartAsked(), StopAsked(15))
    assert Persist() in life.tell(ended(143))
    assert life.status == "exited"
    assert life.tell(StartAsked()) == (Launch(),)
    life.tell(STARTED)
    life.tell(ended(0))
    assert life.status == "removing"


def test_a_restart_whose_stop_failed_is_a_stop() -> None:
    life = running(rm=True)
    life.tell(RestartAsked(), StopAsked(15), RestartGivenUp())
    assert isinstance(life.life, Running)
    assert life.life.ending is Ending.STOPPED
    life.tell(ended(143))
    assert life.status == "removing"


def test_a_second_start_is_not_one() -> None:
    with pytest.raises(NotModified, match="already running"):
        running().tell(StartAsked())
