"""The life of a container as a machine without IO: `decide(state, event) -> (state, effects)`.

    event               Created   Starting  Running    Paused     Restarting  Exited    Removing  Dead
    StartAsked          Starting  refused   refused    refused    Starting    Starting  refused   refused
    Started             .         Running   .          .          .           .         .         .
    StartFailed         .         before 1  Exited 2   .          .           .         .         .
    Ended               .         .         after 3    after 3    .           .         .         .
    OutOfMemory         .         .         same       same       .           .         .         .
    Probed              .         .         same       .          .           .         .         .
    KillAsked           refused   refused   same 4     same 4     Exited 5    refused   refused   refused
    StopAsked           refused   refused   same 4     same 4     Exited 5    refused   refused   refused
    RestartAsked        .         .         same 4     same 4     .           .         .         .
    RestartGivenUp      .         .         same 4     same 4     .           .         .         .
    HostStops           .         .         same       same       .           .         .         .
    PatienceOver        .         .         same       same       .           .         .         .
    PauseAsked          refused   refused   same       refused    refused     refused   refused   refused
    Frozen              .         .         Paused     .          .           .         .         .
    UnpauseAsked        refused   refused   refused    same       refused     refused   refused   refused
    Thawed              .         .         .          Running    .           .         .         .
    CheckpointAsked     refused   refused   same 4     same 4     refused     refused   refused   refused
    CheckpointFailed    .         .         same 4     same 4     .           .         .         .
    DelayOver           .         .         .          .          Starting    .         .         .
    RemovalAsked        Removing  same 6    same 4 7   same 4 7   Removing 7  Removing  refused   Removing
    RemovalFailed       .         .         same 4     same 4     .           .         Dead      .
    PolicyChanged       same, with the new restart policy, in every state
    FoundRunning        clear 8   -         same 8     same 8     clear 8     clear 8   clear 8   clear 8
    FoundEnded          clear 8   -         ended 8    ended 8    clear 8     clear 8   clear 8   clear 8
    FoundNothing        .         -         ended 8    ended 8    .           .         .         .
    DaemonStarted       start 9   -         .          .          start 9     start 9   removal   removal

    .  ignored    refused  raises the reason in Docker's words, without a change    -  impossible

    1  the state before, or Exited if that was Restarting, with code and error; Removing with `--rm`, or if a removal
       waits for the start
    2  the row could not be written: the start is undone
    3  Restarting if no request ended it and the policy wants a restart, otherwise Exited; Removing with `--rm`, unless
       the user restarts it, or if a removal ended it
    4  `ending` records the request, and so what follows the end
    5  cancels the scheduled restart
    6  if forced, the start is aborted; otherwise the caller waits for the start
    7  if forced, otherwise refused
    8  a process of the runtime is taken over if it matches the row, otherwise killed: nothing runs twice; with a
       damaged row it cannot be compared, so what runs is Running
    9  if the policy starts it with the daemon; Restarting otherwise becomes Exited

Effects are executed in order (`lifecycle`), under the container's lock if they take time; a failure skips the rest.
Results are fed back as events. No clock except the times in events.

Why: docs/why/processes.md#locks-and-recovery.
"""

from __future__ import annotations

import signal
from dataclasses import replace

from havre.containers.life.restart import decide_after_exit, wants_start_with_daemon
from havre.containers.life.vocabulary import (
    AbandonLaunch,
    BeginHealth,
    Bury,
    CancelRestart,
    CeaseHealth,
    CheckpointAsked,
    CheckpointFailed,
    CleanUp,
    DaemonStarted,
    DelayOver,
    Drain,
    Effect,
    Effects,
    Ended,
    EndPending,
    EndRun,
    Event,
    FoundEnded,
    FoundNothing,
    FoundRunning,
    Freeze,
    Frozen,
    HostStops,
    KillAsked,
    Launch,
    OutOfMemory,
    PatienceOver,
    PauseAsked,
    Persist,
    PolicyChanged,
    Probed,
    Publish,
    RemovalAsked,
    RemovalFailed,
    Remove,
    RestartAsked,
    RestartGivenUp,
    ScheduleRestart,
    Signal,
    Start,
    StartAsked,
    Started,
    StartFailed,
    StopAsked,
    TakeDown,
    TakeOver,
    Thaw,
    Thawed,
    UnpauseAsked,
    WakeWaiters,
)
from havre.containers.probes import begin, cease, judge
from havre.containers.states import (
    Created,
    Dead,
    Ending,
    Exited,
    Facts,
    Life,
    Paused,
    Removing,
    Restarting,
    Running,
    Starting,
    is_going,
    stored,
)
from havre.errors import Conflict, Failed, NotModified, Unavailable
from havre.wire import times
from havre.wire.values import ZERO_TIME

