"""CDI devices of RUN: which of the host's a step gets, and whether its build may have them. Pure.

    --device=vendor.com/class=gpu0,required + the host's devices --choose_devices--> names, or why not

The client grants all of them (`--allow device`), one (`--allow device=vendor.com/class=gpu0`), or one by the name that
the Dockerfile has for it (`--allow device=vendor.com/class=gpu0,alias=gpu`). Devices whose description has the
annotation `autoallow` need no grant.

Source: moby/buildkit util/entitlements, solver/llbsolver/cdidevices/manager.go, vertex.go, docs/cdi.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from havre.builds.entitlements import DEVICE
from havre.containers.surroundings.cdi import KnownDevice
from havre.dockerfile.devices import RunDevice
from havre.errors import Forbidden, InvalidInput, NotFound
from havre.golang.csvtext import split_csv
from havre.golang.units import parse_bool

_CLASS = "org.mobyproject.buildkit.device.class"
_AUTOALLOW = "org.mobyproject.buildkit.device.autoallow"


@dataclass(frozen=True)
class DeviceGrants:
    """The devices that a client grants: `every` one, those `named`, and `aliases` for names of the Dockerfile."""

    every: bool = False
    named: Collection[str] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)


def parse_device_grants(granted: Collection[str]) -> DeviceGrants:
    """The entitlements `device` and `device=NAME[,alias=NAME]` among those granted. Raises `InvalidInput`."""
    every, named, aliases = False, [], {}
    for grant in granted:
        right, _, text = grant.partition("=")
        if right != DEVICE:
            continue
        if not text:
            every = True
            continue
        name, alias = _parse_grant(text)
        if alias:
            aliases[alias] = name
        else:
            named.append(name)
    return DeviceGrants(every, named, aliases)


def _parse_grant(text: str) -> tuple[str, str]:
    try:
        name, *settings = split_csv(text)
    except ValueError as error:
        raise InvalidInput(f"invalid entitlement device={text}: {error}") from None
    alias = ""
    for setting in settings:
        key, equals, value = setting.partition("=")
        if key != "alias" or not equals:
            raise InvalidInput(f"invalid entitlement device={text}: unknown setting {setting!r}", "expected alias=NAME")
        alias = value
    return name, alias


def choose_devices(wanted: Sequence[RunDevice], grants: DeviceGrants, known: Sequence[KnownDevice]) -> tuple[str, ...]:
    """The names of the devices that a step gets. Raises `NotFound` for required ones, `Forbidden`."""
    chosen: dict[str, None] = {}
    refused: dict[str, None] = {}
    allowed = {name for grant in grants.named for name in _matching(grant, known)}
    for device in wanted:
        alias = grants.aliases.get(device.name, "")
        found = _matching(alias or device.name, known)
        if not found and device.required:
            names = ", ".join(each.name for each in known) or "none"
            raise NotFound(f'required device "{alias or device.name}" is not registered', f"known: {names}")
        for name, is_open in found.items():
            (chosen if grants.every or alias or name in allowed or is_open else refused)[name] = None
    if refused:
        names = ", ".join(refused)
        noun = f"device {names} is" if len(refused) == 1 else f"devices {names} are"
        raise Forbidden(f"{noun} requested by the build but not allowed", f"allow it with --allow {DEVICE}")
    return tuple(chosen)


def _matching(name: str, known: Sequence[KnownDevice]) -> dict[str, bool]:
    """The devices that `name` means, each with whether it needs no grant."""
    kind, _, device = name.partition("=")
    found: list[KnownDevice] = []
    if "/" in kind:
        of_kind = [each for each in known if each.name.startswith(f"{kind}=")]
        if device == "*":
            found = of_kind
        elif device:
            found = [each for each in of_kind if each.name == name]
        else:
            found = of_kind[:1]
    found = found or [each for each in known if each.annotations.get(_CLASS) == name]
    return {each.name: _needs_no_grant(each) for each in found}


def _needs_no_grant(device: KnownDevice) -> bool:
    try:
        return parse_bool(device.annotations.get(_AUTOALLOW, "false"))
    except ValueError:
        return False
