"""`import --change`, `commit --change`: applies instructions to an image's configuration without a build. Pure.

The changes are parsed as the lines of one Dockerfile and applied as the steps of a build: variables are expanded from
the configuration's environment, ENTRYPOINT resets an inherited CMD, shell forms use the configured shell.

Source: moby daemon/builder/dockerfile, BuildFromConfig.
"""

from __future__ import annotations

from collections.abc import Sequence

from havre.dockerfile.instructions import understand
from havre.dockerfile.plan import Surroundings, plan_steps
from havre.dockerfile.syntax import DockerfileError, UnknownInstruction, parse_lines
from havre.errors import InvalidInput
from havre.wire.config import Config

_VALID = (
    "CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR",
)  # fmt: skip


def apply_changes(config: Config, changes: Sequence[str]) -> Config:
    """`config` after the instructions. Raises `InvalidInput`, also if all changes are comments."""
    if not changes:
        return config
    try:
        escape, instructions = parse_lines("\n".join(changes).split("\n"))
        for each in instructions:
            if each.name not in _VALID:
                raise _refusal(each.word)
        commands = [understand(each, escape) for each in instructions]
        around = Surroundings(build_args={}, arguments={}, automatic={}, escape=escape)
        steps = plan_steps(commands, config, around)
    except UnknownInstruction as error:
        raise _refusal(error.needle) from None
    except DockerfileError as error:
        raise InvalidInput(error.problem, error.hint) from None
    if not steps:
        raise InvalidInput("file with no instructions", f"valid are {', '.join(_VALID)}")
    return steps[-1].config


def _refusal(word: str) -> InvalidInput:
    return InvalidInput(f"{word} is not a valid change command", f"valid are {', '.join(_VALID)}")
