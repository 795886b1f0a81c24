"""Many networks and endpoints at once: every address and port is somebody's alone, and nothing stays behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import msgspec
from network_victim import Legacy
from network_world import Rows, container, run

from havre.dataplane.ipam import parse_pools
from havre.failpoints import POINTS
from havre.networks.guest import Guest
from havre.networks.networks import NetworkOptions, Networks
from havre.networks.spec import NetworkSpec
from havre.wire.config import EndpointSettings
from havre.wire.values import ContainerId
from support.waiting import until

NETWORKS, CONTAINERS, JOINED = 50, 50, 10


def _member(number: int) -> Guest:
    """A container on ten of the networks, with a published port."""
    asked = {f"n{(number * 5 + each) % NETWORKS}": EndpointSettings() for each in range(JOINED)}
    row = container("a", network=next(iter(asked)), ports={"80/tcp": [":"]})
    return replace(row, id=f"{number:064x}", name=f"c{number}", asked=asked)


def _traces(run_root: Path) -> list[str]:
    links = [line.split(":")[1].partition("@")[0] for line in run("ip -o link").splitlines()]
    return [run("nft list ruleset"), run("ss -Hlntu"), *sorted(links), *sorted(os.listdir(run_root / "netns"))]


def test_fifty_networks_come_and_go(run_root: Path) -> None:
    (run_root / "netns").mkdir(parents=True)

    async def work() -> None:
        room = Networks(Rows(), run_root, NetworkOptions(pools=parse_pools([("10.64.0.0/16", 24)])))
        await room.start({})
        idle = await asyncio.to_thread(_traces, run_root)
        made = await asyncio.gather(
            *(room.create(NetworkSpec(name=f"n{n}", enable_ipv6=n % 2 == 0)) for n in range(NETWORKS)),
        )
        assert len({network.ipam.config[0].subnet for network in made if network.ipam.config}) == NETWORKS
        rows = [_member(number) for number in range(CONTAINERS)]
        opened = await asyncio.gather(*(room.open_sandbox(row) for row in rows))
        addresses = [end.ip_address for sandbox in opened for end in sandbox.endpoints.values()]
        assert len(addresses) == len(set(addresses)) == CONTAINERS * JOINED
        ports = [binding.host_port for sandbox in opened for binding in sandbox.ports["80/tcp"] or ()]
        assert len(set(ports)) == CONTAINERS
        for row in rows[::10]:
            for name in list(row.asked)[:3]:
                await room.disconnect(row, room.get(name))
        await asyncio.gather(*(room.close_sandbox(ContainerId(row.id)) for row in rows))
        assert len(await room.prune({})) == NETWORKS
        await asyncio.to_thread(until, lambda: _traces(run_root) == idle, "no trace of them", 30.0)
        await room.stop()

    asyncio.run(asyncio.wait_for(work(), 300))


def test_a_port_costs_the_same_with_a_thousand(run_root: Path) -> None:
    (run_root / "netns").mkdir(parents=True)

    def chains() -> str:
        """The rules without what is in sets and maps."""
        return run("nft -t list ruleset")

    async def work() -> None:
        room = Networks(Rows(), run_root, NetworkOptions())
        await room.start({})
        costs, rules = {}, {}
        for letter, count in (("a", 100), ("b", 1000)):
            first = 20000 if letter == "a" else 21000
            ports = {f"{port}/tcp": [f"127.0.0.1:{first + port}"] for port in range(1, count + 1)}
            begun = time.process_time()
            await room.open_sandbox(container(letter, ports=ports))
            costs[count] = (time.process_time() - begun) / count
            rules[count] = chains()
        assert costs[1000] < 3 * costs[100]
        assert rules[1000] == rules[100]
        assert run("nft list map ip havre ports_at").count(" : ") == 1101  # its type has one as well
        for letter in "ab":
            await room.close_sandbox(ContainerId(letter * 64))
        await room.stop()

    asyncio.run(asyncio.wait_for(work(), 300))


def test_killed_at_each_step_of_a_change(run_root: Path) -> None:
    (run_root / "netns").mkdir(parents=True)
    bare = _traces(run_root)
    victim = [sys.executable, str(Path(__file__).with_name("network_victim.py")), str(run_root)]

    async def next_daemon(legacy: Legacy) -> None:
        room = Networks(Rows(legacy.networks), run_root, NetworkOptions())
        row = legacy.containers[0]
        await room.start({ContainerId(row.id): row})
        has = run(f"nsenter --net={run_root}/netns/{row.id} ip addr")
        assert all(f"inet {end.ip_address}/" in has for end in row.endpoints.values())  # what its row says it is on
        await room.disconnect(row, room.get("front"))
        again = await room.connect(row, room.get("back"), EndpointSettings())
        assert again.ports["80/tcp"]
        await room.close_sandbox(ContainerId(row.id))
        await room.stop()

    for point in [name for name in POINTS if name.startswith(("network.", "sandbox.", "endpoint."))]:
        died = subprocess.run([*victim, point], capture_output=True, check=False)
        assert died.returncode == -signal.SIGKILL, f"{point} was not passed: {died.stderr.decode()}"
        asyncio.run(asyncio.wait_for(next_daemon(msgspec.json.decode(died.stdout, type=Legacy)), 300))
        until(lambda: _traces(run_root) == bare, f"no trace after {point}")
