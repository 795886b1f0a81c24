"""Shows a build's progress on standard error, as BuildKit's clients do.

    tty       all steps in place with live times, and the last lines of output of running steps
    plain     line by line, each with its step's number; output of commands as it arrives
    rawjson   the daemon's own lines

The state is in `Steps`, which `buildgraph` uses, too. Source: docker/buildx "--progress"; moby/buildkit
util/progress/progressui for the wording.
"""

from __future__ import annotations

import posix
import time

from havre.cli.screen import Screen
from havre.cli.stream import write_all
from havre.cli.tty import BLUE, RED
from havre.golang.jsontext import encode
from havre.visible import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class View(Protocol):
        """A form of the display."""

        def update(self, message: dict[str, Any]) -> None: ...
        def end(self) -> None: ...


_TAIL = 6  # lines of output shown below a running step
_KEPT = 20  # lines kept for a failing step
_TICK_S = 0.1


class Step:
    """A vertex; times are seconds since the epoch, None before they are known."""

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self.inputs: list[str] = []
        self.started: float | None = None
        self.completed: float | None = None
        self.cached = False
        self.error = ""
        self.output: list[str] = []  # the last lines
        self.statuses: dict[str, str] = {}
        self._rest = ""

    def seconds(self, now: float) -> float:
        """Seconds that it has been running, or ran."""
        return 0.0 if self.started is None else max(0.0, (self.completed or now) - self.started)

    def take(self, text: str) -> list[str]:
        """The lines completed by `text`."""
        *lines, self._rest = (self._rest + text).replace("\r\n", "\n").split("\n")
        self.output = [*self.output, *lines][-_KEPT:]
        return lines

    def flush(self) -> list[str]:
        """The last line, if it has no newline."""
        return self.take("\n") if self._rest else []


class Steps:
    """All steps by digest, in order of their start."""

    def __init__(self) -> None:
        self.by_digest: dict[str, Step] = {}
        self.warnings: list[str] = []
        self._counts: dict[str, int] = {}  # number of steps of each stage

    def update(self, message: dict[str, Any]) -> list[tuple[Step, list[str], str]]:
        """Process a message; returns what is new in it, as (step, lines of output, state: "", started, done)."""
        news: list[tuple[Step, list[str], str]] = []
        for vertex in message.get("vertexes") or ():
            news += self._vertex(vertex)
        for log in message.get("logs") or ():
            if (step := self.by_digest.get(log["vertex"])) is not None and (lines := step.take(_text(log["data"]))):
                news.append((step, lines, ""))
        for status in message.get("statuses") or ():
            if (step := self.by_digest.get(status["vertex"])) is not None:
                news += self._status(step, status)
        self.warnings += [visible(_text(warning["short"])) for warning in message.get("warnings") or ()]
        return news

    def _vertex(self, vertex: dict[str, Any]) -> list[tuple[Step, list[str], str]]:
        step = self.by_digest.get(vertex["digest"])
        if (place := _place(vertex["name"])) is not None:
            self._counts[place[0]] = max(place[1], self._counts.get(place[0], 0))
        if step is None:
            if not vertex.get("started"):
                return []
            step = self.by_digest[vertex["digest"]] = Step(len(self.by_digest) + 1, visible(vertex["name"]))
            step.inputs = vertex.get("inputs") or []
        state = ""
        if step.started is None:
            step.started, state = seconds_of(vertex["started"]), "started"
        if vertex.get("completed") and step.completed is None:
            step.completed, step.cached = seconds_of(vertex["completed"]), bool(vertex.get("cached"))
            step.error = visible(vertex.get("error", ""))
            return [*([(step, [], "started")] if state else []), (step, step.flush(), "done")]
        return [(step, [], state)] if state else []

    @staticmethod
    def _status(step: Step, status: dict[str, Any]) -> list[tuple[Step, list[str], str]]:
        from havre.golang.texts import human_size

        current, total = status.get("current") or 0, status.get("total") or 0
        amount = f" {human_size(current)}" + (f" / {human_size(total)}" if total else "") if current else ""
        step.statuses[status["id"]] = visible(status["id"] + amount)
        return [(step, [step.statuses[status["id"]]], "")] if status.get("completed") else []

    def total(self) -> int:
        """The expected number of steps, as far as known: each step's name has the number of its stage."""
        others = sum(1 for step in self.by_digest.values() if _place(step.name) is None)
        return others + sum(self._counts.values())

    def failed(self) -> Step | None:
        """The failed step, if any; a cancelled one only if no other failed."""
        failures = [step for step in self.by_digest.values() if step.error]
        return next((step for step in failures if step.output), failures[0] if failures else None)


def _place(name: str) -> tuple[str, int] | None:
    """The stage and its number of steps in a name such as `[linux/arm64 build 2/5] RUN x`; None for other names."""
    label, closed, _ = name.removeprefix("[").partition("] ")
    *stage, counted = label.split(" ")
    at, slash, of = counted.partition("/")
    if not (name.startswith("[") and closed and slash and at.isdecimal() and of.isdecimal()):
        return None
    return " ".join(stage), int(of)


