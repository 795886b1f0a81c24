"""The client or the daemon is killed at any moment of `compose up`, `down` and `up --rollout`; the next `up` or `down`
ends clean. The moments are drawn from a seeded generator over the time that each takes.
"""

from __future__ import annotations

import random
import signal
import subprocess
from pathlib import Path

from support.composing import Both, living
from support.engines import HAVRE, Engine

KILLS = 20
FILE = """
name: {name}
services:
  db: {{image: busybox, init: true, command: sleep 1000, volumes: ["data:/data", /anon], networks: [back],
       ports: ["127.0.0.1:18096:80"], environment: {{VERSION: "{version}"}}}}
  web: {{image: busybox, init: true, command: sleep 1000, networks: [back], scale: 2, depends_on: [db],
        environment: {{VERSION: "{version}"}}}}
networks: {{back: }}
volumes: {{data: }}
"""


def test_compose_or_its_daemon_killed_at_any_moment(havred: Engine, tmp_path: Path) -> None:
    moments = random.Random(7)
    for both in living(Both(havred, tmp_path)):
        for number in range(KILLS):
            verb = (("up", "-d"), ("up", "--rollout"), ("up", "-d", "-t", "0"), ("down", "-v"))[number % 4]
            both.write(FILE.format(name=both.name, version=number))
            _kill(both, verb, moments.uniform(0.1, 0.8), daemon=number % 2 == number // 4 % 2)
            if number % 3 == 2:
                both.havre("down", "-v", "-t", "0")
                assert not both.left(), f"kill {number}"
            else:
                both.havre("up", "-d", "-t", "0")
                _is_up(both, number)


def _kill(both: Both, verb: tuple[str, ...], after_s: float, *, daemon: bool) -> None:
    """Begin a verb, and end it or its daemon the hard way."""
    command = [str(HAVRE), "compose", "-f", str(both.file), *verb]
    with subprocess.Popen(command, env=both.engine.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as client:
        try:
            client.wait(after_s)
        except subprocess.TimeoutExpired:
            pass
        if daemon:
            both.engine.stop(signal.SIGKILL)
        else:
            client.kill()
        client.wait(60)
    if daemon:
        both.engine.start()


def _is_up(both: Both, number: int) -> None:
    wanted = f"label=com.docker.compose.project={both.name}"
    template = '{{.State}} {{.Label "com.docker.compose.service"}}'
    rows = both.engine.out("ps", "-a", "--filter", wanted, "--format", template).splitlines()
    assert sorted(rows) == ["running db", "running web", "running web"], f"kill {number}"
    versions = both.engine.out("inspect", "--format", "{{json .Config.Env}}", *both.containers().values())
    assert versions.count(f"VERSION={number}") == 3, f"kill {number}"
    assert both.havre("port", "db", "80").stdout == "127.0.0.1:18096\n", f"kill {number}"
