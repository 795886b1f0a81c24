"""Many containers at once, on the default bridge: what their number costs, and a kill of the daemon.

`make test` has a hundred of them, `make soak` a thousand (a bridge has 1,023 ports).
"""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support.descriptors import open_files
from support.engines import Engine
from support.raw import ask
from support.waiting import until

CROWD = int(os.environ.get("SOAK_CROWD", "100"))
CREATED = 40


def processor_time(pid: int) -> float:
    """Seconds that a process has worked, its threads included and its children not."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def time_of_creating(engine: Engine) -> float:
    """What the daemon works for some containers more that are created, found and removed."""
    before = processor_time(engine.pid)
    for number in range(CREATED):
        where = f"/containers/more{number}"
        assert ask(engine.socket, "POST", f"/containers/create?name=more{number}", {"Image": "busybox"}).status == 201
        assert ask(engine.socket, "GET", f"{where}/json").status == 200
        assert ask(engine.socket, "DELETE", where).status == 204
    return processor_time(engine.pid) - before


def test_a_crowd_runs_at_once(havred: Engine) -> None:
    def begin(number: int) -> int:
        body = {"Image": "busybox", "Cmd": ["sleep", "10000"]}
        made = ask(havred.socket, "POST", f"/containers/create?name=many{number}", body)
        assert made.status == 201, made.body
        return ask(havred.socket, "POST", f"/containers/many{number}/start").status

    def end(number: int) -> int:
        return ask(havred.socket, "DELETE", f"/containers/many{number}?force=1").status

    def running() -> list[str]:
        listed = ask(havred.socket, "GET", "/containers/json").json
        many = [each for each in listed if each["Names"][0].startswith("/many")]
        return [each["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] for each in many]

    alone, before = time_of_creating(havred), open_files(havred.pid)
    with ThreadPoolExecutor(8) as clients:
        assert set(clients.map(begin, range(CROWD))) == {204}
        addresses = running()
        assert len(set(addresses)) == len(addresses) == CROWD
        until(lambda: open_files(havred.pid) <= before + 2 * CROWD + 8, "two descriptors for each")
        assert time_of_creating(havred) < 2 * alone + 0.1  # the number of the others does not count
        havred.stop(signal.SIGKILL)
        havred.start()
        assert sorted(running()) == sorted(addresses)
        assert havred.out("exec", f"many{CROWD - 1}", "hostname", "-i") in addresses
        assert begin(CROWD) == 204
        assert set(clients.map(end, range(CROWD + 1))) == {204}


def test_many_short_runs_at_once(havred: Engine) -> None:
    """Fifty containers come and go together, each with its own output and exit code."""
    outcomes: list[tuple[int, str]] = []

    def run(number: int) -> None:
        done = havred.havre("run", "--rm", "busybox", "sh", "-c", f"echo {number}; exit {number}")
        outcomes.append((done.returncode, done.stdout.strip()))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(outcomes) == [(number, str(number)) for number in range(50)]
    until(lambda: havred.out("ps", "-aq") == "", "their removal")
