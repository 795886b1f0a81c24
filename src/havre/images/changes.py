r"""Dockerfile instructions that change an image's configuration: `import --change`, `commit --change`.

Only those that need no build: CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD STOPSIGNAL USER VOLUME WORKDIR.
Lists are JSON (`CMD ["a", "b"]`) or a shell command; pairs are `K=V K2="v w"`, or `K v w` in the old form. Variables
are the configuration's own, as the instructions before have left them; CMD, ENTRYPOINT, HEALTHCHECK and ONBUILD keep
theirs.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

import msgspec

from havre.errors import InvalidInput
from havre.golang.units import parse_duration
from havre.oci.words import expand, split, split_raw
from havre.wire.config import Config, Healthcheck

_SHELL = ["/bin/sh", "-c"]
_SHORTEST_NS = 10**6
_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?")


def apply_changes(config: Config, changes: Sequence[str]) -> Config:
    """`config` after the instructions; raises `InvalidInput` naming the instruction."""
    for change in changes:
        for line in _lines(change):
            name, _, argument = line.partition(" ")
            config = _apply(config, name.upper(), argument.strip())
    return config


def _lines(change: str) -> list[str]:
    joined = re.sub(r"\\[ \t]*\n", "", change)
    return [line.strip() for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _apply(config: Config, name: str, argument: str) -> Config:
    rules = {
        "CMD": _cmd, "ENTRYPOINT": _entrypoint, "ENV": _env, "EXPOSE": _expose, "HEALTHCHECK": _healthcheck,
        "LABEL": _label, "ONBUILD": _onbuild, "STOPSIGNAL": _stop_signal, "USER": _user, "VOLUME": _volume,
        "WORKDIR": _workdir,
    }  # fmt: skip
    rule = rules.get(name)
    if rule is None:
        raise InvalidInput(f"{name} is not a valid change command", f"valid are {', '.join(rules)}")
    if not argument:
        raise InvalidInput(f"{name} requires at least one argument")
    return rule(config, argument)


def _cmd(config: Config, argument: str) -> Config:
    return msgspec.structs.replace(config, cmd=_command(argument))


def _entrypoint(config: Config, argument: str) -> Config:
    return msgspec.structs.replace(config, entrypoint=_command(argument))


def _env(config: Config, argument: str) -> Config:
    env = {entry.partition("=")[0]: entry for entry in config.env or ()}
    env.update((key, f"{key}={value}") for key, value in _pairs(config, "ENV", argument))
    return msgspec.structs.replace(config, env=list(env.values()))


def _label(config: Config, argument: str) -> Config:
    return msgspec.structs.replace(config, labels={**(config.labels or {}), **dict(_pairs(config, "LABEL", argument))})


def _expose(config: Config, argument: str) -> Config:
    ports = dict(config.exposed_ports or {})
    for word in split(argument, _variables(config)):
        match = _PORT.fullmatch(word.lower())
        first = int(match.group(1)) if match else 0
        last = int(match.group(2) or first) if match else 0
        if match is None or not 0 < first <= last < 1 << 16:
            raise InvalidInput(f"invalid containerPort: {word}", "expected PORT[-PORT][/tcp|udp|sctp]")
        ports.update({f"{port}/{match.group(3) or 'tcp'}": {} for port in range(first, last + 1)})
    return msgspec.structs.replace(config, exposed_ports=ports)


def _interval(name: str, value: str) -> int:
    try:
        interval_ns = parse_duration(value)
    except ValueError as error:
        raise InvalidInput(f"invalid duration for --{name}: {error}", "expected as in 30s") from None
    if 0 < interval_ns < _SHORTEST_NS:
        raise InvalidInput(f"interval for --{name} cannot be less than 1ms: {value}")
    return interval_ns


def _healthcheck(config: Config, argument: str) -> Config:
    times = {"interval": 0, "timeout": 0, "start-period": 0, "start-interval": 0}
    retries = 0
    while (option := re.match(r"--([a-z-]+)=(\S+)\s+", argument)) is not None:
        name, value = option.groups()
        if name in times:
            times[name] = _interval(name, value)
        elif name == "retries" and value.isdecimal():
            retries = int(value)
        else:
            raise InvalidInput(f"invalid HEALTHCHECK option --{name}={value}")
        argument = argument[option.end() :]
    kind, _, rest = argument.partition(" ")
    if kind.upper() == "NONE":
        return msgspec.structs.replace(config, healthcheck=Healthcheck(test=["NONE"]))
    if kind.upper() != "CMD" or not rest.strip():
        raise InvalidInput(f"Unknown type {kind!r} in HEALTHCHECK (try CMD)")
    listed = _json_list(rest.strip())
    test = ["CMD-SHELL", rest.strip()] if listed is None else ["CMD", *listed]
    fields = {name.replace("-", "_"): value for name, value in times.items()}
    return msgspec.structs.replace(config, healthcheck=Healthcheck(test=test, retries=retries, **fields))


def _onbuild(config: Config, argument: str) -> Config:
    if argument.split()[0].upper() in ("ONBUILD", "FROM", "MAINTAINER"):
        raise InvalidInput(f"{argument.split()[0].upper()} isn't allowed as an ONBUILD trigger")
    return msgspec.structs.replace(config, on_build=[*(config.on_build or ()), argument])


def _stop_signal(config: Config, argument: str) -> Config:
    return msgspec.structs.replace(config, stop_signal=expand(argument, _variables(config)))


def _user(config: Config, argument: str) -> Config:
    return msgspec.structs.replace(config, user=expand(argument, _variables(config)))


def _volume(config: Config, argument: str) -> Config:
    listed = _json_list(argument)
    words = split_raw(argument) if listed is None else listed
    paths = [expand(word, _variables(config)) for word in words]
    if not all(paths):
        raise InvalidInput("VOLUME specified can not be an empty string")
    return msgspec.structs.replace(config, volumes={**(config.volumes or {}), **{path: {} for path in paths}})


def _workdir(config: Config, argument: str) -> Config:
    path = posixpath.join("/", config.working_dir, expand(argument, _variables(config)))
    return msgspec.structs.replace(config, working_dir=posixpath.normpath(path))


def _command(argument: str) -> list[str]:
    listed = _json_list(argument)
    return [*_SHELL, argument] if listed is None else listed


def _json_list(text: str) -> list[str] | None:
    try:
        return msgspec.json.decode(text, type=list[str])
    except (msgspec.DecodeError, RecursionError):
        return None


def _pairs(config: Config, name: str, argument: str) -> list[tuple[str, str]]:
    words = split_raw(argument)
    if "=" in words[0]:
        pairs = [word.partition("=") for word in words]
    elif len(words) > 1:
        key, value = argument.split(None, 1)
        pairs = [(key, "=", value)]
    else:
        raise InvalidInput(f"{name} must have two arguments")
    for key, equals, _ in pairs:
        if not equals or not key:
            raise InvalidInput(f"Syntax error - can't find = in {key!r}. Must be of the form: name=value")
    variables = _variables(config)
    return [(expand(key, variables), expand(value, variables)) for key, _, value in pairs]


def _variables(config: Config) -> dict[str, str]:
    return dict(entry.partition("=")[::2] for entry in config.env or ())