Decision = tuple[Life, Effects]

UNKNOWN_CODE = 255
"""The exit code of a container that ended unnoticed, as in Docker."""


def decide(life: Life, event: Event) -> Decision:
    """The state after `event`, and the effects. Raises if a request is refused."""
    match event:
        case StartAsked() | DelayOver():
            return _start(life, event)
        case Started():
            return _started(life, event)
        case StartFailed():
            return _start_failed(life, event)
        case StopAsked() | KillAsked():
            return _asked_to_end(life, event)
        case PauseAsked() | UnpauseAsked() | CheckpointAsked():
            return _asked(life, event)
        case RemovalAsked():
            return _asked_to_go(life, event)
        case RemovalFailed(error):
            return _still_here(life, error)
        case PolicyChanged(policy):
            return replace(life, facts=replace(life.facts, terms=replace(life.facts.terms, policy=policy))), ()
        case FoundRunning() | FoundEnded() | FoundNothing():
            return _found(life, event)
        case DaemonStarted():
            return _with_daemon(life)
    if not isinstance(life, Running | Paused):
        return life, ()
    return _ended(life, event) if isinstance(event, Ended) else _alive(life, event)


# -- start


def _start(life: Life, event: StartAsked | DelayOver) -> Decision:
    facts = life.facts
    if isinstance(event, DelayOver):
        return (
            (Starting(facts, life), (Launch(),)) if isinstance(life, Restarting) and not event.closing else (life, ())
        )
    if event.closing:
        raise Unavailable(f"cannot start container {facts.terms.id}: the host is shutting down")
    if is_going(life) or isinstance(life, Dead):
        raise Conflict("container is marked for removal and cannot be started")
    if isinstance(life, Paused):
        raise Conflict("cannot start a paused container, try unpause instead")
    if not isinstance(life, Created | Restarting | Exited):
        raise NotModified("container is already running")
    anew = replace(facts, restarts=0, delay_s=0.0, stopped_by_user=False)
    return Starting(anew, life), (*_no_restart(life), Launch(event.images))


def _started(life: Life, event: Started) -> Decision:
    if not isinstance(life, Starting):
        return life, ()
    health = begin(life.facts.health) if life.facts.terms.check else None
    facts = replace(life.facts, started_at=event.at, exit_code=0, error="", oom_killed=False, health=health)
    ending = Ending.REMOVED if life.removed else Ending.BY_ITSELF
    return Running(facts, event.pid, ending), (Persist(must=True), Publish("start"), BeginHealth())


def _start_failed(life: Life, event: StartFailed) -> Decision:
    if not isinstance(life, Starting | Running):
        return life, ()
    facts = replace(
        life.facts, exit_code=event.code, error=event.error, oom_killed=False, health=cease(life.facts.health)
    )
    if is_going(life):
        return Removing(facts), (EndPending(), *_mark(facts))
    if facts.terms.auto_remove:
        return Removing(facts), (EndPending(), Remove(volumes=True, later=True))
    return (Created if facts.started_at == ZERO_TIME else Exited)(facts), (EndPending(), Persist())


# -- the end


