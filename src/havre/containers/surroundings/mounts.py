"""Parses mounts of a container: `-v`, `--mount`, `--volumes-from`, and the image's VOLUMEs.

Pure: looks at neither the host nor volumes. For each destination the first source wins, in Docker's order: `--mount`,
`-v`, `--volumes-from`, the image. Error messages are Docker's.

    -v      [SOURCE:]DESTINATION[:MODE]     SOURCE absolute: bind, else the name of a volume, none: an anonymous one
    MODE    ro | rw, z | Z, copy | nocopy, [r]private | [r]shared | [r]slave, comma-separated
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from havre.containers.container import Container, MountOptions, MountPoint
from havre.errors import InvalidInput
from havre.wire.config import HostConfig, Mount

PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
DEFAULT_PROPAGATION = "rprivate"
DEFAULT_MODE = "z"
"""The default mode of volumes; volumes of plugins have none."""
_GROUPS = (
    frozenset({"ro", "rw"}),
    frozenset({"z", "Z"}),
    frozenset(PROPAGATIONS),
    frozenset({"nocopy"}),
    frozenset({"consistent", "cached", "delegated"}),
)


@dataclass(frozen=True, slots=True)
class MountSpec:
    """A requested mount.

    `source` is a host path (bind), the name of a volume or image, or "" (anonymous volume, tmpfs).
    """

    type: str
    destination: str
    source: str = ""
    rw: bool = True
    mode: str = ""
    propagation: str = ""
    driver: str = ""
    driver_options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    options: MountOptions = field(default_factory=MountOptions)


def plan_mounts(host: HostConfig, volumes: Iterable[str], inherited: Sequence[MountSpec] = ()) -> tuple[MountSpec, ...]:
    """All mounts of a new container, parent directories before mounts inside them.

    `volumes` are the destinations that the image and `-v DESTINATION` declare; `inherited` are from `--volumes-from`.
    """
    chosen = {spec.destination: spec for spec in inherited}
    explicit: dict[str, MountSpec] = {}
    for raw in host.binds or ():
        _add(explicit, parse_bind(raw, host.volume_driver))
    for mount in host.mounts or ():
        _add(explicit, parse_mount(mount))
    tmpfs = {posixpath.normpath(path) for path in host.tmpfs or ()}
    if clash := tmpfs & explicit.keys():
        raise InvalidInput(f"Duplicate mount point: {min(clash)}")
    chosen.update(explicit)
    for path in volumes:
        destination = _destination(posixpath.join("/", path), f"invalid volume specification: '{path}'")
        if destination not in chosen and destination not in tmpfs:
            chosen[destination] = _anonymous(destination, host.volume_driver)
    return tuple(sorted(chosen.values(), key=lambda spec: spec.destination.count("/")))


def settle_propagation(spec: MountSpec, roots: Iterable[str]) -> MountSpec:
    """Set the propagation of a bind mount: by default rprivate, or rslave if it contains one of the daemon's `roots`.

    With rslave, unmounts by the daemon propagate to the container, which would otherwise keep the mounts busy:
    mount_namespaces(7).
    """
    if spec.type != "bind":
        return spec
    near = any(_is_within(spec.source, root) or _is_within(root, spec.source) for root in roots)
    if near and spec.propagation not in ("", "rslave", "rshared"):
        raise InvalidInput(
            'invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is within '
            f'the daemon root, bind mount source: "{spec.source}", propagation: "{spec.propagation}"'
        )
    if near and not spec.propagation:
        return replace(spec, propagation="rslave", options=msgspec.structs.replace(spec.options, slave_if_shared=True))
    return replace(spec, propagation=spec.propagation or DEFAULT_PROPAGATION)


def _is_within(path: str, directory: str) -> bool:
    return posixpath.commonpath((path, directory)) == posixpath.normpath(directory)


def leave_submounts(spec: MountSpec) -> MountSpec:
    """Make a read-only bind mount non-recursive: mounts below it stay writable. Other mounts are returned unchanged."""
    if spec.type != "bind" or spec.rw:
        return spec
    return replace(spec, options=msgspec.structs.replace(spec.options, read_only_non_recursive=True))


def _add(specs: dict[str, MountSpec], spec: MountSpec) -> None:
    if spec.destination in specs:
        raise InvalidInput(f"Duplicate mount point: {spec.destination}")
    specs[spec.destination] = spec


def _anonymous(destination: str, driver: str) -> MountSpec:
    return MountSpec("volume", destination, driver=driver, options=MountOptions(anonymous=True))


def parse_bind(raw: str, driver: str = "") -> MountSpec:
    """Parse one `-v` with a source."""
    problem = f"invalid volume specification: '{raw}'"
    source, destination, mode = _split_bind(raw, problem)
    if not mode_is_valid(mode):
        raise InvalidInput(f"invalid mode: {mode}", "modes: ro, rw, z, Z, nocopy and the propagations")
    words = mode.split(",")
    kind = "bind" if source.startswith("/") else "volume"
    spec = MountSpec(
        kind,
        _destination(destination, f'{problem}: invalid mount config for type "{kind}"'),
        source=source,
        rw="ro" not in words,
        mode=mode,
    )
    propagation = next((word for word in words if word in PROPAGATIONS), "")
    if spec.type == "volume":
        if propagation:
            what = 'invalid mount config for type "volume": field BindOptions must not be specified'
            raise InvalidInput(f"{problem}: {what}")
        options = MountOptions(no_copy="nocopy" in words, anonymous=not source)
        return replace(spec, driver=driver, options=options, mode=mode or DEFAULT_MODE)
    if "nocopy" in words:
        what = 'invalid mount config for type "bind": field VolumeOptions must not be specified'
        raise InvalidInput(f"{problem}: {what}")
    options = MountOptions(create_source=True)
    return replace(spec, source=posixpath.normpath(source), propagation=propagation, options=options)


def _split_bind(raw: str, problem: str) -> tuple[str, str, str]:
    parts = raw.split(":")
    if not parts[0] or len(parts) > 3 or (len(parts) == 2 and mode_is_valid(parts[1])):
        raise InvalidInput(problem, "expected [SOURCE:]DESTINATION[:MODE]")
    if len(parts) == 1:
        return "", parts[0], ""
    return parts[0], parts[1], parts[2] if len(parts) == 3 else ""


def mode_is_valid(mode: str) -> bool:
    """Report whether all words of a mode are known and do not conflict."""
    if not mode:
        return True
    words = mode.split(",")
    known = all(any(word in group for group in _GROUPS) for word in words)
    return known and all(sum(word in group for word in words) <= 1 for group in _GROUPS)


def _destination(path: str, problem: str) -> str:
    if not path.startswith("/"):
        raise InvalidInput(f"{problem}: invalid mount path: '{path}' mount path must be absolute")
    clean = posixpath.normpath(path.replace("//", "/"))
    if clean == "/":
        raise InvalidInput(f"{problem}: invalid specification: destination can't be '/'")
    return clean


def parse_mount(mount: Mount) -> MountSpec:
    """Parse one `--mount`. The existence of a bind's source is checked at the start."""
    problem = f'invalid mount config for type "{mount.type}"'
    if mount.type not in _PARSERS:
        raise InvalidInput(f"{problem}: mount type unknown", f"expected one of {', '.join(_PARSERS)}")
    if not mount.target:
        raise InvalidInput(f"{problem}: field Target must not be empty")
    for kind, options in (
        ("bind", mount.bind_options),
        ("volume", mount.volume_options),
        ("tmpfs", mount.tmpfs_options),
        ("image", mount.image_options),
    ):
        if options is not None and kind != mount.type:
            raise InvalidInput(f"{problem}: field {kind.capitalize()}Options must not be specified")
    destination = _destination(mount.target, problem)
    return _PARSERS[mount.type](mount, destination, problem)


