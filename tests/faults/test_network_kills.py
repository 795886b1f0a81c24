"""The daemon is killed while networks come and go and a running container joins and leaves them."""

from __future__ import annotations

import http.client
import json
import random
import signal
import threading
import time

from support.engines import Engine, run
from support.raw import ask
from support.waiting import until

KILLS, CLIENTS = 5, 3


def come_and_go(engine: Engine, number: int, over: threading.Event) -> None:
    """Lives of one network with the container `box` on it; what fails because of a kill is of no interest."""
    where, body = f"/networks/net{number}", {"Container": "box"}
    while not over.is_set():
        try:
            ask(engine.socket, "POST", "/networks/create", {"Name": f"net{number}", "EnableIPv6": number == 0})
            ask(engine.socket, "POST", f"{where}/connect", body)
            ask(engine.socket, "POST", f"{where}/disconnect", body)
            ask(engine.socket, "DELETE", where)
        except (OSError, http.client.HTTPException):  # the daemon has gone
            time.sleep(0.01)


def devices(netns: str) -> set[str]:
    return {link["ifname"] for link in json.loads(run("nsenter", f"--net={netns}", "ip", "-j", "link"))}


def test_daemon_killed_while_networks_change(havred: Engine) -> None:
    havred.out("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    inside = f"/proc/{havred.out('inspect', '--format', '{{.State.Pid}}', 'box')}/ns/net"
    host = f"/run/netns/{havred.netns}"
    before = devices(host)
    chance, over = random.Random(5), threading.Event()
    clients = [threading.Thread(target=come_and_go, args=(havred, number, over)) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.05, 0.3))
            havred.stop(signal.SIGKILL)
            havred.start()
    finally:
        over.set()
        for client in clients:
            client.join()
    joined = json.loads(havred.out("inspect", "--format", "{{json .NetworkSettings.Networks}}", "box"))
    # What it is said to be on it is on, and on nothing else.
    until(lambda: len(devices(inside) - {"lo"}) == len(joined), f"a device for each of {sorted(joined)}")
    for name in joined.keys() - {"bridge"}:
        havred.out("network", "disconnect", name, "box")
    for name in havred.out("network", "ls", "--filter", "type=custom", "--format", "{{.Name}}").split():
        havred.out("network", "rm", name)
    until(lambda: devices(host) == before, "nothing but the default bridge and the container's device")
    assert devices(inside) == {"lo", "eth0"}
    havred.out("network", "create", "--subnet", "10.94.0.0/24", "last")
    havred.out("network", "connect", "--ip", "10.94.0.2", "last", "box")
    havred.out("rm", "-f", "box")
    havred.out("network", "rm", "last")
    assert "Traceback" not in havred.log.read_text()
