"""A container's capabilities: Docker's default set, `--cap-add`, `--cap-drop` and `--privileged`. Pure.

Names here are upper case with the CAP_ prefix; users may omit the prefix and write lower case. The set is bounding,
effective and permitted, never inheritable or ambient (CVE-2022-24769).
"""

from __future__ import annotations

from collections.abc import Sequence

from havre.errors import InvalidInput


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# Indexed by capability number: the bit in the kernel's masks (linux/capability.h).
CAPABILITIES = _names(
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP"
    " CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER"
    " CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE"
    " CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL"
    " CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON"
    " CAP_BPF CAP_CHECKPOINT_RESTORE"
)

DEFAULT = _names(
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_MKNOD CAP_NET_RAW CAP_SETGID CAP_SETUID CAP_SETFCAP"
    " CAP_SETPCAP CAP_NET_BIND_SERVICE CAP_SYS_CHROOT CAP_KILL CAP_AUDIT_WRITE"
)


def parse_mask(mask: int) -> tuple[str, ...]:
    """The names of the bits in a mask of /proc/PID/status, in the kernel's order."""
    return tuple(name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1)


def plan_capabilities(
    add: Sequence[str], drop: Sequence[str], privileged: bool, known: Sequence[str]
) -> tuple[str, ...]:
    """The capabilities of a container; `known` are those that the daemon itself may grant.

    Raises InvalidInput for an unknown name.
    """
    if privileged:
        return tuple(known)
    added, dropped = _normalise(add), _normalise(drop)
    if "ALL" in added:
        granted = [name for name in known if name not in dropped]
    elif "ALL" in dropped:
        granted = added
    else:
        granted = [name for name in DEFAULT if name not in dropped] + added
    return tuple(dict.fromkeys(granted))


def _normalise(names: Sequence[str]) -> list[str]:
    found = []
    for given in names:
        name = given.upper()
        if name != "ALL" and not name.startswith("CAP_"):
            name = "CAP_" + name
        if name == "CAP_ALL":
            name = "ALL"
        if name != "ALL" and name not in CAPABILITIES:
            raise InvalidInput(f'invalid capability: "{given}"')
        found.append(name)
    return found
