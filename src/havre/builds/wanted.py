"""The parts of a context that a build may read, so that the client need not send more.

    COPY a*.txt d/ /x     RUN --mount=type=bind,source=s     ONBUILD COPY o .    -->  a*.txt, d, s, o
    COPY $V /x            COPY . /x                          a base not here     -->  everything

Only sources that do not depend on the client or the time of reading are listed; in all other cases everything is
needed: variables, quotes, patterns beyond `*` and `?`, triggers of a base that is not in the store. Stages that are not
built need nothing.
"""

from __future__ import annotations

import posixpath
from collections.abc import Awaitable, Callable, Iterator, Sequence

from havre.builds.request import MAIN_CONTEXT, BuildRequest
from havre.dockerfile.graph import SCRATCH, Graph, Stage
from havre.dockerfile.instructions import Command, Copy, OnBuild, Run
from havre.dockerfile.plan import read_triggers
from havre.errors import HavreError
from havre.images.images import Images

EVERYTHING = [""]
_OPEN = frozenset("$\"'\\`[")

Triggers = Callable[[Stage], Awaitable[Sequence[str] | None]]


async def wanted_of(name: str, graph: Graph, local_contexts: frozenset[str], triggers: Triggers) -> list[str]:
    """Paths and patterns of the context `name`, sorted; [""] is everything.

    `triggers` returns those of a stage's base image, None if unknown.
    """
    wanted: set[str] = set()
    for index in graph.needed:
        stage = graph.stages[index]
        if stage.base == name:
            return EVERYTHING
        inherited = await _inherited(stage, graph, local_contexts, triggers)
        if inherited is None:
            return EVERYTHING
        for command in (*inherited, *stage.commands):
            for from_, source in _reads(command):
                if "$" in from_:
                    return EVERYTHING
                if (from_ or MAIN_CONTEXT) == name:
                    wanted.add(source)
    if any(map(_is_open, wanted)):
        return EVERYTHING
    return sorted({posixpath.normpath(f"/{source}").lstrip("/") for source in wanted})


async def _inherited(
    stage: Stage, graph: Graph, local_contexts: frozenset[str], triggers: Triggers
) -> Sequence[Command] | None:
    """The triggers that a stage inherits from its base."""
    if stage.after is not None:
        before = graph.stages[stage.after].commands
        return read_triggers([command.trigger for command in before if isinstance(command, OnBuild)])
    if stage.base in ("", SCRATCH) or stage.base in local_contexts:
        return ()
    texts = await triggers(stage)
    return None if texts is None else read_triggers(texts)


def _reads(command: Command) -> Iterator[tuple[str, str]]:
    """The sources that a command reads, each with its context or stage."""
    if isinstance(command, Copy):
        yield from ((command.from_, source) for source in command.sources)
    elif isinstance(command, Run):
        for mount in command.mounts:
            if mount.type == "bind" or (mount.type == "cache" and mount.from_):
                yield mount.from_, mount.source


def _is_open(source: str) -> bool:
    """Report whether a source is everything, or can only be resolved during the build."""
    return not _OPEN.isdisjoint(source) or "**" in source or posixpath.normpath(f"/{source}").strip("/") == ""


async def triggers_here(images: Images, request: BuildRequest, stage: Stage) -> Sequence[str] | None:
    """The triggers of a stage's base image, if it is in the store and will not be pulled."""
    name = request.contexts.get(stage.base, stage.base).removeprefix("docker-image://")
    if request.pull or "://" in name:
        return None
    try:
        image = await images.acquire(name, stage.platform or request.platform or None)
    except HavreError:
        return None
    return image.config.on_build or ()
