"""Dialogues: pause, health, memory, checkpoints."""

from __future__ import annotations

import pytest

from havre.containers.container import HealthResult
from havre.containers.life.vocabulary import (
    BeginHealth,
    CeaseHealth,
    CheckpointAsked,
    CheckpointFailed,
    DaemonStarted,
    Freeze,
    Frozen,
    KillAsked,
    OutOfMemory,
    PatienceOver,
    PauseAsked,
    Persist,
    Probed,
    Publish,
    ScheduleRestart,
    Signal,
    Start,
    StartAsked,
    StopAsked,
    Thaw,
    Thawed,
    UnpauseAsked,
)
from havre.containers.states import stored
from havre.errors import Conflict, Failed
from unit.containers.lives import CHECK, STARTED, Dialogue, ended, running

TERM = (Signal(15), Publish("kill", {"signal": "15"}))
KILL = (Signal(9), Publish("kill", {"signal": "9"}))


def paused(policy: str = "no") -> Dialogue:
    life = running(policy, check=CHECK)
    life.tell(PauseAsked(), Frozen())
    return life


def probed(code: int) -> Probed:
    return Probed(HealthResult(start="a", end="b", exit_code=code), 60.0)


def health(life: Dialogue) -> str:
    known = stored(life.life).health
    return known.status if known else ""


def test_a_pause_is_one_once_the_kernel_says_so() -> None:
    life = running(check=CHECK)
    assert life.tell(PauseAsked()) == (Freeze(),)
    assert life.status == "running"
    assert life.tell(Frozen()) == (CeaseHealth(), Persist(), Publish("pause"))
    assert (life.status, stored(life.life).running, health(life)) == ("paused", True, "unhealthy")
    with pytest.raises(Conflict, match="already paused"):
        life.tell(PauseAsked())
    assert life.tell(UnpauseAsked()) == (Thaw(),)
    assert life.tell(Thawed()) == (BeginHealth(), Persist(), Publish("unpause"))
    assert life.status == "running"
    with pytest.raises(Failed, match="is not paused"):
        life.tell(UnpauseAsked())


def test_what_is_stopped_while_paused_is_thawed_to_hear_it() -> None:
    assert paused().tell(StopAsked(15)) == (Persist(), Thaw(), *TERM)
    assert paused().tell(StopAsked(9)) == (Persist(), *KILL, Thaw(publish=False))
    assert paused().tell(StopAsked(15), PatienceOver()) == (*KILL, Thaw(publish=False))


def test_a_kill_that_ends_it_thaws_it_silently() -> None:
    life = paused()
    assert life.tell(KillAsked(15, ends=True)) == (Persist(), *TERM, Thaw(publish=False))
    assert life.tell(Thawed(publish=False)) == (BeginHealth(),)
    assert paused().tell(KillAsked(1, ends=False)) == (Signal(1), Publish("kill", {"signal": "1"}))


def test_a_paused_container_can_end_and_its_policy_counts() -> None:
    life = paused("always")
    assert life.tell(ended(137))[-1] == ScheduleRestart(0.1)


def test_a_pause_of_what_is_being_stopped_does_not_undo_the_stop() -> None:
    life = running("always")
    life.tell(PauseAsked(), StopAsked(15), Frozen(), PatienceOver(), Thawed(publish=False), ended(137))
    assert life.status == "exited"


def test_health_is_told_when_it_changes() -> None:
    life = running(check=CHECK)
    assert health(life) == "starting"
    assert life.tell(probed(0)) == (Persist(must=True), Publish("health_status: healthy"))
    assert life.tell(probed(0)) == (Persist(must=True),)
    assert life.tell(probed(1)) == (Persist(must=True),)
    assert life.tell(probed(1)) == (Persist(must=True), Publish("health_status: unhealthy"))
    life.tell(ended(0))
    assert health(life) == "unhealthy"
    assert life.tell(probed(0)) == ()
    life.tell(StartAsked(), STARTED)
    assert health(life) == "starting"
    known = stored(life.life).health
    assert known is not None
    assert len(known.log) == 4


def test_a_container_without_a_probe_has_no_health() -> None:
    life = running()
    assert life.tell(probed(0)) == ()
    assert stored(life.life).health is None


def test_memory_that_ran_out_is_told_once() -> None:
    life = running()
    assert life.tell(OutOfMemory()) == (Publish("oom"), Persist())
    assert stored(life.life).oom_killed
    assert Publish("oom") not in life.tell(ended(137, oom=True))
    assert stored(life.life).oom_killed
    life.tell(StartAsked(), STARTED)
    assert not stored(life.life).oom_killed
    assert Publish("oom") in life.tell(ended(137, oom=True))


def test_a_checkpoint_that_ends_it_keeps_it_down_until_the_daemon_starts() -> None:
    life = running("unless-stopped")
    assert life.tell(CheckpointAsked(exit=True)) == ()
    life.tell(ended(137))
    assert (life.status, life.life.facts.stopped_by_user) == ("exited", False)
    assert life.tell(DaemonStarted()) == (Start(),)


def test_a_checkpoint_that_failed_is_forgotten() -> None:
    life = running("always")
    life.tell(CheckpointAsked(exit=True), CheckpointFailed())
    assert life.tell(ended(1))[-1] == ScheduleRestart(0.1)
    life = running("always")
    life.tell(StopAsked(15), CheckpointAsked(exit=True), CheckpointFailed(), ended(143))
    assert life.status == "exited"
