"""Entitlements: rights of RUN beyond its sandbox, which daemon and client must both grant. Pure.

    RUN --network=host, a build with network=host      network.host         the daemon grants it by default
    RUN --security=insecure                            security.insecure    the daemon refuses it by default
    RUN --device=vendor.com/class=name                 device[=...]         the daemon grants it by default (`devices`)

The client grants them for each build (`--allow`), the daemon for all of them (`builder` in daemon.json: dockerd's key
`entitlements` or buildkitd's `insecure-entitlements`).

Source: moby/buildkit util/entitlements, docs/buildkitd.toml.md; the dockerd reference, "builder".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from havre.dockerfile.instructions import Command, Run
from havre.errors import Forbidden, InvalidInput

NETWORK_HOST, SECURITY_INSECURE, DEVICE = "network.host", "security.insecure", "device"
KNOWN = (NETWORK_HOST, SECURITY_INSECURE, DEVICE)
DEFAULT = frozenset((NETWORK_HOST, DEVICE))
_KEYS = {"network-host": NETWORK_HOST, "security-insecure": SECURITY_INSECURE, "device": DEVICE}


def parse_entitlements(builder: Mapping[str, Any]) -> frozenset[str]:
    """The entitlements that daemon.json's `builder` grants. Raises `InvalidInput`."""
    listed = builder.get("insecure-entitlements")
    if listed is None:
        agreed = set(DEFAULT)
    elif isinstance(listed, list) and all(name in KNOWN for name in listed):
        agreed = set(listed)
    else:
        raise InvalidInput(f"invalid builder.insecure-entitlements: {listed!r}", f"expected a list of {_list(KNOWN)}")
    switches = builder.get("entitlements")
    switches = {} if switches is None else switches
    if not isinstance(switches, Mapping) or set(switches) - set(_KEYS):
        raise InvalidInput(f"invalid builder.entitlements: {switches!r}", f"expected an object of {_list(_KEYS)}")
    for key, name in _KEYS.items():
        if (on := switches.get(key)) not in (None, True, False):
            raise InvalidInput(f"invalid builder.entitlements.{key}: {on!r}", "expected true or false")
        if on is not None:
            agreed = agreed | {name} if on else agreed - {name}
    return frozenset(agreed)


def check_grants(granted: Collection[str], agreed: Collection[str]) -> None:
    """Raise `Forbidden` if a client grants its build an entitlement that the daemon does not grant."""
    for grant in sorted(granted):
        name = DEVICE if grant.startswith(f"{DEVICE}=") else grant
        if name not in KNOWN:
            raise InvalidInput(f"unknown entitlement {name}", f"there are {_list(KNOWN)}")
        if name not in agreed:
            raise Forbidden(
                f"granting entitlement {name} is not allowed by build daemon configuration: {_consent(name)} allows it"
            )


def require(name: str, granted: Collection[str]) -> None:
    """Raise `Forbidden` if the client has not granted an entitlement."""
    if name not in granted:
        raise Forbidden(
            f"{name} is not allowed: it needs the client's `--allow {name}` and the daemon's consent ({_consent(name)})"
        )


def rights_of(command: Command) -> Sequence[str]:
    """The entitlements that an instruction needs."""
    if not isinstance(command, Run):
        return ()
    taken = {NETWORK_HOST: command.network == "host", SECURITY_INSECURE: command.security == "insecure"}
    return [name for name, is_taken in taken.items() if is_taken]


def _consent(name: str) -> str:
    key = next(key for key, each in _KEYS.items() if each == name)
    return f'"builder": {{"entitlements": {{"{key}": true}}}} in daemon.json'


def _list(names: Collection[str]) -> str:
    return ", ".join(names)
