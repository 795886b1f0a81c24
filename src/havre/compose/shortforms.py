"""Expands short forms to long ones: ports, mounts, devices, dependencies, files of variables and others.

    "127.0.0.1:8000-8001:80-81/udp"    two ports
    "data:/var/lib/x:ro,nocopy"        a mount of a volume; a path on the left (./ / ~) makes it a bind mount
    "/dev/a:/dev/b:rw"                 a device

Source: the Compose specification; Docker's notation for ports.
"""

from __future__ import annotations

import posixpath
from typing import Any

from havre.compose.tree import Path, Rules, change, change_below
from havre.compose.yamlread import key_path
from havre.errors import InvalidInput
from havre.golang.ports import parse_mappings
from havre.golang.scalars import go_text

_PROPAGATIONS = frozenset(("rprivate", "private", "rshared", "shared", "rslave", "slave"))


def expand(model: dict[str, Any]) -> dict[str, Any]:
    """The model with all short forms expanded. Raises InvalidInput with the key's path."""
    result: dict[str, Any] = change(model, _RULES)
    return result


def _refuse(path: Path, reason: str) -> InvalidInput:
    return InvalidInput(f"{key_path(path)}: {reason}")


def parse_volume(text: str) -> dict[str, Any]:
    """A mount in its short form. Raises ValueError."""
    if len(text) < 3:
        if not text:
            raise ValueError("invalid empty volume spec")
        return {"type": "volume", "target": text}
    parts = _split_colons(text)
    if not all(parts):
        raise ValueError(f"invalid spec: {text}: empty section between colons")
    if len(parts) > 3:
        raise ValueError(f"invalid spec: {text}: too many colons")
    source = parts[0] if len(parts) > 1 else ""
    volume: dict[str, Any] = {"type": "volume", "target": parts[-1] if len(parts) < 3 else parts[1]}
    bind: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for option in parts[2].split(",") if len(parts) == 3 else ():
        if option == "ro":
            volume["read_only"] = True
        elif option == "nocopy":
            own["nocopy"] = True
        elif option in _PROPAGATIONS:
            bind["propagation"] = option
        elif option in ("z", "Z"):
            bind["selinux"] = option
    if source:
        volume["source"] = source
    if _is_path(source):
        volume |= {"type": "bind", "bind": {**bind, "create_host_path": True}} | ({"volume": own} if own else {})
    else:
        volume |= {"volume": own} | ({"bind": bind} if bind else {})
    volume["target"] = posixpath.normpath(volume["target"])
    return volume


def _is_path(source: str) -> bool:
    return source.startswith((".", "/", "~", "\\\\")) or (source[1:2] == ":" and source[0].isalpha())


def _split_colons(text: str) -> list[str]:
    parts = text.split(":")
    if len(parts) > 1 and len(parts[0]) == 1 and parts[0].isalpha():  # a Windows path, C:\path
        parts[:2] = [":".join(parts[:2])]
    return parts


def parse_port(text: str) -> list[dict[str, Any]]:
    """The ports of a short form, one for each of a range. Raises ValueError."""
    ports = []
    for each in parse_mappings(text):
        port: dict[str, Any] = {"mode": "ingress", "target": each.port, "protocol": each.protocol}
        if each.ip:
            port["host_ip"] = each.ip
        if each.host_port:
            port["published"] = each.host_port
        ports.append(port)
    return sorted(ports, key=lambda port: str(port["target"]))


def _ports(value: Any, path: Path) -> Any:
    ports: list[Any] = []
    for index, entry in enumerate(value):
        if isinstance(entry, dict):
            ports.append(entry)
            continue
        try:
            ports += parse_port(go_text(entry))
        except ValueError as error:
            raise _refuse((*path, str(index)), str(error)) from error
    return ports


def _volume(value: Any, path: Path) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return parse_volume(value)
    except ValueError as error:
        raise _refuse(path, str(error)) from error


def _device(value: Any, path: Path) -> Any:
    if not isinstance(value, str):
        return value
    parts = value.split(":")
    if len(parts) > 3:
        raise _refuse(path, f"confusing device mapping, please use long syntax: {value}")
    target = parts[1] if len(parts) > 1 and parts[1] else parts[0]
    return {"source": parts[0], "target": target, "permissions": parts[2] if len(parts) == 3 else "rwm"}


def _dependencies(value: Any, path: Path) -> Any:
    default = {"condition": "service_started", "required": True}
    if isinstance(value, list):
        return {name: dict(default) for name in value}
    return {name: {**default, **dependency} for name, dependency in value.items()}


def _env_files(value: Any, path: Path) -> Any:
    entries = [value] if isinstance(value, str) else value
    return [{"path": e, "required": True} if isinstance(e, str) else {"required": True, **e} for e in entries]


def _texts(value: Any, path: Path) -> Any:
    return [value] if isinstance(value, str) else value


def _file_mount(value: Any, path: Path) -> Any:
    return {"source": value} if isinstance(value, str) else value


def _networks(value: Any, path: Path) -> Any:
    return dict.fromkeys(value) if isinstance(value, list) else value


def _pairs(value: Any, path: Path) -> Any:
    if not isinstance(value, list):
        return value
    for entry in value:
        if "=" not in entry:
            raise _refuse(path, f"invalid value {entry}, expected key=value")
    return dict(entry.split("=", 1) for entry in value)


def _ssh(value: Any, path: Path) -> Any:
    if not isinstance(value, list):
        return value
    keys = {}
    for entry in value:
        name, equals, file = entry.partition("=")
        if not equals and name != "default":
            raise _refuse(path, f"invalid ssh key {entry!r}; write ID=PATH")
        keys[name] = file if equals else None
    return keys


def _build(value: Any, path: Path) -> Any:
    return change_below(value, _RULES, path) if isinstance(value, dict) else {"context": value}


def _extends(value: Any, path: Path) -> Any:
    return value if isinstance(value, dict) else {"service": value}


def _gpus(value: Any, path: Path) -> Any:
    return value if isinstance(value, list) else [{"count": "all"}]


def _maybe_external(value: Any, path: Path) -> Any:
    """The old `external: {name: x}` to `external: true` and `name: x`."""
    if not isinstance(value, dict) or not isinstance(value.get("external"), dict):
        return value
    outer, inner = value.get("name"), value["external"].get("name")
    if inner is not None and outer not in (None, inner):
        raise _refuse(path, "name and external.name conflict; only use name")
    return {**value, "external": True} | ({} if inner is None else {"name": inner})


_RULES = Rules(
    {
        "services.*.build": _build,
        "services.*.build.secrets.*": _file_mount,
        "services.*.build.additional_contexts": _pairs,
        "services.*.build.ssh": _ssh,
        "services.*.depends_on": _dependencies,
        "services.*.env_file": _env_files,
        "services.*.label_file": _texts,
        "services.*.extends": _extends,
        "services.*.gpus": _gpus,
        "services.*.build.no_cache_filter": _texts,
        "services.*.models": _networks,
        "services.*.networks": _networks,
        "services.*.volumes.*": _volume,
        "services.*.dns": _texts,
        "services.*.devices.*": _device,
        "services.*.secrets.*": _file_mount,
        "services.*.configs.*": _file_mount,
        "services.*.ports": _ports,
        "volumes.*": _maybe_external,
        "networks.*": _maybe_external,
        "secrets.*": _maybe_external,
        "configs.*": _maybe_external,
    }
)
