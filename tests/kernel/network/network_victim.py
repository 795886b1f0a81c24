"""A daemon that is killed: opens a network and sandboxes, prints its rows as JSON, and dies by SIGKILL."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import msgspec
from network_world import Rows, container

from havre.engine.model import Container
from havre.engine.network import Network, NetworkSpec
from havre.engine.networks import NetworkOptions, Networks


class Legacy(msgspec.Struct):
    """What a killed daemon leaves in its database."""

    networks: dict[str, Network]
    containers: list[Container]


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
        each.networks, each.ports = sandbox.endpoints, sandbox.ports
        containers.append(each)
    sys.stdout.write(msgspec.json.encode(Legacy(rows.rows, containers)).decode())
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
