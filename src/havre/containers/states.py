"""The states of a container's life, immutable, and their stored form. Pure.

A state is one of the classes below; facts about the container's runs are in its `Facts`. The database and the API have
`container.State`: `stored` and `restored` convert, so that rows of earlier versions can be read.
`containers/life/machine.py` defines the transitions.
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
    """The request that a life is based on: container ID, restart policy, `--rm`, and the health check (None: none)."""

    id: str
    policy: RestartPolicy
    auto_remove: bool = False
    check: Healthcheck | None = None


class Ending(IntEnum):
    """Why a running container is being ended, and what follows. A later request never weakens an earlier one."""

    BY_ITSELF = 0
    """No request: the restart policy decides."""
    CHECKPOINTED = 1
    """By a checkpoint: no restart, but not the user's stop when the daemon starts the next time."""
    STOPPED = 2
    """By the user: no restart."""
    RESTARTED = 3
    """By the user's restart: `--rm` does not apply, the container starts again at once."""
    REMOVED = 4
    """By a forced removal, which continues after the end."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts about the present run or the last one.

    `restarts` counts restarts by policy since the last requested start, including one that is scheduled; `delay_s` is
    the last back-off (0: none). `stopped_by_user` is persistent. Times are RFC 3339.
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
    """Never started; a failed start leaves its exit code and error."""

    facts: Facts


@dataclass(frozen=True, slots=True)
class Starting:
    """A start is in progress; shown as the state `before`. `removed`: a forced removal aborts it."""

    facts: Facts
    before: Created | Restarting | Exited
    removed: bool = False


@dataclass(frozen=True, slots=True)
class Running:
    """The first process runs."""

    facts: Facts
    pid: int
    ending: Ending = Ending.BY_ITSELF


@dataclass(frozen=True, slots=True)
class Paused:
    """The processes are frozen (cgroup freezer)."""

    facts: Facts
    pid: int
    ending: Ending = Ending.BY_ITSELF


@dataclass(frozen=True, slots=True)
class Restarting:
    """Ended; the restart is scheduled after the back-off."""

    facts: Facts


@dataclass(frozen=True, slots=True)
class Exited:
    """Has run and ended."""

    facts: Facts


@dataclass(frozen=True, slots=True)
class Removing:
    """Not running; removal in progress."""

    facts: Facts


@dataclass(frozen=True, slots=True)
class Dead:
    """Removal failed; it may be retried."""

    facts: Facts


Life = Created | Starting | Running | Paused | Restarting | Exited | Removing | Dead

_STATUS: dict[type, str] = {
    Created: "created", Running: "running", Paused: "paused", Restarting: "restarting", Exited: "exited",
    Removing: "removing", Dead: "dead",
}  # fmt: skip


def is_going(life: Life) -> bool:
    """Report whether it is being removed, or will be once a start is aborted or a run has ended."""
    match life:
        case Removing():
            return True
        case Starting(removed=removed):
            return removed
        case Running(ending=ending) | Paused(ending=ending):
            return ending is Ending.REMOVED
    return False


def stored(life: Life) -> State:
    """The state as stored in the database and shown by the API."""
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
    """Copy the state into the container's row."""
    container.state = stored(life)
    container.restart_count = life.facts.restarts
    container.manually_stopped = life.facts.stopped_by_user


def terms_of(container: Container) -> Terms:
    """The terms in the container's row."""
    host, config = container.spec.host_config, container.spec.config
    check = config.healthcheck if probe_command(config) else None
    return Terms(container.id, host.restart_policy, host.auto_remove, check)


def restored(container: Container) -> Life:
    """The state in a row. `Starting` is never stored: the state before it is."""
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
