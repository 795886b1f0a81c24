"""What a Dockerfile can be asked for: the parameters of a target, and the list of targets. Pure.

    # version of the base                                BUILD ARG   VALUE   DESCRIPTION
    ARG version=3                    --render_outline--> version     3       of the base
    FROM alpine:$version AS app
    RUN --mount=type=secret,id=key                       SECRET      REQUIRED
                                                         key

Arguments are listed if the target or a stage that it needs declares them or uses them in FROM, with the arguments on
which their values depend. Of two with the same name the target's own counts, then its base's. An ARG without a default
takes location, value and description from the global one. Descriptions are comments that begin with the name.

Source: moby/buildkit frontend/subrequests/outline, targets; frontend/dockerfile/dockerfile2llb/outline.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from havre.dockerfile.graph import Graph, Stage
from havre.dockerfile.instructions import Arg, Env, From, Run, understand
from havre.dockerfile.mounts import RunMount, secret_id
from havre.dockerfile.syntax import Dockerfile, DockerfileError, Instruction
from havre.dockerfile.words import expand
from havre.errors import InvalidInput

_DEFAULT_SSH = "default"


@dataclass(frozen=True)
class Report:
    """An answer about a Dockerfile: a text for users, a JSON document for tools."""

    text: str
    document: bytes


@dataclass(frozen=True)
class _Argument:
    instruction: Instruction
    name: str
    value: str | None = None
    uses: frozenset[str] = frozenset()

    def described(self) -> dict[str, object]:
        return _without_empty(
            name=self.name,
            description=_description(self.instruction, self.name),
            value=self.value or "",
            location=_location(self.instruction),
        )


@dataclass(frozen=True)
class _Lent:
    """A secret or SSH agent."""

    instruction: Instruction
    name: str
    required: bool

    def described(self) -> dict[str, object]:
        return _without_empty(name=self.name, required=self.required, location=_location(self.instruction))


@dataclass
class _Outline:
    """The parameters of stages; the first mention of a name counts."""

    arguments: dict[str, _Argument] = field(default_factory=dict)
    secrets: dict[str, _Lent] = field(default_factory=dict)
    ssh: dict[str, _Lent] = field(default_factory=dict)

    def add(self, other: _Outline) -> None:
        self.arguments = other.arguments | self.arguments
        self.secrets = other.secrets | self.secrets
        self.ssh = other.ssh | self.ssh


class _Variables(dict[str, str]):
    """Variables; `read` are the names of those that were used."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(values)
        self.read: set[str] = set()

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        if name in self:
            self.read.add(name)
        return super().get(name, default)


def render_outline(
    dockerfile: Dockerfile,
    graph: Graph,
    data: bytes,
    build_args: Mapping[str, str | None],
    bases: Mapping[int, Mapping[str, str]],
) -> Report:
    """The parameters of the graph's target. `bases` are environments of base images, by stage, as far as known.

    `data` is the file's text as sent. Raises `DockerfileError`.
    """
    with dockerfile.located():
        outliner = _Outliner(dockerfile, graph, build_args, bases)
        found = outliner.of_target()
    stage = graph.stages[graph.target]
    document = _without_empty(
        name=stage.name,
        description=_description(outliner.instruction(stage.line), stage.name),
        args=_described(found.arguments),
        secrets=_described(found.secrets),
        ssh=_described(found.ssh),
        sources=[data],
    )
    return Report(_outline_text(document), _encode(document))


def list_targets(dockerfile: Dockerfile, data: bytes) -> Report:
    """All stages, as written; the last is the default. Raises `DockerfileError`."""
    targets = []
    with dockerfile.located():
        parsed = [
            (each, understand(each, dockerfile.escape)) for each in dockerfile.instructions if each.name == "FROM"
        ]
        stages = [(instruction, command) for instruction, command in parsed if isinstance(command, From)]
        if not stages:
            raise DockerfileError("dockerfile contains no stages to build")
    for number, (instruction, command) in enumerate(stages, 1):
        targets.append(
            _without_empty(
                name=command.name,
                default=number == len(stages),
                description=_description(instruction, command.name),
                base=command.image,
                platform=command.platform,
                location=_location(instruction),
            )
        )
    rows = [["TARGET", "DESCRIPTION"]]
    for each in targets:
        name = f"{each.get('name', '')} (default)".strip() if "default" in each else str(each.get("name", ""))
        rows.append([name, str(each.get("description", ""))])
    return Report(render_rows(rows, 1), _encode({"targets": targets, "sources": [data]}))


