"""Devices by CDI name: `--device vendor.com/class=name`, described by files that the vendor's tools put on the host.

    /etc/cdi/*.json, *.yaml --> kind "vendor.com/class", devices by name --> containerEdits --> Edits of a container
    /var/run/cdi/...            (a file of a later directory wins)          of the file, then of each device

An edit adds variables, device nodes, binds and groups. A device with hooks (programs of the host that the OCI runtime
would run) is refused.

Source: the Container Device Interface specification, 0.3.0 to 0.8.0. Blocking.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from havre.errors import Failed
from havre.runtime import read_devices
from havre.runtime.plan import Bind, Device

_PROBLEM = "CDI device injection failed"


class _Node(msgspec.Struct, rename="camel"):
    path: str
    host_path: str = ""
    permissions: str = "rwm"
    uid: int | None = None
    gid: int | None = None


class _Mount(msgspec.Struct, rename="camel"):
    host_path: str
    container_path: str
    options: list[str] = []


class _Edits(msgspec.Struct, rename="camel"):
    env: list[str] = []
    device_nodes: list[_Node] = []
    mounts: list[_Mount] = []
    hooks: list[Any] = []
    additional_gids: list[int] = msgspec.field(name="additionalGids", default_factory=list)


class _Described(msgspec.Struct, rename="camel"):
    name: str
    container_edits: _Edits = msgspec.field(default_factory=_Edits)


class _File(msgspec.Struct, rename="camel"):
    kind: str
    cdi_version: str = ""
    devices: list[_Described] = []
    container_edits: _Edits = msgspec.field(default_factory=_Edits)


@dataclass(frozen=True, slots=True)
class Edits:
    """What devices add to a container."""

    env: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    binds: tuple[Bind, ...] = ()
    groups: tuple[int, ...] = ()


def resolve(names: Sequence[str], directories: Sequence[Path]) -> Edits:
    """What the devices `vendor/class=name` add. Failed for one that nobody describes, or a description that is bad."""
    if not names:
        return Edits()
    files = {file.kind: file for directory in directories for file in _read_directory(directory)}
    missing = [name for name in names if _find(name, files) is None]
    if missing:
        known = [f"{file.kind}={device.name}" for file in files.values() for device in file.devices]
        raise Failed(
            f"{_PROBLEM}: unresolvable CDI devices {', '.join(missing)}", f"known: {', '.join(known) or 'none'}"
        )
    edits: list[_Edits] = []
    for name in dict.fromkeys(names):
        file = files[name.partition("=")[0]]
        if file.container_edits not in edits:
            edits.append(file.container_edits)
        edits.extend(device.container_edits for device in (_find(name, files),) if device)
    return _combine(edits)


def _find(name: str, files: dict[str, _File]) -> _Described | None:
    kind, _, wanted = name.partition("=")
    devices = files[kind].devices if kind in files else []
    return next((device for device in devices if device.name == wanted), None)


def _read_directory(directory: Path) -> Iterator[_File]:
    for path in sorted(directory.glob("*")):
        if path.suffix in (".json", ".yaml", ".yml"):
            yield _read_file(path)


def _read_file(path: Path) -> _File:
    try:
        text = path.read_bytes()
        if path.suffix == ".json":
            return msgspec.json.decode(text, type=_File)
        return msgspec.yaml.decode(text, type=_File)
    except (msgspec.MsgspecError, OSError) as error:
        raise Failed(f"{_PROBLEM}: {path}: {error}", "see the Container Device Interface's specification") from error


def _combine(edits: Sequence[_Edits]) -> Edits:
    if any(each.hooks for each in edits):
        raise Failed(f"{_PROBLEM}: hooks are not supported", "devices of files without hooks can be used")
    return Edits(
        env=tuple(variable for each in edits for variable in each.env),
        devices=tuple(device for each in edits for node in each.device_nodes for device in _devices(node)),
        binds=tuple(_bind(mount) for each in edits for mount in each.mounts),
        groups=tuple(group for each in edits for group in each.additional_gids),
    )


def _devices(node: _Node) -> Iterator[Device]:
    for device in read_devices(node.host_path or node.path, node.path, node.permissions):
        yield Device(
            path=device.path,
            type=device.type,
            major=device.major,
            minor=device.minor,
            mode=device.mode,
            uid=device.uid if node.uid is None else node.uid,
            gid=device.gid if node.gid is None else node.gid,
            access=device.access,
        )


def _bind(mount: _Mount) -> Bind:
    return Bind(
        source=Path(mount.host_path), destination=mount.container_path, read_only="ro" in mount.options, recursive=True
    )
