"""A dialogue with the machine of a container's life: tell it what happens, read what it wants done."""

from __future__ import annotations

from havre.containers.life.machine import decide
from havre.containers.life.vocabulary import Effects, Ended, Event, StartAsked, Started
from havre.containers.states import Created, Facts, Life, Terms, stored
from havre.wire.config import Healthcheck, RestartPolicy
from havre.wire.times import from_seconds

PID = 77
START_S = 1_700_000_000.0
STARTED = Started(PID, from_seconds(START_S))
CHECK = Healthcheck(test=["CMD", "true"], retries=2)


def terms(policy: str = "no", count: int = 0, *, rm: bool = False, check: Healthcheck | None = None) -> Terms:
    return Terms("c0ffee", RestartPolicy(name=policy, maximum_retry_count=count), rm, check)


class Dialogue:
    """One container, told of events."""

    def __init__(self, asked: Terms | None = None, life: Life | None = None) -> None:
        self.life = life or Created(Facts(asked or terms()))

    def tell(self, *events: Event) -> Effects:
        """What is wanted after the last of them."""
        wanted: Effects = ()
        for event in events:
            self.life, wanted = decide(self.life, event)
        return wanted

    @property
    def status(self) -> str:
        """As `inspect` shows it."""
        return stored(self.life).status


def running(policy: str = "no", count: int = 0, *, rm: bool = False, check: Healthcheck | None = None) -> Dialogue:
    """A container that runs since `START_S`."""
    dialogue = Dialogue(terms(policy, count, rm=rm, check=check))
    dialogue.tell(StartAsked(), STARTED)
    return dialogue


def ended(code: int, after_s: float = 1.0, *, oom: bool = False, publishes: bool = False, alone: bool = True) -> Ended:
    """The runtime's exit, so long after the start."""
    return Ended(code, START_S + after_s, oom, publishes, alone)
