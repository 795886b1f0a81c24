"""The states of a container's life, frozen, and their stored form.

A state is one of the classes below; all that is known of the container's runs is in its `Facts`. What is stored, and
shown on the wire, is `container.State`: `stored` and `restored` convert, so that rows of earlier versions are read.
`containers/life/machine.py` says how one state follows another. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from havre.containers.container import Container, Health, State
from havre.containers.probes import begin, probe_command
from havre.wire.config import Healthcheck, RestartPolicy
from havre.wire.values import ZERO_TIME


@dataclass(frozen=True, slots=True)
class Terms:
    """What was asked of a life: its container's ID, restart policy and `--rm`; its probe, None where it has none."""

    id: str
    policy: RestartPolicy
    auto_remove: bool = False
    check: Healthcheck | None = None


class Ending(IntEnum):
    """Who wants a running container to end, and what follows. A later wish never weakens an earlier one."""

    BY_ITSELF = 0
    """Nobody: the restart policy decides."""
    CHECKPOINTED = 1
    """A checkpoint that ends it: no restart; the daemon's next start does not take it for the user's stop."""
    STOPPED = 2
    """The user: no restart."""
    RESTARTED = 3
    """The user, who starts it again at once: `--rm` does not apply."""
    REMOVED = 4
    """A removal by force, which goes on once it has ended."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the last run, or of the present one.

    `restarts` counts those by policy since somebody asked for a start, the one that is waited for included; `delay_s`
    is the last back-off (0: none). `stopped_by_user` outlives the daemon. Times are RFC 3339.
    """

    terms: Terms
    restarts: int = 0
    delay_s: float = 0.0
    stopped_by_user: bool = False
    started_at: str = ZERO_TIME
    finished_at: str = ZERO_TIME
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    health: Health | None = None


@dataclass(frozen=True, slots=True)
class Created:
    """Never ran; a start that failed leaves its exit code and error."""

    facts: Facts


@dataclass(frozen=True, slots=True)
class Starting:
    """A start is under way; it shows as what it was `before`. `removed`: a removal by force breaks it off."""

    facts: Facts
    before: Created | Restarting | Exited
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """Its first process runs."""

    facts: Facts
    pid: int
    ending: Ending = Ending.BY_ITSELF


@dataclass(frozen=True, slots=True)
class Paused:
    """Its processes are frozen."""

    facts: Facts
    pid: int
    ending: Ending = Ending.BY_ITSELF


@dataclass(frozen=True, slots=True)
class Restarting:
    """It has ended and waits for its back-off."""

    facts: Facts


@dataclass(frozen=True, slots=True)
class Exited:
    """It has run, and does not."""

    facts: Facts


@dataclass(frozen=True, slots=True)
class Removing:
    """It does not run, and is being removed."""

    facts: Facts


@dataclass(frozen=True, slots=True)
class Dead:
    """Its removal has failed; it may be tried again."""

    facts: Facts


Life = Created | Starting | Running | Paused | Restarting | Exited | Removing | Dead

_STATUS: dict[type, str] = {
    Created: "created", Running: "running", Paused: "paused", Restarting: "restarting", Exited: "exited",
    Removing: "removing", Dead: "dead",
}  # fmt: skip


def is_going(life: Life) -> bool:
    """Whether somebody removes it, or is about to."""
    match life:
        case Removing():
            return True
        case Starting(removed=removed):
            return removed
        case Running(ending=ending) | Paused(ending=ending):
            return ending is Ending.REMOVED
    return False


def stored(life: Life) -> State:
    """The state as it is persisted and shown."""
    shown = life.before if isinstance(life, Starting) else life
    facts = shown.facts
    return State(
        status=_STATUS[type(shown)],
        oom_killed=facts.oom_killed,
        pid=shown.pid if isinstance(shown, Running | Paused) else 0,
        exit_code=facts.exit_code,
        error=facts.error,
        started_at=facts.started_at,
        finished_at=facts.finished_at,
        health=facts.health,
    )


def record(container: Container, life: Life) -> None:
    """Write into the container's row where its life stands."""
    container.state = stored(life)
    container.restart_count = life.facts.restarts
    container.manually_stopped = life.facts.stopped_by_user


def terms_of(container: Container) -> Terms:
    """What the container's row says was asked."""
    host, config = container.host_config, container.config
    check = config.healthcheck if probe_command(config) else None
    return Terms(container.id, host.restart_policy, host.auto_remove, check)


def restored(container: Container) -> Life:
    """The life that a row tells of, as far as a row can: a start that was under way has not been one."""
    state, terms = container.state, terms_of(container)
    facts = Facts(
        terms=terms,
        restarts=container.restart_count,
        stopped_by_user=container.manually_stopped,
        started_at=state.started_at,
        finished_at=state.finished_at,
        exit_code=state.exit_code,
        error=state.error,
        oom_killed=state.oom_killed,
        health=state.health,
    )
    ending = Ending.STOPPED if container.manually_stopped else Ending.BY_ITSELF
    match state.status:
        case "running":
            if terms.check is not None and facts.health is None:
                facts = replace(facts, health=begin(None))
            return Running(facts, state.pid, ending)
        case "paused":
            return Paused(facts, state.pid, ending)
        case "restarting":
            return Restarting(facts)
        case "exited":
            return Exited(facts)
        case "removing":
            return Removing(facts)
        case "dead":
            return Dead(facts)
    return Created(facts)
