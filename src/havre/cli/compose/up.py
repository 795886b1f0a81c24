"""`havre compose up`, `create` and `scale`: from the files to running containers."""

from __future__ import annotations

import os
from threading import Thread

from havre.cli.compose.converge import converge
from havre.cli.compose.stage import Stage
from havre.cli.compose.supply import supplied
from havre.cli.parser import StatusError
from havre.compose.images import ImageOptions, plan_images
from havre.compose.plan import DIVERGED, FORCE, NEVER, UpOptions
from havre.compose.project import in_order
from havre.compose.rollout import plan_rollout
from havre.compose.state import inspect_images, observe, used_images
from havre.errors import HavreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from havre.cli.session import Session
    from havre.compose.project import Project
    from havre.golang.flags import Options

_ATTACHED = ("abort_on_container_exit", "abort_on_container_failure", "exit_code_from", "attach")
_ATTACHED_TEXT = "--abort-on-container-exit, --abort-on-container-failure, --attach or --exit-code-from"


def up(session: Session, options: Options, arguments: list[str]) -> int:
    """Create and start containers; prints their output unless detached."""
    stage = Stage(session, options)
    _check(options)
    project = _wanted(stage, options, arguments)
    wanted = _up_options(stage, options, arguments)
    if options.rollout:
        return roll_out(stage, project, wanted, _image_options(options))
    detached = options.detach or options.wait or options.no_start or stage.dry_run
    if detached:
        converge(
            stage, project, wanted, _image_options(options), quiet=options.quiet_pull, timeout_s=options.wait_timeout
        )
        return 0
    from havre.cli.compose.attached import Attached

    project = supplied(stage, project)
    attached = Attached(stage, project, options, arguments)
    converge(stage, project, wanted._replace(start=False), _image_options(options), quiet=options.quiet_pull)

    def begin() -> None:
        converge(stage, project, wanted, ImageOptions(no_build=True, pull="never"))

    return attached.run(_and_watch(stage, project, begin) if options.watch else begin)


def _and_watch(stage: Stage, project: Project, begin: Callable[[], None]) -> Callable[[], None]:
    """`begin`, and watching the files as of now. Raises StatusError."""
    from havre.cli.compose.watch import Watcher, watched

    watcher = Watcher(stage, project, watched(project))

    def both() -> None:
        begin()
        Thread(target=watcher.follow, daemon=True).start()

    return both


def roll_out(stage: Stage, project: Project, wanted: UpOptions, images: ImageOptions) -> int:
    """Replace stale containers one by one; returns to the old ones when a new one does not become healthy."""
    project = supplied(stage, project)
    state = observe(stage.client, project)
    if steps := plan_images(project, state.images, images):
        stage.carry_out(steps)
        state = state._replace(images=inspect_images(stage.client, used_images(project)))
    hands_over = "havre" in stage.client.server()
    for name in in_order(project):
        for step in plan_rollout(project, state, name, wanted.timeout_s, stage.separator, hands_over=hands_over):
            try:
                stage.carry_out(step.forward)
            except (HavreError, KeyboardInterrupt):
                stage.carry_out(step.undo)
                raise
            stage.carry_out(step.retire)
    converge(stage, project, wanted._replace(recreate=NEVER, recreate_others=NEVER), images._replace(build=False))
    return 0


def create(session: Session, options: Options, arguments: list[str]) -> int:
    """Create containers without starting them."""
    stage = Stage(session, options)
    _check(options)
    project = _wanted(stage, options, arguments)
    wanted = _up_options(stage, options, arguments)._replace(start=False)
    converge(stage, project, wanted, _image_options(options), quiet=options.quiet_pull)
    return 0


def scale(session: Session, options: Options, arguments: list[str]) -> int:
    """Set the number of containers of services."""
    stage = Stage(session, options)
    numbers = _numbers(arguments)
    project = _scaled(stage.project(list(numbers)), numbers)
    if options.no_deps:
        project = project.selecting(list(numbers), dependencies=False)
    wanted = UpOptions(recreate=NEVER, recreate_others=NEVER, targets=tuple(numbers), separator=stage.separator)
    converge(stage, project, wanted, ImageOptions())
    return 0


def _check(options: Options) -> None:
    if options.force_recreate and options.no_recreate:
        raise StatusError(1, "--force-recreate and --no-recreate are incompatible")
    if options.build and options.no_build:
        raise StatusError(1, "--build and --no-build are incompatible")
    attached = any(getattr(options, name, False) for name in _ATTACHED)
    if getattr(options, "abort_on_container_exit", False) and options.abort_on_container_failure:
        raise StatusError(1, "--abort-on-container-failure cannot be combined with --abort-on-container-exit")
    if getattr(options, "detach", False) and attached:
        raise StatusError(1, f"--detach cannot be combined with {_ATTACHED_TEXT}")
    if getattr(options, "rollout", False) and (attached or options.force_recreate or options.no_recreate):
        raise StatusError(1, "--rollout cannot be combined with flags on recreation, --attach or exits of containers")
    if getattr(options, "watch", False) and (options.detach or options.wait or options.rollout):
        raise StatusError(1, "--watch cannot be combined with --detach, --wait or --rollout")
    if getattr(options, "wait", False) and attached:
        raise StatusError(1, f"--wait cannot be combined with {_ATTACHED_TEXT}")


def _wanted(stage: Stage, options: Options, services: list[str]) -> Project:
    project = stage.project(services)
    project = _scaled(project, _numbers(options.scale))
    if getattr(options, "no_deps", False):
        project = project.selecting(services or sorted(project.services), dependencies=False)
    return project


def _scaled(project: Project, numbers: dict[str, int]) -> Project:
    services = dict(project.services)
    for name, number in numbers.items():
        service = dict(project.service(name))
        if number > 1 and service.get("container_name"):
            raise StatusError(1, f"services.{name}: a container_name allows only one container, not {number}")
        service["scale"] = number
        if "deploy" in service:
            service["deploy"] = {**service["deploy"], "replicas": number}
        services[name] = service
    return project._replace(services=services)


def _numbers(texts: list[str]) -> dict[str, int]:
    numbers = {}
    for text in texts:
        name, equals, number = text.partition("=")
        if not equals or not number.isdigit():
            raise StatusError(1, f"invalid scale specifier: {text}; expected SERVICE=NUMBER")
        numbers[name] = int(number)
    return numbers


def _up_options(stage: Stage, options: Options, services: list[str]) -> UpOptions:
    recreate = FORCE if options.force_recreate else NEVER if options.no_recreate else DIVERGED
    always = getattr(options, "always_recreate_deps", False)
    remove = options.remove_orphans or os.environ.get("COMPOSE_REMOVE_ORPHANS", "").lower() in ("1", "true")
    return UpOptions(
        recreate=recreate,
        recreate_others=FORCE if always else NEVER if options.no_recreate else DIVERGED,
        targets=tuple(services),
        start=not getattr(options, "no_start", False),
        wait=getattr(options, "wait", False),
        inherit=not getattr(options, "renew_anon_volumes", False),
        remove_orphans=remove,
        timeout_s=options.timeout if "timeout" in options.given else None,
        separator=stage.separator,
    )


def _image_options(options: Options) -> ImageOptions:
    quiet_build = getattr(options, "quiet_build", False)
    return ImageOptions(options.pull, build=options.build, no_build=options.no_build, quiet_build=quiet_build)
