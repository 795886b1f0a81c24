"""Dialogues: removal, and a daemon that comes back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from havre.containers.container import Container, State
from havre.containers.life.vocabulary import (
    AbandonLaunch,
    Bury,
    CancelRestart,
    CleanUp,
    DaemonStarted,
    EndPending,
    FoundEnded,
    FoundNothing,
    FoundRunning,
    Frozen,
    PatienceOver,
    PauseAsked,
    Persist,
    Publish,
    RemovalAsked,
    RemovalFailed,
    Remove,
    Signal,
    Start,
    StartAsked,
    StartFailed,
    TakeDown,
    TakeOver,
    WakeWaiters,
)
from havre.containers.states import Ending, Exited, Facts, Life, Paused, Restarting, Running, record, restored, stored
from havre.errors import Conflict
from havre.wire.config import Config, HostConfig, RestartPolicy
from support.rows import container_row
from unit.containers.lives import CHECK, PID, STARTED, Dialogue, ended, running, terms

FORCE = RemovalAsked(force=True)


def test_what_does_not_run_is_marked_first() -> None:
    life = Dialogue()
    assert life.tell(RemovalAsked()) == (Persist(),)
    assert life.status == "removing"
    with pytest.raises(Conflict, match="already in progress"):
        life.tell(FORCE)
    with pytest.raises(Conflict, match="marked for removal"):
        life.tell(StartAsked())


def test_a_removal_that_failed_is_told_and_can_be_tried_again() -> None:
    life = Dialogue()
    wanted = life.tell(RemovalAsked(), RemovalFailed("busy"))
    assert wanted == (Persist(), WakeWaiters("removed", 0, "busy"))
    assert (life.status, stored(life.life).dead, stored(life.life).error) == ("dead", True, "busy")
    assert life.tell(RemovalAsked()) == (Persist(),)
    assert stored(life.life).error == ""


@pytest.mark.parametrize(
    ("events", "problem"),
    [
        ((), "container is running: stop the container before removing or force remove"),
        ((PauseAsked(), Frozen()), "container is paused and must be unpaused first"),
        ((ended(1),), "container is restarting: stop the container before removing or force remove"),
    ],
)
def test_what_runs_is_removed_by_force_alone(events: tuple[PauseAsked, ...], problem: str) -> None:
    life = running("always")
    life.tell(*events)
    with pytest.raises(Conflict, match=f'cannot remove container "/mine": {problem}'):
        life.tell(RemovalAsked(name="mine"))


def test_force_kills_and_goes_on_once_it_has_ended() -> None:
    life = running("always")
    life.tell(FORCE)
    assert life.status == "running"
    with pytest.raises(Conflict, match="already in progress"):
        life.tell(FORCE)
    assert life.tell(PatienceOver())[0] == Signal(9)
    wanted = life.tell(ended(137))
    assert life.status == "removing"
    assert Persist() in wanted
    assert TakeDown() in wanted
    assert not any(isinstance(effect, Remove) for effect in wanted)  # who asked for it goes on


def test_what_does_not_die_is_still_there() -> None:
    life = running("always")
    life.tell(FORCE, RemovalFailed("it did not end"))
    assert (life.status, isinstance(life.life, Running)) == ("running", True)
    life.tell(ended(137))
    assert life.status == "exited"


def test_force_drops_the_restart_to_come() -> None:
    life = running("always")
    life.tell(ended(1))
    assert life.tell(FORCE) == (CancelRestart(), Persist())


def test_force_breaks_off_a_start() -> None:
    life = Dialogue()
    life.tell(StartAsked())
    assert life.tell(FORCE) == (AbandonLaunch(),)
    assert life.tell(StartFailed(128, "broken off")) == (EndPending(), Persist())
    assert life.status == "removing"


def test_a_start_that_cannot_be_broken_off_any_more_ends_in_the_removal() -> None:
    life = Dialogue(terms(rm=True))
    life.tell(StartAsked(), FORCE, STARTED)
    assert isinstance(life.life, Running)
    assert life.life.ending is Ending.REMOVED
    assert not any(isinstance(effect, Remove) for effect in life.tell(ended(137)))


def test_a_daemon_takes_over_what_runs() -> None:
    life = running("always")
    assert life.tell(FoundRunning(PID, 9.0)) == (TakeOver(),)
    assert life.tell(DaemonStarted()) == ()


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        (FoundNothing(9.0), (Bury(255, 9.0),)),
        (FoundEnded(3, 8.0, True), (Bury(3, 8.0, True),)),
        (FoundRunning(PID + 1, 9.0), (CleanUp(), Bury(255, 9.0))),
    ],
)
def test_a_daemon_buries_what_ended_meanwhile(found: FoundNothing, wanted: tuple[Bury, ...]) -> None:
    assert running().tell(found) == wanted


@pytest.mark.parametrize("found", [FoundEnded(0, 8.0), FoundRunning(PID, 9.0)])
def test_a_daemon_clears_away_a_start_that_was_cut_short(found: FoundEnded) -> None:
    life = Dialogue()
    assert life.tell(found) == (CleanUp(),)
    assert life.status == "created"


def test_a_process_whose_row_is_damaged_runs_on() -> None:
    life = Dialogue(life=Exited(Facts(terms(), exit_code=255, error="its row is damaged")))
    assert life.tell(FoundRunning(PID, 9.0, damaged=True, started_at=STARTED.at)) == (TakeOver(),)
    shown = stored(life.life)
    assert (shown.status, shown.pid, shown.exit_code, shown.error) == ("running", PID, 0, "its row is damaged")
    life.tell(ended(0))
    assert (life.status, stored(life.life).error) == ("exited", "its row is damaged")


@pytest.mark.parametrize(
    ("policy", "stopped", "life", "wanted", "status"),
    [
        ("always", True, Exited, (Start(),), "exited"),
        ("unless-stopped", True, Exited, (), "exited"),
        ("unless-stopped", False, Exited, (Start(),), "exited"),
        ("no", False, Exited, (), "exited"),
        ("on-failure", False, Restarting, (Start(),), "restarting"),
        ("no", False, Restarting, (Persist(),), "exited"),
    ],
)
def test_policies_with_the_daemon(
    policy: str, stopped: bool, life: type[Exited | Restarting], wanted: tuple[Start, ...], status: str
) -> None:
    restarts = int(life is Restarting)
    facts = Facts(terms(policy), restarts=restarts, started_at=STARTED.at, exit_code=1, stopped_by_user=stopped)
    dialogue = Dialogue(life=life(facts))
    assert dialogue.tell(DaemonStarted()) == wanted
    assert dialogue.status == status


def test_a_removal_that_was_cut_short_goes_on_with_the_daemon() -> None:
    life = Dialogue(terms(rm=True))
    life.tell(RemovalAsked())
    assert life.tell(DaemonStarted()) == (Remove(volumes=True),)
    life = Dialogue()
    life.tell(RemovalAsked(), RemovalFailed("busy"))
    assert life.tell(DaemonStarted()) == (Remove(volumes=False),)
    assert life.status == "removing"


def test_events_of_a_life() -> None:
    life, told = running(rm=True), []
    for event in (PauseAsked(), Frozen(), ended(137)):
        told += [effect.action for effect in life.tell(event) if isinstance(effect, Publish)]
    assert told == ["pause", "die"]


# -- the stored form


def row(life: Life) -> Container:
    host = HostConfig(restart_policy=RestartPolicy(name="always"))
    container = container_row(host_config=host)
    record(container, life)
    return container


ASKED = terms("always")
KNOWN = Facts(ASKED, restarts=3, started_at=STARTED.at, exit_code=7, error="x", oom_killed=True)


@pytest.mark.parametrize(
    "life",
    [
        Running(KNOWN, PID),
        Running(replace(KNOWN, stopped_by_user=True), PID, Ending.STOPPED),
        Paused(KNOWN, PID),
        Restarting(KNOWN),
        Exited(KNOWN),
    ],
)
def test_a_row_tells_the_life(life: Life) -> None:
    assert restored(row(life)) == life


@pytest.mark.parametrize("events", [(), (RemovalAsked(),), (RemovalAsked(), RemovalFailed("busy"))])
def test_a_row_tells_of_a_removal(events: tuple[RemovalAsked, ...]) -> None:
    dialogue = Dialogue(ASKED)
    dialogue.tell(*events)
    assert restored(row(dialogue.life)) == dialogue.life


def test_a_start_that_was_under_way_has_not_been_one() -> None:
    dialogue = Dialogue(ASKED)
    dialogue.tell(StartAsked())
    assert restored(row(dialogue.life)) == Dialogue(ASKED).life


def test_a_row_without_health_begins_with_it() -> None:
    container = row(Exited(KNOWN))
    container.respecify(config=Config(healthcheck=CHECK))
    container.state = State(status="running", pid=PID, started_at=STARTED.at)
    life = restored(container)
    assert life.facts.health is not None
    assert life.facts.health.status == "starting"
