"""Plans the steps of a stage on its base's configuration: the action on files, and the configuration after it. Pure.

    Stage + base Config + arguments  --plan_steps-->  Step, Step, ...
                                                        action: RunAction | CopyAction | WorkdirAction | None
                                                        config: the image's after this step
                                                        history: `created_by` as `docker history` shows it

Variables are substituted here: arguments declared so far in the stage, overridden by the environment. Secrets and
proxies never become part of a step's text.

Source: the Dockerfile reference; OCI image specification, "config.md"; moby's history of built images.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace

import msgspec

from havre.dockerfile.devices import RunDevice
from havre.dockerfile.graph import PROXY_ARGS, proxy_environment
from havre.dockerfile.instructions import (
    Arg,
    Command,
    Copy,
    Copying,
    Env,
    Health,
    Label,
    OnBuild,
    Process,
    Run,
    Shell,
    Text,
    Words,
    understand,
)
from havre.dockerfile.mounts import RunMount
from havre.dockerfile.syntax import DockerfileError, Heredoc, closest, parse_instruction
from havre.dockerfile.words import expand, split
from havre.errors import InvalidInput
from havre.golang.ports import parse_mappings
from havre.golang.signals import parse_signal
from havre.wire.config import Config

DEFAULT_SHELL = ("/bin/sh", "-c")
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MAX_UNSET = 16  # unset variables reported per instruction


@dataclass(frozen=True, kw_only=True)
class RunAction:
    """Run `argv`. `files` are here-documents, placed in /dev/pipes; `arguments` are the declared build arguments.

    `proxies` are in the environment of the process only, not in the cache key or the history.
    """

    argv: tuple[str, ...]
    env: tuple[str, ...]
    user: str
    cwd: str
    mounts: tuple[RunMount, ...] = ()
    network: str = ""
    security: str = ""
    files: tuple[Heredoc, ...] = ()
    proxies: tuple[str, ...] = ()
    devices: tuple[RunDevice, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CopyAction(Copying):
    """Copy `sources` of the context or of `from_`, and the here-documents `inline`, to `target` (absolute).

    `into`: the target is a directory in any case, because it was written with a trailing slash.
    """

    into: bool


@dataclass(frozen=True, kw_only=True)
class WorkdirAction:
    """Create the directory `path` if it does not exist."""

    path: str


Action = RunAction | CopyAction | WorkdirAction


@dataclass(frozen=True, kw_only=True)
class Step:
    """One instruction of a stage. `text` is for progress, `created_by` for the history.

    For the checks: `unset` are its undeclared variables, each with the closest declared name or ""; `words` are the
    substituted arguments of EXPOSE and WORKDIR.
    """

    line: int
    text: str
    created_by: str
    config: Config
    action: Action | None = None
    author: str = ""
    unset: tuple[tuple[str, str], ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """The environment of a stage's instructions: build arguments given, global arguments, and the escape character."""

    build_args: Mapping[str, str | None]
    arguments: Mapping[str, str]
    automatic: Mapping[str, str]
    escape: str = "\\"


def plan_steps(commands: Sequence[Command], base: Config, around: Surroundings) -> list[Step]:
    """The steps of a stage on a base with this configuration (as `begin` returns it). Raises `DockerfileError`."""
    planner = _Planner(base, around)
    return [planner.step(each) for each in commands]


def begin(base: Config) -> Config:
    """The configuration that a stage begins with: the base's, with a default PATH if it has none, without ONBUILD."""
    env = list(base.env or ())
    if not any(each.startswith("PATH=") for each in env):
        env.insert(0, f"PATH={DEFAULT_PATH}")
    return msgspec.structs.replace(base, on_build=None, env=env)


def read_triggers(triggers: Sequence[str]) -> list[Command]:
    """The commands of a base's ONBUILD triggers."""
    return [understand(parse_instruction(trigger)) for trigger in triggers]