def _ended(life: Running | Paused, event: Ended) -> Decision:
    facts, terms = life.facts, life.facts.terms
    ran_s = event.at - times.parse(facts.started_at)
    restart = decide_after_exit(
        terms.policy,
        exit_code=event.code,
        stopped_by_user=life.ending is not Ending.BY_ITSELF or facts.stopped_by_user,
        restarts=facts.restarts,
        ran_s=ran_s,
        last_delay_s=facts.delay_s,
    )
    known = replace(
        facts,
        restarts=facts.restarts + (restart is not None),  # includes the scheduled one, as in Docker
        delay_s=restart.delay_s if restart else 0.0,
        finished_at=times.from_seconds(event.at),
        exit_code=event.code,
        oom_killed=event.oom_killed,
        health=cease(facts.health),
    )
    leaves = restart is None and terms.auto_remove and life.ending < Ending.RESTARTED
    after: Life = Restarting(known) if restart else Exited(known)
    if leaves or life.ending is Ending.REMOVED:
        after = Removing(known)
    woken = WakeWaiters("not-running", event.code)
    died = {"exitCode": str(event.code), "execDuration": str(int(max(0.0, ran_s)))}
    effects: list[Effect] = [CeaseHealth(), EndRun()]
    if event.oom_killed and not facts.oom_killed:
        effects.append(Publish("oom"))
    if not event.publishes:  # otherwise wake waiters after TakeDown: a client may reuse its ports
        effects.append(woken)
    effects += _mark(known) if isinstance(after, Removing) else (Persist(),)
    # With `--rm`, `Remove` deletes the bundle in the background, so that waiters for the removal are woken sooner.
    effects += (TakeDown(bundle=not (leaves and event.alone)), Publish("die", died), woken)
    if restart:
        effects.append(ScheduleRestart(restart.delay_s))
    if leaves:
        effects.append(Remove(volumes=True, later=True))
    return after, tuple(effects)


def _asked_to_end(life: Life, event: StopAsked | KillAsked) -> Decision:
    if isinstance(life, Restarting):
        stopped = replace(life.facts, stopped_by_user=True)
        return Exited(stopped), (*_no_restart(life), Persist(), Publish("stop"))
    if not isinstance(life, Running | Paused):
        raise NotModified("container is already stopped") if isinstance(event, StopAsked) else _not_running(life)
    if isinstance(event, KillAsked) and not event.ends:
        return life, _signal(event.number)
    wanted = _wanted(life, Ending.STOPPED)
    wanted = replace(wanted, facts=replace(wanted.facts, stopped_by_user=True))
    if isinstance(event, KillAsked):  # a signal that is to end it thaws it
        return wanted, (Persist(), *_signal(event.number), *_thaw(life))
    drain = () if event.drain_s is None else (Drain(event.drain_s),)
    return wanted, (Persist(), *drain, *_end(life, event.number))


def _end(life: Running | Paused, number: int) -> Effects:
    """Signal and thaw. Signals are delivered after the thaw; SIGKILL first, so that no process runs before it dies."""
    if number == signal.SIGKILL:
        return (*_signal(number), *_thaw(life))
    return (*((Thaw(),) if isinstance(life, Paused) else ()), *_signal(number))


def _signal(number: int) -> Effects:
    return Signal(number), Publish("kill", {"signal": str(int(number))})


def _thaw(life: Running | Paused) -> Effects:
    return (Thaw(publish=False),) if isinstance(life, Paused) else ()


# -- while it runs


def _asked(life: Life, event: PauseAsked | UnpauseAsked | CheckpointAsked) -> Decision:
    id = life.facts.terms.id
    if isinstance(event, UnpauseAsked):
        if not isinstance(life, Paused):
            raise Failed(f"Container {id} is not paused")
        return life, (Thaw(),)
    if not isinstance(life, Running | Paused):
        raise _not_running(life)
    if isinstance(event, CheckpointAsked):
        return (_wanted(life, Ending.CHECKPOINTED) if event.exit else life), ()
    if isinstance(life, Paused):
        raise Conflict(f"Container {id} is already paused")
    return life, (Freeze(),)


def _alive(life: Running | Paused, event: Event) -> Decision:
    facts = life.facts
    match event:
        case OutOfMemory():
            return replace(life, facts=replace(facts, oom_killed=True)), (Publish("oom"), Persist())
        case Probed() if isinstance(life, Running):
            return _probed(life, event)
        case RestartAsked():
            return _wanted(life, Ending.RESTARTED), ()
        case RestartGivenUp() if life.ending is Ending.RESTARTED:
            return replace(life, ending=Ending.STOPPED), ()
        case CheckpointFailed() if life.ending is Ending.CHECKPOINTED:
            return replace(life, ending=Ending.BY_ITSELF), ()
        case HostStops(number):
            return life, _end(life, number)
        case PatienceOver():
            return life, _end(life, signal.SIGKILL)
        case Frozen() if isinstance(life, Running):
            ceased = replace(facts, health=cease(facts.health))
            return Paused(ceased, life.pid, life.ending), (CeaseHealth(), Persist(), Publish("pause"))
        case Thawed(publish) if isinstance(life, Paused):
            effects = (BeginHealth(), Persist(), Publish("unpause")) if publish else (BeginHealth(),)
            return Running(facts, life.pid, life.ending), effects
    return life, ()


