"""A Dockerfile's graph as text, for golden files: bases are not looked up, images are empty."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import msgspec

from havre.builds.checking import Base, Checks
from havre.builds.progress import unreported
from havre.builds.request import BuildRequest, DockerfileBytes
from havre.dockerfile.checks import policy_of
from havre.dockerfile.graph import plan_graph
from havre.dockerfile.plan import DEFAULT_PATH, Step, Surroundings, begin, plan_steps, read_triggers
from havre.dockerfile.syntax import DockerfileError, parse_dockerfile
from havre.oci.platform import Platform, parse_platform
from havre.wire.config import Config

_HOST = Platform("amd64", "linux")
BUILD_ARGS = {"GIVEN": "from-client", "HTTP_PROXY": "http://proxy.example"}


def render(data: bytes, target: str = "") -> str:
    """The graph of a Dockerfile, or its error."""
    try:
        return _render(data, target)
    except DockerfileError as error:
        return f"{error.message}\n"


def render_checks(data: bytes, ignore: bytes = b"") -> str:
    """The findings of build checks in a Dockerfile, one per line."""
    dockerfile = parse_dockerfile(data)
    graph = plan_graph(dockerfile, BUILD_ARGS, "", _HOST, _HOST)
    source = DockerfileBytes("Dockerfile", data, ignore)
    policy = policy_of(dockerfile, BUILD_ARGS)
    checks = Checks(dockerfile, graph, policy, source, unreported, _HOST)

    async def empty(name: str, platform: str) -> Base | None:
        return Config(env=["PATH=/bin"]), parse_platform(platform) if platform else _HOST

    found = asyncio.run(checks.of_all(BuildRequest(build_args=BUILD_ARGS), empty))
    return "".join(f"{each.line} {each.rule}: {each.message}\n" for each in found) or "nothing\n"


def _render(data: bytes, target: str) -> str:
    dockerfile = parse_dockerfile(data)
    graph = plan_graph(dockerfile, BUILD_ARGS, target, _HOST, _HOST)
    lines = [f"needed {', '.join(graph.stages[each].shown for each in graph.needed)}"]
    lines += [f"arg {key}={value}" for key, value in graph.arguments.items()]
    configs: dict[int, Config] = {}
    for index in graph.needed:
        stage = graph.stages[index]
        base = stage.base or f"stage {stage.after}"
        platform = f" for {stage.platform}" if stage.platform else ""
        lines.append(f"\nstage {stage.index} {stage.shown} from {base}{platform}")
        base_config = configs[stage.after] if stage.after is not None else Config()
        config = begin(base_config)
        commands = (*read_triggers(base_config.on_build or []), *stage.commands)
        around = Surroundings(
            build_args=BUILD_ARGS, arguments=graph.arguments, automatic=graph.automatic, escape=dockerfile.escape
        )
        with dockerfile.located():
            steps = plan_steps(commands, config, around)
        for step in steps:
            lines.append(f"{step.line:>4} {step.created_by}".replace("\n", "\\n"))
            lines += _action(step)
        configs[index] = steps[-1].config if steps else config
        lines.append(f"     = {_compact(msgspec.to_builtins(configs[index]))}")
    return "\n".join(lines) + "\n"


def _action(step: Step) -> list[str]:
    if step.action is None:
        return []
    fields = {
        field.name: getattr(step.action, field.name)
        for field in dataclasses.fields(step.action)
        if field.name != "env" and getattr(step.action, field.name) != field.default
    }
    return [f"     {name}: {_text(value)}" for name, value in fields.items() if value not in ("", (), None, False)]


def _text(value: Any) -> str:
    return msgspec.json.encode(_bare(value)).decode()


def _bare(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        named = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {field.name: _bare(each) for field, each in named if each != field.default}
    return [_bare(each) for each in value] if isinstance(value, tuple) else value


def _compact(config: dict[str, Any]) -> str:
    kept = {key: value for key, value in config.items() if value not in (None, "", False, [], {})}
    return msgspec.json.encode(kept).decode().replace(f"PATH={DEFAULT_PATH}", "PATH")