class _Planner:
    """The state between two instructions: configuration, declared arguments, the author."""

    def __init__(self, config: Config, around: Surroundings) -> None:
        self._config = config
        self._around = around
        self._arguments: dict[str, str] = {}
        self._declared: dict[str, str] = {}  # as in RUN's environment and in the history
        self._cmd_is_own = False
        self._author = ""
        self._known: set[str] = set()  # declared in the stage, with or without a value
        self._unset: dict[str, str] = {}
        self._said: tuple[str, ...] = ()

    def step(self, command: Command) -> Step:
        """Plan the next instruction."""
        self._unset, self._said = {}, ()
        try:
            action, created_by = self._apply(command)
        except DockerfileError:
            raise
        except InvalidInput as error:
            raise DockerfileError(error.message, command.line) from None
        text = created_by if isinstance(command, Env | Label | Words | Text) else command.original
        return Step(
            line=command.line,
            text=text,
            created_by=created_by,
            config=self._config,
            action=action,
            author=self._author,
            unset=tuple(self._unset.items()),
            words=self._said,
        )

    def _apply(self, command: Command) -> tuple[Action | None, str]:
        if isinstance(command, Run):
            return self._run(command)
        if isinstance(command, Copy):
            return self._copy(command)
        if isinstance(command, Text):
            return self._text(command)
        if isinstance(command, Words):
            return None, self._words(command)
        if isinstance(command, Arg):
            return None, self._arg(command)
        if isinstance(command, Env):
            return None, self._env(command)
        return None, self._rest(command)

    # -- variables

    def _variables(self) -> dict[str, str]:
        env = dict(each.partition("=")[::2] for each in self._config.env or ())
        return {**self._arguments, **env}

    def _expand(self, text: str, *, raw: bool = False) -> str:
        return expand(text, self._variables(), self._around.escape, raw=raw, unset=self._miss)

    def _miss(self, name: str) -> None:
        if name not in self._known and name not in self._unset and len(self._unset) < _MAX_UNSET:
            self._unset[name] = closest(name, self._variables())

    def _change(self, **fields: object) -> None:
        self._config = msgspec.structs.replace(self._config, **fields)

    # -- instructions

    def _arg(self, command: Arg) -> str:
        shown = []
        for name, default in command.pairs:
            around = self._around
            value = around.build_args.get(name)
            if value is None and default is not None:
                value = self._expand(default)
            if value is None:
                value = around.arguments.get(name, around.automatic.get(name))
            shown.append(name if value is None else f"{name}={value}")
            self._known.add(name)
            if value is not None:
                self._arguments[name] = value
                self._declared[name] = value
        return "ARG " + " ".join(shown)

    def _env(self, command: Env) -> str:
        env = {each.partition("=")[0]: each for each in self._config.env or ()}
        pairs = [(self._expand(key), self._expand(value)) for key, value in command.pairs]
        env |= {key: f"{key}={value}" for key, value in pairs}
        self._change(env=list(env.values()))
        return "ENV " + " ".join(f"{key}={value}" for key, value in pairs)

    def _words(self, command: Words) -> str:
        if command.kind == "VOLUME":
            words = [self._expand(each) for each in command.words]
            if not all(words) or not words:
                raise InvalidInput("VOLUME specified can not be an empty string")
            self._change(volumes={**(self._config.volumes or {}), **{word: {} for word in words}})
            return f"VOLUME [{' '.join(words)}]"
        words = [word for each in command.words for word in split(each, self._variables(), self._around.escape)]
        self._said = tuple(words)
        ports = [port for word in words for port in _parse_ports(word)]
        self._change(exposed_ports={**(self._config.exposed_ports or {}), **{port: {} for port in ports}})
        return f"EXPOSE map[{' '.join(f'{port}:{{}}' for port in sorted(ports))}]"

    def _text(self, command: Text) -> tuple[Action | None, str]:
        value = command.value if command.kind == "MAINTAINER" else self._expand(command.value)
        if command.kind == "WORKDIR":
            if not value:
                raise InvalidInput("WORKDIR can not be empty")
            self._said = (value,)
            path = posixpath.normpath(posixpath.join("/", self._config.working_dir, value))
            self._change(working_dir=re.sub("^//+", "/", path))
            action = WorkdirAction(path=self._config.working_dir) if path != "/" else None
            return action, f"WORKDIR {self._config.working_dir}"
        if command.kind == "USER":
            self._change(user=value)
        elif command.kind == "STOPSIGNAL":
            parse_signal(value)
            self._change(stop_signal=value)
        else:
            self._author = value
        return None, f"{command.kind} {value}"

    def _rest(self, command: Command) -> str:
        if isinstance(command, Label):
            pairs = [(self._expand(key), self._expand(value)) for key, value in command.pairs]
            self._change(labels={**(self._config.labels or {}), **dict(pairs)})
            return "LABEL " + " ".join(f"{key}={value}" for key, value in pairs)
        if isinstance(command, Process):
            return self._process(command)
        if isinstance(command, Shell):
            self._change(shell=list(command.argv))
            return f"SHELL [{' '.join(command.argv)}]"
        if isinstance(command, Health):
            self._change(healthcheck=command.check)
            return command.original
        if isinstance(command, OnBuild):
            self._change(on_build=[*(self._config.on_build or ()), command.trigger])
            return f"ONBUILD {command.trigger}"
        raise DockerfileError("FROM is not allowed here", command.line)

    def _process(self, command: Process) -> str:
        argv = list(command.argv) if command.argv is not None else []
        if command.argv is None and command.script:
            argv = [*self._shell(), command.script]
        if command.kind == "CMD":
            self._cmd_is_own = True
            self._change(cmd=argv)
        else:
            self._change(entrypoint=argv or None)
            if not self._cmd_is_own:
                self._change(cmd=None)
        return f"{command.kind} {msgspec.json.encode(argv).decode()}"

    def _shell(self) -> tuple[str, ...]:
        return tuple(self._config.shell or DEFAULT_SHELL)

    # -- what changes files

    def _run(self, command: Run) -> tuple[Action, str]:
        files = tuple(each for each in command.heredocs)
        argv = command.argv
        if argv is None:
            argv, files = _shell_form(command.script, files, self._shell())
        env = dict(each.partition("=")[::2] for each in self._config.env or ())
        declared = {key: value for key, value in self._declared.items() if key not in env and key not in PROXY_ARGS}
        proxies = proxy_environment(self._around.build_args)
        action = RunAction(
            argv=argv,
            env=tuple(f"{key}={value}" for key, value in {**declared, **env}.items()),
            user=self._config.user,
            cwd=self._config.working_dir or "/",
            mounts=tuple(self._mount(each) for each in command.mounts),
            network=command.network,
            security=command.security,
            devices=command.devices,
            files=files,
            proxies=tuple(f"{key}={value}" for key, value in proxies.items()),
        )
        arguments = "".join(f"{key}={value} " for key, value in sorted(declared.items()))
        counted = f"|{len(declared)} {arguments}" if declared else ""
        return action, f"RUN {counted}{' '.join(argv)} # buildkit"

    def _mount(self, mount: RunMount) -> RunMount:
        target = self._expand(mount.target)
        if target:
            target = posixpath.normpath(posixpath.join("/", self._config.working_dir, target))
        return replace(
            mount, source=self._expand(mount.source), target=target, id=self._expand(mount.id), from_=mount.from_
        )

    def _copy(self, command: Copy) -> tuple[Action, str]:
        kind = "ADD" if command.remote else "COPY"
        sources = tuple(self._expand(each) for each in command.sources)
        target = self._expand(command.target)
        if not target or not all(sources):
            raise InvalidInput(f"{kind}: a source or the destination is empty once its variables are replaced")
        inline = tuple(
            replace(each, text=self._expand(each.text, raw=True)) if each.expands else each for each in command.inline
        )
        said = {each.name: getattr(command, each.name) for each in fields(Copying)}
        expanded = {
            "sources": sources,
            "inline": inline,
            "target": posixpath.normpath(posixpath.join("/", self._config.working_dir, target)),
            "chown": self._expand(command.chown),
            "chmod": self._expand(command.chmod),
            "excludes": tuple(self._expand(each) for each in command.excludes),
            "checksum": self._expand(command.checksum),
        }
        action = CopyAction(**said | expanded, into=target.endswith(("/", "/.")) or target == ".")
        flags = f"--chown={action.chown} " if action.chown else ""
        flags += f"--chmod={action.chmod} " if action.chmod else ""
        flags += "--link " if action.link else ""
        names = [*sources, *(f"<<{each.name}" for each in inline)]
        return action, f"{kind} {flags}{' '.join(names)} {target} # buildkit"


def _shell_form(
    script: str, files: tuple[Heredoc, ...], shell: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[Heredoc, ...]]:
    """The command of a shell form, and the here-documents that it needs as files.

    A single here-document without a command is a script: run as a file if it begins with `#!`, otherwise by the shell.
    """
    if len(files) == 1 and re.fullmatch(rf"\d*<<-?[\"']?{re.escape(files[0].name)}[\"']?", script):
        if files[0].text.startswith("#!"):
            return (f"/dev/pipes/{files[0].name}",), files
        return (*shell, files[0].text), ()
    documents = "".join(f"\n{each.text}{each.name}" for each in files)
    return (*shell, script + documents), ()


def _parse_ports(word: str) -> list[str]:
    try:
        ports = parse_mappings(word)
    except ValueError as error:
        raise InvalidInput(str(error), "expected PORT[-PORT][/tcp|udp|sctp]") from None
    if not all(each.port for each in ports):
        raise InvalidInput(f"invalid containerPort: {word}", "expected PORT[-PORT][/tcp|udp|sctp]")
    return [each.name for each in ports]