def _probed(life: Running, event: Probed) -> Decision:
    check, before = life.facts.terms.check, life.facts.health
    if check is None or before is None:
        return life, ()
    health = judge(before, check, event.result, since_start_s=event.since_start_s)
    published = () if health.status == before.status else (Publish(f"health_status: {health.status}"),)
    return replace(life, facts=replace(life.facts, health=health)), (Persist(must=True), *published)


def _wanted(life: Running | Paused, ending: Ending) -> Running | Paused:
    return replace(life, ending=max(life.ending, ending))


def _not_running(life: Life) -> Conflict:
    return Conflict(f"container {life.facts.terms.id} is not running")


# -- removal


def _asked_to_go(life: Life, event: RemovalAsked) -> Decision:
    facts = life.facts
    if is_going(life):
        raise Conflict(f"removal of container {facts.terms.id} is already in progress")
    if isinstance(life, Starting) and event.force:
        return replace(life, removed=True), (AbandonLaunch(),)
    if isinstance(life, Starting | Running | Paused | Restarting) and not event.force:
        problem = f"container is {stored(life).status}: stop the container before removing or force remove"
        if isinstance(life, Paused):
            problem = "container is paused and must be unpaused first"
        raise Conflict(f'cannot remove container "/{event.name}": {problem}')
    if isinstance(life, Running | Paused):
        return _wanted(life, Ending.REMOVED), ()
    if isinstance(life, Dead):  # drop the error of the last attempt
        facts = replace(facts, error="")
    return Removing(facts), (*_no_restart(life), *_mark(facts))


def _still_here(life: Life, error: str) -> Decision:
    if isinstance(life, Removing):
        facts = replace(life.facts, error=error)
        return Dead(facts), (Persist(), WakeWaiters("removed", facts.exit_code, error))
    if isinstance(life, Running | Paused) and life.ending is Ending.REMOVED:
        return replace(life, ending=Ending.STOPPED), ()
    return life, ()


def _mark(facts: Facts) -> Effects:
    """Store the state, so that the next daemon continues an interrupted removal; with `--rm`, recovery repeats it."""
    return () if facts.terms.auto_remove else (Persist(),)


def _no_restart(life: Life) -> Effects:
    return (CancelRestart(),) if isinstance(life, Restarting) else ()


# -- start of the daemon


def _found(life: Life, event: FoundRunning | FoundEnded | FoundNothing) -> Decision:
    alive = isinstance(life, Running | Paused)
    match event:
        case FoundNothing(now):
            return life, (Bury(UNKNOWN_CODE, now),) if alive else ()
        case FoundEnded(code, at, oom_killed):
            return life, (Bury(code, at, oom_killed) if alive else CleanUp(),)
        case FoundRunning(pid, now, damaged, started_at):
            if isinstance(life, Running | Paused) and life.pid == pid:
                return life, (TakeOver(),)
            if damaged:
                return Running(replace(life.facts, started_at=started_at, exit_code=0), pid), (TakeOver(),)
            return life, (CleanUp(), Bury(UNKNOWN_CODE, now)) if alive else (CleanUp(),)


def _with_daemon(life: Life) -> Decision:
    facts, waits = life.facts, isinstance(life, Restarting)
    if isinstance(life, Removing | Dead):
        return Removing(facts), (Remove(volumes=facts.terms.auto_remove),)
    if not isinstance(life, Created | Restarting | Exited):
        return life, ()
    wanted = wants_start_with_daemon(
        facts.terms.policy,
        ever_started=facts.started_at != ZERO_TIME,
        exit_code=facts.exit_code,
        stopped_by_user=facts.stopped_by_user,
        was_running=waits,
        restarts=facts.restarts - waits,
    )
    if wanted:
        return life, (Start(),)
    return (Exited(facts), (Persist(),)) if waits else (life, ())
