"""Plans which images are pulled or built before containers are created, by `pull_policy` and options.

missing (default)   pull if absent; build instead if the service has a build section
always              always pull
never               neither pull nor build
build               always build
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from havre.compose.project import Project, Service, image_of, images_of
from havre.compose.steps import Build, Pull, Step
from havre.errors import InvalidInput
from havre.golang.times import parse_time

_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
POLICIES = ("policy", "always", "missing", "never", "build", "if_not_present")


class ImageOptions(NamedTuple):
    """`pull` is one of POLICIES, `build` builds everything that can be built, `no_build` builds nothing, `quiet_build`
    builds without showing progress.
    """

    pull: str = "policy"
    build: bool = False
    no_build: bool = False
    quiet_build: bool = False


def plan_images(project: Project, present: Mapping[str, Mapping[str, Any]], options: ImageOptions) -> list[Step]:
    """The steps that provide the images of all services; `present` are inspected images by name."""
    if options.pull not in POLICIES:
        raise InvalidInput(f'invalid --pull option "{options.pull}"; it is one of {", ".join(POLICIES[1:5])}')
    built: dict[str, str] = {}
    steps: dict[str, Step] = {}
    for name in sorted(project.services):
        service = project.services[name]
        image = image_of(service, name, project.name)
        here = image in present
        policy = options.pull
        if policy == "policy":
            policy = _due(service, present.get(image))
        if _builds(service, policy, here=here, options=options):
            built.setdefault(image, name)
        elif policy == "always" or (policy in ("missing", "if_not_present") and not here and "build" not in service):
            action = Pull(image, service.get("platform", ""))
            steps.setdefault(image, Step(f"pull {image}", f"Image {image}", "Pulling", "Pulled", action))
        for other in images_of(service, name, project.name)[1:]:
            policy = _due(service, present.get(other)) if options.pull == "policy" else options.pull
            if policy == "always" or (policy != "never" and other not in present):
                action = Pull(other, service.get("platform", ""))
                steps.setdefault(other, Step(f"pull {other}", f"Image {other}", "Pulling", "Pulled", action))
    builds = build_steps(project, built.values(), set(present) - set(built))
    if options.quiet_build:
        builds = {image: step._replace(doing="", done="") for image, step in builds.items()}
    return list((steps | builds).values())


def _due(service: Service, image: Mapping[str, Any] | None) -> str:
    """The service's policy; one that says how often is `always` when that time has passed, otherwise `missing`."""
    policy: str = service.get("pull_policy", "missing")
    if (age_s := _refreshed_after_s(policy, service)) is None:
        return policy
    tagged = (image or {}).get("Metadata", {}).get("LastTagTime", "")
    return "always" if image is None or not tagged or parse_time(tagged)[0] + age_s < time.time() else "missing"


def _refreshed_after_s(policy: str, service: Service) -> int | None:
    """The age from which on the image is pulled again, in seconds; None where it is not."""
    text = {"daily": "1d", "weekly": "1w", "refresh": service.get("pull_refresh_after", "")}.get(policy)
    if text is None:
        text = policy.removeprefix("every_") if policy.startswith("every_") else ""
    parts = re.findall(r"(\d+)([wdhms])", text)
    return sum(int(number) * _SECONDS[unit] for number, unit in parts) if parts else None


def _builds(service: Service, policy: str, *, here: bool, options: ImageOptions) -> bool:
    if "build" not in service or options.no_build:
        return False
    return options.build or policy == "build" or (not here and policy != "never")


def build_steps(
    project: Project, names: Iterable[str], present: Collection[str] = (), **wishes: Any
) -> dict[str, Step]:
    """The steps that build services' images, by image; preceded by those of services that they are built from
    (`service:NAME`), unless their images are `present`. Raises InvalidInput for a cycle.
    """
    everything = project._replace(services={**project.disabled, **project.services})
    steps: dict[str, Step] = {}

    def add(name: str, chain: tuple[str, ...]) -> str:
        if name in chain:
            raise InvalidInput(f"builds wait for each other: {' -> '.join((*chain, name))}")
        service = everything.services[name]
        image = image_of(service, name, project.name)
        contexts = service["build"].get("additional_contexts", {}).values()
        bases = sorted({text.removeprefix("service:") for text in contexts if text.startswith("service:")})
        missing = [base for base in bases if image_of(everything.services[base], base, project.name) not in present]
        after = tuple(add(base, (*chain, name)) for base in missing)
        action = Build(everything, name, image, **wishes)
        steps.setdefault(image, Step(f"build {image}", f"Service {name}", "Building", "Built", action, after))
        return f"build {image}"

    for name in names:
        add(name, ())
    return steps
