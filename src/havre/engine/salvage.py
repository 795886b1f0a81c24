"""What can be read of a damaged row: field by field, so that one wrong value spoils neither a list nor a start.

A container of such a row is listed as exited with an error that says so, and can be removed, committed and copied from;
it cannot be started or changed, and the row stays as it is. Nothing of it that others have to agree with (networks,
ports, limits of the host) is believed. Pure.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from havre.engine.model import ZERO_TIME, Config, Container, HostConfig, State

T = TypeVar("T", bound=msgspec.Struct)

_UNBELIEVED = frozenset({"host_config", "state", "networks", "asked_networks", "ports", "manually_stopped", "runtime"})
LOST_CODE = 255


def readable_fields(value: bytes, type: type[T]) -> dict[str, Any]:
    """The fields of a `type` that are in the document `value` and have the right type."""
    try:
        plain = msgspec.json.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    found = {}
    for field in msgspec.structs.fields(type) if isinstance(plain, dict) else ():
        try:
            found[field.name] = msgspec.convert(plain[field.encode_name], field.type)
        except (KeyError, msgspec.ValidationError):
            continue
    return found


def salvage_container(id: str, value: bytes) -> Container:
    """The container of a damaged row."""
    fields = {name: one for name, one in readable_fields(value, Container).items() if name not in _UNBELIEVED}
    error = "its row in the database is damaged; commit or copy what is needed, then remove it"
    needed: dict[str, Any] = {
        "name": id[:12], "created": ZERO_TIME, "image": "", "path": "", "args": [], "config": Config(),
    }  # fmt: skip
    state = State(status="exited", exit_code=LOST_CODE, error=error)
    return Container(**{**needed, **fields, "id": id, "host_config": HostConfig(), "state": state})
