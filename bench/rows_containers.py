"""What is done to containers: stopped, copied to and from, read, started by the hundred, watched.

Podman is left out where it has no daemon to compare, or would need minutes. What was copied is removed at the end only:
ext4 looks at each inode that was deleted in the last seconds before it makes a new one.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from harness import SLEEP, Bench, Contender, Measure, timed

COPIES = 3
FILES, DIRECTORIES = 20_000, 200
BIG_BYTES = 1_000_000_000
CROWD, AT_ONCE = 100, 8
WATCHED = 50
OBEDIENT = ("busybox", "sh", "-c", "trap exit TERM; while true; do sleep 1 & wait; done")


def daemons(bench: Bench) -> Sequence[Contender]:
    """The contenders that have one."""
    return [contender for contender in bench.contenders if contender.daemon is not None]


def stop(bench: Bench) -> None:
    measure = Measure("`stop` and `rm` of a container that obeys")
    for _ in range(bench.rounds):
        for contender in bench.contenders:
            contender.do("run", "-d", "--name", "obedient", *OBEDIENT)
            contender.do("exec", "obedient", "true")
        for contender in bench.contenders:
            took = timed(lambda c=contender: (c.do("stop", "obedient"), c.do("rm", "obedient")))
            measure.add(contender.name, took * 1000)
    bench.note(measure)


@contextmanager
def boxes(bench: Bench) -> Iterator[Path]:
    """A running container named `box` on each daemon, and a scratch directory; both gone in the end."""
    scratch = Path(tempfile.mkdtemp(prefix="havre-bench-cp-"))
    for contender in daemons(bench):
        contender.do("run", "-d", "--name", "box", *SLEEP)
    try:
        yield scratch
    finally:
        for contender in daemons(bench):
            contender.do("rm", "-f", "box")
        shutil.rmtree(scratch)


def copy(bench: Bench, what: str, source: Path) -> None:
    """Copy `source` in and out, on each daemon in turn; to a new name each time."""
    inward, outward = Measure(f"`cp` of {what} into a container"), Measure(f"`cp` of {what} out of a container")
    for number in range(COPIES):
        for contender in daemons(bench):
            inward.add(contender.name, copied(contender, str(source), f"box:/{source.name}{number}"))
        for contender in daemons(bench):
            out = source.parent / f"out-{contender.name}-{number}"
            outward.add(contender.name, copied(contender, f"box:/{source.name}{number}", str(out)))
    bench.note(inward)
    bench.note(outward)


def copied(contender: Contender, source: str, target: str) -> float:
    """Milliseconds of one `cp`, begun when all that was written before is on the disk: nobody waits for another's."""
    os.sync()
    return timed(lambda: contender.do("cp", source, target)) * 1000


def copy_small(bench: Bench) -> None:
    chance = random.Random(1)
    with boxes(bench) as scratch:
        source = scratch / "small"
        for directory in range(DIRECTORIES):
            (source / f"d{directory}").mkdir(parents=True)
            for file in range(FILES // DIRECTORIES):
                (source / f"d{directory}" / f"f{file}").write_bytes(chance.randbytes(chance.randrange(4000)))
        copy(bench, f"{FILES:,} small files", source)


def copy_big(bench: Bench) -> None:
    with boxes(bench) as scratch:
        source = scratch / "big"
        with source.open("wb") as file:
            for _ in range(BIG_BYTES // 1_000_000):
                file.write(os.urandom(1_000_000))
        copy(bench, "a file of 1 GB", source)


def crowd(bench: Bench) -> None:
    names = [f"crowd{number}" for number in range(CROWD)]
    measure = Measure(f"{CROWD} containers started, {AT_ONCE} at a time")

    def start(contender: Contender) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda name: contender.do("run", "-d", "--name", name, *SLEEP), names))

    for contender in daemons(bench):
        measure.add(contender.name, timed(lambda c=contender: start(c)) * 1000)
        contender.do("rm", "-f", *names)
    bench.note(measure)


def stats(bench: Bench) -> None:
    names = [f"watched{number}" for number in range(WATCHED)]
    for contender in daemons(bench):
        for name in names:
            contender.do("run", "-d", "--network", "none", "--name", name, *SLEEP)
    bench.each(
        f"`stats --no-stream` of {WATCHED} containers",
        lambda c: c.do("stats", "--no-stream"),
        daemons(bench),
        bench.few(),
    )
    for contender in daemons(bench):
        contender.do("rm", "-f", *names)


ROWS = {
    "stop": stop,
    "copy-small": copy_small,
    "copy-big": copy_big,
    "crowd": crowd,
    "stats": stats,
}