def _parse_bind_mount(mount: Mount, destination: str, problem: str) -> MountSpec:
    if not mount.source:
        raise InvalidInput(f"{problem}: field Source must not be empty")
    if not mount.source.startswith("/"):
        raise InvalidInput(f"{problem}: invalid mount path: '{mount.source}' mount path must be absolute")
    given = mount.bind_options
    propagation = given.propagation if given else ""
    if propagation and propagation not in PROPAGATIONS:
        raise InvalidInput(f"{problem}: invalid propagation mode: {propagation}", f"one of {', '.join(PROPAGATIONS)}")
    return MountSpec(
        "bind",
        destination,
        source=posixpath.normpath(mount.source),
        rw=not mount.read_only,
        propagation=propagation,
        options=MountOptions(
            create_source=given is not None and given.create_mountpoint,
            non_recursive=given is not None and given.non_recursive,
            read_only_non_recursive=given is not None and given.read_only_non_recursive,
            read_only_force_recursive=given is not None and given.read_only_force_recursive,
        ),
    )


def _parse_volume_mount(mount: Mount, destination: str, problem: str) -> MountSpec:
    given = mount.volume_options
    if given is not None and given.subpath:
        if not mount.source:
            raise InvalidInput(f"{problem}: must not set Subpath when using anonymous volumes")
        _check_subpath(given.subpath, problem, "volume")
    driver = given.driver_config if given else None
    return MountSpec(
        "volume",
        destination,
        source=mount.source,
        rw=not mount.read_only,
        mode=DEFAULT_MODE,
        driver=driver.name if driver else "",
        driver_options=dict((driver.options if driver else None) or {}),
        labels=dict((given.labels if given else None) or {}),
        options=MountOptions(
            anonymous=not mount.source,
            no_copy=given is not None and given.no_copy,
            subpath=given.subpath if given else "",
        ),
    )


