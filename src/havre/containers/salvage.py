"""Reads what is left of a container whose row in the database is damaged. Pure.

Such a container is listed as exited with an error that says so. It can be removed, committed and copied from, but not
started or changed, and its row is not rewritten. Values shared with others (networks, ports, limits of the host) are
ignored, unless its process still runs: then they are in effect, and it is left running with the readable ones.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from msgspec.structs import replace

from havre.containers.container import Container, State
from havre.storage.salvage import readable_fields
from havre.wire import times
from havre.wire.config import Config, EndpointSettings, HostConfig, RestartPolicy
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


def salvage_run(container: Container, value: bytes, now: str) -> str:
    """Set what the damaged row `value` has about the run of a container whose process still runs.

    Returns the start time; `now` if it cannot be read.
    """
    fields = readable_fields(value, Container)
    asked, had = fields.get("asked_networks", {}), fields.get("networks", {})
    container.asked_networks = asked
    container.networks = {name: settings for name, settings in had.items() if _has_sound_addresses(settings)}
    container.ports = fields.get("ports", {}) if container.networks else {}
    host = fields.get("host_config", HostConfig())
    # It cannot be restarted, and --rm must not remove what may still be saved of it.
    container.host_config = replace(host, restart_policy=RestartPolicy(), auto_remove=False)
    state = fields.get("state", State())
    try:
        times.parse(state.started_at)
    except ValueError:
        return now
    return now if state.started_at == ZERO_TIME else str(state.started_at)


def _has_sound_addresses(settings: EndpointSettings) -> bool:
    try:
        return all(ip_address(text) for text in (settings.ip_address, settings.global_ipv6_address) if text)
    except ValueError:
        return False
