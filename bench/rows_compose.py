"""Compose: `havre compose` on havre beside docker compose on dockerd. Podman has no column, as it has no Compose."""

from __future__ import annotations

import tempfile
from pathlib import Path

from harness import Bench, Measure, timed

_LAYERS = (("db", "cache", "queue"), ("api", "auth", "search"), ("worker", "mailer", "site"), ("proxy",))
"""Ten services, each of which depends on all of the layer before."""


def _file() -> str:
    lines = ["name: benched", "services:"]
    below: tuple[str, ...] = ()
    for layer in _LAYERS:
        needs = f"depends_on: [{', '.join(below)}]"
        lines += [f"  {name}: {{image: busybox, init: true, command: sleep 100000, {needs}}}" for name in layer]
        below = layer
    return "\n".join(lines) + "\n"


def projects(bench: Bench) -> None:
    up = Measure("`compose up -d` of 10 services that depend on each other")
    again = Measure("`compose up -d` with nothing to do")
    down = Measure("`compose down` of the 10 services")
    among = [contender for contender in bench.contenders if contender.name != "podman"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "compose.yaml"
        file.write_text(_file())
        for number in range(-1, bench.few()):
            for contender in among:
                for measure, verb in ((up, ("up", "-d")), (again, ("up", "-d")), (down, ("down",))):
                    took = timed(lambda c=contender, v=verb: c.do("compose", "-f", str(file), *v))
                    if number >= 0:
                        measure.add(contender.name, took * 1000)
    for measure in (up, again, down):
        bench.note(measure)


ROWS = {"compose": projects}
