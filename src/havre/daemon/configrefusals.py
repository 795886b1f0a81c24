"""Directives of dockerd's that havre cannot obey and must not pass over: a daemon that is given one does not start.

Whoever writes such a directive counts on a limit, a guard or an opening; a line in the log is not seen in time. One
that says what is the case anyway, such as `"selinux-enabled": false`, is taken.

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
    """The first of a list that does not begin as one of `harmless`."""

    def refused(value: Any) -> str:
        entries = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        return next((str(entry) for entry in entries if not str(entry).startswith(harmless)), "")

    return refused


_OF_RUNTIMES = ("runtimeArgs", "runtimeType", "options")
REFUSED: Mapping[str, tuple[Callable[[Any], str], str]] = {
    # key: what of the value is refused ("" if nothing is), and why
    "api-cors-header": (_given, "the API is not open to web pages"),
    "cpu-rt-period": (_given, "the real-time budget of a parent cgroup is the host's to set"),
    "cpu-rt-runtime": (_given, "the real-time budget of a parent cgroup is the host's to set"),
    "exec-opts": (_unless("native.cgroupdriver=cgroupfs"), "cgroups are made without systemd, as by cgroupfs"),
    "rootless": (_given, "the daemon needs to be root; userns-remap keeps containers from being it"),
    "selinux-enabled": (_given, "containers get no SELinux labels"),
    "storage-opts": (_unless("overlay2.override_kernel_check="), "storage drivers have no options, and no quotas"),
}


def check_refused(values: Mapping[str, Any]) -> None:
    """Refuse by name what is not obeyed. InvalidInput."""
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
    """An entry that names runc's shim, of which the program alone can be obeyed: what else it says."""
    if unknown := sorted(set(runtime.get("options") or {}) - {"BinaryName"}):
        raise InvalidInput(
            f"unable to configure the daemon: runtimes: {name}: options: {unknown[0]} is not supported: there is no "
            "shim of containerd that would read it",
            "leave BinaryName alone, or give the path of the OCI runtime",
        )
    return {key: value for key, value in runtime.items() if key not in ("runtimeType", "options")}
