"""The graph of a Dockerfile's stages: their dependencies, and the stages that the target needs. Pure.

    ARG V=1                                          stages   0 build   FROM golang:1
    FROM golang:$V AS build     --plan_graph-->               1         FROM scratch, needs 0
    FROM scratch                                     needed   0, 1      (in an order in which all can be built)
    COPY --from=build /a /a                          target   1

A stage may be used before its definition in COPY --from and in mounts, so cycles are possible; they are refused.

Source: the Dockerfile reference, "FROM", "Understand how ARG and FROM interact", "Automatic platform ARGs".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from havre.dockerfile.instructions import Arg, Command, Copy, From, Run, understand
from havre.dockerfile.syntax import Dockerfile, DockerfileError, nearest
from havre.dockerfile.words import expand
from havre.errors import InvalidInput
from havre.oci.platform import Platform, parse_platform

SCRATCH = "scratch"
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
PROXY_ARGS = (*_PROXIES, *(name.lower() for name in _PROXIES))


def proxy_environment(arguments: Mapping[str, str | None]) -> dict[str, str]:
    """The environment that RUN gets from these build arguments: proxies, in upper and lower case; upper case wins."""
    environment: dict[str, str] = {}
    for name in _PROXIES:
        value = arguments.get(name) or arguments.get(name.lower())
        if value is not None:
            environment |= {name: value, name.lower(): value}
    return environment


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage. `base` is an image's name, "scratch", or "" if the stage is based on the stage `after`."""

    index: int
    name: str
    base: str
    after: int | None
    platform: str
    commands: tuple[Command, ...]
    needs: tuple[int, ...] = ()
    line: int = 0
    original: str = ""

    @property
    def shown(self) -> str:
        """Its name, or BuildKit's name for an unnamed stage."""
        return self.name or f"stage-{self.index}"


@dataclass(frozen=True, kw_only=True)
class Graph:
    """The stages, the arguments declared before the first FROM, and the target."""

    stages: tuple[Stage, ...]
    arguments: Mapping[str, str]
    automatic: Mapping[str, str]
    target: int
    needed: tuple[int, ...]

    def find(self, name: str) -> int | None:
        """The index of the stage named `name`, or numbered so."""
        return _find(self.stages, name)

    def platform_of(self, stage: Stage, wanted: Platform) -> Platform:
        """The platform of a stage in a build for the platform `wanted`."""
        while stage.after is not None:
            stage = self.stages[stage.after]
        return parse_platform(stage.platform) if stage.platform else wanted

    def reaches(self, start: int, wanted: int) -> bool:
        """Report whether building the stage `start` needs the stage `wanted`."""
        return wanted in _order(self.stages, start)


def platform_arguments(target: Platform, host: Platform) -> dict[str, str]:
    """The automatic platform arguments (TARGETPLATFORM etc.), defined before the first FROM."""
    found: dict[str, str] = {}
    for prefix, platform in (("TARGET", target), ("BUILD", host)):
        found |= {
            f"{prefix}PLATFORM": str(platform),
            f"{prefix}OS": platform.os,
            f"{prefix}ARCH": platform.architecture,
            f"{prefix}VARIANT": platform.variant,
        }
    return found


def plan_graph(
    dockerfile: Dockerfile, build_args: Mapping[str, str | None], target: str, platform: Platform, host: Platform
) -> Graph:
    """The graph of a file. Raises `DockerfileError` with an excerpt of the file."""
    with dockerfile.located():
        commands = [understand(each, dockerfile.escape) for each in dockerfile.instructions]
        automatic = platform_arguments(platform, host)
        automatic |= {key: value for key, value in build_args.items() if key in automatic and value is not None}
        arguments, rest = _global_arguments(commands, build_args, automatic, dockerfile.escape)
        stages = _split_stages(rest, automatic | arguments, dockerfile.escape)
        stages = [replace(stage, needs=tuple(sorted(set(_needs(stage, stages))))) for stage in stages]
        wanted = _find_target(stages, target)
        return Graph(
            stages=tuple(stages),
            arguments=arguments,
            automatic=automatic | {"TARGETSTAGE": stages[wanted].name or "default"},
            target=wanted,
            needed=_order(stages, wanted),
        )