class _Outliner:
    """Collects the parameters of stages."""

    def __init__(
        self,
        dockerfile: Dockerfile,
        graph: Graph,
        build_args: Mapping[str, str | None],
        bases: Mapping[int, Mapping[str, str]],
    ) -> None:
        self._graph = graph
        self._escape = dockerfile.escape
        self._given = {name: value for name, value in build_args.items() if value is not None}
        self._bases = bases
        self._by_line = {each.line: each for each in dockerfile.instructions}
        self._global: dict[str, _Argument] = {}
        for instruction in dockerfile.instructions:
            if instruction.name == "FROM":
                break
            self._declare_global(instruction)

    def instruction(self, line: int) -> Instruction:
        """The instruction that begins at a line."""
        return self._by_line[line]

    def _declare_global(self, instruction: Instruction) -> None:
        command = understand(instruction, self._escape)
        assert isinstance(command, Arg)
        for name, default in command.pairs:
            values = {known: each.value for known, each in self._global.items() if each.value is not None}
            found = _Argument(instruction, name, self._given.get(name))
            if found.value is None and default is not None:
                value, uses = self._expanded(default, {**self._graph.automatic, **values}, instruction.line)
                if name in uses and name in self._global:
                    uses |= self._global[name].uses
                found = replace(found, value=value, uses=uses - {name})
            self._global[name] = found

    def of_target(self) -> _Outline:
        """The parameters of the target: its own, then its base's, then those of the stages from which it copies."""
        found = _Outline()
        work, seen = [self._graph.target], set()
        variables: dict[int, Mapping[str, str]] = {}
        outlines: dict[int, _Outline] = {}
        for index in self._graph.needed:
            stage = self._graph.stages[index]
            around = variables.get(stage.after, {}) if stage.after is not None else self._bases.get(index, {})
            outlines[index], variables[index] = self._of_stage(stage, around)
        while work:
            index = work.pop()
            if index in seen:
                continue
            seen.add(index)
            found.add(outlines[index])
            stage = self._graph.stages[index]
            work += [need for need in reversed(stage.needs) if need != stage.after]
            work += [] if stage.after is None else [stage.after]
        return found

    def _of_stage(self, stage: Stage, around: Mapping[str, str]) -> tuple[_Outline, Mapping[str, str]]:
        """The stage's own parameters, and its variables at its end."""
        variables, found = dict(around), _Outline()
        known, used = dict(self._global), self._used_in_from(stage)
        for command in stage.commands:
            instruction = self._by_line[command.line]
            if isinstance(command, Arg):
                for name, default in command.pairs:
                    used.add(name)
                    self._declare(instruction, name, default, variables, known)
            elif isinstance(command, Env):
                before, line = dict(variables), command.line
                for pair in command.pairs:
                    name, value = (self._expanded(text, before, line)[0] for text in pair)
                    variables[name] = value
            elif isinstance(command, Run):
                for mount in command.mounts:
                    self._lend(mount, instruction, variables, found)
        for name in self._with_dependencies(used, known):
            found.arguments[name] = known[name]
        return found, variables

    def _used_in_from(self, stage: Stage) -> set[str]:
        command = understand(self._by_line[stage.line], self._escape)
        assert isinstance(command, From)
        variables = {**self._graph.automatic, **self._graph.arguments}
        expanded = (self._expanded(text, variables, stage.line) for text in (command.image, command.platform))
        return {name for _, read in expanded for name in read}

    def _declare(
        self,
        instruction: Instruction,
        name: str,
        default: str | None,
        variables: dict[str, str],
        known: dict[str, _Argument],
    ) -> None:
        inherited = self._graph.arguments.get(name, self._graph.automatic.get(name))
        value = self._given.get(name)
        if value is None and default is not None:
            value = self._expanded(default, variables, instruction.line)[0]
        if value is None and inherited is not None:
            variables[name] = inherited
            return
        if value is not None:
            variables[name] = value
        known[name] = _Argument(instruction, name, value)

    def _lend(self, mount: RunMount, instruction: Instruction, variables: Mapping[str, str], found: _Outline) -> None:
        if mount.type == "secret":
            id = self._expanded(secret_id(mount), variables, instruction.line)[0]
            found.secrets.setdefault(id, _Lent(instruction, id, mount.required))
        elif mount.type == "ssh":
            id = self._expanded(mount.id or _DEFAULT_SSH, variables, instruction.line)[0]
            found.ssh.setdefault(id, _Lent(instruction, id, mount.required))

    def _with_dependencies(self, used: set[str], known: Mapping[str, _Argument]) -> Iterator[str]:
        """The names of `used` that are declared, and of those on which they depend."""
        work, seen = sorted(used), set[str]()
        while work:
            name = work.pop(0)
            if name in known and name not in seen:
                seen.add(name)
                work += sorted(known[name].uses)
                yield name

    def _expanded(self, text: str, variables: Mapping[str, str], line: int) -> tuple[str, frozenset[str]]:
        """The text with its variables replaced, and the names of those that were set."""
        noting = _Variables(variables)
        try:
            return expand(text, noting, self._escape), frozenset(noting.read)
        except InvalidInput as error:
            raise DockerfileError(error.message, line, text) from None


