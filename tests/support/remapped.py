"""havre with subordinate IDs: in its own mount namespace, with copies of files of /etc.

A process holds the namespace, so that the daemon can be restarted in it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from support.engines import Havred

FIRST_UID, FIRST_GID, COUNT = 200_000, 300_000, 65_536
AUTO_UID, AUTO_GID = 1_000_000, 2_000_000

_LINES = {
    "passwd": "remapped:x:7001:7001::/:/bin/false\nnoranges:x:7002:7001::/:/bin/false\n",
    "group": "remapped:x:7001:\nothers:x:7002:\n",
    "subuid": f"containers:{AUTO_UID}:{2 * COUNT}\nremapped:{FIRST_UID}:{COUNT}\n",
    "subgid": f"containers:{AUTO_GID}:{2 * COUNT}\n7001:{FIRST_GID}:{COUNT}\n",
}
_HOLD = 'for file in passwd group subuid subgid; do mount --bind "$0/$file" "/etc/$file"; done; echo; exec cat'


class Remapped(Havred):
    """havred with `--userns-remap=remapped`; the user `containers` has ranges for two containers with private IDs."""

    def __init__(self, extra: Sequence[str] = ("--userns-remap", "remapped")) -> None:
        super().__init__(extra)
        self.root.chmod(0o711)
        for name, lines in _LINES.items():
            kept = Path("/etc", name).read_text() if name in ("passwd", "group") else ""
            (self.root / name).write_text(kept + lines)
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", _HOLD, str(self.root)]
        self._holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"\n"

    @property
    def inside(self) -> list[str]:
        return [*super().inside, f"--mount=/proc/{self._holder.pid}/ns/mnt"]

    def mounts(self) -> set[str]:
        """The mounts below its root, except idle image layers."""
        table = Path(f"/proc/{self._holder.pid}/mountinfo").read_text().splitlines()
        points = {line.split()[4] for line in table}
        below = {point for point in points if point.startswith(f"{self.root}/")}
        return {point for point in below if not point.startswith(f"{self.root}/run/layers/")}

    def refusal(self, *flags: str) -> str:
        """The error of a second daemon with these flags."""
        apart = self.root / "apart"
        command = [*self.inside, *self.program, "-H", f"unix://{apart}/s", "--data-root", f"{apart}/data"]
        command += ["--exec-root", f"{apart}/run", "--config-file", str(self.root / "daemon.json"), *flags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        assert done.returncode != 0
        return done.stderr

    def close(self) -> None:
        super().close()
        assert self._holder.stdin is not None
        assert self._holder.stdout is not None
        self._holder.stdin.close()
        self._holder.stdout.close()
        self._holder.wait(10)
