"""How far the daemon's own directives confine every container: its seccomp profile, and no new privileges.

Read before anything is started, so that a profile that is missing or malformed is no reason to run without one.

Source: dockerd(8), --seccomp-profile and --no-new-privileges.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from havre.config import DaemonConfig
from havre.errors import InvalidInput
from havre.runtime.capabilities import DEFAULT
from havre.runtime.plan import Security
from havre.runtime.seccomp import render_seccomp

UNCONFINED = "unconfined"


def default_security(config: DaemonConfig) -> Security:
    """What a container has that says nothing else. InvalidInput for a profile that cannot be used. Blocking."""
    return Security(seccomp=_profile(config.seccomp_profile), no_new_privileges=config.no_new_privileges)


def _profile(path: str) -> Mapping[str, Any] | str | None:
    if path in ("", "builtin"):
        return None
    if path == UNCONFINED:
        return UNCONFINED
    problem = f"unable to configure the daemon: seccomp-profile: opening seccomp profile ({path}) failed"
    try:
        profile = json.loads(Path(path).read_bytes())
        if not isinstance(profile, dict):
            raise InvalidInput("an object is expected")
        render_seccomp(profile, capabilities=DEFAULT, machine="x86_64", kernel=(4, 8))
    except OSError as error:
        raise InvalidInput(f"{problem}: {error.strerror}", 'expected a file, "builtin" or "unconfined"') from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{problem}: it is not JSON: {error}") from None
    except InvalidInput as error:
        raise InvalidInput(f"{problem}: {error.message}", error.hint) from None
    return profile
