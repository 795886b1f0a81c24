"""`havre compose down`, and the verbs for existing containers."""

from __future__ import annotations

import sys

from havre.cli.compose.stage import Stage
from havre.cli.parser import StatusError
from havre.compose import labels as label
from havre.compose.down import DownOptions, plan_down, plan_each, plan_simple, plan_stop
from havre.compose.plan import NEVER, UpOptions, plan_up
from havre.compose.project import image_of
from havre.compose.state import list_hooks
from havre.compose.steps import Call, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from havre.cli.session import Session
    from havre.compose.project import Project
    from havre.compose.state import Container, State
    from havre.golang.flags import Options

_ALIVE = ("running", "restarting", "paused")


def _timeout(options: Options) -> int | None:
    return options.timeout if "timeout" in options.given else None


def down(session: Session, options: Options, arguments: list[str]) -> int:
    """Stop and remove the project's containers and networks, optionally its volumes and images."""
    stage = Stage(session, options)
    if options.rmi not in ("", "all", "local"):
        raise StatusError(1, f'invalid value for --rmi: "{options.rmi}"; expected all or local')
    project, state = stage.observed(())
    state = state._replace(hooks=list_hooks(stage.client, project.name))
    for name in arguments:
        if name not in project.services:
            raise StatusError(1, f"no such service: {name}")
    wanted = DownOptions(
        services=tuple(arguments),
        volumes=options.volumes,
        images=tuple(_images(stage, project, state, options.rmi)) if options.rmi else (),
        remove_orphans=options.remove_orphans,
        timeout_s=_timeout(options),
    )
    steps = plan_down(project, state, wanted)
    if not steps:
        print(f'Warning: No resource found to remove for project "{project.name}".', file=sys.stderr)
    stage.carry_out(steps)
    return 0


def _images(stage: Stage, project: Project, state: State, which: str) -> list[str]:
    """Names of images to remove: all that services use, or (local) only those built without a name of their own."""
    if not project.files:
        used = {container.row["Image"] for container in state.containers}
        rows = stage.client.get("/images/json")
        local = {tag for row in rows if (row.get("Labels") or {}).get(label.PROJECT) == project.name
                 for tag in row.get("RepoTags") or ()}  # fmt: skip
        return sorted(used if which == "all" else used & local)
    services = project.services.items()
    return sorted({image_of(s, name, project.name) for name, s in services if which == "all" or not s.get("image")})


def stop(session: Session, options: Options, arguments: list[str]) -> int:
    """Stop containers."""
    stage = Stage(session, options)
    project, state = stage.observed(arguments)
    stage.carry_out(plan_stop(project, state, arguments, _timeout(options)))
    return 0


def start(session: Session, options: Options, arguments: list[str]) -> int:
    """Start containers that exist."""
    stage = Stage(session, options)
    project, state = stage.observed(arguments)
    project = project.selecting(arguments)
    have = {name: {**s, "scale": len(state.of(name))} for name, s in project.services.items()}
    if not any(service["scale"] for service in have.values()):
        raise StatusError(1, f'service "{next(iter(sorted(have)), project.name)}" has no container to start')
    networks = {key: network for key, network in project.networks.items() if network["name"] in state.networks}
    project = project._replace(services=have, networks=networks, volumes={})
    wanted = UpOptions(recreate=NEVER, recreate_others=NEVER, wait=options.wait)
    steps = plan_up(project, state, wanted)
    stage.carry_out([step for step in steps if step.action is not None], timeout_s=options.wait_timeout)
    return 0


def restart(session: Session, options: Options, arguments: list[str]) -> int:
    """Restart containers."""
    stage = Stage(session, options)
    project, state = stage.observed(arguments)
    names = list(arguments)
    if not options.no_deps and names:
        for name, service in project.services.items():
            dependencies = service.get("depends_on", {})
            if any(dependencies.get(other, {}).get("restart") for other in arguments) and name not in names:
                names.append(name)
    query = {"t": str(options.timeout)} if "timeout" in options.given else {}
    states = (*_ALIVE, "exited", "created")
    stage.carry_out(plan_simple(project, state, names, "restart", ("Restarting", "Started"), query, states))
    return 0


def kill(session: Session, options: Options, arguments: list[str]) -> int:
    """Send a signal to containers."""
    stage = Stage(session, options)
    project, state = stage.observed(arguments)
    query = {"signal": options.signal}
    steps = plan_simple(project, state, arguments, "kill", ("Killing", "Killed"), query, ("running", "restarting"))
    if not steps:
        print("no container to kill", file=sys.stderr)
    stage.carry_out(steps)
    return 0


def pause(session: Session, options: Options, arguments: list[str]) -> int:
    """Pause containers."""
    stage = Stage(session, options)
    project, state = stage.observed(arguments)
    stage.carry_out(plan_simple(project, state, arguments, "pause", ("Pausing", "Paused"), {}, ("running",)))
    return 0


def unpause(session: Session, options: Options, arguments: list[str]) -> int:
    """Unpause containers."""
    stage = Stage(session, options)
    project, state = stage.observed(arguments)
    stage.carry_out(plan_simple(project, state, arguments, "unpause", ("Unpausing", "Unpaused"), {}, ("paused",)))
    return 0


def rm(session: Session, options: Options, arguments: list[str]) -> int:
    """Remove stopped containers."""
    stage = Stage(session, options)
    project, state = stage.observed(arguments)
    if options.stop:
        stage.carry_out(plan_stop(project, state, arguments, None))
        project, state = stage.observed(arguments)
    query = {"v": "1"} if options.volumes else {}

    def remove(container: Container, after: tuple[str, ...]) -> list[Step]:
        if container.state in _ALIVE:
            return []
        call = Call("DELETE", f"/containers/{container.id}", query, tolerated={404: ""})
        return [Step(f"remove {container.id}", f"Container {container.name}", "Removing", "Removed", call, after)]

    steps = plan_each(project, state, arguments, remove)
    if not steps:
        print("No stopped containers")
        return 0
    names = ", ".join(step.subject.removeprefix("Container ") for step in steps)
    if options.force or stage.dry_run or session.confirm(f"Going to remove {names}"):
        stage.carry_out(steps)
    return 0
