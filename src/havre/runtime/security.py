"""Parses `--security-opt`, one value per option. Pure; error texts are Docker's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from havre.errors import InvalidInput
from havre.golang.units import parse_bool
from havre.runtime.plan import Security
from havre.runtime.seccomp import parse_profile

_DEFAULT = Security()


def parse_security_opts(opts: Sequence[str], default: Security = _DEFAULT) -> Security:
    """Apply the options to the daemon's `default`; a later one overrides. InvalidInput for unknown or malformed
    ones."""
    security = default
    for opt in opts:
        security = _add(security, opt, default)
    return security


def _add(security: Security, opt: str, default: Security) -> Security:
    if opt == "no-new-privileges":
        return replace(security, no_new_privileges=True)
    if opt == "writable-cgroups":
        return replace(security, writable_cgroups=True)
    if opt == "disable":
        return security
    key, separator, value = opt.partition("=" if "=" in opt else ":")
    if not separator:
        raise InvalidInput(f'invalid --security-opt 1: "{opt}"')
    if key == "seccomp":
        return replace(security, seccomp=_parse_profile(value) if value else default.seccomp)
    if key == "apparmor":
        return replace(security, apparmor=value)
    if key == "label":
        return security  # Docker, too, ignores labels without SELinux
    if key == "systempaths" and value == "unconfined":
        return replace(security, unmasked=True)
    with suppress(ValueError):
        if key == "no-new-privileges":
            return replace(security, no_new_privileges=parse_bool(value))
        if key == "writable-cgroups":
            return replace(security, writable_cgroups=parse_bool(value))
    raise InvalidInput(f'invalid --security-opt 2: "{opt}"')


def _parse_profile(text: str) -> Mapping[str, Any] | str | None:
    if text == "unconfined":
        return text
    if text == "builtin":
        return None
    return parse_profile(text)
