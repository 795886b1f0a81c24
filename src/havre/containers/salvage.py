"""Reads what is left of a container whose row in the database is damaged. Pure.

Such a container is listed as exited with an error that says so. It can be removed, committed and copied from, but not
started or changed, and its row is not rewritten. Values shared with others (networks, ports, limits of the host) are
ignored, unless its process still runs: then they are in effect, and it is left running with the readable ones.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from msgspec.structs import replace

from havre.containers.container import Container, Run, Spec, State
from havre.storage.salvage import readable_document, valid_fields
from havre.wire import times
from havre.wire.config import Config, EndpointSettings, HostConfig, RestartPolicy
from havre.wire.values import ZERO_TIME

_SHARED_SPEC = frozenset({"host_config", "networks"})
_SHARED_RUN = frozenset({"networks", "ports"})
LOST_CODE = 255


def salvage_container(id: str, value: bytes) -> Container:
    """The container of a damaged row."""
    row, spec, run = _parts(value)
    needed: dict[str, Any] = {"created": ZERO_TIME, "image": "", "path": "", "args": [], "config": Config()}
    needed |= {name: one for name, one in spec.items() if name not in _SHARED_SPEC}
    error = "its row in the database is damaged; commit or copy what is needed, then remove it"
    return Container(
        name=row.get("name", id[:12]),
        spec=Spec(**{**needed, "id": id, "host_config": HostConfig()}),
        state=State(status="exited", exit_code=LOST_CODE, error=error),
        run=Run(**{name: one for name, one in run.items() if name not in _SHARED_RUN}),
        restart_count=row.get("restart_count", 0),
    )


def salvage_run(container: Container, value: bytes, now: str) -> str:
    """Set what the damaged row `value` has about the run of a container whose process still runs.

    Returns the start time; `now` if it cannot be read.
    """
    row, spec, run = _parts(value)
    networks = {name: one for name, one in run.get("networks", {}).items() if _has_sound_addresses(one)}
    container.note_run(networks=networks, ports=run.get("ports", {}) if networks else {})
    host = spec.get("host_config", HostConfig())
    # It cannot be restarted, and --rm must not remove what may still be saved of it.
    host = replace(host, restart_policy=RestartPolicy(), auto_remove=False)
    container.respecify(networks=spec.get("networks", {}), host_config=host)
    state = row.get("state", State())
    try:
        times.parse(state.started_at)
    except ValueError:
        return now
    return now if state.started_at == ZERO_TIME else str(state.started_at)


def _parts(value: bytes) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The readable fields of the row, of what was asked, and of the run."""
    document = readable_document(value)
    spec, run = (each if isinstance(each := document.get(key), dict) else {} for key in ("Spec", "Run"))
    return valid_fields(document, Container), valid_fields(spec, Spec), valid_fields(run, Run)


def _has_sound_addresses(settings: EndpointSettings) -> bool:
    try:
        return all(ip_address(text) for text in (settings.ip_address, settings.global_ipv6_address) if text)
    except ValueError:
        return False
