"""The emulated host's disk: a Debian made by mmdebstrap, kept in build/machine by what it is made of."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.engines import ROOT

PLACE = ROOT / "build" / "machine"
SUITE = "trixie"
PACKAGES = [
    "apparmor", "bash", "busybox-static", "ca-certificates", "catatonit", "conmon", "criu", "crun", "curl", "dbus",
    "docker-cli", "docker-compose", "docker-registry", "docker.io", "e2fsprogs", "erofs-utils", "git", "iproute2",
    "jq", "libcriu2", "libnftables1", "libpam-systemd", "linux-image-cloud-amd64", "make", "nftables",
    "nfs-kernel-server", "procps", "python3", "python3-venv", "quota", "runc", "socat", "systemd-sysv", "udev",
    "uidmap", "xfsprogs",
]  # fmt: skip
SIZE = "8G"  # sparse
# Other engines, and what takes long to start. AppArmor stays on in the kernel: profiles are loaded by who needs them.
_DISABLED = [
    "apparmor.service", "apt-daily.timer", "apt-daily-upgrade.timer", "containerd.service", "docker.service",
    "docker.socket", "docker-registry.service", "e2scrub_reap.service", "man-db.timer", "nfs-server.service",
]  # fmt: skip
_MASKED = ["tmp.mount", "systemd-networkd-wait-online.service"]
_FILES = {
    "etc/hostname": "machine\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 machine\n",
    "etc/resolv.conf": "nameserver 10.0.2.3\n",
    "etc/fstab": f"/dev/vdb {ROOT} ext4 defaults 0 0\n",
    "etc/systemd/network/10-link.network": "[Match]\nName=en*\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n"
    "LinkLocalAddressing=no\n[Link]\nRequiredForOnline=yes\n",
    "etc/systemd/journald.conf.d/persistent.conf": "[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\n",
    "etc/systemd/system/serial-getty@ttyS0.service.d/autologin.conf": "[Service]\nExecStart=\n"
    "ExecStart=-/sbin/agetty --autologin root --noclear --keep-baud 115200,38400 %I xterm-256color\n",
    "etc/systemd/system/agent.service": "[Unit]\nDescription=Scripts of the tests\nAfter=multi-user.target\n"
    "[Service]\nExecStart=/usr/local/sbin/agent\nKillMode=process\nRestart=always\nRestartSec=0\n"
    "[Install]\nWantedBy=multi-user.target\n",
}


@dataclass(frozen=True)
class Image:
    """What an emulated machine boots: raw root disk, kernel and initial RAM disk."""

    disk: Path
    kernel: Path
    initrd: Path


def image() -> Image:
    """The image of today's packages; made (a minute) where it does not exist. Older ones are removed."""
    PLACE.mkdir(parents=True, exist_ok=True)
    with _alone():
        place = PLACE / f"image-{_key()}"
        if not place.exists():
            for old in PLACE.glob("image-*"):
                shutil.rmtree(old)
            _make(place)
        return Image(place / "disk", place / "kernel", place / "initrd")


@contextmanager
def _alone() -> Iterator[None]:
    with (PLACE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _key() -> str:
    """What the image depends on: this module, the agent, and the packages' versions as apt knows them."""
    versions = subprocess.run(["apt-cache", "policy", *PACKAGES], capture_output=True, check=True).stdout
    candidates = [line for line in versions.splitlines() if b"Candidate:" in line]
    parts = [bytes(ROOT), Path(__file__).read_bytes(), _agent().read_bytes(), *candidates]
    return hashlib.sha256(b"\n".join(parts)).hexdigest()[:16]


def _agent() -> Path:
    return Path(__file__).with_name("agent.py")


def _make(place: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="new-", dir=PLACE) as new:
        root, made = Path(new) / "root", Path(new) / "image"
        made.mkdir()
        _run(
            "unshare", "--mount", "mmdebstrap", "--quiet", "--mode=root", "--variant=apt", "--format=directory",
            f"--include={','.join(PACKAGES)}", SUITE, root,
        )  # fmt: skip
        _settle(root)
        for name, found in (("kernel", "vmlinuz-*"), ("initrd", "initrd.img-*")):
            shutil.copyfile(next((root / "boot").glob(found)), made / name)
        _run("mke2fs", "-q", "-t", "ext4", "-d", root, made / "disk", SIZE)
        made.rename(place)


def _settle(root: Path) -> None:
    for name, text in _FILES.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.write_text(text)
    shutil.copy(_agent(), root / "usr/local/sbin/agent")
    (root / "usr/local/sbin/agent").chmod(0o755)
    (root / "var/log/journal").mkdir(exist_ok=True)
    (root / "etc/machine-id").write_text("")  # not a first boot, which would enable every unit
    _run("chroot", root, "systemctl", "-q", "disable", *[unit for unit in _DISABLED if _has(root, unit)])
    _run("chroot", root, "systemctl", "-q", "mask", *_MASKED)
    _run("chroot", root, "systemctl", "-q", "enable", "agent.service", "systemd-networkd.service")


def _has(root: Path, unit: str) -> bool:
    return (root / "usr/lib/systemd/system" / unit).exists()


def _run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
