"""Parses each instruction to a value with its flags and arguments, before substitution. Pure.

`understand` dispatches through a table of one function per instruction. Text that may contain variables is kept as
written; `plan` substitutes them once the stage's environment is known.

Source: the Dockerfile reference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from havre.dockerfile.devices import RunDevice, parse_device
from havre.dockerfile.mounts import RunMount, parse_mount
from havre.dockerfile.syntax import DockerfileError, Heredoc, Instruction, nearest, parse_instruction
from havre.dockerfile.words import split_raw
from havre.errors import InvalidInput
from havre.golang.units import parse_duration
from havre.wire.config import Healthcheck

_T = TypeVar("_T")
_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
_SHORTEST_NS = 10**6

_FLAGS: Mapping[str, Sequence[str]] = {
    "FROM": ("platform",),
    "RUN": ("mount", "network", "security", "device"),
    "COPY": ("from", "chown", "chmod", "link", "parents", "exclude"),
    "ADD": ("chown", "chmod", "link", "keep-git-dir", "checksum", "exclude", "unpack"),
    "HEALTHCHECK": ("interval", "timeout", "start-period", "start-interval", "retries"),
}
_REPEATED = ("mount", "exclude", "device")
_SWITCHES = ("link", "parents", "keep-git-dir", "unpack")


@dataclass(frozen=True, kw_only=True)
class Command:
    """Fields of all commands: the line, and the original text."""

    line: int
    original: str


@dataclass(frozen=True, kw_only=True)
class From(Command):
    """Begins a stage; `image` and `platform` may contain global arguments."""

    image: str
    name: str = ""
    platform: str = ""


@dataclass(frozen=True, kw_only=True)
class Arg(Command):
    """Declares build arguments; a value of None means no default."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, kw_only=True)
