"""`--mount` and `--tmpfs` to the API's JSON.

type=bind|volume|tmpfs|image, source|src, target|dst|destination, readonly|ro, and options of each type, as CSV
"""

from __future__ import annotations

from havre.client.config import home
from havre.golang.csvtext import split_csv
from havre.golang.units import parse_bool, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SWITCHES = {"readonly": ("ReadOnly",), "ro": ("ReadOnly",), "volume-nocopy": ("VolumeOptions", "NoCopy"),
             "bind-nonrecursive": ("BindOptions", "NonRecursive")}  # fmt: skip
_RECURSIVE = {"disabled": "NonRecursive", "writable": "ReadOnlyNonRecursive", "readonly": "ReadOnlyForceRecursive"}
_OPTIONS_OF = {"BindOptions": "bind", "VolumeOptions": "volume", "TmpfsOptions": "tmpfs", "ImageOptions": "image"}


def parse_mount(text: str) -> dict[str, Any]:
    """The API's `Mount` of one `--mount`. Raises ValueError in docker's words."""
    mount: dict[str, Any] = {"Type": "volume"}
    for field in split_csv(text.strip()):
        _take(mount, field, text)
    if not mount.get("Type"):
        raise ValueError("type is required")
    if not mount.get("Target"):
        raise ValueError("target is required")
    for options, kind in _OPTIONS_OF.items():
        if options in mount and mount["Type"] != kind:
            raise ValueError(f"cannot mix '{kind}-*' options with mount type '{mount['Type']}'")
    _check_recursion(mount.get("BindOptions", {}), mount.get("ReadOnly", False))
    return mount


def _check_recursion(bind: dict[str, Any], read_only: bool) -> None:
    for name, value in (("ReadOnlyNonRecursive", "writable"), ("ReadOnlyForceRecursive", "readonly")):
        if bind.get(name) and not read_only:
            raise ValueError(f"option 'bind-recursive={value}' requires 'readonly' to be specified in conjunction")
    if bind.get("ReadOnlyForceRecursive") and bind.get("Propagation") != "rprivate":
        raise ValueError(
            "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction"
        )


def _take(mount: dict[str, Any], field: str, text: str) -> None:
    key, equals, value = field.partition("=")
    key = key.lower()
    if not equals and key not in _SWITCHES:
        raise ValueError(f"invalid field '{field}' must be a key=value pair")
    if key in _SWITCHES:
        _switch(mount, key, value if equals else "true")
    elif key == "type":
        mount["Type"] = value.lower()
    elif key in ("source", "src"):
        mount["Source"] = _absolute(value) if value.startswith(".") else value
    elif key in ("target", "dst", "destination"):
        mount["Target"] = value
    elif key == "consistency":
        mount["Consistency"] = value.lower()
    elif not _take_option(mount, key, value):
        raise ValueError(f"unexpected key '{key}' in '{field}'")


def _switch(mount: dict[str, Any], key: str, value: str) -> None:
    try:
        on = parse_bool(value)
    except ValueError:
        raise ValueError(f"invalid value for {key}: {value}") from None
    *path, name = _SWITCHES[key]
    for part in path:
        mount = mount.setdefault(part, {})
    mount[name] = on


def _take_option(mount: dict[str, Any], key: str, value: str) -> bool:
    """Parse an option of one mount type; returns whether `key` is one."""
    if key == "bind-propagation":
        mount.setdefault("BindOptions", {})["Propagation"] = value.lower()
    elif key == "bind-recursive":
        _bind_recursive(mount, value)
    elif key == "volume-subpath":
        mount.setdefault("VolumeOptions", {})["Subpath"] = value
    elif key == "image-subpath":
        mount.setdefault("ImageOptions", {})["Subpath"] = value
    elif key in ("volume-label", "volume-opt"):
        volume = mount.setdefault("VolumeOptions", {})
        name, _, setting = value.partition("=")
        holder = volume if key == "volume-label" else volume.setdefault("DriverConfig", {})
        holder.setdefault("Labels" if key == "volume-label" else "Options", {})[name] = setting
    elif key == "volume-driver":
        mount.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})["Name"] = value
    elif key == "tmpfs-size":
        try:
            mount.setdefault("TmpfsOptions", {})["SizeBytes"] = parse_size(value)
        except ValueError:
            raise ValueError(f"invalid value for {key}: {value}") from None
    elif key == "tmpfs-mode":
        try:
            mount.setdefault("TmpfsOptions", {})["Mode"] = int(value, 8)
        except ValueError:
            raise ValueError(f"invalid value for {key}: {value}") from None
    else:
        return False
    return True


def _bind_recursive(mount: dict[str, Any], value: str) -> None:
    if value in _RECURSIVE:
        mount.setdefault("BindOptions", {})[_RECURSIVE[value]] = True
    elif value != "enabled":
        raise ValueError(
            f'invalid value for bind-recursive: {value} (must be "enabled", "disabled", "writable", or "readonly")'
        )


def _absolute(path: str) -> str:
    from posixpath import abspath, expanduser

    return abspath(expanduser(path) if home() else path)


def absolute_bind(text: str) -> str:
    """A `-v` with its relative source made absolute."""
    source, colon, rest = text.partition(":")
    if source == "." or source.startswith(("./", "../")) or source == "..":
        return _absolute(source) + colon + rest
    return text
