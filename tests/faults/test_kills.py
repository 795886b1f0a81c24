"""200 kills in a row of the daemon, conmon and the OCI runtime, in the middle of create, start, exec, stop and rm.

Three clients live containers' lives without a pause, so that a kill meets each step, several at a time. A kill of the
daemon is followed by its next start, which puts right what was half-done while the clients go on. In the end all can be
listed and removed, and nothing is left.
"""

from __future__ import annotations

import http.client
import os
import random
import signal
import threading
import time
from collections import Counter

from support.engines import Engine
from support.processes import kill, named, processes_of
from support.raw import ask

KILLS = 200
VICTIMS = ("daemon", *["conmon"] * 3, *["crun"] * 3)
CLIENTS = 3
SCRIPT = "trap 'exit 0' TERM; sleep 100 & wait"


class Client(threading.Thread):
    """Lives one container's life after the other; what fails because of a kill is of no interest."""

    def __init__(self, engine: Engine, number: int, over: threading.Event) -> None:
        super().__init__()
        self._engine = engine
        self._name = f"victim{number}"
        self._port = str(18400 + number)
        self._over = over
        self.lives = 0

    def run(self) -> None:
        """Until it is over."""
        while not self._over.is_set():
            try:
                self._live()
            except (OSError, http.client.HTTPException):  # the daemon has gone
                time.sleep(0.01)

    def _live(self) -> None:
        where = f"/containers/{self._name}"
        self._ask("DELETE", f"{where}?force=1")
        config = {
            "Image": "busybox",
            "Cmd": ["sh", "-c", SCRIPT],
            "HostConfig": {"Binds": ["kept:/v"], "PortBindings": {"80/tcp": [{"HostPort": self._port}]}},
        }
        if self._ask("POST", f"/containers/create?name={self._name}", config) != 201:
            return
        if self._ask("POST", f"{where}/start") == 204:
            reply = ask(self._engine.socket, "POST", f"{where}/exec", {"Cmd": ["true"], "AttachStdout": True})
            if reply.status == 201:
                self._ask("POST", f"/exec/{reply.json['Id']}/start", {})
            self._ask("POST", f"{where}/stop?t=1")
        if self._ask("DELETE", where) == 204:
            self.lives += 1

    def _ask(self, method: str, path: str, body: object = None) -> int:
        return ask(self._engine.socket, method, path, body).status


def strike(engine: Engine, victim: str, chance: random.Random) -> bool:
    """Kill one; False when there was none within a moment."""
    if victim == "daemon":
        engine.stop(signal.SIGKILL)
        engine.start()
        assert ask(engine.socket, "GET", "/containers/json?all=1").status == 200
        return True
    until = time.monotonic() + 0.2
    while time.monotonic() < until:
        if found := named(processes_of(engine), victim):
            return kill(chance.choice(found))
        time.sleep(0.002)
    return False


def test_two_hundred_kills_in_a_row(havred: Engine) -> None:
    chance, over, kills = random.Random(1), threading.Event(), Counter[str]()
    clients = [Client(havred, number, over) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        while kills.total() < KILLS:
            victim = chance.choice(VICTIMS)
            kills[victim] += strike(havred, victim, chance)
            time.sleep(chance.uniform(0, 0.03))
    finally:
        over.set()
        for client in clients:
            client.join()
    assert min(kills[victim] for victim in VICTIMS) >= 20, kills
    for identifier in havred.out("ps", "-aq", "--no-trunc").split():
        havred.docker("rm", "-f", identifier, check=0)
    assert havred.out("ps", "-aq") == ""
    for number in range(CLIENTS):  # names, ports and the volume are free for the next
        flags = ("--name", f"victim{number}", "-p", f"{18400 + number}:80", "-v", "kept:/v")
        havred.docker("run", "--rm", *flags, "busybox", "true", check=0)
    havred.out("volume", "rm", "kept")
    assert os.listdir(havred.root / "run" / "oci" / "crun") in ([], [".cache"])  # its seccomp programs
    for directory in ("run/containers", "run/netns", "run/snapshots", "data/snapshots"):
        assert os.listdir(havred.root / directory) == [], directory
    assert "Traceback" not in havred.log.read_text()
