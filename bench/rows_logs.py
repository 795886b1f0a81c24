"""Logs: a million lines written, and read again, each engine by its own command line."""

from __future__ import annotations

import time

from harness import Bench, Contender, Measure, timed

LINES = "1000000"
#: Lines as a web server writes them, with characters that JSON escapes.
_REQUEST = r"10.0.0.1 \"GET /?a=1&b=2 HTTP/1.1\" 200 \"Mozilla/5.0 <X11>\""
REQUESTS = f'BEGIN {{ for (i = 0; i < 300000; i++) print i, "{_REQUEST}" }}'


def logs(bench: Bench) -> None:
    def written(contender: Contender, *command: str) -> None:
        contender.do("run", "--network", "none", "-d", "--name", "wordy", "busybox", *command)
        contender.do("wait", "wordy")

    # podman reads its own driver's file; all three keep what is their default where no systemd runs.
    requests = Measure("a container that writes 300,000 lines with quotes")
    writing, reading = Measure("a container that writes 1,000,000 lines"), Measure("`logs` of 1,000,000 lines")
    tail, since = Measure("`logs --tail 100` of them"), Measure("`logs --since` now, of them")
    for _ in range(bench.few()):
        for contender in bench.contenders:
            requests.add(contender.name, timed(lambda c=contender: written(c, "awk", REQUESTS)) * 1000)
            contender.do("rm", "wordy")
            writing.add(contender.name, timed(lambda c=contender: written(c, "seq", LINES)) * 1000)
            reading.add(contender.name, timed(lambda c=contender: c.do("logs", "wordy")) * 1000)
            tail.add(contender.name, timed(lambda c=contender: c.do("logs", "--tail", "100", "wordy")) * 1000)
            ended = f"{time.time():.0f}"
            since.add(contender.name, timed(lambda c=contender, t=ended: c.do("logs", "--since", t, "wordy")) * 1000)
            contender.do("rm", "wordy")
    for measure in (writing, requests, reading, tail, since):
        bench.note(measure)


ROWS = {"logs": logs}
