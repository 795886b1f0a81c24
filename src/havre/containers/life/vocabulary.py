"""Events in a container's life, and effects to carry out, as values. Pure.

`machine.decide` takes an event and returns effects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from havre.containers.container import HealthResult
from havre.wire.config import RestartPolicy
from havre.wire.values import ZERO_TIME

# -- events


@dataclass(frozen=True, slots=True)
class StartAsked:
    """A start, requested by a user or by the policy with the daemon; from the checkpoint in `images` if given.

    `closing`: the host shuts down, and nothing starts any more.
    """

    closing: bool = False
    images: Path | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The process has been running since `at` (RFC 3339)."""

    pid: int
    at: str


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The start failed and was undone. The code is Docker's for the error."""

    code: int
    error: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The runtime reported the exit, at `at` (seconds since the epoch).

    `publishes`: it has host ports. `alone`: nothing runs after its first process.
    """

    code: int
    at: float
    oom_killed: bool = False
    publishes: bool = False
    alone: bool = True


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The kernel has OOM-killed one of its processes, not necessarily the first."""


@dataclass(frozen=True, slots=True)
class Probed:
    """The result of a probe that began `since_start_s` after the container's start."""

    result: HealthResult
    since_start_s: float


@dataclass(frozen=True, slots=True)
class KillAsked:
    """The user's signal; `ends`: it is one that is to end the container."""

    number: int
    ends: bool


@dataclass(frozen=True, slots=True)
class StopAsked:
    """The user's stop, beginning with this signal. With `drain_s`, it is drained before."""

    number: int
    drain_s: int | None = None


@dataclass(frozen=True, slots=True)
class RestartAsked:
    """The user's restart: a stop follows."""


@dataclass(frozen=True, slots=True)
class RestartGivenUp:
    """The stop of a restart failed."""


@dataclass(frozen=True, slots=True)
class HostStops:
    """The host shuts down: a stop, beginning with this signal, after which the policy still decides."""

    number: int


@dataclass(frozen=True, slots=True)
class PatienceOver:
    """It did not end within the timeout."""


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """Requested by the user, or for a commit."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """The kernel has frozen its processes."""


@dataclass(frozen=True, slots=True)
class UnpauseAsked:
    """Requested by the user, or after a commit."""


@dataclass(frozen=True, slots=True)
class Thawed:
    """Its processes are thawed. `publish`: publish the event; false for a thaw that only lets a signal take effect."""

    publish: bool = True


@dataclass(frozen=True, slots=True)
class CheckpointAsked:
    """A checkpoint; with `exit` it ends the container."""

    exit: bool


@dataclass(frozen=True, slots=True)
class CheckpointFailed:
    """The checkpoint failed: the container continues."""


@dataclass(frozen=True, slots=True)
class DelayOver:
    """The back-off of a restart has elapsed."""

    closing: bool = False


@dataclass(frozen=True, slots=True)
class RemovalAsked:
    """Requested by the user; the container's name is for the message of a refusal."""

    force: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class RemovalFailed:
    """The removal failed; the reason is for the user."""

    error: str


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """Changed by `update`."""

    policy: RestartPolicy


@dataclass(frozen=True, slots=True)
class FoundRunning:
    """At the daemon's start: the runtime has a process, at `at` (seconds since the epoch). `damaged`: the row is.

    `started_at` (RFC 3339) is the process's start, for a row that does not have it.
    """

    pid: int
    now: float
    damaged: bool = False
    started_at: str = ZERO_TIME


@dataclass(frozen=True, slots=True)
class FoundEnded:
    """At the daemon's start: the runtime has a process that ended meanwhile."""

    code: int
    at: float
    oom_killed: bool = False


@dataclass(frozen=True, slots=True)
class FoundNothing:
    """At the daemon's start: the runtime has no process."""

    now: float


@dataclass(frozen=True, slots=True)
class DaemonStarted:
    """All running containers have been taken over: policies may start others."""


Event = (
    StartAsked | Started | StartFailed | Ended | OutOfMemory | Probed | KillAsked | StopAsked | RestartAsked
    | RestartGivenUp | HostStops | PatienceOver | PauseAsked | Frozen | UnpauseAsked | Thawed | CheckpointAsked
    | CheckpointFailed | DelayOver | RemovalAsked | RemovalFailed | PolicyChanged | FoundRunning | FoundEnded
    | FoundNothing | DaemonStarted
)  # fmt: skip

# -- effects


@dataclass(frozen=True, slots=True)
class Launch:
    """Set up the surroundings and start it, from the checkpoint in `images`; feeds `Started` or `StartFailed`."""

    images: Path | None = None


@dataclass(frozen=True, slots=True)
class AbandonLaunch:
    """Abort the start in progress, which undoes itself."""


@dataclass(frozen=True, slots=True)
class EndPending:
    """Disconnect clients that attached before the start."""


@dataclass(frozen=True, slots=True)
class Signal:
    """Send a signal to its first process."""

    number: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Withdraw its names, and wait for its connections, at most so many seconds."""

    patience_s: int


@dataclass(frozen=True, slots=True)
class Freeze:
    """Freeze; feeds `Frozen`."""


@dataclass(frozen=True, slots=True)
class Thaw:
    """Thaw; feeds `Thawed`. Without `publish`, the process may have ended."""

    publish: bool = True


@dataclass(frozen=True, slots=True)
class Persist:
    """Store the row. A failure is logged and retried; with `must` it is raised."""

    must: bool = False


@dataclass(frozen=True, slots=True)
class Publish:
    """Publish an event."""

    action: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EndRun:
    """The process has ended: update networks, and end streams of its output."""


@dataclass(frozen=True, slots=True)
class TakeDown:
    """Tear down the surroundings, with `bundle` also the runtime's files. Failures are logged and retried later."""

    bundle: bool = True


@dataclass(frozen=True, slots=True)
class WakeWaiters:
    """Wake waiters for its end ("not-running"), or for a removal that has failed ("removed")."""

    condition: str
    code: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class ScheduleRestart:
    """Start a timer; feeds `DelayOver`."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class CancelRestart:
    """Cancel the scheduled restart."""


@dataclass(frozen=True, slots=True)
class BeginHealth:
    """Start probing, if it has a health check; feeds `Probed` for each result."""


@dataclass(frozen=True, slots=True)
class CeaseHealth:
    """Stop probing."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove it, with `volumes` also anonymous ones; feeds `RemovalFailed`. `later`: slow parts in background."""

    volumes: bool
    later: bool = False


@dataclass(frozen=True, slots=True)
class TakeOver:
    """Take over the process: follow its output, and await its end."""


@dataclass(frozen=True, slots=True)
class CleanUp:
    """Kill the runtime's process and delete its files."""


@dataclass(frozen=True, slots=True)
class Bury:
    """After networks and files are restored, feed `Ended` with these values."""

    code: int
    at: float
    oom_killed: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """Feed `StartAsked`, in the order of starts."""


Effect = (
    Launch | AbandonLaunch | EndPending | Signal | Drain | Freeze | Thaw | Persist | Publish | EndRun | TakeDown
    | WakeWaiters | ScheduleRestart | CancelRestart | BeginHealth | CeaseHealth | Remove | TakeOver | CleanUp | Bury
    | Start
)  # fmt: skip

Effects = tuple[Effect, ...]
