"""Messages and hints for a daemon that cannot be reached. Imported only then."""

from __future__ import annotations

import posix

from havre.client.autostart import has_unit
from havre.client.endpoint import DEFAULT_SOCKET, Endpoint


def explain(endpoint: Endpoint, error: OSError) -> tuple[str, str | None]:
    """Message and hint for the failure to connect to `endpoint`."""
    if isinstance(error, PermissionError):
        return f"permission denied while trying to connect to the daemon at {endpoint.host}", _permission_hint(endpoint)
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        message = f"Cannot connect to the daemon at {endpoint.host}. Is it running?"
        own = endpoint.scheme == "unix" and endpoint.address == DEFAULT_SOCKET
        return message, _how_to_start() if own else None
    return f"error during connect: {endpoint.host}: {error.strerror or error}", None


def _permission_hint(endpoint: Endpoint) -> str:
    try:
        status = posix.stat(endpoint.address)
    except OSError:
        return "use sudo"
    if not status.st_gid or not status.st_mode & 0o020:
        return "use sudo"
    import grp

    try:
        group = grp.getgrgid(status.st_gid).gr_name
    except KeyError:  # the group belongs to another machine or a user namespace
        return "use sudo"
    return f"use sudo, or join the group: sudo usermod -aG {group} $USER, then log in again"


def _how_to_start() -> str:
    sudo = "sudo " if posix.geteuid() else ""
    if has_unit():
        return f"start it: {sudo}systemctl start havre"
    return f"start it: {sudo}havred"
