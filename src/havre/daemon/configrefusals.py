"""Directives of dockerd that havre cannot implement and must not ignore: with one of them the daemon does not start.

The user relies on a limit or a protection that would be missing; a warning in the log is easily overlooked. Values
that match havre's behaviour, such as `"selinux-enabled": false`, are accepted.

Source: dockerd(8), "Daemon configuration file".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from havre.errors import InvalidInput
from havre.runtime.runtimes import RUNC_SHIMS


def _given(value: Any) -> str:
    return "" if value in (False, 0, "0", "", (), [], {}) else str(value)


def _unless(*harmless: str) -> Callable[[Any], str]:
    """Returns a function: the first entry of a list that does not begin with one of `harmless`."""

    def refused(value: Any) -> str:
        entries = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        return next((str(entry) for entry in entries if not str(entry).startswith(harmless)), "")

    return refused


_OF_RUNTIMES = ("runtimeArgs", "runtimeType", "options")
REFUSED: Mapping[str, tuple[Callable[[Any], str], str]] = {
    # key: function that returns the refused part of the value ("" if none), and the reason
    "api-cors-header": (_given, "cross-origin requests are not supported"),
    "cpu-rt-period": (_given, "configure the parent cgroup's real-time budget on the host"),
    "cpu-rt-runtime": (_given, "configure the parent cgroup's real-time budget on the host"),
    "exec-opts": (_unless("native.cgroupdriver=cgroupfs"), "cgroups are created directly (cgroupfs), not by systemd"),
    "firewall-backend": (
        lambda value: "" if value in ("", "nftables") else str(value),
        "rules are those of nftables; leave them to it, or set iptables and ip6tables to false",
    ),
    "nri-opts": (
        lambda value: "enable" if str(value.get("enable", "")).lower() in ("true", "1") else "",
        "there is no Node Resource Interface; nothing would call its plugins",
    ),
    "rootless": (_given, "the daemon needs root; userns-remap maps containers to other users"),
    "selinux-enabled": (_given, "SELinux labels are not supported"),
    "storage-opts": (_unless("overlay2.override_kernel_check="), "storage drivers have no options, and no quotas"),
}


def check_refused(values: Mapping[str, Any]) -> None:
    """Refuse unsupported directives by name. InvalidInput."""
    for key, (refused, why) in REFUSED.items():
        if key in values and (what := refused(values[key])):
            raise InvalidInput(
                f"unable to configure the daemon: {key}: {what} is not supported: {why}",
                f"remove {key} from the configuration",
            )
    for name, runtime in (values.get("runtimes") or {}).items():
        if isinstance(runtime, dict) and runtime.get("runtimeType") in RUNC_SHIMS:
            runtime = _unshimmed(name, runtime)
        given = [key for key in _OF_RUNTIMES if isinstance(runtime, dict) and runtime.get(key)]
        if given:
            raise InvalidInput(
                f"unable to configure the daemon: runtimes: {name}: {given[0]} is not supported: OCI runtimes are run "
                "as they are",
                "name as its path the OCI runtime's program, or a script that runs it with these arguments",
            )


def _unshimmed(name: str, runtime: Mapping[str, Any]) -> Mapping[str, Any]:
    """The other keys of an entry that names runc's containerd shim, of which only the program is used."""
    if unknown := sorted(set(runtime.get("options") or {}) - {"BinaryName"}):
        raise InvalidInput(
            f"unable to configure the daemon: runtimes: {name}: options: {unknown[0]} is not supported: there is no "
            "shim of containerd that would read it",
            "leave BinaryName alone, or give the path of the OCI runtime",
        )
    return {key: value for key, value in runtime.items() if key not in ("runtimeType", "options")}
