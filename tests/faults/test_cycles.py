"""Many lives in a row, and many clients at odds over one container: nothing is left, and everybody gets an answer."""

from __future__ import annotations

import os
import random
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support.engines import Engine
from support.raw import Reply, ask
from support.waiting import until

CYCLES = int(os.environ.get("SOAK_CYCLES", "80"))  # `make soak` asks for 1,000
WARM_UP = CYCLES // 4 if CYCLES < 400 else 100


def cycle(engine: Engine, number: int) -> None:
    """Create, start, exec, remove, by raw calls: docker's own start-up would cost more than all of it."""

    def call(method: str, path: str, body: object = None) -> Reply:
        reply = ask(engine.socket, method, path, body)
        assert reply.status < 300, reply.body
        return reply

    created = call("POST", f"/containers/create?name=cycle{number}", {"Image": "busybox", "Cmd": ["sleep", "1000"]})
    where = f"/containers/{created.json['Id']}"
    call("POST", f"{where}/start")
    exec_id = call("POST", f"{where}/exec", {"Cmd": ["true"], "AttachStdout": True}).json["Id"]
    call("POST", f"/exec/{exec_id}/start", {})
    call("DELETE", f"{where}?force=1")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def memory_kb(pid: int) -> int:
    """Private memory: what this process alone would give back."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(value) for value in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.MULTILINE))


def test_many_cycles_leave_what_the_first_left(havred: Engine) -> None:
    """As many mounts, links, rules, cgroups and processes as before, which the leak check compares, and memory."""
    for number in range(WARM_UP):
        cycle(havred, number)
    open_before, memory_before = descriptors(havred.pid), memory_kb(havred.pid)
    for number in range(WARM_UP, CYCLES):
        cycle(havred, number)
    until(lambda: descriptors(havred.pid) <= open_before, f"{open_before} descriptors")
    memory = memory_kb(havred.pid)
    print(f"{memory_before} kB after {WARM_UP} cycles, {memory} kB after {CYCLES}")
    assert memory <= memory_before * 1.05
    assert havred.out("ps", "-aq") == ""


def test_eight_clients_at_odds(havred: Engine) -> None:
    """Whatever the order, each answer is one that docker gives, and the container ends in one of its states."""
    identifier = havred.out("create", "--name", "contested", "busybox", "sleep", "1000")
    where = f"/containers/{identifier}"
    calls = (
        ("POST", f"{where}/start", {204, 304, 404, 409}),
        ("POST", f"{where}/stop?t=0", {204, 304, 404, 409}),
        ("POST", f"{where}/kill", {204, 404, 409}),
        ("POST", f"{where}/pause", {204, 404, 409}),
        ("POST", f"{where}/unpause", {204, 404, 409, 500}),
        ("POST", f"{where}/restart?t=0", {204, 404, 409, 500}),  # 500: a paused one, as dockerd says
        ("POST", f"{where}/rename?name=contested{{}}", {204, 400, 404, 409}),
        ("GET", f"{where}/json", {200, 404}),
        ("DELETE", where, {204, 404, 409}),
    )

    def client(seed: int) -> list[tuple[str, int, bytes]]:
        chance, odd = random.Random(seed), []
        for _ in range(25):
            method, path, allowed = chance.choice(calls[:-1] if chance.random() < 0.97 else calls)
            reply = ask(havred.socket, method, path.format(chance.randrange(4)))
            if reply.status not in allowed:
                odd.append((path, reply.status, reply.body))
        return odd

    with ThreadPoolExecutor(8) as clients:
        odd = [answer for answers in clients.map(client, range(8)) for answer in answers]
    assert odd == []
    havred.docker("rm", "-f", identifier)
    until(lambda: havred.out("ps", "-aq") == "", "no container")
