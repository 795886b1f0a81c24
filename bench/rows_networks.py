"""Networks at work: bytes from container to container and through a published port, and questions for names.

The programs that measure (iperf3, a few lines of Python) run in the containers' network namespaces, so that no image
makes a difference. What is reported is time, for less to be better: of a transfer, of a thousand questions.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from harness import NETNS, SLEEP, Bench, Contender, Measure, timed

from support.waiting import until

_BYTES = 2 << 30
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
    """Milliseconds for all bytes at the speed that iperf3 sees in two seconds; it counts in full seconds alone."""
    with subprocess.Popen([*sink, "iperf3", "-s", "-1", "-p", str(_SERVED)], stdout=subprocess.DEVNULL) as server:
        try:
            listening = [*sink, "ss", "-Hltn", f"sport = :{_SERVED}"]
            until(lambda: subprocess.run(listening, capture_output=True, check=True).stdout != b"", "iperf3 to listen")
            command = [*source, "iperf3", "--json", "-c", address, "-p", str(port), "-t", "2"]
            said = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=120).stdout
            server.wait(30)
        finally:
            server.kill()
    return _BYTES * 8 / float(json.loads(said)["end"]["sum_received"]["bits_per_second"]) * 1000


def throughput(bench: Bench) -> None:
    direct, published = (Measure(f"2 GiB {way}") for way in ("to another container", "through a published port"))
    for number in range(-1, bench.few()):
        for contender in bench.contenders:
            with _pair(contender):
                sink, source = _inside(contender, "sink"), _inside(contender, "source")
                there = _transfer(sink, source, _address(contender, "sink"), _SERVED)
                host = ["nsenter", f"--net=/run/netns/{NETNS}"]
                through = _transfer(sink, host, "127.0.0.1", _PORT[contender.name])
            if number >= 0:
                direct.add(contender.name, there)
                published.add(contender.name, through)
    bench.note(direct)
    bench.note(published)


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
                took = timed(lambda c=command: subprocess.run(c, check=True, timeout=60))
                if number >= 0:
                    measure.add(contender.name, took * 1000)
    for contender in among:
        contender.do("rm", "-f", "asker", "asked")
        contender.do("network", "rm", "named")
    bench.note(single)
    bench.note(many)


ROWS = {"throughput": throughput, "names": names}
