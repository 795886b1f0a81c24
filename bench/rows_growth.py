"""What the work takes beside many running containers, and how long a daemon needs to take them over.

One engine at a time: the mounts and devices of another one's containers would count as well. Each is measured beside
few containers and beside many, so that a row tells what their number costs. dockerd keeps its containers over its own
end by `--live-restore`; where it gives up waiting for containerd it is started again, as its systemd unit would do.
podman has no daemon that could end.
"""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

from harness import SLEEP, Bench, Contender, Measure, timed

from support.engines import Engine

FEW, MANY, AT_ONCE = 10, 500, 4


def growth(bench: Bench) -> None:
    kinds = ("`start`", "`run --rm busybox true`", "`ps`")
    rows = {
        (kind, number): Measure(f"{kind} beside {number} running containers")
        for number in (FEW, MANY)
        for kind in kinds
    }
    takeover = Measure(f"daemon killed and started anew, {MANY} containers running, to its first answer")
    for contender in bench.contenders:
        started = 0
        for number in (FEW, MANY):
            fill(contender, started, number)
            started = number
            for _ in range(bench.few()):
                rows["`start`", number].add(contender.name, start_one(contender))
                rows["`run --rm busybox true`", number].add(
                    contender.name, timed(lambda c=contender: c.do("run", "--rm", "busybox", "true")) * 1000
                )
                rows["`ps`", number].add(contender.name, timed(lambda c=contender: c.do("ps")) * 1000)
        for _ in range(3 if contender.daemon is not None else 0):
            takeover.add(contender.name, restart(contender) * 1000)
        running = len(contender.do("ps", "-q").split())
        assert running == MANY, f"{contender.name} has {running} containers left of {MANY}"
        empty(contender, MANY)
    for measure in (*rows.values(), takeover):
        bench.note(measure)


def fill(contender: Contender, first: int, last: int) -> None:
    """Let the containers from number `first` on run."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda n: contender.do("run", "-d", "--name", f"grown{n}", *SLEEP), range(first, last)))


def empty(contender: Contender, count: int) -> None:
    names = [f"grown{number}" for number in range(count)]
    contender.do("rm", "-f", *(["-t", "0"] if contender.name == "podman" else []), *names)


def start_one(contender: Contender) -> float:
    """Milliseconds of the start of one more."""
    contender.do("create", "--name", "more", *SLEEP)
    took = timed(lambda: contender.do("start", "more"))
    contender.do("rm", "-f", *(["-t", "0"] if contender.name == "podman" else []), "more")
    return took * 1000


def restart(contender: Contender) -> float:
    assert contender.daemon is not None, "only daemons are started anew"
    contender.daemon.stop(signal.SIGKILL)
    return timed(lambda daemon=contender.daemon: come_back(daemon))


def come_back(daemon: Engine, attempts: int = 5) -> None:
    """Start a daemon, and again each time it ends before it has answered."""
    for attempt in range(1, attempts + 1):
        try:
            daemon.start(limit_s=120)
        except AssertionError:
            if attempt == attempts:
                raise
        else:
            return


ROWS = {"growth": growth}
