"""Every shell example of README.md and docs/ runs, against a daemon and a registry of its own.

A block of shell is fenced as `sh`, or indented and begins with one of our programs; in one fenced as `console` commands
begin with `$ `, and what is below them is what they print. One that needs the real host has
`<!-- not run: REASON -->` above it. A block is run as it stands, in a folder with a Dockerfile and a compose.yaml, but
for what `substitutes` says: nobody types here, and nothing listens where a user's daemon would.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.engines import HAVRE, HAVRED, Dockerd, Engine, Havred, serving
from support.registry import RealRegistry, own_registry

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PROGRAMS = ("havre", "havred", "docker", "make", "curl", "apt", "systemctl", "export")
MOST_NOT_RUN = 1

_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]*) -->\n\n?)?```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_INDENTED = re.compile(rf"(?<=\n\n)(?: {{4}}(?:{'|'.join(PROGRAMS)}) [^\n]*\n)+")
_COMMAND = re.compile(rf"^ *(?:\$ )?(?:{'|'.join(PROGRAMS)}) (?:-|[a-z]+\b)", re.MULTILINE)

DOCKERFILE = "FROM scratch\nCOPY . /\n"
APP = 'FROM busybox\nCMD ["sleep", "1000"]\nSTOPSIGNAL SIGKILL\n'
COMPOSE = "services: {web: {image: busybox, command: sleep 1000, stop_signal: SIGKILL}}\n"
# Starts the daemon where it disturbs nobody, and returns when it answers.
START = """#!/bin/sh
echo "{{}}" >{root}/daemon.json
{havred} "$@" --data-root {root}/data --exec-root {root}/run --pidfile {root}/pid --config-file {root}/daemon.json \\
    --cgroup-parent {cgroup}-2 --bridge none --iptables=false >{root}/log 2>&1 &
until DOCKER_HOST=unix://{root}/s docker version >{root}/version 2>&1; do kill -0 $! || exit 1; done
"""


@dataclass(frozen=True)
class Example:
    """A block of shell; `reason` says why it is not run, `output` what it prints if the block shows that."""

    place: str
    text: str
    reason: str = ""
    output: str | None = None


def examples() -> Iterator[Example]:
    for page in PAGES:
        text, name = page.read_text(), str(page.relative_to(ROOT))
        for match in _FENCE.finditer(text):
            place, reason = f"{name}:{text.count(chr(10), 0, match.start('text'))}", match["reason"] or ""
            if match["kind"] == "sh":
                yield Example(place, match["text"], reason)
            if match["kind"] == "console":
                lines = match["text"].splitlines()
                commands = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
                shown = [line for line in lines if not line.startswith("$ ")]
                yield Example(place, "\n".join(commands), reason, "\n".join(shown))
        for match in _INDENTED.finditer(_FENCE.sub("", text)):
            yield Example(f"{name}: {match[0].strip()}", match[0])


EXAMPLES = list(examples())


@dataclass(frozen=True)
class Place:
    """Where examples run: an engine of ours, one of Docker's to come from, and a registry."""

    engine: Engine
    docker: Engine
    registry: RealRegistry


@pytest.fixture(scope="module")
def place(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """With the images that the examples name."""
    with (
        serving(Havred(), archive) as engine,
        serving(Dockerd(["--bridge=none", "--iptables=false"]), archive) as docker,
        own_registry(tmp_path_factory.mktemp("registry"), inside=engine.inside) as registry,
    ):
        app = f"{registry.host}/team/app:1"
        engine.docker("build", "-q", "-t", app, "-", stdin=APP, check=0)
        engine.docker("push", "-q", app, check=0)
        for name in ("app:1", "db:2"):
            docker.docker("tag", "busybox", name, check=0)
        yield Place(engine, docker, registry)


@pytest.fixture
def project(place: Place, tmp_path: Path) -> Iterator[Path]:
    """A folder to stand in; what an example leaves in the engines is removed."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "compose.yaml").write_text(COMPOSE)
    start = tmp_path / "bin" / "havred"
    start.parent.mkdir()
    start.write_text(START.format(havred=HAVRED, root=tmp_path, cgroup=place.engine.cgroup))
    start.chmod(0o755)
    kept = place.engine.objects(), place.docker.objects()
    yield folder
    if (tmp_path / "pid").exists():
        end(int((tmp_path / "pid").read_text()))
    place.engine.tidy(kept[0])
    place.docker.tidy(kept[1])


def end(daemon: int) -> None:
    """Stop a daemon that is not our child."""
    descriptor = os.pidfd_open(daemon)
    signal.pidfd_send_signal(descriptor, signal.SIGTERM)
    assert select.select([descriptor], [], [], 20)[0], "the daemon ends"
    os.close(descriptor)


@pytest.mark.parametrize("example", [each for each in EXAMPLES if not each.reason], ids=lambda example: example.place)
def test_runs(example: Example, place: Place, project: Path) -> None:
    own = re.search("^havred ", example.text, re.MULTILINE)
    substitutes = {
        "registry.example.org": place.registry.host,
        "unix:///run/havre.sock": f"unix://{project.parent}/s" if own else place.engine.url,
        " -it ": " -i ",
        " logs -f ": " logs ",
    }
    text = example.text
    for said, meant in substitutes.items():
        text = text.replace(said, meant)
    path = f"{project.parent}/bin:{HAVRE.parent}:{os.environ['PATH']}"
    env = {**place.engine.env, "PATH": path, "HAVRE_HOST": place.engine.url, "DOCKER_HOST": place.docker.url}
    shell = [*place.engine.inside, "bash", "-euxo", "pipefail", "-c", text]
    done = subprocess.run(
        shell, cwd=project, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{example.place}\n{done.stdout}\n{done.stderr}"
    if example.output is not None:
        assert done.stdout.strip() == example.output


def test_what_is_not_run_says_why_and_is_little() -> None:
    left = [example for example in EXAMPLES if example.reason]
    print(*(f"{example.place}: {example.reason}" for example in left), sep="\n")
    assert len(left) <= MOST_NOT_RUN
    assert all(len(example.reason) > 20 for example in left)


def test_no_example_hides_in_a_block_of_another_kind() -> None:
    hidden = [
        f"{page.name}: {found[0].strip()}"
        for page in PAGES
        for match in _FENCE.finditer(page.read_text())
        if match["kind"] not in ("sh", "console") and (found := _COMMAND.search(match["text"]))
    ]
    assert hidden == [], "fence it as sh"
