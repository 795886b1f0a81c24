"""CDI devices: `--device vendor.com/class=name`, described by files of the vendor's tools on the host. Blocking.

    /etc/cdi/*.json, *.yaml --> kind "vendor.com/class", devices by name --> containerEdits --> Edits of a container
    /var/run/cdi/...            (a file of a later directory wins)          of the file, then of each device

An edit adds variables, device nodes, mounts, groups, and hooks: programs of the host that the OCI runtime runs
(docs/why/processes.md#exec-health-figures-limits). Moving network devices into the container is not supported.

Source: the Container Device Interface specification, 0.3.0 to 1.1.0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from havre.errors import Failed
from havre.runtime import read_devices
from havre.runtime.plan import HOOKS, PROPAGATIONS, RESTRICTIONS, Bind, Device, Hook, Mount, Tmpfs

_PROBLEM = "CDI device injection failed"


class _Node(msgspec.Struct, rename="camel"):
    path: str
    host_path: str = ""
    permissions: str = "rwm"
    type: str = ""
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class _Mount(msgspec.Struct, rename="camel"):
    host_path: str
    container_path: str
    type: str = ""
    options: list[str] = []


class _Hook(msgspec.Struct, rename="camel"):
    hook_name: str
    path: str
    args: list[str] = []
    env: list[str] = []
    timeout: int = 0


class _Rdt(msgspec.Struct, rename="camel", omit_defaults=True):
    """Classes of cache and memory bandwidth (Intel RDT), passed to the OCI runtime unchanged."""

    clos_id: str = msgspec.field(name="closID", default="")
    l3_cache_schema: str = ""
    mem_bw_schema: str = ""
    enable_monitoring: bool = False
    enable_cmt: bool = msgspec.field(name="enableCMT", default=False)
    enable_mbm: bool = msgspec.field(name="enableMBM", default=False)


class _Edits(msgspec.Struct, rename="camel"):
    env: list[str] = []
    device_nodes: list[_Node] = []
    mounts: list[_Mount] = []
    hooks: list[_Hook] = []
    additional_gids: list[int] = []
    intel_rdt: _Rdt | None = None
    net_devices: list[Any] = []


class _Described(msgspec.Struct, rename="camel"):
    name: str
    container_edits: _Edits = msgspec.field(default_factory=_Edits)
    annotations: dict[str, str | bool] = {}


class _File(msgspec.Struct, rename="camel"):
    kind: str
    cdi_version: str = ""
    devices: list[_Described] = []
    container_edits: _Edits = msgspec.field(default_factory=_Edits)
    annotations: dict[str, str | bool] = {}


@dataclass(frozen=True, slots=True)
class KnownDevice:
    """A described device, `vendor.com/class=name`, with the annotations of its file and its own."""

    name: str
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Edits:
    """The additions of devices to a container."""

    env: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    mounts: tuple[Mount, ...] = ()
    groups: tuple[int, ...] = ()
    hooks: tuple[Hook, ...] = ()
    intel_rdt: Mapping[str, Any] | None = None


def resolve(names: Sequence[str], directories: Sequence[Path]) -> Edits:
    """The edits of the devices `vendor/class=name`. Raises `Failed` for unknown devices and invalid descriptions."""
    if not names:
        return Edits()
    files = _read_files(directories)
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


def known_devices(directories: Sequence[Path]) -> list[KnownDevice]:
    """All devices that `resolve` would find, by name. Raises `Failed` for a description that cannot be read."""
    return sorted(
        (
            KnownDevice(f"{file.kind}={device.name}", _texts({**file.annotations, **device.annotations}))
            for file in _read_files(directories).values()
            for device in file.devices
        ),
        key=lambda device: device.name,
    )


def _texts(annotations: Mapping[str, str | bool]) -> dict[str, str]:
    """Annotations as texts; in YAML `true` without quotes is a truth value."""
    return {name: value if isinstance(value, str) else str(value).lower() for name, value in annotations.items()}


def list_devices(directories: Sequence[Path]) -> tuple[list[str], list[str]]:
    """The names of all devices that are described, sorted, and what is wrong with files that cannot be read."""
    names: set[str] = set()
    problems = []
    for directory in directories:
        for path in _description_paths(directory):
            try:
                file = _read_file(path)
            except Failed as error:
                problems.append(f"CDI: Error associated with spec file {path}: {error.message}")
            else:
                names.update(f"{file.kind}={device.name}" for device in file.devices)
    return sorted(names), problems


def _find(name: str, files: dict[str, _File]) -> _Described | None:
    kind, _, wanted = name.partition("=")
    devices = files[kind].devices if kind in files else []
    return next((device for device in devices if device.name == wanted), None)


def _read_files(directories: Sequence[Path]) -> dict[str, _File]:
    """The descriptions by kind."""
    return {file.kind: file for directory in directories for file in _read_directory(directory)}


def _read_directory(directory: Path) -> Iterator[_File]:
    return map(_read_file, _description_paths(directory))


def _description_paths(directory: Path) -> list[Path]:
    return [path for path in sorted(directory.glob("*")) if path.suffix in (".json", ".yaml", ".yml")]


def _read_file(path: Path) -> _File:
    try:
        text = path.read_bytes()
        if path.suffix == ".json":
            return msgspec.json.decode(text, type=_File)
        return msgspec.yaml.decode(text, type=_File)
    except (msgspec.MsgspecError, RecursionError, OSError) as error:
        raise Failed(f"{_PROBLEM}: {path}: {error}", "see the Container Device Interface's specification") from error


def _combine(edits: Sequence[_Edits]) -> Edits:
    if any(each.net_devices for each in edits):
        raise Failed(f"{_PROBLEM}: netDevices are not supported", "devices without netDevices can be used")
    rdt = [each.intel_rdt for each in edits if each.intel_rdt is not None]
    return Edits(
        env=tuple(variable for each in edits for variable in each.env),
        devices=tuple(device for each in edits for node in each.device_nodes for device in _devices(node)),
        mounts=tuple(_mount(mount) for each in edits for mount in each.mounts),
        groups=tuple(group for each in edits for group in each.additional_gids if group),
        hooks=tuple(_hook(hook) for each in edits for hook in each.hooks),
        intel_rdt=msgspec.to_builtins(rdt[-1]) if rdt else None,
    )


def _devices(node: _Node) -> Iterator[Device]:
    """A node with device numbers need not exist on the host."""
    if node.type and node.major:
        found = [Device(path=node.path, type=node.type, major=node.major, minor=node.minor, access=node.permissions)]
    else:
        found = read_devices(node.host_path or node.path, node.path, node.permissions)
    for device in found:
        yield replace(
            device,
            uid=device.uid if node.uid is None else node.uid,
            gid=device.gid if node.gid is None else node.gid,
            mode=device.mode if node.file_mode is None else node.file_mode,
        )


def _mount(mount: _Mount) -> Mount:
    if mount.type == "tmpfs":
        return Tmpfs(destination=mount.container_path, options=tuple(mount.options))
    if mount.type not in ("", "none", "bind"):
        raise Failed(f"{_PROBLEM}: mount of type {mount.type} at {mount.container_path}", "expected bind or tmpfs")
    return Bind(
        source=Path(mount.host_path),
        destination=mount.container_path,
        read_only="ro" in mount.options,
        propagation=next((option for option in mount.options if option in PROPAGATIONS), "rprivate"),
        restrictions=tuple(option for option in mount.options if option in RESTRICTIONS),
    )


def _hook(hook: _Hook) -> Hook:
    if hook.hook_name not in HOOKS or not hook.path.startswith("/"):
        hint = f"expected an absolute path and one of {', '.join(HOOKS)}"
        raise Failed(f"{_PROBLEM}: invalid hook {hook.hook_name!r} with the path {hook.path!r}", hint)
    return Hook(when=hook.hook_name, path=hook.path, args=tuple(hook.args), env=tuple(hook.env), timeout_s=hook.timeout)
