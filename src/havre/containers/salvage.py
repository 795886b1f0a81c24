"""A container whose row in the database is damaged, from what can be read of it.

Such a container is listed as exited with an error that says so, and can be removed, committed and copied from;
it cannot be started or changed, and the row stays as it is. Nothing of it that others have to agree with (networks,
ports, limits of the host) is believed. Pure.
"""

from __future__ import annotations

from typing import Any

from havre.containers.container import Container, State
from havre.storage.salvage import readable_fields
from havre.wire.config import Config, HostConfig
from havre.wire.values import ZERO_TIME

_UNBELIEVED = frozenset({"host_config", "state", "networks", "asked_networks", "ports", "manually_stopped", "runtime"})
LOST_CODE = 255


def salvage_container(id: str, value: bytes) -> Container:
    """The container of a damaged row."""
    fields = {name: one for name, one in readable_fields(value, Container).items() if name not in _UNBELIEVED}
    error = "its row in the database is damaged; commit or copy what is needed, then remove it"
    needed: dict[str, Any] = {
        "name": id[:12], "created": ZERO_TIME, "image": "", "path": "", "args": [], "config": Config(),
    }  # fmt: skip
    state = State(status="exited", exit_code=LOST_CODE, error=error)
    return Container(**{**needed, **fields, "id": id, "host_config": HostConfig(), "state": state})
