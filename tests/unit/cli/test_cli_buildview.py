"""What a terminal shows of a build: how many steps there will be, and colours."""

from __future__ import annotations

from typing import Any

from havre.cli.buildview import Steps, render_screen
from havre.cli.tty import BLUE, RED

AT = "2026-11-30T10:00:00Z"


def vertex(name: str, **told: Any) -> dict[str, Any]:
    return {"vertexes": [{"digest": f"sha256:{name}", "name": name, **told}]}


def screen(steps: Steps, *, over: bool = False) -> list[tuple[str, str]]:
    shown = render_screen(steps, 0, 0, over=over)
    return [(text.split("  ")[0], colour) for text, colour in shown]


def test_steps_are_counted_from_the_start() -> None:
    steps = Steps()
    steps.update(vertex("[internal] load build definition from Dockerfile", started=AT, completed=AT))
    steps.update(vertex("[build 1/4] FROM x"))
    assert screen(steps)[0][0] == "[+] Building 0.0s (1/5)"
    steps.update(vertex("[stage-1 1/2] FROM y", started=AT, completed=AT))
    steps.update(vertex("[build 1/4] FROM x", started=AT))
    assert screen(steps)[0][0] == "[+] Building 0.0s (2/7)"
    steps.update(vertex("[build 2/5] RUN trigger", started=AT, completed=AT))  # one that the base has left
    assert screen(steps)[0][0] == "[+] Building 0.0s (3/8)"
    assert screen(steps, over=True)[0][0] == "[+] Building 0.0s (3/3) FINISHED"


def test_colours() -> None:
    steps = Steps()
    for name, told in (("a", {"completed": AT}), ("b", {}), ("c", {"completed": AT, "error": "broken"})):
        steps.update(vertex(name, started=AT, **told))
    assert screen(steps)[1:] == [(" => a", BLUE), (" => b", ""), (" => ERROR c", RED)]
