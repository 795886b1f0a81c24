"""havre, dockerd and podman side by side on the same work, in turn, in one run.

Each measure is taken in rounds; in a round every engine does the same work once, so that a machine whose speed drifts
drifts for all. Reported: the median with minimum and maximum, and how many times faster havre is (ratio of medians, and
the spread of the ratios of the rounds). Writes docs/benchmarks.md and docs/benchmarks.png.

    make bench                  everything (about ten minutes)
    bench/run.py --only run,ps --rounds 5 --dry      a few measures, printed and not written down
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    """The contenders, the registry, and one method for each measure."""

    def __init__(self, contenders: Sequence[Contender], registry: RealRegistry, rounds: int) -> None:
        self.contenders, self.registry, self.rounds = contenders, registry, rounds
        self.measures: list[Measure] = []

    def each(self, title: str, work: Callable[[Contender], object], among: Sequence[Contender] | None = None) -> None:
        """Time `work` on every contender in turn, after one round that does not count."""
        measure = Measure(title)
        for number in range(-1, self.rounds):
            for contender in among or self.contenders:
                took = timed(lambda contender=contender: work(contender))
                if number >= 0:
                    measure.add(contender.name, took * 1000)
        self.note(measure)

    def note(self, measure: Measure) -> None:
        self.measures.append(measure)
        shown = ", ".join(f"{name} {measure.median(name):.1f} {measure.unit}" for name in measure.rounds)
        print(f"{measure.title}: {shown}", flush=True)

    def run(self) -> None:
        self.each("`run --rm busybox true`, bridge", lambda c: c.do("run", "--rm", "busybox", "true"))
        self.each(
            "`run --rm --network none busybox true`",
            lambda c: c.do("run", "--rm", "--network", "none", "busybox", "true"),
        )

    def exec(self) -> None:
        for contender in self.contenders:
            contender.do("run", "-d", "--name", "target", *SLEEP)
        self.each("`exec` of `true`", lambda c: c.do("exec", "target", "true"))
        for contender in self.contenders:
            contender.do("rm", "-f", "target")

    def many(self) -> None:
        names = [f"many{number}" for number in range(20)]

        def start(contender: Contender) -> None:
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda name: contender.do("run", "-d", "--name", name, *SLEEP), names))

        def remove(contender: Contender) -> None:
            # Without a time to wait, as sleep does not heed SIGTERM.
            contender.do("rm", "-f", *(["-t", "0"] if contender.name == "podman" else []), *names)

        measure = Measure("20 containers started, 4 at a time")
        removal = Measure("`rm -f` of 20 running containers")
        for _ in range(max(3, self.rounds // 4)):
            for contender in self.contenders:
                measure.add(contender.name, timed(lambda c=contender: start(c)) * 1000)
            for contender in self.contenders:
                removal.add(contender.name, timed(lambda c=contender: remove(c)) * 1000)
        self.note(measure)
        self.note(removal)

    def ps(self) -> None:
        for contender in self.contenders:
            for number in range(50):
                contender.do("create", "--name", f"listed{number}", "busybox", "true")
        self.each("`ps -a` of 50 containers", lambda c: c.do("ps", "-a"))
        for contender in self.contenders:
            contender.do("rm", *(f"listed{number}" for number in range(50)))

    def networks(self) -> None:
        def made(contender: Contender) -> None:
            contender.do("network", "create", "made")
            contender.do("network", "rm", "made")

        def moved(contender: Contender) -> None:
            contender.do("network", "connect", "second", "member")
            contender.do("network", "disconnect", "second", "member")

        def started(contender: Contender) -> None:
            joined = [word for name in ("first", "second", "third") for word in ("--network", name)]
            contender.do("run", "-d", "--name", "wide", *joined, "-p", "28000-28009:80-89", *SLEEP)
            contender.do("rm", "-f", "wide")

        self.each("`network create` and `rm`", made)
        # Debian's podman comes without its name server and then fails to leave a network of its user's.
        among = [contender for contender in self.contenders if contender.name != "podman"]
        for contender in among:
            for name in ("first", "second", "third"):
                contender.do("network", "create", name)
            contender.do("run", "-d", "--name", "member", "--network", "first", *SLEEP)
        self.each("`network connect` and `disconnect`, live", moved, among)
        self.each("`run -d` on 3 networks with 10 ports, `rm -f`", started, among)
        for contender in among:
            contender.do("rm", "-f", "member")
            contender.do("network", "rm", "first", "second", "third")

    def pull(self) -> None:
        name = f"{self.registry.host}/big:1"
        flags = {"podman": ["--tls-verify=false"]}
        pulls, removals = Measure("pull of a Debian image from a loopback registry"), Measure("`rmi` of it")
        for number in range(-1, max(3, self.rounds // 4)):
            for contender in self.contenders:
                took = timed(lambda c=contender: c.do("pull", "-q", *flags.get(c.name, []), name))
                gone = timed(lambda c=contender: c.do("rmi", name))
                if number >= 0:
                    pulls.add(contender.name, took * 1000)
                    removals.add(contender.name, gone * 1000)
        self.note(pulls)
        self.note(removals)

    def start(self) -> None:
        measure = Measure("daemon start-up, to its first answer")
        for _ in range(max(3, self.rounds // 4)):
            for contender in self.contenders:
                if contender.daemon is not None:
                    contender.daemon.stop()
                    measure.add(contender.name, timed(contender.daemon.start) * 1000)
        self.note(measure)

    def memory(self) -> None:
        daemon, each = (
            Measure("memory of the idle daemon (RSS)", "MB"),
            Measure("memory per running container (PSS)", "MB"),
        )
        for contender in self.contenders:
            if pids := contender.daemon_pids():
                daemon.add(contender.name, sum(_memory(pid, "Rss") for pid in pids))
            before = _all_memory()
            for number in range(20):
                contender.do("run", "-d", "--network", "none", "--name", f"held{number}", *SLEEP)
            each.add(contender.name, (_all_memory() - before) / 20)
            contender.do("rm", "-f", *(f"held{number}" for number in range(20)))
        self.note(daemon)
        self.note(each)


def _memory(pid: int, kind: str) -> float:
    """Rss or Pss of a process, in MB; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return int(text.partition(f"{kind}:")[2].split()[0]) / 1024 if f"{kind}:" in text else 0


