"""The rules of build checks: findings in a file, and in a stage once its steps are planned. Pure.

    Dockerfile, Graph          --check_file-->   names and casing, FROM lines, comments
    Stage's commands and steps --check_stage-->  rules that depend on variables, the base's configuration, .dockerignore

A stage is checked when it is planned: a build checks the stages that it needs, `--check` all of them.

Source: moby/buildkit frontend/dockerfile/dockerfile2llb/validations.go and docs/rules for what each rule means.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence

from havre.dockerfile.checks import Finding
from havre.dockerfile.graph import Graph, Stage
from havre.dockerfile.ignore import IgnoreRules
from havre.dockerfile.instructions import Arg, Command, Env, From, Health, Label, Process, Text, Words, understand
from havre.dockerfile.plan import CopyAction, Step
from havre.dockerfile.syntax import Dockerfile, Instruction, closest
from havre.dockerfile.words import expand
from havre.errors import InvalidInput
from havre.oci.platform import Platform, parse_platform
from havre.oci.reference import parse_reference
from havre.wire.config import Config

_RESERVED = ("context", "scratch")
_SECRET = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_NO_SECRET = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)
_WHOLE_CONTEXT = ("*", "**", "**/*")


def _found(instruction: Instruction, rule: str, message: str) -> Finding:
    return Finding(instruction.line, instruction.end, rule, message)


# -- the file


def check_file(dockerfile: Dockerfile, graph: Graph) -> list[Finding]:
    """The findings that do not depend on any base image."""
    return [*_casing(dockerfile), *_lines(dockerfile), *_stage_names(dockerfile, graph), *_bases(dockerfile, graph)]


def _casing(dockerfile: Dockerfile) -> Iterator[Finding]:
    """The majority decides between upper and lower case; instructions before the first FROM are not counted."""
    words = [(each, each.word) for each in _in_stages(dockerfile)]
    lower = sum(word.islower() for _, word in words)
    wanted, prevails = ("lowercase", str.islower) if lower > len(_upper(words)) else ("uppercase", str.isupper)
    for instruction, word in words:
        if not prevails(word):
            message = f"Command '{word}' should match the case of the command majority ({wanted})"
            yield _found(instruction, "ConsistentInstructionCasing", message)


def _upper(words: Sequence[tuple[Instruction, str]]) -> list[str]:
    return [word for _, word in words if word.isupper()]


def _in_stages(dockerfile: Dockerfile) -> list[Instruction]:
    instructions = dockerfile.instructions
    first = next((at for at, each in enumerate(instructions) if each.name == "FROM"), len(instructions))
    return list(instructions[first:])


def _lines(dockerfile: Dockerfile) -> Iterator[Finding]:
    for line in dockerfile.empty_continuations:
        yield Finding(line, line, "NoEmptyContinuation", "Empty continuation line")
    for instruction in dockerfile.instructions:
        if instruction.name == "MAINTAINER":
            message = "Maintainer instruction is deprecated in favor of using label"
            yield _found(instruction, "MaintainerDeprecated", message)
        yield from _description(instruction, dockerfile.escape)


def _description(instruction: Instruction, escape: str) -> Iterator[Finding]:
    """The comment above an ARG or a named stage is its description and should begin with the name."""
    if instruction.name not in ("ARG", "FROM") or not instruction.comments:
        return
    command = understand(instruction, escape)
    names = [command.name] if isinstance(command, From) else []
    names += [name for name, _ in command.pairs] if isinstance(command, Arg) else []
    if names and names[0] and instruction.comments[-1].split(" ")[0] not in names:
        example = names[0] if len(names) == 1 else "<arg_key>"
        message = f"Comment for {instruction.name} should follow the format: `# {example} <description>`"
        yield _found(instruction, "InvalidDefinitionDescription", message)


def _stage_names(dockerfile: Dockerfile, graph: Graph) -> Iterator[Finding]:
    seen: set[str] = set()
    froms = [each for each in dockerfile.instructions if each.name == "FROM"]
    for instruction, stage in zip(froms, graph.stages, strict=True):
        words = instruction.rest.split()
        if len(words) == 3:
            _, keyword, written = words
            if written != written.lower():
                yield _found(instruction, "StageNameCasing", f"Stage name '{written}' should be lowercase")
            word = instruction.word
            if (word.islower() and not keyword.islower()) or (word.isupper() and not keyword.isupper()):
                yield _found(instruction, "FromAsCasing", f"'{keyword}' and '{word}' keywords' casing do not match")
        if stage.name in _RESERVED:
            message = f'Stage name should not use the same name as reserved stage "{stage.name}"'
            yield _found(instruction, "ReservedStageName", message)
        if stage.name in seen:
            message = f'Duplicate stage name "{stage.name}", stage names should be unique'
            yield _found(instruction, "DuplicateStageName", message)
        seen |= {stage.name} - {""}


def _bases(dockerfile: Dockerfile, graph: Graph) -> Iterator[Finding]:
    """Names and platforms of the bases, and the arguments used in them."""
    escape = dockerfile.escape
    globals_ = _global_defaults(dockerfile, graph)
    declared = {*graph.automatic, *globals_}
    variables = {**graph.automatic, **graph.arguments}
    defaults = {**graph.automatic, **{key: value for key, value in globals_.items() if value is not None}}
    for instruction in (each for each in dockerfile.instructions if each.name == "FROM"):
        command = understand(instruction, escape)
        assert isinstance(command, From)
        for text in filter(None, (command.image, command.platform)):
            for name in _unset_in(text, variables, escape):
                if name not in declared:
                    similar = closest(name, declared)
                    hint = f" (did you mean {similar}?)" if similar else ""
                    yield _found(instruction, "UndefinedArgInFrom", f"FROM argument '{name}' is not declared{hint}")
        if not _is_reference(expand(command.image, defaults, escape)):
            message = f"Default value for ARG {command.image} results in empty or invalid base image name"
            yield _found(instruction, "InvalidDefaultArgInFrom", message)
        if command.platform:
            yield from _platform(instruction, command)


def _global_defaults(dockerfile: Dockerfile, graph: Graph) -> dict[str, str | None]:
    """The global arguments (ARG before the first FROM) and their defaults."""
    found: dict[str, str | None] = {}
    for instruction in dockerfile.instructions:
        if instruction.name == "FROM":
            break
        command = understand(instruction, dockerfile.escape)
        for name, default in command.pairs if isinstance(command, Arg) else ():
            known = {**graph.automatic, **{key: value for key, value in found.items() if value is not None}}
            found[name] = None if default is None else expand(default, known, dockerfile.escape)
    return found


def _unset_in(text: str, variables: Mapping[str, str], escape: str) -> list[str]:
    names: list[str] = []
    expand(text, variables, escape, unset=names.append)
    return names


def _is_reference(text: str) -> bool:
    try:
        parse_reference(text)
    except InvalidInput:
        return False
    return True


def _platform(instruction: Instruction, command: From) -> Iterator[Finding]:
    if command.platform.strip("\"'") in ("$TARGETPLATFORM", "${TARGETPLATFORM}"):
        message = (
            f"Setting platform to predefined {command.platform} in FROM is redundant as this is the default behavior"
        )
        yield _found(instruction, "RedundantTargetPlatform", message)
    elif "$" not in command.platform:
        platform = parse_platform(command.platform)
        if platform.os not in command.name and platform.architecture not in command.name:
            message = f'FROM --platform flag should not use constant value "{command.platform}"'
            yield _found(instruction, "FromPlatformFlagConstDisallowed", message)


# -- a stage


def check_base(dockerfile: Dockerfile, stage: Stage, found: Platform, wanted: Platform) -> list[Finding]:
    """The findings for a stage whose base image is for the platform `found`."""
    if found.same_as(wanted):
        return []
    instruction = next(each for each in dockerfile.instructions if each.line == stage.line)
    message = f'Base image {stage.base} was pulled with platform "{found}", expected "{wanted}" for current build'
    return [_found(instruction, "InvalidBaseImagePlatform", message)]


def check_stage(
    dockerfile: Dockerfile,
    stage: Stage,
    steps: Sequence[Step],
    base: Config,
    ignored: Sequence[str],
    *,
    placed: bool,
    base_known: bool = True,
) -> list[Finding]:
    """The findings for a stage whose instructions are planned as `steps` on the configuration `base`.

    `placed` reports that a stage below it has a WORKDIR. Rules that depend on the base are applied only if
    `base_known`.
    """
    at_line = {each.line: each for each in dockerfile.instructions}
    rules = None if any(pattern.startswith("!") for pattern in ignored) else IgnoreRules(ignored)
    found: list[Finding] = []
    shell = base.shell
    last: dict[str, Instruction] = {}
    for command, step in zip(stage.commands, steps, strict=True):
        instruction = at_line[command.line]
        if base_known:
            found += [
                _found(instruction, "UndefinedVar", f"Usage of undefined variable '${name}'{_hint(similar)}")
                for name, similar in step.unset
            ]
        if isinstance(command, Process | Health):
            found += _once(last, instruction)
        if isinstance(command, Process) and command.script and not shell and base_known:
            why = "to prevent unintended behavior related to OS signals"
            message = f"JSON arguments recommended for {instruction.word} {why}"
            found.append(_found(instruction, "JSONArgsRecommended", message))
        if isinstance(command, Text) and command.kind == "WORKDIR":
            found += _workdir(instruction, step, placed=placed)
            placed = True
        found += _of_values(command, instruction)
        found += _of_words(command, instruction, step, rules, ignored)
        shell = step.config.shell
    return found


def is_placed(stage: Stage, graph: Graph) -> bool:
    """Report whether a stage that this one is based on has a WORKDIR."""
    after = stage.after
    while after is not None:
        stage = graph.stages[after]
        if any(isinstance(each, Text) and each.kind == "WORKDIR" for each in stage.commands):
            return True
        after = stage.after
    return False


def _hint(similar: str) -> str:
    return f" (did you mean ${similar}?)" if similar else ""


def _once(last: dict[str, Instruction], instruction: Instruction) -> Iterator[Finding]:
    """Reports the earlier of two equal instructions, which has no effect."""
    before = last.get(instruction.name)
    if before is not None:
        message = (
            f"Multiple {instruction.word} instructions should not be used in the same stage because only the last one"
            " will be used"
        )
        yield _found(before, "MultipleInstructionsDisallowed", message)
    last[instruction.name] = instruction


def _workdir(instruction: Instruction, step: Step, *, placed: bool) -> Iterator[Finding]:
    path = step.words[0]
    if not placed and not path.startswith("/"):
        message = f'Relative workdir "{path}" can have unexpected results if the base image changes'
        yield _found(instruction, "WorkdirRelativePath", message)


def _of_values(command: Command, instruction: Instruction) -> Iterator[Finding]:
    """ARG, ENV and LABEL: legacy syntax, and names that look like secrets."""
    word = instruction.word
    if isinstance(command, Env | Label) and "=" not in instruction.rest.split(None, 1)[0]:
        message = f'"{word} key=value" should be used instead of legacy "{word} key value" format'
        yield _found(instruction, "LegacyKeyValueFormat", message)
    if isinstance(command, Arg | Env):
        for name in (pair[0] for pair in command.pairs):
            if _SECRET.search(name) and not _NO_SECRET.search(name):
                message = f'Do not use ARG or ENV instructions for sensitive data ({instruction.name} "{name}")'
                yield _found(instruction, "SecretsUsedInArgOrEnv", message)


def _of_words(
    command: Command, instruction: Instruction, step: Step, rules: IgnoreRules | None, ignored: Sequence[str]
) -> Iterator[Finding]:
    """Ports of EXPOSE; sources of COPY and ADD that .dockerignore excludes."""
    if isinstance(command, Words) and command.kind == "EXPOSE":
        for port in step.words:
            protocol = port.partition("/")[2]
            if protocol != protocol.lower():
                message = f"Defined protocol '{port}' in EXPOSE instruction should be lowercase"
                yield _found(instruction, "ExposeProtoCasing", message)
            if ":" in port:
                message = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                yield _found(instruction, "ExposeInvalidFormat", message)
    if isinstance(step.action, CopyAction) and not step.action.from_ and rules is not None:
        verb = instruction.name.capitalize()
        for source in step.action.sources:
            if _is_left_out(source, rules, ignored):
                shown = posixpath.normpath(source)
                message = f'Attempting to {verb} file "{shown}" that is excluded by .dockerignore'
                yield _found(instruction, "CopyIgnoredFile", message)


def _is_left_out(source: str, rules: IgnoreRules, ignored: Sequence[str]) -> bool:
    path = posixpath.normpath(source).lstrip("/")
    if path in ("", "."):
        return any(pattern.strip("/") in _WHOLE_CONTEXT for pattern in ignored)
    return "://" not in source and rules.ignores(path)
