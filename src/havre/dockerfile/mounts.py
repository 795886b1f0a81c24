"""`RUN --mount=...`: mounts of a step beside its root file system. Pure.

    bind    files of a stage, image or context, read-only unless `rw`; writes are discarded
    cache   a directory kept between builds, by `id`                     tmpfs   memory
    secret  a file or variable with one of the client's secrets          ssh     socket of the client's SSH agent

Source: the Dockerfile reference, "RUN --mount".
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from havre.dockerfile.syntax import nearest
from havre.errors import InvalidInput
from havre.golang.csvtext import split_csv
from havre.golang.units import parse_bool, parse_size

TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_KEYS = {
    "bind": ("from", "source", "target", "readonly"),
    "cache": ("id", "from", "source", "target", "readonly", "sharing", "mode", "uid", "gid"),
    "tmpfs": ("target", "size"),
    "secret": ("id", "target", "required", "mode", "uid", "gid", "env", "source"),
    "ssh": ("id", "target", "required", "mode", "uid", "gid", "source"),
}
_SAME = {"src": "source", "dst": "target", "destination": "target", "ro": "readonly"}


@dataclass(frozen=True, kw_only=True)
class RunMount:
    """One mount; texts may contain variables. `size` is in bytes; a `mode` of None is the type's default."""

    type: str = "bind"
    source: str = ""
    target: str = ""
    from_: str = ""
    id: str = ""
    env: str = ""
    read_only: bool = False
    required: bool = False
    sharing: str = "shared"
    mode: int | None = None
    uid: int = 0
    gid: int = 0
    size: int = 0


def secret_id(mount: RunMount) -> str:
    """The ID of the secret that a mount of type secret refers to."""
    return mount.id or mount.source or posixpath.basename(mount.target)


def parse_mount(text: str) -> RunMount:
    """The mount of a `--mount` flag's value. Raises `InvalidInput`."""
    fields: dict[str, str] = {}
    for field in _split_fields(text):
        key, equals, value = field.partition("=")
        key = _SAME.get(key.strip().lower(), key.strip().lower())
        if key in ("rw", "readwrite"):
            key, value = "readonly", "false" if _truth(key, value, equals) else "true"
        elif not equals and key not in ("readonly", "required"):
            raise InvalidInput(f"invalid field '{field}', must be a key=value pair")
        elif not equals:
            value = "true"
        fields[key] = value
    kind = fields.pop("type", "bind")
    if kind not in TYPES:
        raise InvalidInput(f"unsupported mount type '{kind}'{nearest(kind, TYPES)}")
    for key in fields:
        if key not in _KEYS[kind]:
            raise InvalidInput(f"unexpected key '{key}' for mount type '{kind}'{nearest(key, _KEYS[kind])}")
    _check(kind, fields)
    return RunMount(
        type=kind,
        source=fields.get("source", ""),
        target=fields.get("target", ""),
        from_=fields.get("from", ""),
        id=fields.get("id", ""),
        env=fields.get("env", ""),
        read_only=_truth("readonly", fields.get("readonly", "true" if kind == "bind" else "false"), "="),
        required=_truth("required", fields.get("required", "false"), "="),
        sharing=fields.get("sharing", "shared"),
        mode=_octal(fields["mode"]) if "mode" in fields else None,
        uid=_number("uid", fields.get("uid", "0")),
        gid=_number("gid", fields.get("gid", "0")),
        size=_size(fields.get("size", "")),
    )


def _split_fields(text: str) -> list[str]:
    try:
        return split_csv(text)
    except ValueError as error:
        raise InvalidInput(f"{error}: {text}") from None


def _check(kind: str, fields: dict[str, str]) -> None:
    if kind in ("bind", "cache", "tmpfs") and not fields.get("target"):
        raise InvalidInput(f"target is required for mount type '{kind}'")
    if kind == "secret" and not (fields.get("id") or fields.get("source") or fields.get("target")):
        raise InvalidInput("invalid secret mount: one of source, target required")
    if (sharing := fields.get("sharing", "shared")) not in ("shared", "private", "locked"):
        raise InvalidInput(f"unsupported sharing value '{sharing}'{nearest(sharing, ('shared', 'private', 'locked'))}")


def _truth(key: str, value: str, equals: str) -> bool:
    try:
        return parse_bool(value) if equals else True
    except ValueError:
        raise InvalidInput(f"invalid value for {key}: {value}") from None


def _number(key: str, text: str) -> int:
    if not text.isdecimal() or int(text) >= 1 << 32:
        raise InvalidInput(f"invalid value {text} for {key}")
    return int(text)


def _octal(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise InvalidInput(f"invalid value {text} for mode")
    return mode


def _size(text: str) -> int:
    try:
        return parse_size(text) if text else 0
    except ValueError:
        raise InvalidInput(f"invalid value for size: {text}") from None