class Env(Command):
    """Sets variables."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Label(Command):
    """Sets labels."""

    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Words(Command):
    """EXPOSE, VOLUME: a list of words, `literal` if written as JSON."""

    kind: str
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Text(Command):
    """USER, WORKDIR, STOPSIGNAL, MAINTAINER: a single text."""

    kind: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Run(Command):
    """Runs a command: `argv` in exec form, otherwise `script` by the shell, with here-documents."""

    argv: tuple[str, ...] | None
    script: str
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[RunMount, ...] = ()
    network: str = ""
    security: str = ""
    devices: tuple[RunDevice, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Copying:
    """The arguments of COPY and ADD. `inline` are here-documents, which `sources` exclude; `from_` is where sources
    are.

    For ADD only: `remote` (URLs and git are fetched), `unpack` (None: local archives are unpacked), `checksum`.
    """

    sources: tuple[str, ...]
    target: str
    inline: tuple[Heredoc, ...] = ()
    from_: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    excludes: tuple[str, ...] = ()
    remote: bool = False
    unpack: bool | None = False
    checksum: str = ""
    keep_git: bool = False


@dataclass(frozen=True, kw_only=True)
class Copy(Command, Copying):
    """COPY and ADD; texts may contain variables, `from_` is a stage, image or context."""


@dataclass(frozen=True, kw_only=True)
class Process(Command):
    """CMD and ENTRYPOINT: `argv` in exec form, otherwise `script` for the shell."""

    kind: str
    argv: tuple[str, ...] | None
    script: str


@dataclass(frozen=True, kw_only=True)
class Shell(Command):
    """Sets the shell of shell forms."""

    argv: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Health(Command):
    """HEALTHCHECK; the shell form of the test is CMD-SHELL."""

    check: Healthcheck


@dataclass(frozen=True, kw_only=True)
class OnBuild(Command):
    """A trigger for images based on this one, as text."""

    trigger: str


def understand(instruction: Instruction, escape: str = "\\") -> Command:
    """The instruction as a value. Raises `DockerfileError` with its line."""
    try:
        flags = _parse_flags(instruction)
        return _RULES[instruction.name](instruction, flags, escape)
    except DockerfileError as error:
        raise DockerfileError(error.problem, error.line or instruction.line, error.needle) from None
    except InvalidInput as error:
        raise DockerfileError(error.message, instruction.line) from error


_Flags = Mapping[str, Sequence[str]]


def _parse_flags(instruction: Instruction) -> dict[str, list[str]]:
    known = _FLAGS.get(instruction.name, ())
    found: dict[str, list[str]] = {}
    for flag in instruction.flags:
        name, equals, value = flag.removeprefix("--").partition("=")
        if name not in known:
            raise DockerfileError(f"unknown flag: --{name}{nearest(name, known)}", needle=f"--{name}")
        if name in found and name not in _REPEATED:
            raise DockerfileError(f"duplicate flag specified: --{name}", needle=f"--{name}")
        if not equals and name not in _SWITCHES:
            raise DockerfileError(f"missing a value on flag: --{name}", needle=f"--{name}")
        if name in _SWITCHES:
            value = value.lower() if equals else "true"
            if value not in ("true", "false", "1", "0", "t", "f"):
                raise DockerfileError(f"expecting boolean value for flag --{name}, not: {value}", needle=flag)
        found.setdefault(name, []).append(value)
    return found


def _one(flags: _Flags, name: str) -> str:
    return flags[name][0] if name in flags else ""


def _switch(flags: _Flags, name: str) -> bool:
    return _one(flags, name) in ("true", "1", "t")


def _from(instruction: Instruction, flags: _Flags, escape: str) -> Command:
    words = instruction.rest.split()
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        raise DockerfileError("FROM requires either one or three arguments", needle=instruction.rest)
    name = words[2].lower() if len(words) == 3 else ""
    if name and not _STAGE_NAME.fullmatch(name):
        raise DockerfileError(
            f'invalid name for build stage: "{words[2]}", name can\'t start with a number or contain symbols',
            needle=words[2],
        )
    return From(
        line=instruction.line,
        original=instruction.original,
        image=words[0],
        name=name,
        platform=_one(flags, "platform"),
    )


def _arg(instruction: Instruction, flags: _Flags, escape: str) -> Command:
    pairs: list[tuple[str, str | None]] = []
    for word in _at_least_one(instruction, split_raw(instruction.rest, escape)):
        name, equals, value = word.partition("=")
        if not name:
            raise DockerfileError("ARG names can not be blank", needle=word)
        pairs.append((name, value if equals else None))
    return Arg(line=instruction.line, original=instruction.original, pairs=tuple(pairs))


def _env(instruction: Instruction, flags: _Flags, escape: str) -> Command:
    return Env(line=instruction.line, original=instruction.original, pairs=_pairs(instruction, escape))


def _label(instruction: Instruction, flags: _Flags, escape: str) -> Command:
    return Label(line=instruction.line, original=instruction.original, pairs=_pairs(instruction, escape))


def _pairs(instruction: Instruction, escape: str) -> tuple[tuple[str, str], ...]:
    """`K=V K2="V 2"`, or the legacy form `K value with spaces`."""
    words = _at_least_one(instruction, split_raw(instruction.rest, escape))
    if "=" not in words[0]:
        if len(words) < 2:
            raise DockerfileError(f"{instruction.name} must have two arguments", needle=instruction.rest)
        name, value = instruction.rest.split(None, 1)
        return ((name, value),)
    pairs: list[tuple[str, str]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise DockerfileError(
                f'Syntax error - can\'t find = in "{word}". Must be of the form: name=value', needle=word
            )
        if not name:
            raise DockerfileError(f"{instruction.name} names can not be blank", needle=word)
        pairs.append((name, value))
    return tuple(pairs)


def _at_least_one(instruction: Instruction, words: Sequence[str]) -> Sequence[str]:
    if not words:
        raise DockerfileError(f"{instruction.name} requires at least one argument", needle=instruction.name)
    return words


def _word_list(instruction: Instruction, flags: _Flags, escape: str) -> Command:
    listed = _json_list(instruction)
    words = _at_least_one(instruction, split_raw(instruction.rest, escape) if listed is None else listed)
    if instruction.name == "VOLUME" and not all(word.strip() for word in words):
        raise DockerfileError("VOLUME specified can not be an empty string", needle=instruction.rest)
    return Words(line=instruction.line, original=instruction.original, kind=instruction.name, words=tuple(words))


def _text(instruction: Instruction, flags: _Flags, escape: str) -> Command:
    if not instruction.rest:
        raise DockerfileError(f"{instruction.name} requires exactly one argument", needle=instruction.name)
    return Text(line=instruction.line, original=instruction.original, kind=instruction.name, value=instruction.rest)


def _run(instruction: Instruction, flags: _Flags, escape: str) -> Command:
    argv = _json_list(instruction)
    if not instruction.rest:
        raise DockerfileError("RUN requires at least one argument", needle="RUN")
    network, security = _one(flags, "network"), _one(flags, "security")
    for name, value, known in (
        ("network", network, ("default", "none", "host")),
        ("security", security, ("sandbox", "insecure")),
    ):
        if value and value not in known:
            raise DockerfileError(f"invalid {name} mode: {value}{nearest(value, known)}", needle=f"--{name}={value}")
    return Run(
        line=instruction.line,
        original=instruction.original,
        argv=None if argv is None else tuple(argv),
        script=instruction.rest if argv is None else "",
        heredocs=instruction.heredocs,
        mounts=_each(flags, "mount", parse_mount),
        network=network,
        security=security,
        devices=_each(flags, "device", parse_device),
    )


def _each(flags: _Flags, name: str, parse: Callable[[str], _T]) -> tuple[_T, ...]:
    """The values of a repeated flag."""
    values = []
    for text in flags.get(name, ()):
        try:
            values.append(parse(text))
        except InvalidInput as error:
            raise DockerfileError(f"invalid {name}: {error.message}", needle=text) from None
    return tuple(values)


def _copy(instruction: Instruction, flags: _Flags, escape: str) -> Command:
    listed = _json_list(instruction)
    words = split_raw(instruction.rest, escape) if listed is None else [_quoted(each, escape) for each in listed]
    if len(words) < 2:
        raise DockerfileError(
            f"{instruction.name} requires at least two arguments, but only {('none was', 'one was')[len(words)]} "
            "provided. Destination could not be determined",
            needle=instruction.rest or instruction.name,
        )
    marks = {f"<<{'-' if each.strips_tabs else ''}{each.name}": each for each in instruction.heredocs}
    plain = [word for word in words[:-1] if word.replace('"', "").replace("'", "") not in marks]
    is_add = instruction.name == "ADD"
    return Copy(
        line=instruction.line,
        original=instruction.original,
        sources=tuple(plain),
        target=words[-1],
        inline=instruction.heredocs,
        from_=_one(flags, "from"),
        chown=_one(flags, "chown"),
        chmod=_one(flags, "chmod"),
        link=_switch(flags, "link"),
        parents=_switch(flags, "parents"),
        excludes=tuple(flags.get("exclude", ())),
        remote=is_add,
        unpack=(_switch(flags, "unpack") if "unpack" in flags else None) if is_add else False,
        checksum=_one(flags, "checksum"),
        keep_git=_switch(flags, "keep-git-dir"),
    )


def _quoted(word: str, escape: str) -> str:
    """A word of a JSON list, escaped so that `expand` returns it unchanged, except for variables."""
    return "".join(escape + char if char in f"\"'{escape}" else char for char in word)


def _process(instruction: Instruction, flags: _Flags, escape: str) -> Command:
    argv = _json_list(instruction)
    if instruction.name == "ENTRYPOINT" and not instruction.rest:
        raise DockerfileError("ENTRYPOINT requires at least one argument", needle="ENTRYPOINT")
    return Process(
        line=instruction.line,
        original=instruction.original,
        kind=instruction.name,
        argv=None if argv is None else tuple(argv),
        script=instruction.rest if argv is None else "",
    )


def _shell(instruction: Instruction, flags: _Flags, escape: str) -> Command:
    argv = _json_list(instruction)
    if not argv:
        raise DockerfileError("SHELL requires the arguments to be in JSON form", needle=instruction.rest)
    return Shell(line=instruction.line, original=instruction.original, argv=tuple(argv))


def _health(instruction: Instruction, flags: _Flags, escape: str) -> Command:
    kind, rest = [*instruction.rest.split(None, 1), "", ""][:2]
    if not kind:
        raise DockerfileError("HEALTHCHECK requires at least one argument", needle="HEALTHCHECK")
    if kind.upper() == "NONE":
        if rest or flags:
            raise DockerfileError("HEALTHCHECK NONE takes no arguments", needle=rest or kind)
        return Health(line=instruction.line, original=instruction.original, check=Healthcheck(test=["NONE"]))
    if kind.upper() != "CMD":
        raise DockerfileError(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)', needle=kind)
    if not rest:
        raise DockerfileError("Missing command after HEALTHCHECK CMD", needle=kind)
    listed = _parse_json(rest, instruction.line)
    check = Healthcheck(
        test=["CMD-SHELL", rest] if listed is None else ["CMD", *listed],
        interval=_duration(flags, "interval"),
        timeout=_duration(flags, "timeout"),
        start_period=_duration(flags, "start-period"),
        start_interval=_duration(flags, "start-interval"),
        retries=_retries(flags),
    )
    return Health(line=instruction.line, original=instruction.original, check=check)


def _duration(flags: _Flags, name: str) -> int:
    text = _one(flags, name)
    if not text:
        return 0
    try:
        value = parse_duration(text)
    except ValueError:
        words = f"invalid duration for --{name}: {text}, expected as in 30s or 1m30s"
        raise DockerfileError(words, needle=text) from None
    if 0 < value < _SHORTEST_NS:
        raise DockerfileError(f"interval for --{name} cannot be less than 1ms", needle=text)
    return value


def _retries(flags: _Flags) -> int:
    text = _one(flags, "retries")
    if text and not text.isdecimal():
        raise DockerfileError(f"--retries cannot be negative or no number: {text}", needle=text)
    return int(text or 0)


def _onbuild(instruction: Instruction, flags: _Flags, escape: str) -> Command:
    if not instruction.rest:
        raise DockerfileError("ONBUILD requires at least one argument", needle="ONBUILD")
    inner = instruction.rest.split()[0].upper()
    if inner == "ONBUILD":
        raise DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", needle=instruction.rest)
    if inner in ("FROM", "MAINTAINER"):
        raise DockerfileError(f"{inner} isn't allowed as an ONBUILD trigger", needle=instruction.rest)
    documents = "".join(f"\n{each.text}{each.name}" for each in instruction.heredocs)
    trigger = instruction.rest + documents
    understand(parse_instruction(trigger, escape, instruction.line), escape)
    return OnBuild(line=instruction.line, original=instruction.original, trigger=trigger)


def _json_list(instruction: Instruction) -> list[str] | None:
    return _parse_json(instruction.rest, instruction.line)


def _parse_json(text: str, line: int) -> list[str] | None:
    """The list of an exec form; None for any other text, i.e. a shell form."""
    if not text.startswith("["):
        return None
    try:
        decoded = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
        return None
    if not isinstance(decoded, list):
        return None
    if not all(isinstance(each, str) for each in decoded):
        raise DockerfileError(
            "when using JSON array syntax, arrays must be comprised of strings only", line, needle=text
        )
    return decoded


_RULES: Mapping[str, Callable[[Instruction, _Flags, str], Command]] = {
    "ADD": _copy, "ARG": _arg, "CMD": _process, "COPY": _copy, "ENTRYPOINT": _process, "ENV": _env,
    "EXPOSE": _word_list, "FROM": _from, "HEALTHCHECK": _health, "LABEL": _label, "MAINTAINER": _text,
    "ONBUILD": _onbuild, "RUN": _run, "SHELL": _shell, "STOPSIGNAL": _text, "USER": _text, "VOLUME": _word_list,
    "WORKDIR": _text,
}  # fmt: skip
