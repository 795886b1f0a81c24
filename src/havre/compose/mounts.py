"""Mounts of a service's container: volumes, bind mounts, configs and secrets from files, and anonymous volumes that it
takes over from the container it replaces.

Bind mounts whose source may be created are sent as text (`Binds`), since engines below API 1.42 create it only then;
all
others, and what text cannot express, are sent as objects (`Mounts`).
"""

from __future__ import annotations

import posixpath
from typing import Any

from havre.compose.project import Project, Service
from havre.errors import Unsupported

Mount = dict[str, Any]

_RECURSIVE = {
    "disabled": "NonRecursive",
    "writable": "ReadOnlyNonRecursive",
    "readonly": "ReadOnlyForceRecursive",
}
"""The API's value of `bind.recursive`; the default includes submounts, read-only where supported."""


def build_mounts(
    project: Project, service: Service, image: dict[str, Any], replaced: dict[str, Any] | None
) -> tuple[list[str], list[Mount]]:
    """`Binds` and `Mounts` of a container; `replaced` is the list entry of the one whose anonymous volumes it takes
    over."""
    volumes = list(service.get("volumes", ()))
    mounts = _inherited(volumes, image, replaced) if replaced else {}
    volumes = [volume for volume in volumes if volume.get("source") or volume["target"] not in mounts]
    for volume in volumes:
        mounts[posixpath.normpath(volume["target"])] = _mount(project, volume)
    for kind in ("secrets", "configs"):
        for mount in _files(project, service, kind):
            mounts.setdefault(mount["Target"], mount)
    by_target = {posixpath.normpath(volume["target"]): volume for volume in volumes}
    binds: list[str] = []
    objects: list[Mount] = []
    for target in sorted(mounts):
        volume = by_target.get(target)
        as_text = mounts[target]["Type"] == "bind" and volume is not None and _is_text(volume)
        if as_text and volume is not None:
            binds.append(_text(volume, mounts[target]["Source"]))
        else:
            objects.append(mounts[target])
    return binds, objects


def _is_text(volume: dict[str, Any]) -> bool:
    bind = volume.get("bind", {})
    return volume["type"] != "bind" or (bool(bind.get("create_host_path")) and bind.get("recursive") not in _RECURSIVE)


def _inherited(volumes: list[dict[str, Any]], image: dict[str, Any], replaced: dict[str, Any]) -> dict[str, Mount]:
    declared = (image.get("Config") or {}).get("Volumes") or {}
    anonymous = {posixpath.normpath(volume["target"]) for volume in volumes if not volume.get("source")}
    kept = {}
    for mount in replaced.get("Mounts") or ():
        target = posixpath.normpath(mount["Destination"])
        if mount["Type"] == "tmpfs" or not (target in declared or target in anonymous):
            continue
        source = mount["Name"] if mount["Type"] == "volume" else mount["Source"]
        kept[target] = {"Type": mount["Type"], "Source": source, "Target": target, "ReadOnly": not mount["RW"]}
    return kept


def _mount(project: Project, volume: dict[str, Any]) -> Mount:
    kind, source = volume["type"], volume.get("source", "")
    defined = project.volumes.get(source, {}) if kind == "volume" else {}
    mount: Mount = {"Type": kind, "Target": posixpath.normpath(volume["target"])}
    if source:
        mount["Source"] = defined.get("name", source)
    if volume.get("read_only"):
        mount["ReadOnly"] = True
    if volume.get("consistency"):
        mount["Consistency"] = volume["consistency"]
    if defined.get("driver_opts", {}).get("o") == "bind":
        mount["Type"] = "bind"
    elif kind == "bind" and (options := _bind_options(volume.get("bind", {}))):
        mount["BindOptions"] = options
    elif kind == "image" and volume.get("image", {}).get("subpath"):
        mount["ImageOptions"] = {"Subpath": volume["image"]["subpath"]}
    elif kind == "volume" and "volume" in volume:
        own = volume["volume"]
        mount["VolumeOptions"] = {"NoCopy": bool(own.get("nocopy"))} | (
            {api: own[key] for key, api in (("subpath", "Subpath"), ("labels", "Labels")) if own.get(key)}
        )
    elif kind == "tmpfs" and "tmpfs" in volume:
        own = volume["tmpfs"]
        mount["TmpfsOptions"] = {"SizeBytes": own.get("size", 0), "Mode": own.get("mode", 0)}
    return mount


def _bind_options(bind: dict[str, Any]) -> dict[str, Any]:
    options = {"Propagation": bind["propagation"]} if bind.get("propagation") else {}
    if bind.get("recursive") in _RECURSIVE:
        options[_RECURSIVE[bind["recursive"]]] = True
        if bind.get("create_host_path"):
            options["CreateMountpoint"] = True
    return options


def _text(volume: dict[str, Any], source: str) -> str:
    options = ["ro" if volume.get("read_only") else "rw"]
    bind = volume.get("bind", {})
    options += [bind[key] for key in ("selinux", "propagation") if bind.get(key)]
    if volume.get("volume", {}).get("nocopy"):
        options.append("nocopy")
    return f"{source}:{posixpath.normpath(volume['target'])}:{','.join(options)}"


def file_target(kind: str, entry: dict[str, Any]) -> str:
    """The path of a config or secret in the container."""
    folder = "/run/secrets/" if kind == "secrets" else "/"
    target: str = entry.get("target") or entry["source"]
    return target if target.startswith("/") else folder + target


def _files(project: Project, service: Service, kind: str) -> list[Mount]:
    mounts = []
    for entry in service.get(kind, ()):
        defined = getattr(project, kind)[entry["source"]]
        if defined.get("external"):
            raise Unsupported(f"unsupported external {kind[:-1]} {defined['name']}")
        for key in ("driver", "template_driver"):
            if defined.get(key):
                raise Unsupported(f"{kind}.{entry['source']}.{key}: no driver can be asked for its content")
        if "file" in defined:
            target = file_target(kind, entry)
            mounts.append({"Type": "bind", "Source": defined["file"], "Target": target, "ReadOnly": True})
    return mounts


def injected_files(project: Project, service: Service) -> list[tuple[str, dict[str, Any], str]]:
    """Configs and secrets without a file: target, the service's entry, and the content. Raises Unsupported."""
    files = []
    for kind in ("secrets", "configs"):
        for entry in service.get(kind, ()):
            defined = getattr(project, kind)[entry["source"]]
            variable = defined.get("environment")
            content = project.variables.get(variable) if variable else defined.get("content")
            if variable and content is None:
                raise Unsupported(f'environment variable "{variable}" required by file "{defined["name"]}" is not set')
            if content is not None and (variable or content):
                files.append((file_target(kind, entry), entry, content))
    return files
