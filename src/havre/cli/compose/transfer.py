"""The commands for images: pull, push, build."""

from __future__ import annotations

from havre.cli.compose.stage import Stage
from havre.compose.images import build_steps
from havre.compose.project import image_of, images_of
from havre.compose.state import inspect_images, used_images
from havre.compose.steps import Build, Pull, Push, Step
from havre.golang.jsontext import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from havre.cli.session import Session
    from havre.golang.flags import Options


def pull(session: Session, options: Options, arguments: list[str]) -> int:
    """Pull the images of services."""
    stage = Stage(session, options)
    project = stage.project(arguments)
    if not options.include_deps and arguments:
        project = project.selecting(arguments, dependencies=False)
    present = inspect_images(session.client, used_images(project)) if options.policy == "missing" else {}
    steps: dict[str, Step] = {}
    for name in sorted(project.services):
        service = project.services[name]
        if "provider" in service:
            continue
        image = image_of(service, name, project.name)
        subject = f"Image {image}"
        built = "build" in service and (options.ignore_buildable or not service.get("image"))
        if built or service.get("pull_policy") in ("never", "build") or image in present:
            steps.setdefault(image, Step(f"pull {image}", subject, "", "Skipped"))
            continue
        tolerate = options.ignore_pull_failures or "build" in service
        action = Pull(image, service.get("platform", ""), tolerate)
        steps[image] = Step(f"pull {image}", subject, "Pulling", "Pulled", action)
    for name in sorted(project.services):
        for image in images_of(project.services[name], name, project.name)[1:]:
            action = Pull(image, project.services[name].get("platform", ""), options.ignore_pull_failures)
            if image not in present:
                steps.setdefault(image, Step(f"pull {image}", f"Image {image}", "Pulling", "Pulled", action))
    stage.carry_out(list(steps.values()), quiet=options.quiet)
    return 0


def push(session: Session, options: Options, arguments: list[str]) -> int:
    """Push the images that services build."""
    stage = Stage(session, options)
    project = stage.project(arguments)
    if not options.include_deps and arguments:
        project = project.selecting(arguments, dependencies=False)
    steps = []
    for name in sorted(project.services):
        service = project.services[name]
        if "build" in service and service.get("image"):
            for image in (service["image"], *service["build"].get("tags", ())):
                action = Push(image, options.ignore_push_failures)
                steps.append(Step(f"push {image}", f"Image {image}", "Pushing", "Pushed", action))
    stage.carry_out(steps, quiet=options.quiet)
    return 0


def build(session: Session, options: Options, arguments: list[str]) -> int:
    """Build the images of services, or check or print how they are built."""
    from havre.cli.build import attestations

    stage = Stage(session, options)
    project = stage.project(arguments)
    if not options.with_dependencies and arguments:
        project = project.selecting(arguments, dependencies=False)
    names = [name for name in sorted(project.services) if "build" in project.services[name]]
    steps = build_steps(
        project,
        names,
        attestations=attestations((), options.provenance, options.sbom),
        no_cache=options.no_cache,
        pull=options.pull,
        args=tuple(options.build_arg),
        ssh=tuple(options.ssh),
        all_platforms=True,
        memory=options.memory,
    )
    if not steps:
        session.warn("No services to build")
    if options.print:
        from havre.compose.bake import bake_file

        builds = [step.action for step in steps.values() if isinstance(step.action, Build)]
        everything = project._replace(services={**project.disabled, **project.services})
        print(encode(bake_file(everything, builds, push=options.push, check=options.check), indent="  "))
        return 0
    if options.check:
        return _check(stage, steps)
    stage.carry_out(list(steps.values()), quiet=options.quiet)
    if options.push and not stage.dry_run:
        pushes = [
            Step(f"push {image}", f"Image {image}", "Pushing", "Pushed", Push(image))
            for name, service in sorted(project.services.items())
            if "build" in service
            for image in [image_of(service, name, project.name)]
        ]
        stage.carry_out(pushes, quiet=options.quiet)
    return 0


def _check(stage: Stage, steps: dict[str, Step]) -> int:
    """Check the Dockerfiles of the builds; 1 if there are warnings."""
    from havre.cli.build import report_checks
    from havre.client.buildsend import registry_config
    from havre.compose.build import check_build

    session, code = stage.session, 0
    for step in steps.values():
        if isinstance(step.action, Build):
            print(f"{step.action.key}: ", end="", flush=True)
            answer = check_build(session.client, step.action, registry_config(session.config))
            code |= report_checks(session.client.messages(answer))
    return code