# -- rendering


def _description(instruction: Instruction, name: str) -> str:
    """The comment above an instruction that begins with the name that it defines."""
    if not name:
        return ""
    return next((each.removeprefix(f"{name} ") for each in instruction.comments if each.startswith(f"{name} ")), "")


def _location(instruction: Instruction) -> dict[str, object]:
    return {"ranges": [{"start": {"line": instruction.line}, "end": {"line": instruction.end}}]}


def _without_empty(**fields: object) -> dict[str, object]:
    return {key: value for key, value in fields.items() if value not in ("", False, [])}


def _described(parameters: Mapping[str, _Argument | _Lent]) -> list[dict[str, object]]:
    return [each.described() for each in sorted(parameters.values(), key=lambda each: each.instruction.line)]


def _encode(document: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(document), indent=2)


def _outline_text(document: Mapping[str, object]) -> str:
    text = ""
    name, description = document.get("name", ""), document.get("description", "")
    if name:
        rows = [["TARGET:", str(name)], *([["DESCRIPTION:", str(description)]] if description else [])]
        text += render_rows(rows, 1) + "\n"
    tables: Sequence[tuple[str, Sequence[str], Callable[[Mapping[str, object]], list[str]]]] = (
        ("args", ["BUILD ARG", "VALUE", "DESCRIPTION"], lambda each: _cells(each, "name", "value", "description")),
        ("secrets", ["SECRET", "REQUIRED"], lambda each: _cells(each, "name", "required")),
        ("ssh", ["SSH", "REQUIRED"], lambda each: _cells(each, "name", "required")),
    )
    for key, head, cells in tables:
        if rows_of := document.get(key):
            assert isinstance(rows_of, list)
            text += render_rows([list(head), *map(cells, rows_of)], 3) + "\n"
    return text


def _cells(values: Mapping[str, object], *names: str) -> list[str]:
    return ["true" if values.get(name) is True else str(values.get(name, "")) for name in names]


def render_rows(rows: Sequence[Sequence[str]], padding: int) -> str:
    """Rows with all columns but the last padded to a width."""
    widths = [max(map(len, column)) + padding for column in zip(*rows, strict=True)][:-1]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)) + "\n" for row in rows
    )
