"""The emulated host itself: qemu without KVM, two processors, 3 GiB of memory, the checkout at the path it has here."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.engines import ROOT
from support.machine.image import PLACE, Image

EMULATOR = "qemu-system-x86_64"
BOOT_S = 300  # how long a boot may take, beside whatever else this machine does
KERNEL_LINE = "root=/dev/vda rw console=ttyS0 quiet mitigations=off panic=1 systemd.show_status=no"
_CHECKOUT = ["src", "tools", ".venv", "Makefile", "pyproject.toml", "requirements.lock", "requirements-test.lock"]
_CHECKOUT_SIZE = "1500M"


@dataclass(frozen=True)
class Ran:
    """How a script ended: exit code (-1: it took too long and was killed), standard output and error."""

    code: int
    out: str
    err: str


class Machine:
    """A booted host. Its disks are thrown away with it, but outlive `reboot` and `power_cut`."""

    def __init__(self, qemu: subprocess.Popen[bytes], agent: socket.socket, qmp: socket.socket, console: Path) -> None:
        self._qemu = qemu
        self._agent = agent
        self._qmp = qmp
        self._console = console
        self._received = b""
        self._boot = ""
        self.await_boot()

    @classmethod
    @contextmanager
    def booted(cls, image: Image) -> Iterator[Machine]:
        """Boot `image`, with a second disk that holds the checkout; end the machine afterwards."""
        with tempfile.TemporaryDirectory(prefix="run-", dir=PLACE) as place:
            console = Path(place) / "console"
            with _pair() as (agent, agent_there), _pair() as (qmp, qmp_there):
                command = arguments(image, checkout_disk(Path(place)), KERNEL_LINE + " systemd.getty_auto=no")
                command += ["-serial", f"file:{console}", "-monitor", "none"]
                command += ["-chardev", f"socket,id=agent,fd={agent_there.fileno()}", "-device", "virtio-serial-pci"]
                command += ["-device", "virtserialport,chardev=agent,name=havre.agent"]
                command += ["-chardev", f"socket,id=qmp,fd={qmp_there.fileno()}", "-mon", "chardev=qmp,mode=control"]
                qemu = subprocess.Popen(command, pass_fds=(agent_there.fileno(), qmp_there.fileno()))
                agent_there.close()
                qmp_there.close()
                try:
                    yield cls(qemu, agent, qmp, console)
                finally:
                    qemu.kill()
                    qemu.wait()

    @property
    def console(self) -> str:
        """What the serial console has printed since the first boot."""
        return self._console.read_text(errors="replace")

    def run(self, script: str, timeout_s: float = 120) -> Ran:
        """Run `script` by bash as root."""
        self.send(script, timeout_s)
        answer = self._line(timeout_s + 60)
        return Ran(answer["code"], _text(answer["out"]), _text(answer["err"]))

    def out(self, script: str, timeout_s: float = 120) -> str:
        """The standard output of a script that must succeed, without white space around it."""
        ran = self.run("set -euo pipefail\n" + script, timeout_s)
        assert ran.code == 0, f"{script}\nended with {ran.code}:\n{ran.out}\n{ran.err}"
        return ran.out.strip()

    def until(self, script: str, timeout_s: float = 60) -> None:
        """Run `script` until it succeeds."""
        self.out(f"until ( {script}\n) >/tmp/until 2>&1; do sleep 0.2; done", timeout_s)

    def write(self, path: str, text: str) -> None:
        """Write a file, with the folders above it."""
        coded = base64.b64encode(text.encode()).decode()
        self.out(f'mkdir -p "$(dirname {path})"; base64 -d >{path} <<<{coded}')

    def send(self, script: str, timeout_s: float = 120) -> None:
        """Start `script` without waiting for its end: what a power cut interrupts."""
        self._agent.sendall(json.dumps({"script": script, "timeout_s": timeout_s}).encode() + b"\n")

    def reboot(self) -> None:
        """Shut the machine down as an administrator does, and boot it again."""
        self.send("systemctl reboot")
        self.await_boot()

    def power_cut(self) -> None:
        """Take away what the kernel had not yet written, and boot again."""
        self._qmp.sendall(b'{"execute":"qmp_capabilities"}\n{"execute":"system_reset"}\n')
        self.await_boot()

    def await_boot(self) -> None:
        """Wait for the next boot, which a script has brought about: a restart, or a crash of the kernel."""
        before = self._boot
        while self._boot == before:
            self._boot = self._line(BOOT_S).get("ready", before)

    def _line(self, timeout_s: float) -> dict[str, object]:
        """The next whole line of JSON; pieces of lines that a power cut has left are skipped."""
        end = time.monotonic() + timeout_s
        while True:
            line, found, rest = self._received.partition(b"\n")
            if found:
                self._received = rest
                if line.startswith(b"{") and line.endswith(b"}"):
                    return json.loads(line)
                continue
            self._agent.settimeout(max(0.01, end - time.monotonic()))
            try:
                received = self._agent.recv(1 << 20)
            except TimeoutError:
                received = b""
            assert received, f"the machine does not answer; its console ends with:\n{self.console[-3000:]}"
            self._received += received


def arguments(image: Image, checkout: Path, kernel_line: str) -> list[str]:
    """The emulator's command line, without consoles. The emulator ends with the program that started it."""
    disks = [f"file={disk},if=virtio,format=raw,snapshot=on,cache=unsafe" for disk in (image.disk, checkout)]
    return [
        "setpriv", "--pdeathsig", "KILL", EMULATOR,
        "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max", "-m", "3072", "-smp", "2",
        "-nodefaults", "-display", "none", "-device", "virtio-rng-pci", "-nic", "user,model=virtio-net-pci",
        "-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", kernel_line,
        "-drive", disks[0], "-drive", disks[1],
    ]  # fmt: skip


def checkout_disk(place: Path) -> Path:
    """A disk with what of the checkout a user needs, and its virtual environment."""
    tree, disk = place / "checkout", place / "checkout.disk"
    tree.mkdir()
    for name in _CHECKOUT:
        subprocess.run(["cp", "-al", ROOT / name, tree], check=True)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, disk, _CHECKOUT_SIZE], check=True)
    shutil.rmtree(tree)
    return disk


@contextmanager
def _pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def _text(coded: object) -> str:
    return base64.b64decode(str(coded)).decode(errors="replace")


def shell(image: Image) -> None:
    """Boot the machine with its serial console on this terminal, until it is powered off."""
    with tempfile.TemporaryDirectory(prefix="run-", dir=PLACE) as place:
        command = arguments(image, checkout_disk(Path(place)), KERNEL_LINE)
        subprocess.run([*command, "-no-reboot", "-serial", "mon:stdio"])
