"""Logs: a million lines written, and read again."""

from __future__ import annotations

from harness import Bench, Contender, Measure, timed

LINES = "1000000"


def logs(bench: Bench) -> None:
    def written(contender: Contender) -> None:
        contender.do("run", "--network", "none", "-d", "--name", "wordy", "busybox", "seq", LINES)
        contender.do("wait", "wordy")

    # podman reads its own driver's file; all three keep what is their default where no systemd runs.
    writing, reading = Measure("a container that writes 1,000,000 lines"), Measure("`logs` of 1,000,000 lines")
    tail = Measure("`logs --tail 100` of them")
    for _ in range(bench.few()):
        for contender in bench.contenders:
            writing.add(contender.name, timed(lambda c=contender: written(c)) * 1000)
            reading.add(contender.name, timed(lambda c=contender: c.do("logs", "wordy")) * 1000)
            tail.add(contender.name, timed(lambda c=contender: c.do("logs", "--tail", "100", "wordy")) * 1000)
            contender.do("rm", "wordy")
    for measure in (writing, reading, tail):
        bench.note(measure)


ROWS = {"logs": logs}
