"""Control characters are shown, not sent."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest

from havre.cli.buildview import PlainView, Steps, render_screen
from havre.cli.compose.view import Live, Plain
from havre.cli.format.table import Listing, align
from havre.cli.progress import show
from havre.golang.templates.template import compile_template
from havre.visible import Drawn, Guarded, visible

EVIL = "\x1b]0;evil\x07\x9b2J\u202e"
SHOWN = r"\x1b]0;evil\x07\u009b2J\u202e"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("Größe ✔ 漢字", "Größe ✔ 漢字"),
        (EVIL, SHOWN),
        ("over\rwritten", r"over\x0dwritten"),
        ("line\r\nend", "line\nend"),
        ("back\b\x7f\0", r"back\x08\x7f\x00"),
        ("\udc9bbyte \udcff", "\\x9bbyte \udcff"),
    ],
)
def test_what_a_terminal_obeys_is_spelt_out(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


def test_a_guarded_stream_sends_only_what_is_drawn() -> None:
    raw = io.StringIO()
    stream: Any = Guarded(raw)
    stream.write(EVIL)
    print("a", EVIL, file=stream, flush=True)
    stream.write(Drawn("\x1b[2m"))
    stream.write(Drawn("\x1b[2m") + EVIL)
    assert raw.getvalue() == f"{SHOWN}a {SHOWN}\n\x1b[2m\\x1b[2m{SHOWN}"
    assert stream.isatty() is False


def test_tables_and_templates() -> None:
    listing = Listing("t", {"Name": ("NAME", lambda row: row), "Also": ("ALSO", lambda row: row)}, ("Name", "Also"))
    table = f"{'NAME':<{len(SHOWN) + 3}}ALSO\n{SHOWN}   {SHOWN}\n"
    assert listing.render([EVIL], "") == table
    assert listing.render([EVIL], "table {{.Name}}\t{{.Also}}") == table
    assert align([[EVIL]]) == SHOWN + "\n"
    template = compile_template("\x1b[1m{{.}}")
    assert template.execute(EVIL, shown=visible) == f"\x1b[1m{SHOWN}"
    assert template.execute(EVIL) == f"\x1b[1m{EVIL}"


def test_a_template_is_exact_for_a_program_that_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    listing = Listing("t", {"Name": ("NAME", lambda row: row)}, ("Name",))
    assert listing.render([EVIL], "{{.Name}}") == EVIL + "\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert listing.render([EVIL], "\x1b[1m{{.Name}}") == f"\x1b[1m{SHOWN}\n"


def test_progress_of_a_registry(capfd: pytest.CaptureFixture[str]) -> None:
    show([{"status": EVIL, "id": EVIL}, {"status": EVIL}, {"stream": f"{EVIL}\n"}], 1)
    assert capfd.readouterr().out == f"{SHOWN}: {SHOWN}\n{SHOWN}\n{SHOWN}\n"


def test_a_build_shows_its_commands_output_alone(capfd: pytest.CaptureFixture[str]) -> None:
    started, done = "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"
    vertex = {"digest": "d", "name": f"RUN {EVIL}", "started": started}
    data = "G1sxbXJlZAo="  # ESC [1m red, newline
    message = {"vertexes": [vertex], "logs": [{"vertex": "d", "data": data}]}
    end = {"vertexes": [{**vertex, "completed": done, "error": EVIL}]}
    steps = Steps()
    view = PlainView(steps)
    view.update(message)
    screen = "".join(line for line, _ in render_screen(steps, 0, 0, over=False))
    assert "\x1b" not in screen
    assert r"\x1b[1mred" in screen
    view.update(end)
    text = capfd.readouterr().err
    assert EVIL not in text
    assert f"RUN {SHOWN}\n" in text
    assert f"ERROR: {SHOWN}\n" in text
    assert "\x1b[1mred" in text


def test_compose_shows_no_foreign_escapes(capfd: pytest.CaptureFixture[str]) -> None:
    live = Live(sys.__stderr__, colour=False)
    live.show("Image x", EVIL, over=False)
    live.tick("Image x", [EVIL], [])
    live.close()
    Plain(Guarded(sys.__stderr__)).show("Image x", EVIL, over=True)  # type: ignore[arg-type]
    text = capfd.readouterr().err
    assert "\x1b]" not in text
    assert "\x9b" not in text
    assert text.count(SHOWN) == 6
