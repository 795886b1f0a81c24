"""Runs the build checks of one build: while it runs, or before it starts if findings are errors.

a normal build         findings of the file at the start, of a stage when the stage is planned
error=true, --check    every stage is planned first; configurations of bases are looked up, no image is pulled
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from havre.aio import in_thread
from havre.builds.progress import BuildProgress, Warned
from havre.builds.request import BuildRequest, DockerfileBytes
from havre.dockerfile.checkrules import check_base, check_file, check_stage, is_placed
from havre.dockerfile.checks import RULES, Finding, Policy, permitted
from havre.dockerfile.graph import SCRATCH, Graph, Stage
from havre.dockerfile.ignore import read_ignore_file
from havre.dockerfile.plan import Step, Surroundings, begin, plan_steps
from havre.dockerfile.syntax import Dockerfile
from havre.oci.platform import Platform, parse_platform
from havre.wire.config import Config

Base = tuple[Config, Platform]
LookUp = Callable[[str, str], Awaitable[Base | None]]
"""Looks up the configuration and the platform of an image by name and platform; None if unknown."""


@dataclass(frozen=True)
class Checks:
    """The checks of one file, built for a platform; `tell` reports warnings."""

    dockerfile: Dockerfile
    graph: Graph
    policy: Policy
    source: DockerfileBytes
    tell: BuildProgress
    platform: Platform

    def of_file(self) -> list[Finding]:
        """The findings for the whole file."""
        return self._permitted(check_file(self.dockerfile, self.graph))

    def of_base(self, stage: Stage, found: Platform, wanted: Platform) -> list[Finding]:
        """The findings for the base of a stage."""
        return self._permitted(check_base(self.dockerfile, stage, found, wanted))

    def of_stage(self, stage: Stage, steps: Sequence[Step], base: Config, *, base_known: bool = True) -> list[Finding]:
        """The findings for a stage; `steps` are those of its own instructions only, without the base's triggers."""
        ignored = read_ignore_file((self.source.ignore or b"").decode(errors="replace"))
        placed = is_placed(stage, self.graph)
        found = check_stage(self.dockerfile, stage, steps, base, ignored, placed=placed, base_known=base_known)
        return self._permitted(found)

    def _permitted(self, found: Sequence[Finding]) -> list[Finding]:
        return permitted(found, self.policy, self.dockerfile)

    def warn(self, findings: Sequence[Finding]) -> None:
        """Report findings to the build's progress."""
        for each in findings:
            rule = RULES[each.rule]
            self.tell(
                Warned(each.rule, each.message, each.line, each.end, rule.description, rule.url, file=self.source)
            )

    async def of_all(self, request: BuildRequest, look_up: LookUp) -> list[Finding]:
        """The findings for the file and for every stage, or for the stages that the request's target needs."""
        found = await in_thread(self.of_file)
        configs: dict[int, tuple[Config, bool]] = {}
        stages = self.graph.needed if request.target else range(len(self.graph.stages))
        for stage in (self.graph.stages[index] for index in stages):
            base, known = Config(), True
            if stage.after is not None:
                base, known = configs[stage.after]
            elif stage.base != SCRATCH:
                wanted = stage.platform or request.platform
                looked_up = await look_up(stage.base, wanted)
                known = looked_up is not None
                if looked_up is not None:
                    base, platform = looked_up
                    expected = parse_platform(wanted) if wanted else self.platform
                    found += await in_thread(self.of_base, stage, platform, expected)
            steps = await in_thread(self._plan, stage, begin(base), request)
            found += await in_thread(self.of_stage, stage, steps, base, base_known=known)
            configs[stage.index] = (steps[-1].config if steps else base), known
        return sorted(found)

    def _plan(self, stage: Stage, config: Config, request: BuildRequest) -> list[Step]:
        around = Surroundings(
            build_args=request.build_args,
            arguments=self.graph.arguments,
            automatic=self.graph.automatic,
            escape=self.dockerfile.escape,
        )
        with self.dockerfile.located():
            return plan_steps(stage.commands, config, around)
