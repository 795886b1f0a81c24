"""Engines under test: havre and dockerd, each in its own network namespace.

Both are driven through their socket by the same unmodified clients, so that one expectation is checked on both. The
network namespace isolates the test from the host's links and packet filter.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from support.leaks import mounts_below
from support.raw import ask
from support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
HAVRE = Path(sys.prefix) / "bin" / "havre"
HAVRED = Path(sys.prefix) / "bin" / "havred"


class Engine:
    """A daemon that listens on `socket`; `docker(...)` runs docker's command line against it."""

    name: str
    program: Sequence[str]
    leaves_mounts = False

    def __init__(self, extra: Sequence[str] = (), netns: str | None = None) -> None:
        self.root = Path(tempfile.mkdtemp(prefix=f"havre-test-{self.name}-"))
        self.socket = self.root / "s"
        self.log = self.root / "log"
        self._own_netns = netns is None
        self.netns = netns or f"hvt-{self.root.name.rpartition('-')[2]}"
        self.extra = list(extra)
        self._process: subprocess.Popen[bytes] | None = None
        # Docker's clients read and write a configuration directory.
        self.env = {**os.environ, "DOCKER_HOST": self.url, "DOCKER_CONFIG": str(self.root / "config")}
        for name in ("DOCKER_CONTEXT", "HAVRE_HOST"):
            self.env.pop(name, None)

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def running(self) -> bool:
        """Report whether the daemon was started and not stopped."""
        return self._process is not None

    @property
    def cgroup(self) -> str:
        """The parent cgroup of its containers."""
        return f"/havre/{self.root.name}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def open(self) -> None:
        """Create the network namespace, unless one was given, and start the daemon in it."""
        if self._own_netns:
            run("ip", "netns", "add", self.netns)
            run("ip", "-n", self.netns, "link", "set", "lo", "up")
        self.start()

    def start(self, limit_s: float = 30) -> None:
        """Start the daemon and wait until it responds. Raises AssertionError if it exits or exceeds `limit_s`."""
        output: IO[bytes] = self.log.open("ab")
        with output:
            self._process = subprocess.Popen(
                [*self.inside, *self.program, *self.arguments(), *self.extra], stdout=output, stderr=output
            )
        until(self._answers, f"{self.name} to listen; its log:\n{self.log}", limit_s)

    def arguments(self) -> list[str]:
        raise NotImplementedError

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"{self.name} ended with {self._process.returncode}:\n{self.log.read_text()[-4000:]}")
        done = subprocess.run(["docker", "version"], env=self.env, capture_output=True, check=False)
        return done.returncode == 0

    def stop(self, how: int = signal.SIGTERM) -> None:
        """Stop the daemon with the signal `how` and wait for its exit."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None

    def ended(self, within_s: float = 30) -> int:
        """Wait until a daemon exits by itself. Returns its status, negative for a signal."""
        assert self._process is not None
        status = self._process.wait(within_s)
        self._process = None
        return status

    def close(self) -> None:
        """Remove all containers, stop the daemon, and remove everything that the test created."""
        if self._process is not None:
            if ids := self.docker("ps", "-aq").stdout.split():
                self.docker("rm", "-f", "-v", *ids)
            self.stop()
        if self._own_netns:
            run("ip", "netns", "del", self.netns)
        for group in Path("/sys/fs/cgroup").glob(f"**{self.cgroup}"):
            group.rmdir()
        left = sorted(mounts_below(str(self.root)), reverse=True)
        for point in left:
            run("umount", point)
        shutil.rmtree(self.root)
        assert not left or self.leaves_mounts, f"{self.name} left mounts behind: {left}"

    def objects(self) -> set[str]:
        """The paths of its containers, volumes and networks; sorted, they are in an order in which they can be
        removed."""
        lists = {"containers": ("/containers/json?all=1", "Id"), "networks": ("/networks", "Id")}
        paths = {
            f"/{kind}/{each[key]}" for kind, (path, key) in lists.items() for each in ask(self.socket, "GET", path).json
        }
        volumes = ask(self.socket, "GET", "/volumes").json["Volumes"] or []
        return paths | {f"/volumes/{volume['Name']}" for volume in volumes}

    def tidy(self, kept: set[str]) -> None:
        """Remove the containers, volumes and networks that are not in `kept`."""
        for path in sorted(self.objects() - kept):
            ask(self.socket, "DELETE", f"{path}?force=1&v=1")

    @property
    def inside(self) -> list[str]:
        """The command prefix that enters the engine's network namespace."""
        return ["nsenter", f"--net=/run/netns/{self.netns}"]

    def docker(
        self, *arguments: str, stdin: str | bytes | None = None, check: int | None = None, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run docker's command line; `check` is the expected exit code."""
        return self._run(["docker", *arguments], stdin, check, timeout_s)

    def havre(
        self, *arguments: str, stdin: str | bytes | None = None, check: int | None = None, timeout_s: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run havre's command line against this engine."""
        return self._run([str(HAVRE), *arguments], stdin, check, timeout_s)

    def out(self, *arguments: str, stdin: str | bytes | None = None) -> str:
        """The output of a successful docker command, stripped."""
        return self.docker(*arguments, stdin=stdin, check=0).stdout.strip()

    def _run(
        self, command: list[str], stdin: str | bytes | None, check: int | None, timeout_s: float
    ) -> subprocess.CompletedProcess[str]:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            command,
            env=self.env,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            **({"stdin": subprocess.DEVNULL} if data is None else {"input": data}),  # type: ignore[call-overload]
        )
        result = subprocess.CompletedProcess(
            command, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        if check is not None and result.returncode != check:
            raise AssertionError(
                f"{' '.join(command)} ended with {result.returncode}, not {check}\n"
                f"stdout: {result.stdout[-2000:]}\nstderr: {result.stderr[-2000:]}"
            )
        return result

    def sdk(self) -> Any:
        """A client of Docker's Python SDK."""
        import docker

        return docker.DockerClient(base_url=self.url, timeout=60)


class Havred(Engine):
    """havre's daemon."""

    name = "havre"
    program = (str(HAVRED),)

    def arguments(self) -> list[str]:
        # instead of the machine's own
        (self.root / "daemon.json").write_text("{}")
        return [
            *("-H", self.url, "--data-root", str(self.root / "data"), "--exec-root", str(self.root / "run")),
            *("--pidfile", str(self.root / "pid"), "--config-file", str(self.root / "daemon.json")),
            *("--cgroup-parent", self.cgroup),
        ]


_MOUNTS = ("-v", "--volume", "--mount")


class Dockerd(Engine):
    """Docker's daemon, from Debian's package docker.io."""

    name = "dockerd"
    program = ("dockerd",)
    leaves_mounts = True  # its netns/default

    def arguments(self) -> list[str]:
        return [
            *("-H", self.url, "--data-root", str(self.root / "data"), "--exec-root", str(self.root / "run")),
            *("--pidfile", str(self.root / "pid")),
        ]

    def out(self, *arguments: str, stdin: str | bytes | None = None) -> str:
        """As for every engine, but a `run --rm` without mounts that prints nothing is repeated.

        On busy processors dockerd 26.1 loses the output of a container that ends right after its start, with exit
        code 0. One without mounts has left nothing behind.
        """
        said = super().out(*arguments, stdin=stdin)
        repeatable = arguments[:2] == ("run", "--rm") and not any(each.startswith(_MOUNTS) for each in arguments)
        return super().out(*arguments, stdin=stdin) if repeatable and not said else said


@contextmanager
def serving(engine: Engine, archive: Path | None = None) -> Iterator[Engine]:
    """Run an engine with the image of `archive` during a block."""
    try:
        engine.open()
        if archive is not None:
            engine.docker("load", "-i", str(archive), check=0)
        yield engine
    finally:
        engine.close()


def run(*command: str) -> str:
    """Run a command that must succeed. Returns its standard output."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
