"""AppArmor: chooses a container's profile, and loads havre's own when it is needed.

The kernel accepts only compiled policy (/sys/kernel/security/apparmor/.replace), and `apparmor_parser` is its compiler,
as for dockerd. The profile is loaded with the first container that needs it, so that it is this release's, and again
when it has been unloaded. It includes no file of the host's.

Source: apparmor.d(5), apparmor_parser(8).
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import threading
from pathlib import Path

from havre.errors import Failed, InvalidInput
from havre.runtime import spawn

log = logging.getLogger(__name__)

PROFILE = "havre-default"
UNCONFINED = "unconfined"
SECURITYFS = Path("/sys/kernel/security/apparmor")
ENABLED = Path("/sys/module/apparmor/parameters/enabled")
PARSER = "apparmor_parser"

_OURS = (PROFILE, "docker-default")
_TIMEOUT_S = 30.0

# A `deny` has no exceptions: to deny all paths but one, the rules spell out every name that differs from it.
RULES = """\
profile NAME flags=(attach_disconnected,mediate_deleted) {
  # Limited elsewhere: by capability sets, mounts, user IDs, seccomp and network namespaces.
  capability,
  network,
  unix,
  dbus,
  file,

  # Nothing can be mounted, whatever the capabilities; what is mounted can be unmounted.
  umount,
  deny mount,
  deny pivot_root,

  # The host may send signals to containers; containers send them, and trace, among themselves alone.
  signal (receive),
  signal (send) peer=NAME,
  ptrace (read, trace, readby, tracedby) peer=NAME,

  # Below /proc, directories of processes and sys/kernel/shm* are writable, and nothing else.
  deny /proc/{[^0-9s],s[^y],sy[^s],sys[^/]}** wl,
  deny /proc/sys/{[^k],k[^e],ke[^r],ker[^n],kern[^e],kerne[^l],kernel[^/]}** wl,
  deny /proc/sys/kernel/{[^s],s[^h],sh[^m]}** wl,
  deny /proc/{kcore,sysrq-trigger} rwklx,
  deny /proc/{acpi,scsi}/** rwklx,

  # Below /sys, control groups are writable, and nothing else.
  deny /sys/{[^f],f[^s]}** wl,
  deny /sys/fs/{[^c],c[^g],cg[^r],cgr[^o],cgro[^u],cgrou[^p],cgroup[^/]}** wl,
  deny /sys/{firmware,kernel/security,devices/virtual/powercap}/** rwklx,
}
"""


def host_profile(securityfs: Path = SECURITYFS, enabled: Path = ENABLED) -> str:
    """The profile of containers that name none: "" where the kernel has no AppArmor or securityfs is not mounted."""
    try:
        has_it = enabled.read_text().startswith("Y") and securityfs.is_dir()
    except OSError:
        return ""
    return PROFILE if has_it else ""


def choose_profile(asked: str, *, privileged: bool, default: str) -> str:
    """The profile of a container. As in Docker, privileged containers have none, and a requested profile is ignored
    where
    the kernel has no AppArmor (`default` is "").
    """
    if not default:
        return ""
    return UNCONFINED if privileged else asked or default


def parse_loaded(text: str) -> set[str]:
    """The profile names in the kernel's list of `NAME (MODE)` lines."""
    return {line.rpartition(" (")[0] for line in text.splitlines()}


def render_profile(name: str) -> str:
    """Our rules as a profile called `name`."""
    return RULES.replace("NAME", name)


class Profiles:
    """The profiles in the kernel. `load` is thread-safe."""

    def __init__(self, securityfs: Path = SECURITYFS, path: str = spawn.ENVIRONMENT["PATH"]) -> None:
        self._list = securityfs / "profiles"
        self._path = path
        self._lock = threading.Lock()
        self._fresh = False

    def load(self, name: str) -> None:
        """Load the profile `name` unless it is loaded. Blocking.

        Failed where ours cannot be loaded: a container would be less confined than its user expects. InvalidInput where
        another profile is not loaded.
        """
        if name in ("", UNCONFINED):
            return
        with self._lock:
            outdated = name == PROFILE and not self._fresh  # an earlier release's may be loaded
            if not outdated and self._is_loaded(name):
                return
            if name not in _OURS:
                raise InvalidInput(
                    f"unable to apply apparmor profile: {name} is not loaded", "load it with apparmor_parser -r FILE"
                )
            self._replace(name)
            self._fresh = self._fresh or name == PROFILE
        log.info("loaded the AppArmor profile %s", name)

    def _is_loaded(self, name: str) -> bool:
        try:
            return name in parse_loaded(self._list.read_text())
        except OSError as error:
            raise Failed(f"cannot read whether the AppArmor profile {name} is loaded: {error}") from error

    def _replace(self, name: str) -> None:
        problem = f"AppArmor is enabled on this host, but the profile {name} could not be loaded"
        program = shutil.which(PARSER, path=self._path)
        if program is None:
            raise Failed(
                f"{problem}: {PARSER} is not installed",
                "install the package apparmor, or run without confinement: --security-opt apparmor=unconfined",
            )
        try:
            done = subprocess.run(
                [program, "--skip-cache", "--replace"],
                input=render_profile(name).encode(),
                capture_output=True,
                env=spawn.ENVIRONMENT,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failed(f"{problem}: {error}") from error
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip()
            raise Failed(f"{problem}: {said or f'{PARSER} ended with status {done.returncode}'}")
