"""The main job: running, listing, pulling, starting up, memory."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from harness import SLEEP, Bench, Contender, Measure, timed


def run(bench: Bench) -> None:
    bench.each("`run --rm busybox true`, bridge", lambda c: c.do("run", "--rm", "busybox", "true"))
    bench.each(
        "`run --rm --network none busybox true`",
        lambda c: c.do("run", "--rm", "--network", "none", "busybox", "true"),
    )


def execute(bench: Bench) -> None:
    for contender in bench.contenders:
        contender.do("run", "-d", "--name", "target", *SLEEP)
    bench.each("`exec` of `true`", lambda c: c.do("exec", "target", "true"))
    for contender in bench.contenders:
        contender.do("rm", "-f", "target")


def many(bench: Bench) -> None:
    names = [f"many{number}" for number in range(20)]

    def start(contender: Contender) -> None:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda name: contender.do("run", "-d", "--name", name, *SLEEP), names))

    def remove(contender: Contender) -> None:
        # Without a time to wait, as sleep does not heed SIGTERM.
        contender.do("rm", "-f", *(["-t", "0"] if contender.name == "podman" else []), *names)

    measure = Measure("20 containers started, 4 at a time")
    removal = Measure("`rm -f` of 20 running containers")
    for _ in range(bench.few()):
        for contender in bench.contenders:
            measure.add(contender.name, timed(lambda c=contender: start(c)) * 1000)
        for contender in bench.contenders:
            removal.add(contender.name, timed(lambda c=contender: remove(c)) * 1000)
    bench.note(measure)
    bench.note(removal)


def ps(bench: Bench) -> None:
    for contender in bench.contenders:
        for number in range(50):
            contender.do("create", "--name", f"listed{number}", "busybox", "true")
    bench.each("`ps -a` of 50 containers", lambda c: c.do("ps", "-a"))
    for contender in bench.contenders:
        contender.do("rm", *(f"listed{number}" for number in range(50)))


def networks(bench: Bench) -> None:
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

    bench.each("`network create` and `rm`", made)
    # Debian's podman comes without its name server and then fails to leave a network of its user's.
    among = [contender for contender in bench.contenders if contender.name != "podman"]
    for contender in among:
        for name in ("first", "second", "third"):
            contender.do("network", "create", name)
        contender.do("run", "-d", "--name", "member", "--network", "first", *SLEEP)
    bench.each("`network connect` and `disconnect`, live", moved, among)
    bench.each("`run -d` on 3 networks with 10 ports, `rm -f`", started, among)
    for contender in among:
        contender.do("rm", "-f", "member")
        contender.do("network", "rm", "first", "second", "third")


def pull(bench: Bench) -> None:
    name = f"{bench.registry.host}/big:1"
    flags = {"podman": ["--tls-verify=false"]}
    pulls, removals = Measure("pull of a Debian image from a loopback registry"), Measure("`rmi` of it")
    for number in range(-1, bench.few()):
        for contender in bench.contenders:
            took = timed(lambda c=contender: c.do("pull", "-q", *flags.get(c.name, []), name))
            gone = timed(lambda c=contender: c.do("rmi", name))
            if number >= 0:
                pulls.add(contender.name, took * 1000)
                removals.add(contender.name, gone * 1000)
    bench.note(pulls)
    bench.note(removals)


def start(bench: Bench) -> None:
    measure = Measure("daemon start-up, to its first answer")
    for _ in range(bench.few()):
        for contender in bench.contenders:
            if contender.daemon is not None:
                contender.daemon.stop()
                measure.add(contender.name, timed(contender.daemon.start) * 1000)
    bench.note(measure)


def memory(bench: Bench) -> None:
    daemon, each = (
        Measure("memory of the idle daemon (RSS)", "MB"),
        Measure("memory per running container (PSS)", "MB"),
    )
    for contender in bench.contenders:
        if pids := contender.daemon_pids():
            daemon.add(contender.name, sum(_memory(pid, "Rss") for pid in pids))
        before = _all_memory()
        for number in range(20):
            contender.do("run", "-d", "--network", "none", "--name", f"held{number}", *SLEEP)
        each.add(contender.name, (_all_memory() - before) / 20)
        contender.do("rm", "-f", *(f"held{number}" for number in range(20)))
    bench.note(daemon)
    bench.note(each)


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


ROWS = {
    "run": run,
    "exec": execute,
    "many": many,
    "ps": ps,
    "networks": networks,
    "pull": pull,
    "start": start,
    "memory": memory,
}
