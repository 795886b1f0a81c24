"""The daemon's directives on confinement of all containers: seccomp profile, no new privileges.

Read before anything starts, so that a missing or invalid profile prevents the start.

Source: dockerd(8), --seccomp-profile and --no-new-privileges.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from havre.daemon.config import DaemonConfig
from havre.errors import InvalidInput
from havre.runtime.plan import Security
from havre.runtime.seccomp import parse_profile

UNCONFINED = "unconfined"


def default_security(config: DaemonConfig) -> Security:
    """The default security settings of containers. InvalidInput for an unusable profile. Blocking."""
    return Security(seccomp=_profile(config.seccomp_profile), no_new_privileges=config.no_new_privileges)


def _profile(path: str) -> Mapping[str, Any] | str | None:
    if path in ("", "builtin"):
        return None
    if path == UNCONFINED:
        return UNCONFINED
    problem = f"unable to configure the daemon: seccomp-profile: opening seccomp profile ({path}) failed"
    try:
        return parse_profile(Path(path).read_bytes())
    except OSError as error:
        raise InvalidInput(f"{problem}: {error.strerror}", 'expected a file, "builtin" or "unconfined"') from None
    except InvalidInput as error:
        raise InvalidInput(f"{problem}: {error.message}", error.hint) from None
