"""What happens in a container's life (events), and what is to be done about it (effects), as values.

`machine.decide` takes the one and returns the other. Pure.
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
    """By a user, or by a policy with the daemon; from the checkpoint in `images`, if that is given.

    `closing`: the host goes down, and nothing starts any more.
    """

    closing: bool = False
    images: Path | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """Its process runs since `at` (RFC 3339)."""

    pid: int
    at: str


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The start has been undone. The code is Docker's for the error."""

    code: int
    error: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The runtime's exit, at `at` (seconds since the epoch).

    `publishes`: host ports are held for it. `alone`: nothing runs after its first process.
    """

    code: int
    at: float
    oom_killed: bool = False
    publishes: bool = False
    alone: bool = True


@dataclass(frozen=True, slots=True)
class OutOfMemory:
    """The kernel has killed one of its processes, maybe not the first."""


@dataclass(frozen=True, slots=True)
class Probed:
    """What a probe found that began `since_start_s` after the container did."""

    result: HealthResult
    since_start_s: float


@dataclass(frozen=True, slots=True)
class KillAsked:
    """A signal by the user; `ends`: it is one that is meant to end the container."""

    number: int
    ends: bool


@dataclass(frozen=True, slots=True)
class StopAsked:
    """A stop by the user: this signal first. With `drain_s` it is taken out of service before."""

    number: int
    drain_s: int | None = None


@dataclass(frozen=True, slots=True)
class RestartAsked:
    """The stop to come is one half of a restart by the user."""


@dataclass(frozen=True, slots=True)
class RestartGivenUp:
    """The stop of a restart by the user failed."""


@dataclass(frozen=True, slots=True)
class HostStops:
    """The host goes down: this signal first. Nobody wants the end: the policy still says whether it is to run again."""

    number: int


@dataclass(frozen=True, slots=True)
class PatienceOver:
    """It did not end in time."""


@dataclass(frozen=True, slots=True)
class PauseAsked:
    """By the user, or for a commit."""


@dataclass(frozen=True, slots=True)
class Frozen:
    """The kernel has frozen its processes."""


@dataclass(frozen=True, slots=True)
class UnpauseAsked:
    """By the user, or after a commit."""


@dataclass(frozen=True, slots=True)
class Thawed:
    """Its processes go on. Only what was asked for is `told`: what dies of a signal must be thawed for that."""

    told: bool = True


@dataclass(frozen=True, slots=True)
class CheckpointAsked:
    """With `exit` the container ends with it."""

    exit: bool


@dataclass(frozen=True, slots=True)
class CheckpointFailed:
    """It runs on."""


@dataclass(frozen=True, slots=True)
class DelayOver:
    """The back-off of a restart is over."""

    closing: bool = False


@dataclass(frozen=True, slots=True)
class RemovalAsked:
    """By the user; the container's name is for the refusal."""

    force: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class RemovalFailed:
    """What is left is there still; why, for the user."""

    error: str


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """By `update`."""

    policy: RestartPolicy


@dataclass(frozen=True, slots=True)
class FoundRunning:
    """The daemon came back: the runtime has a process, now (seconds since the epoch). `damaged`: the row is.

    `started_at` (RFC 3339) is the process's, for a row that does not tell.
    """

    pid: int
    now: float
    damaged: bool = False
    started_at: str = ZERO_TIME


@dataclass(frozen=True, slots=True)
class FoundEnded:
    """The daemon came back: the runtime has a process that ended so meanwhile."""

    code: int
    at: float
    oom_killed: bool = False


@dataclass(frozen=True, slots=True)
class FoundNothing:
    """The daemon came back: the runtime has nothing, now."""

    now: float


@dataclass(frozen=True, slots=True)
class DaemonStarted:
    """Everything that runs has been taken over: policies may start what does not."""


Event = (
    StartAsked | Started | StartFailed | Ended | OutOfMemory | Probed | KillAsked | StopAsked | RestartAsked
    | RestartGivenUp | HostStops | PatienceOver | PauseAsked | Frozen | UnpauseAsked | Thawed | CheckpointAsked
    | CheckpointFailed | DelayOver | RemovalAsked | RemovalFailed | PolicyChanged | FoundRunning | FoundEnded
    | FoundNothing | DaemonStarted
)  # fmt: skip

# -- effects


@dataclass(frozen=True, slots=True)
class Launch:
    """Put up the surroundings and run it, from the checkpoint in `images`; then `Started` or `StartFailed`."""

    images: Path | None = None


@dataclass(frozen=True, slots=True)
class AbandonLaunch:
    """Break off the launch that is under way, which undoes itself."""


@dataclass(frozen=True, slots=True)
class EndPending:
    """Clients that were attached before the start wait for nothing any more."""


@dataclass(frozen=True, slots=True)
class Signal:
    """Send a signal to its first process."""

    number: int


@dataclass(frozen=True, slots=True)
class Drain:
    """Withdraw its names, and let it answer what it was asked, for so long at most."""

    patience_s: int


@dataclass(frozen=True, slots=True)
class Freeze:
    """Then `Frozen`."""


@dataclass(frozen=True, slots=True)
class Thaw:
    """Then `Thawed`. Not `told`: it may have ended, or be about to."""

    told: bool = True


@dataclass(frozen=True, slots=True)
class Persist:
    """Write the row. A failure is logged, and the write tried again; with `must` it is raised."""

    must: bool = False


@dataclass(frozen=True, slots=True)
class Publish:
    """Tell the listeners of events."""

    action: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class EndRun:
    """Its process is gone: to networks, and to who reads its output, the container does not run any more."""


@dataclass(frozen=True, slots=True)
class TakeDown:
    """Take down what is around it. `bundle`: and what the runtime keeps. A failure is logged: others try again."""

    bundle: bool = True


@dataclass(frozen=True, slots=True)
class WakeWaiters:
    """Tell who waits for its end ("not-running"), or for a removal that has failed ("removed")."""

    condition: str
    code: int
    error: str = ""


@dataclass(frozen=True, slots=True)
class ScheduleRestart:
    """Then `DelayOver`."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class CancelRestart:
    """The restart that was scheduled does not come."""


@dataclass(frozen=True, slots=True)
class BeginHealth:
    """Run its probes, if it has any; each tells `Probed`."""


@dataclass(frozen=True, slots=True)
class CeaseHealth:
    """Run no probes."""


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove it, and its anonymous volumes with `volumes`; else `RemovalFailed`. What takes time may be `later`."""

    volumes: bool
    later: bool = False


@dataclass(frozen=True, slots=True)
class TakeOver:
    """The process is the container's: follow its output, and see it to its end."""


@dataclass(frozen=True, slots=True)
class CleanUp:
    """Kill what the runtime has and forget it."""


@dataclass(frozen=True, slots=True)
class Bury:
    """Once networks and files stand: `Ended` so."""

    code: int
    at: float
    oom_killed: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    """In its turn, `StartAsked`."""


Effect = (
    Launch | AbandonLaunch | EndPending | Signal | Drain | Freeze | Thaw | Persist | Publish | EndRun | TakeDown
    | WakeWaiters | ScheduleRestart | CancelRestart | BeginHealth | CeaseHealth | Remove | TakeOver | CleanUp | Bury
    | Start
)  # fmt: skip

Effects = tuple[Effect, ...]
