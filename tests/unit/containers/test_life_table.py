"""The table at the head of the machine is what the machine does: every cell is tried."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from havre.containers.container import HealthResult
from havre.containers.life import machine
from havre.containers.life.machine import decide
from havre.containers.life.vocabulary import (
    Bury,
    CheckpointAsked,
    CheckpointFailed,
    CleanUp,
    DaemonStarted,
    DelayOver,
    Ended,
    Event,
    FoundEnded,
    FoundNothing,
    FoundRunning,
    Frozen,
    HostStops,
    KillAsked,
    OutOfMemory,
    PatienceOver,
    PauseAsked,
    PolicyChanged,
    Probed,
    RemovalAsked,
    RemovalFailed,
    Remove,
    RestartAsked,
    RestartGivenUp,
    Start,
    StartAsked,
    StartFailed,
    StopAsked,
    Thawed,
    UnpauseAsked,
)
from havre.containers.probes import begin
from havre.containers.states import (
    Created,
    Dead,
    Exited,
    Facts,
    Life,
    Paused,
    Removing,
    Restarting,
    Running,
    Starting,
)
from havre.errors import HavreError
from havre.wire.config import RestartPolicy
from unit.containers.lives import CHECK, PID, STARTED, terms

ASKED = terms("always", check=CHECK)
RAN = Facts(ASKED, started_at=STARTED.at, health=begin(None))
UNDONE = ("RestartGivenUp", "CheckpointFailed", "RemovalFailed")
"""What undoes a wish that nobody has here."""
LIVES: dict[str, Life] = {
    "Created": Created(Facts(ASKED)),
    "Starting": Starting(Facts(ASKED), Created(Facts(ASKED))),
    "Running": Running(RAN, PID),
    "Paused": Paused(RAN, PID),
    "Restarting": Restarting(RAN),
    "Exited": Exited(RAN),
    "Removing": Removing(RAN),
    "Dead": Dead(RAN),
}
EVENTS: dict[str, Event] = {
    type(event).__name__: event
    for event in (
        StartAsked(), STARTED, StartFailed(127, "not found"), Ended(0, 0.0), OutOfMemory(),
        Probed(HealthResult(start="", end=""), 1.0), KillAsked(15, True), StopAsked(15), RestartAsked(),
        RestartGivenUp(), HostStops(15), PatienceOver(), PauseAsked(), Frozen(), UnpauseAsked(), Thawed(),
        CheckpointAsked(True), CheckpointFailed(), DelayOver(), RemovalAsked(force=True), RemovalFailed("busy"),
        PolicyChanged(RestartPolicy(name="no")), FoundRunning(PID, 0.0), FoundEnded(0, 0.0), FoundNothing(0.0),
        DaemonStarted(),
    )
}  # fmt: skip


def rows() -> Iterator[tuple[str, list[str]]]:
    assert machine.__doc__ is not None
    for line in machine.__doc__.splitlines():
        name, *cells = re.split(r"\s{2,}", line.strip())
        if name in EVENTS and len(cells) == len(LIVES):
            yield name, cells


CELLS = [(event, state, cell) for event, cells in rows() for state, cell in zip(LIVES, cells, strict=True)]


def test_every_event_has_a_row() -> None:
    assert {name for name, _ in rows()} | {"PolicyChanged"} == set(EVENTS)


@pytest.mark.parametrize(("event", "state", "cell"), CELLS, ids=lambda value: value.replace(" ", "-"))
def test_cell(event: str, state: str, cell: str) -> None:
    before, wanted = LIVES[state], cell.rstrip(" 0123456789")
    if wanted == "-":
        return
    if wanted == "refused":
        with pytest.raises(HavreError):
            decide(before, EVENTS[event])
        return
    after, effects = decide(before, EVENTS[event])
    match wanted:
        case ".":
            assert (after, effects) == (before, ())
        case "same":
            assert type(after) is type(before)
            assert effects or after != before or event in UNDONE
        case "before":
            assert isinstance(after, Created)
        case "after":
            assert isinstance(after, Restarting)
        case "clear":
            assert (after, effects) == (before, (CleanUp(),))
        case "ended":
            assert after == before
            assert [type(effect) for effect in effects] == [Bury]
        case "start":
            assert after == before
            assert effects == ((Start(),) if state != "Created" else ())
        case "removal":
            assert isinstance(after, Removing)
            assert effects == (Remove(volumes=False),)
        case _:
            assert type(after).__name__ == wanted


@pytest.mark.parametrize("state", LIVES)
def test_policy_changes_in_every_state(state: str) -> None:
    before, policy = LIVES[state], RestartPolicy(name="on-failure", maximum_retry_count=3)
    after, effects = decide(before, PolicyChanged(policy))
    assert effects == ()
    assert after == replace(before, facts=replace(before.facts, terms=replace(ASKED, policy=policy)))