def _parse_tmpfs_mount(mount: Mount, destination: str, problem: str) -> MountSpec:
    if mount.source:
        raise InvalidInput(f"{problem}: field Source must not be specified")
    return MountSpec("tmpfs", destination, rw=not mount.read_only, options=MountOptions(tmpfs=mount.tmpfs_options))


def _parse_image_mount(mount: Mount, destination: str, problem: str) -> MountSpec:
    """Docker 28's image mounts, which are always read-only."""
    if not mount.source:
        raise InvalidInput(f"{problem}: field Source must not be empty")
    subpath = mount.image_options.subpath if mount.image_options else ""
    _check_subpath(subpath, problem, "image")
    return MountSpec("image", destination, source=mount.source, rw=False, options=MountOptions(subpath=subpath))


def _check_subpath(subpath: str, problem: str, kind: str) -> None:
    if subpath.startswith("/") or ".." in subpath.split("/"):
        raise InvalidInput(f"{problem}: subpath must be a relative path within the {kind}")


_PARSERS = {
    "bind": _parse_bind_mount,
    "volume": _parse_volume_mount,
    "tmpfs": _parse_tmpfs_mount,
    "image": _parse_image_mount,
}


def image_snapshot(container_id: str, destination: str) -> str:
    """The snapshot of an image mount: one for each container and destination."""
    return f"{container_id}-image-{hashlib.sha256(destination.encode()).hexdigest()[:16]}"


def image_snapshots(container: Container) -> list[str]:
    """The snapshots of all image mounts of a container."""
    return [image_snapshot(container.id, point.destination) for point in container.spec.mounts if point.type == "image"]


def parse_volumes_from(raw: str) -> tuple[str, str]:
    """The container and the mode of one `--volumes-from`."""
    name, _, mode = raw.partition(":")
    if not name:
        raise InvalidInput("volumes-from specification cannot be an empty string")
    mode = mode or "rw"
    forbidden = (*PROPAGATIONS, "nocopy")
    if not mode_is_valid(mode) or any(word in forbidden for word in mode.split(",")):
        raise InvalidInput(f"invalid mode: {mode}", "expected ro or rw")
    return name, mode


def inherit(point: MountPoint, options: MountOptions, mode: str) -> MountSpec:
    """A mount inherited by `--volumes-from`; an anonymous volume has a name by then."""
    return MountSpec(
        point.type,
        point.destination,
        source=point.name if point.type == "volume" else point.source,
        rw=point.rw and "ro" not in mode.split(","),
        mode=mode if point.type == "volume" else "",
        propagation=point.propagation,
        driver=point.driver,
        options=options,
    )
