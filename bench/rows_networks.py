"""Networks at work: bytes from container to container and through a published port, and questions for names.

The programs that measure (iperf3, a few lines of Python) run in the containers' network namespaces, so that no image
makes a difference. What is reported is time, for less to be better: of a transfer, of a thousand questions.

A transfer's time varies by a factor of two where two processors serve sender, receiver and others: many short ones in
turn are needed. The processor time of sending datagrams varies by a few percent, and shows what each packet costs.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from harness import NETNS, SLEEP, Bench, Contender, Measure, timed

from support.waiting import until

_BYTES = 2 << 30
_SENT = 60_000
_PORT = {"havre": 29001, "dockerd": 29002, "podman": 29003}
_SERVED = 5201

_ASK = """
import socket, struct, sys
name, count, window = sys.argv[1].encode(), int(sys.argv[2]), int(sys.argv[3])
asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asked.settimeout(5)
asked.connect(("127.0.0.11", 53))
rest = b"\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + bytes([len(name)]) + name + b"\\0\\0\\1\\0\\1"
for number in range(count + window):
    if number < count:
        asked.send(struct.pack(">H", number & 0xFFFF) + rest)
    if number >= window:
        answer = asked.recv(512)
        assert answer[3] & 15 == 0 and answer[7] == 1, answer
"""

# Sent on one processor, a datagram is carried to the receiver's socket within `send`.
_SEND = """
import os, socket, sys, time
os.sched_setaffinity(0, {0})
near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
near.connect((sys.argv[1], 9))
begun = time.process_time()
for _ in range(int(sys.argv[2])):
    near.send(b"x" * 32)
print(time.process_time() - begun)
"""
_IGNORE = """
import socket, threading
near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
near.bind(("", 9))
print(flush=True)
threading.Event().wait()
"""


def _inside(contender: Contender, container: str) -> list[str]:
    pid = contender.do("inspect", "--format", "{{.State.Pid}}", container)
    return ["nsenter", f"--net=/proc/{pid}/ns/net"]


def _address(contender: Contender, container: str) -> str:
    networks = json.loads(contender.do("inspect", "--format", "{{json .NetworkSettings.Networks}}", container))
    return next(str(end["IPAddress"]) for end in networks.values())


@contextmanager
def _pair(contender: Contender) -> Iterator[None]:
    """A container `sink`, published, and a container `source`."""
    contender.do("run", "-d", "--name", "sink", "-p", f"{_PORT[contender.name]}:{_SERVED}", *SLEEP)
    contender.do("run", "-d", "--name", "source", *SLEEP)
    try:
        yield
    finally:
        contender.do("rm", "-f", *(["-t", "0"] if contender.name == "podman" else []), "sink", "source")


def _transfer(sink: list[str], source: list[str], address: str, port: int) -> float:
    """Milliseconds for all bytes at the speed that iperf3 sees in a second; it counts in full seconds alone."""
    with subprocess.Popen([*sink, "iperf3", "-s", "-1", "-p", str(_SERVED)], stdout=subprocess.DEVNULL) as server:
        try:
            listening = [*sink, "ss", "-Hltn", f"sport = :{_SERVED}"]
            until(lambda: subprocess.run(listening, capture_output=True, check=True).stdout != b"", "iperf3 to listen")
            command = [*source, "iperf3", "--json", "-c", address, "-p", str(port), "-t", "1"]
            said = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=120).stdout
            server.wait(30)
        finally:
            server.kill()
    return _BYTES * 8 / float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) * 1000


def throughput(bench: Bench) -> None:
    direct, published = (Measure(f"2 GiB {way}") for way in ("to another container", "through a published port"))
    host = ["nsenter", f"--net=/run/netns/{NETNS}"]
    with ExitStack() as pairs:
        for contender in bench.contenders:
            pairs.enter_context(_pair(contender))
        for number in range(-1, max(8, bench.rounds)):
            for contender in bench.contenders[:: 1 if number % 2 else -1]:
                sink, source = _inside(contender, "sink"), _inside(contender, "source")
                there = _transfer(sink, source, _address(contender, "sink"), _SERVED)
                through = _transfer(sink, host, "127.0.0.1", _PORT[contender.name])
                if number >= 0:
                    direct.add(contender.name, there)
                    published.add(contender.name, through)
    bench.note(direct)
    bench.note(published)


def datagrams(bench: Bench) -> None:
    measure = Measure(f"processor time of {_SENT:,} datagrams to another container")
    with ExitStack() as stack:
        for contender in bench.contenders:
            stack.enter_context(_pair(contender))
            ignoring = [*_inside(contender, "sink"), sys.executable, "-I", "-c", _IGNORE]
            sink = stack.enter_context(subprocess.Popen(ignoring, stdout=subprocess.PIPE))
            stack.callback(sink.kill)
            assert sink.stdout is not None
            sink.stdout.readline()
        for number in range(-1, bench.rounds):
            for contender in bench.contenders:
                program = [sys.executable, "-I", "-S", "-c", _SEND, _address(contender, "sink"), str(_SENT)]
                sent = subprocess.run([*_inside(contender, "source"), *program], stdout=subprocess.PIPE, check=True)
                if number >= 0:
                    measure.add(contender.name, float(sent.stdout) * 1000)
    bench.note(measure)


def names(bench: Bench) -> None:
    single, many = Measure("1,000 questions for a name, one at a time"), Measure("10,000 questions, 64 at a time")
    # Debian's podman comes without its name server.
    among = [contender for contender in bench.contenders if contender.name != "podman"]
    for contender in among:
        contender.do("network", "create", "named")
        for name in ("asker", "asked"):
            contender.do("run", "-d", "--name", name, "--network", "named", *SLEEP)
    for number in range(-1, bench.few()):
        for contender in among:
            inside = _inside(contender, "asker")
            for measure, count, window in ((single, 1000, 0), (many, 10000, 64)):
                command = [*inside, sys.executable, "-I", "-S", "-c", _ASK, "asked", str(count), str(window)]
                took = timed(lambda c=command: subprocess.run(c, check=True))
                if number >= 0:
                    measure.add(contender.name, took * 1000)
    for contender in among:
        contender.do("rm", "-f", "asker", "asked")
        contender.do("network", "rm", "named")
    bench.note(single)
    bench.note(many)


ROWS = {"throughput": throughput, "datagrams": datagrams, "names": names}