def _all_memory() -> float:
    """Pss of everything that holds or runs containers: daemons, shims, monitors, the programs themselves."""
    names = {"conmon", "sleep", "catatonit", "containerd-shim", "dockerd", "containerd", "havred", "python3", "busybox"}
    total = 0.0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name = (entry / "comm").read_text().strip()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if name in names and int(entry.name) != os.getpid():
                total += _memory(int(entry.name), "Pss")
    return total


@contextmanager
def contenders() -> Iterator[tuple[list[Contender], RealRegistry]]:
    """All three engines and a registry, in one network namespace of their own, with the images in place."""
    scratch = Path(tempfile.mkdtemp(prefix="havre-bench-"))
    run("ip", "netns", "add", NETNS)
    run("ip", "-n", NETNS, "link", "set", "lo", "up")
    registry = real_registry(scratch / "registry", inside=("nsenter", f"--net=/run/netns/{NETNS}"))
    havred, dockerd = Havred(["--bip", "10.201.0.1/16"], NETNS), Dockerd(["--bip", "10.202.0.1/16"], NETNS)
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
            dockerd.docker("import", str(debian_tree(BIG_PACKAGES)), name, check=0, timeout_s=600)
            dockerd.docker("push", "-q", name, check=0, timeout_s=600)
            dockerd.docker("rmi", name, check=0)
            yield engines, running
    finally:
        subprocess.run(podman.command("system", "reset", "--force"), capture_output=True, check=False)
        for engine in (havred, dockerd):
            engine.close()
        run("ip", "netns", "del", NETNS)
        shutil.rmtree(scratch, ignore_errors=True)


def render(measures: Sequence[Measure]) -> str:
    """The table as Markdown."""
    names = ("havre", "dockerd", "podman")
    lines = ["| work | " + " | ".join(names) + " | dockerd / havre | podman / havre |", "| --- |" + " ---: |" * 5]
    for measure in measures:
        cells = []
        for name in names:
            values = measure.rounds.get(name)
            shown = f"{measure.median(name):,.1f} ({min(values):,.1f} to {max(values):,.1f})" if values else "none"
            cells.append(shown)
        for name in names[1:]:
            if name in measure.rounds:
                ratios = measure.ratios(name)
                median = measure.median(name) / measure.median("havre")
                cells.append(f"**{median:.1f}** ({min(ratios):.1f} to {max(ratios):.1f})")
            else:
                cells.append("none")
        lines.append(f"| {measure.title}, {measure.unit} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(measures: Sequence[Measure], path: Path) -> None:
    """A chart of the ratios: how many times more the others need."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = list(reversed(measures))
    figure, axes = pyplot.subplots(figsize=(9, 0.55 * len(rows) + 1.4))
    for offset, (name, colour) in enumerate((("podman", "#892ca0"), ("dockerd", "#2496ed"))):
        values = [m.median(name) / m.median("havre") if name in m.rounds else 0 for m in rows]
        bars = axes.barh([i + (offset - 0.5) * 0.38 for i in range(len(rows))], values, 0.36, label=name, color=colour)
        axes.bar_label(bars, [f"{value:.1f}" if value else "" for value in values], padding=3, fontsize=8)
    axes.axvline(1, color="#d1495b", linewidth=1.5, label="havre = 1")
    axes.set_yticks(range(len(rows)), [m.title.replace("`", "") for m in rows], fontsize=8)
    axes.set_xlabel("times what havre needs (more than 1: havre is better)")
    axes.set_xscale("symlog", linthresh=1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def write(bench: Bench) -> None:
    """docs/benchmarks.md and its chart."""
    versions = [run(tool, "--version").splitlines()[0] for tool in ("dockerd", "podman", "crun", "runc")]
    size = debian_tree(BIG_PACKAGES).stat().st_size / 1e6
    text = (
        "# Benchmarks\n\n"
        "Written by `make bench`; every row is measured on all engines in one run, in turn. Times are the median, with "
        "minimum and maximum; ratios are of the medians, with the spread of the rounds. havre is driven by its own "
        "command line, dockerd by docker's, podman directly.\n\n"
        f"![how many times more the others need](benchmarks.png)\n\n{render(bench.measures)}\n\n"
        f"The Debian image holds {size:,.0f} MB in one layer. {bench.rounds} rounds on {os.cpu_count()} processors, "
        f"Linux {platform.release().split('-')[0]}, Python {platform.python_version()}, {', '.join(versions)}. "
        "Podman runs on runc where crun refuses the host's cgroup layout.\n"
    )
    (ROOT / "docs" / "benchmarks.md").write_text(text)
    draw(bench.measures, ROOT / "docs" / "benchmarks.png")


def main() -> None:
    """Measure what was asked for."""
    parts = ("run", "exec", "many", "ps", "networks", "pull", "start", "memory")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(parts), help="measures, separated by commas")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--dry", action="store_true", help="print, and leave docs/ as it is")
    options = parser.parse_args()
    with contenders() as (engines, registry):
        bench = Bench(engines, registry, options.rounds)
        for part in options.only.split(","):
            getattr(bench, part)()
    print(render(bench.measures))
    if not options.dry:
        write(bench)


if __name__ == "__main__":
    main()
