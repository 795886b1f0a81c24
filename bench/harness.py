"""What the benchmarks stand on: the contenders, one measure of them all in turn, and the place where they run.

Each measure is taken in rounds; in a round every engine does the same work once, so that a machine whose speed drifts
drifts for all.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from support.engines import HAVRE, Dockerd, Engine, Havred, run  # noqa: E402
from support.images import busybox_archive, debian_tree  # noqa: E402
from support.registry import RealRegistry, real_registry  # noqa: E402

NETNS = "hvbench"
SLEEP = ("busybox", "sleep", "100000")
BIG_PACKAGES = "gcc,python3,perl-modules,git,vim,nginx-light"


class Contender:
    """An engine and the command line that its users type."""

    name: str
    daemon: Engine | None = None

    def command(self, *arguments: str) -> list[str]:
        """The whole command that runs `arguments` on this engine."""
        raise NotImplementedError

    @property
    def env(self) -> dict[str, str]:
        return dict(os.environ)

    def do(self, *arguments: str) -> str:
        """Run a command that must succeed; its output."""
        done = subprocess.run(self.command(*arguments), env=self.env, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{self.name}: {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")
        return done.stdout.strip()

    def daemon_pids(self) -> list[int]:
        """Processes that run whether or not there is a container."""
        return []


class WithDaemon(Contender):
    def __init__(self, name: str, daemon: Engine, program: str) -> None:
        self.name, self.daemon, self._program = name, daemon, program

    def command(self, *arguments: str) -> list[str]:
        return [self._program, *arguments]

    @property
    def env(self) -> dict[str, str]:
        assert self.daemon is not None
        return self.daemon.env

    def daemon_pids(self) -> list[int]:
        assert self.daemon is not None
        children = Path(f"/proc/{self.daemon.pid}/task/{self.daemon.pid}/children").read_text().split()
        helpers = [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == "containerd"]
        return [self.daemon.pid, *helpers]


class Podman(Contender):
    name = "podman"

    def __init__(self, root: Path) -> None:
        self._root = root

    def command(self, *arguments: str) -> list[str]:
        places = [
            "--root",
            str(self._root / "root"),
            "--runroot",
            str(self._root / "run"),
            "--cgroup-manager",
            "cgroupfs",
        ]
        return ["nsenter", f"--net=/run/netns/{NETNS}", "podman", *places, "--runtime", "runc", *arguments]


@dataclass
class Measure:
    """One row: seconds (or bytes) per round for each contender."""

    title: str
    unit: str = "ms"
    rounds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, name: str, value: float) -> None:
        self.rounds.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        return statistics.median(self.rounds[name])

    def ratios(self, name: str) -> list[float]:
        """How many times more than havre, round by round."""
        return [theirs / ours for theirs, ours in zip(self.rounds[name], self.rounds["havre"], strict=True)]


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


class Bench:
    """The contenders, their registry, and what was measured of them."""

    def __init__(self, contenders: Sequence[Contender], registry: RealRegistry, rounds: int) -> None:
        self.contenders, self.registry, self.rounds = contenders, registry, rounds
        self.measures: list[Measure] = []

    def each(
        self,
        title: str,
        work: Callable[[Contender], object],
        among: Sequence[Contender] | None = None,
        rounds: int | None = None,
    ) -> None:
        """Time `work` on every contender in turn, after one round that does not count."""
        measure = Measure(title)
        for number in range(-1, rounds or self.rounds):
            for contender in among or self.contenders:
                took = timed(lambda contender=contender: work(contender))
                if number >= 0:
                    measure.add(contender.name, took * 1000)
        self.note(measure)

    def few(self) -> int:
        """How many rounds work that takes seconds is done."""
        return max(3, self.rounds // 4)

    def note(self, measure: Measure) -> None:
        self.measures.append(measure)
        shown = ", ".join(f"{name} {measure.median(name):.1f} {measure.unit}" for name in measure.rounds)
        print(f"{measure.title}: {shown}", flush=True)


@contextmanager
def contenders() -> Iterator[tuple[list[Contender], RealRegistry]]:
    """All three engines and a registry, in one network namespace of their own, with the images in place."""
    scratch = Path(tempfile.mkdtemp(prefix="havre-bench-"))
    run("ip", "netns", "add", NETNS)
    run("ip", "-n", NETNS, "link", "set", "lo", "up")
    registry = real_registry(scratch / "registry", inside=("nsenter", f"--net=/run/netns/{NETNS}"))
    havred, dockerd = (
        Havred(["--bip", "10.201.0.1/16"], NETNS),
        Dockerd(["--bip", "10.202.0.1/16", "--live-restore"], NETNS),
    )
    podman = Podman(scratch / "podman")
    engines: list[Contender] = [
        WithDaemon("havre", havred, str(HAVRE)),
        WithDaemon("dockerd", dockerd, "docker"),
        podman,
    ]
    try:
        for engine in (havred, dockerd):
            engine.open()
        archive = busybox_archive(scratch)
        for contender in engines:
            contender.do("load", "-q", "-i", str(archive))
        with registry as running:
            name = f"{running.host}/big:1"
            dockerd.docker("import", str(debian_tree(BIG_PACKAGES, ())), name, check=0, timeout_s=600)
            dockerd.docker("push", "-q", name, check=0, timeout_s=600)
            dockerd.docker("rmi", name, check=0)
            yield engines, running
    finally:
        subprocess.run(podman.command("system", "reset", "--force"), capture_output=True, check=False)
        for engine in (havred, dockerd):
            engine.close()
        run("ip", "netns", "del", NETNS)
        shutil.rmtree(scratch, ignore_errors=True)