def _text(data: str) -> str:
    from binascii import a2b_base64

    return a2b_base64(data).decode("utf-8", "replace")


def seconds_of(text: str) -> float:
    """An RFC 3339 time in UTC as seconds since the epoch."""
    days = _days(int(text[:4]), int(text[5:7]), int(text[8:10]))
    return days * 86400 + int(text[11:13]) * 3600 + int(text[14:16]) * 60 + float(text[17:].rstrip("Z"))


def _days(year: int, month: int, day: int) -> int:
    """Days since the epoch (civil calendar); avoids importing datetime."""
    year -= month <= 2
    era, of_era = divmod(year, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468


class PlainView:
    """Prints line by line."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._shown: Step | None = None

    def update(self, message: dict[str, Any]) -> None:
        """Write what is new."""
        text = ""
        for step, lines, state in self._steps.update(message):
            if step is not self._shown:
                text += ("\n" if self._shown is not None else "") + f"#{step.number} {step.name}\n"
                self._shown = step
            at = f"{step.seconds(time.time()):.3f} " if step.output and lines else ""
            text += "".join(f"#{step.number} {at}{line}\n" for line in lines)
            if state == "done":
                text += f"#{step.number} {_outcome(step)}\n"
        if text:
            write_all(2, text.encode("utf-8", "replace"))

    def end(self) -> None:
        """Nothing to do."""


def _outcome(step: Step) -> str:
    if step.error:
        return f"ERROR: {step.error.partition(chr(10))[0]}"
    return "CACHED" if step.cached else f"DONE {step.seconds(0):.1f}s"


class RawView:
    """Prints the daemon's own lines."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def update(self, message: dict[str, Any]) -> None:
        """Write the message."""
        self._steps.update(message)
        write_all(2, (encode(message) + "\n").encode())

    def end(self) -> None:
        """Nothing to do."""


class QuietView:
    """Shows nothing."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def update(self, message: dict[str, Any]) -> None:
        """Keep the state, for the output of a failing step."""
        self._steps.update(message)

    def end(self) -> None:
        """Nothing to do."""


class TerminalView:
    """Redraws in place with every message, and every tenth of a second in a thread."""

    def __init__(self, steps: Steps) -> None:
        import threading

        self._steps = steps
        self._begun = time.time()
        self._screen = Screen(2)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._clock = threading.Thread(target=self._tick, daemon=True)
        self._clock.start()

    def update(self, message: dict[str, Any]) -> None:
        """Update the state and draw."""
        with self._lock:
            if self._steps.update(message):
                self._draw()

    def end(self) -> None:
        """Draw the final state."""
        self._over.set()
        self._clock.join()
        self._screen.keep(render_screen(self._steps, time.time(), self._begun, over=True))

    def _tick(self) -> None:
        while not self._over.wait(_TICK_S):
            with self._lock:
                self._draw()

    def _draw(self) -> None:
        self._screen.draw(render_screen(self._steps, time.time(), self._begun, over=False))


def render_screen(steps: Steps, now: float, begun: float, *, over: bool) -> list[tuple[str, str]]:
    """The lines shown on a terminal, with colours: a head, a line for each step, and below running ones their output.
    Finished steps are blue and errors red, as in docker's.
    """
    every = list(steps.by_digest.values())
    done = sum(step.completed is not None for step in every)
    state = " FINISHED" if over and steps.failed() is None else ""
    total = done if state else max(steps.total(), len(every))
    lines = [(f"[+] Building {now - begun:.1f}s ({done}/{total}){state}", "")]
    for step in every:
        mark = "ERROR " if step.error else "CACHED " if step.cached else ""
        colour = RED if step.error else BLUE if step.completed is not None else ""
        lines.append((f"{f' => {mark}{step.name}':<70} {step.seconds(now):>5.1f}s", colour))
        if step.completed is None:
            lines += [(f" => => {text}", "") for text in list(step.statuses.values())[-_TAIL:]]
            lines += [(f" => => # {visible(line)}", "") for line in step.output[-_TAIL:]]
    return lines


def choose_view(progress: str, steps: Steps, *, quiet: bool) -> View:
    """The view for `--progress`."""
    if quiet or progress == "quiet":
        return QuietView(steps)
    if progress == "rawjson":
        return RawView(steps)
    if progress == "tty" or (progress == "auto" and posix.isatty(2)):
        return TerminalView(steps)
    return PlainView(steps)


def render_failure(steps: Steps) -> str:
    """The failed step and its last lines of output, "" if none failed."""
    step = steps.failed()
    if step is None or not step.output:
        return ""
    return "\n".join(["------", f" > {step.name}:", *step.output, "------"]) + "\n"
