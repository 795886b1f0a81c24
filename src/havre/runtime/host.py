"""Facts of this host, read once when the daemon starts: kernel, cgroups, capabilities, the init, AppArmor."""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from havre.errors import Failed, InvalidInput
from havre.linux.cgroups import Cgroups, read_cgroups
from havre.runtime import apparmor, spawn
from havre.runtime.capabilities import parse_mask
from havre.runtime.spec import MASKED_PATHS, HostFacts

INITS = ("catatonit", "docker-init", "tini-static", "tini")


def read_host(init: str = "") -> HostFacts:
    """Read the facts. Blocking, but only kernel files. `Failed` where no cgroup hierarchy is mounted.

    `init` is the value of `init-path`; InvalidInput where that is not a program.
    """
    return HostFacts(
        machine=platform.machine(),
        kernel=parse_release(os.uname().release),
        capabilities=_own_capabilities(),
        cgroups=_cgroups(),
        init=_find_init((init,) if init else INITS),
        apparmor_profile=apparmor.host_profile(),
        time_namespaces=Path("/proc/self/ns/time").exists(),
        masked_paths=(*MASKED_PATHS, *_throttling_counters()),
    )


def _cgroups() -> Cgroups:
    cgroups = read_cgroups()
    if not cgroups.trees:
        raise Failed(
            "no cgroup hierarchy is mounted below /sys/fs/cgroup",
            "mount one; `ip netns exec` hides them, `nsenter --net=` does not",
        )
    return cgroups


def parse_release(release: str) -> tuple[int, int]:
    """Version and patch level of a kernel release such as 6.12.9-amd64."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _own_capabilities() -> tuple[str, ...]:
    status = Path("/proc/self/status").read_text()
    match = re.search(r"^CapBnd:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return parse_mask(int(match[1], 16)) if match else ()


def _throttling_counters() -> Sequence[str]:
    """Directories of the processors' thermal counters: a side channel, moby's advisory GHSA-6fw5-f8r9-fgfm."""
    return sorted(map(str, Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle")))


def _find_init(names: Sequence[str]) -> Path | None:
    found = (shutil.which(name, path=spawn.ENVIRONMENT["PATH"]) for name in names)
    program = next((Path(path) for path in found if path), None)
    if program is None and names != INITS:
        raise InvalidInput(f"unable to configure the daemon: init-path: {names[0]} is no program")
    return program
