"""A daemon that is killed: opens a network and sandboxes, prints its rows as JSON, and dies by SIGKILL.

With the name of a failpoint it changes the networks of a running container, and dies there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
from network_world import Rows, container

from havre.failpoints import arm
from havre.networks.guest import Guest
from havre.networks.networks import NetworkOptions, Networks
from havre.networks.spec import Network, NetworkSpec
from havre.wire.config import EndpointSettings
from havre.wire.values import ContainerId


class Legacy(msgspec.Struct):
    """What a killed daemon leaves in its database."""

    networks: dict[str, Network]
    containers: list[Guest]


async def main(run_root: Path) -> None:
    rows = Rows()
    room = Networks(rows, run_root, NetworkOptions())
    await room.start({})
    await room.create(NetworkSpec(name="front"))
    containers = []
    for each in (
        container("a", ports={"80/tcp": [":8080"], "53/udp": ["127.0.0.1:"]}),
        container("b", "front"),
        container("c", ports={"80/tcp": [":8090"]}),
    ):
        sandbox = await room.open_sandbox(each)
        containers.append(replace(each, endpoints=sandbox.endpoints, ports=sandbox.ports))
    sys.stdout.write(msgspec.json.encode(Legacy(rows.rows, containers)).decode())
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


async def change(run_root: Path, point: str) -> None:
    """Create a network, connect, disconnect, remove it, start and end another container; die at `point` of it."""
    rows = Rows()
    room = Networks(rows, run_root, NetworkOptions())
    await room.start({})
    for name in ("front", "back"):
        await room.create(NetworkSpec(name=name, enable_ipv6=True))
    guest = container("a", "front", ports={"80/tcp": [":8080"]})
    sandbox = await room.open_sandbox(guest)
    guest = replace(guest, endpoints=sandbox.endpoints, ports=sandbox.ports)
    sys.stdout.write(msgspec.json.encode(Legacy(rows.rows, [guest])).decode() + "\n")
    sys.stdout.flush()
    arm(f"{point}=kill")
    await room.create(NetworkSpec(name="extra", driver="overlay", attachable=True))
    other = container("b", "extra", ports={"81/tcp": [":8081"]})
    await room.open_sandbox(other)
    await room.close_sandbox(ContainerId(other.id))
    await room.connect(guest, room.get("back"), EndpointSettings(aliases=["x"]))
    await room.disconnect(guest, room.get("front"))
    await room.disconnect(guest, room.get("back"))
    await room.remove("extra")
    print("survived", flush=True)


if __name__ == "__main__":
    asyncio.run(change(Path(sys.argv[1]), sys.argv[2]) if len(sys.argv) > 2 else main(Path(sys.argv[1])))
