"""Builds: havre's own command, buildx on dockerd, and buildah in podman's column (podman builds by it).

The context has 4,000 files of 50 MB, so that the rows of `builds` stay within about a minute for three rounds; those of
`bigcontext`, with 20,000 files of 500 MB, take minutes.
"""

from __future__ import annotations

import os
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import Bench, Contender, Measure, timed

_TEN = "FROM busybox\n" + "".join(f"RUN echo {number} > /{number}\n" for number in range(10))


def _stages(steps: str) -> str:
    """Four stages that do not wait for one another, of which the last takes a file each."""
    return (
        "".join(f"FROM busybox AS s{number}\nENV N={number}\n{steps}" for number in range(4))
        + "FROM scratch\n"
        + "".join(f"COPY --from=s{number} /{number} /\n" for number in range(4))
    )


# runc cannot run its steps on every host, and a million descriptors and processes are more than some let it have.
_PODMAN = ("--isolation", "chroot", "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")


def _build(contender: Contender, context: Path, *flags: str) -> None:
    if contender.name == "podman":
        contender.do("build", "--layers", "-q", *_PODMAN, *flags, str(context))
    elif contender.name == "dockerd":
        contender.do("buildx", "build", "-q", *flags, str(context))
    else:
        contender.do("build", "-q", *flags, str(context))


@contextmanager
def _context(dockerfile: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="havre-bench-context-") as directory:
        (Path(directory) / "Dockerfile").write_text(dockerfile)
        yield Path(directory)


def _few(bench: Bench, title: str, work: Callable[[Contender], object], before: Callable[[], object] = bool) -> None:
    """Three rounds: a build costs seconds."""
    measure = Measure(title)
    for _ in range(min(3, bench.rounds)):
        before()
        for contender in bench.contenders:
            measure.add(contender.name, timed(lambda c=contender: work(c)) * 1000)
    bench.note(measure)


def steps(bench: Bench) -> None:
    with _context(_TEN) as context:
        _few(bench, "build of 10 RUN steps, no cache", lambda c: _build(c, context, "--no-cache"))
        _few(bench, "the same, fully cached", lambda c: _build(c, context))


def contexts(bench: Bench, files: int = 4_000, megabytes: int = 50) -> None:
    with _context("FROM busybox\nCOPY . /src\n") as context:
        fill(context, files, megabytes << 20)
        _few(
            bench,
            f"build: COPY of {files:,} files, {megabytes} MB, changed throughout",
            lambda c: _build(c, context),
            _touch_all(context),
        )

        def change() -> None:
            (context / "d0" / "f0").write_text(os.urandom(8).hex())

        _few(bench, f"the same {files:,} files with one line changed", lambda c: _build(c, context), change)


def fill(context: Path, files: int, size: int) -> None:
    """So many files of random bytes, of half to one and a half times the mean size, `size` bytes in all."""
    source = random.Random(7)
    mean = size // files
    for number in range(files):
        directory = context / f"d{number % 100}"
        directory.mkdir(exist_ok=True)
        (directory / f"f{number}").write_bytes(source.randbytes(source.randint(mean // 2, mean * 3 // 2)))


def _touch_all(context: Path) -> Callable[[], object]:
    """Every file another, so that no round finds what the one before has left."""

    def touch() -> None:
        for path in context.glob("d*/f*"):
            with path.open("r+b") as file:
                file.write(os.urandom(8))

    return touch


def parallel(bench: Bench) -> None:
    with _context(_stages("RUN sleep 0.5; echo $N > /$N\n")) as context:
        _few(bench, "4 stages of half a second each, no cache", lambda c: _build(c, context, "--no-cache"))
    with _context(_stages("RUN echo $N > /$N\n" * 4)) as context:
        _few(bench, "4 stages of 4 RUN steps each, no cache", lambda c: _build(c, context, "--no-cache"))


def clean(bench: Bench) -> None:
    """Give the disk back."""
    for contender in bench.contenders:
        prune = ["image", "prune", "-f"] if contender.name == "podman" else ["builder", "prune", "-af"]
        subprocess.run(contender.command(*prune), env=contender.env, capture_output=True, check=False)


def builds(bench: Bench) -> None:
    steps(bench)
    parallel(bench)
    contexts(bench)
    clean(bench)


def bigcontext(bench: Bench) -> None:
    contexts(bench, 20_000, 500)
    clean(bench)


ROWS = {"builds": builds, "bigcontext": bigcontext}