def _global_arguments(
    commands: Sequence[Command],
    build_args: Mapping[str, str | None],
    automatic: Mapping[str, str],
    escape: str,
) -> tuple[dict[str, str], Sequence[Command]]:
    """The values of the global arguments (ARG before the first FROM), and the commands from the first FROM on."""
    arguments: dict[str, str] = {}
    for index, command in enumerate(commands):
        if isinstance(command, From):
            return arguments, commands[index:]
        if not isinstance(command, Arg):
            raise DockerfileError("no build stage in current context", command.line, command.original.split()[0])
        for name, default in command.pairs:
            given = build_args.get(name)
            if given is not None:
                arguments[name] = given
            elif default is not None:
                arguments[name] = _expanded(default, {**automatic, **arguments}, escape, command)
    raise DockerfileError("no build stage in current context", commands[-1].line)


def _split_stages(commands: Sequence[Command], variables: Mapping[str, str], escape: str) -> list[Stage]:
    stages: list[Stage] = []
    bodies: list[list[Command]] = []
    for command in commands:
        if isinstance(command, From):
            stages.append(_begin(command, stages, variables, escape))
            bodies.append([])
        else:
            bodies[-1].append(command)
    return [replace(stage, commands=tuple(body)) for stage, body in zip(stages, bodies, strict=True)]


def _begin(command: From, earlier: Sequence[Stage], variables: Mapping[str, str], escape: str) -> Stage:
    image = _expanded(command.image, variables, escape, command)
    if not image:
        raise DockerfileError(
            f"base name ({command.image}) should not be blank: is its ARG declared before the first FROM?",
            command.line,
            command.image,
        )
    platform = _expanded(command.platform, variables, escape, command)
    if platform:
        try:
            parse_platform(platform)
        except InvalidInput as error:
            raise DockerfileError(error.message, command.line, command.platform) from None
    after = next((stage.index for stage in reversed(earlier) if stage.name == image.lower()), None)
    return Stage(
        index=len(earlier),
        name=command.name,
        base="" if after is not None else image,
        after=after,
        platform=platform,
        commands=(),
        line=command.line,
        original=command.original,
    )


def _expanded(text: str, variables: Mapping[str, str], escape: str, command: Command) -> str:
    try:
        return expand(text, variables, escape)
    except InvalidInput as error:
        raise DockerfileError(error.message, command.line, text) from None


def _needs(stage: Stage, stages: Sequence[Stage]) -> Iterator[int]:
    if stage.after is not None:
        yield stage.after
    for command in stage.commands:
        for name in sources_of(command):
            found = _find(stages, name)
            if found is not None:
                yield found
            elif name.isdecimal():
                raise DockerfileError(f"invalid from flag value {name}: no such stage", command.line, name)


def sources_of(command: Command) -> list[str]:
    """The names of stages, images or contexts that a command reads from."""
    if isinstance(command, Copy):
        return [command.from_] if command.from_ else []
    if isinstance(command, Run):
        return [mount.from_ for mount in command.mounts if mount.from_]
    return []


def _find(stages: Sequence[Stage], name: str) -> int | None:
    if name.isdecimal():
        return int(name) if int(name) < len(stages) else None
    return next((stage.index for stage in reversed(stages) if stage.name == name.lower()), None)


def _find_target(stages: Sequence[Stage], target: str) -> int:
    if not target:
        return len(stages) - 1
    found = _find(stages, target)
    if found is None:
        names = [stage.name for stage in stages if stage.name]
        raise DockerfileError(f'target stage "{target}" could not be found{nearest(target, names)}')
    return found


def _order(stages: Sequence[Stage], target: int) -> tuple[int, ...]:
    """The stages that `target` needs, in an order in which they can be built. Raises `DockerfileError` for a cycle."""
    order: list[int] = []
    path: list[int] = []
    work: list[tuple[int, bool]] = [(target, False)]
    while work:
        index, done = work.pop()
        if done:
            order.append(path.pop())
            continue
        if index in order:
            continue
        if index in path:
            circle = " -> ".join(stages[each].shown for each in [*path[path.index(index) :], index])
            raise DockerfileError(f"circular dependency detected on stage: {circle}", stages[index].line)
        path.append(index)
        work.append((index, True))
        work.extend((need, False) for need in reversed(stages[index].needs))
    return tuple(order)
