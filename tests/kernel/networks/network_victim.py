"""A daemon that is killed: opens a network and sandboxes, prints its rows as JSON, and dies by SIGKILL.

With a number it changes the networks of a running container, and dies before that many steps in the kernel are done.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from network_world import Rows, container

from havre.dataplane import apply, firewall
from havre.networks.guest import Guest
from havre.networks.networks import NetworkOptions, Networks
from havre.networks.spec import Network, NetworkSpec
from havre.wire.config import EndpointSettings


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


async def change(run_root: Path, steps: int) -> None:
    """Create a network, connect, disconnect, remove it; "done" is printed if that took fewer than `steps` steps."""
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
    apply.act = firewall.act = dying_after(steps)  # type: ignore[assignment]
    await room.create(NetworkSpec(name="extra", driver="overlay", attachable=True))
    await room.connect(guest, room.get("back"), EndpointSettings(aliases=["x"]))
    await room.disconnect(guest, room.get("front"))
    await room.disconnect(guest, room.get("back"))
    await room.remove("extra")
    print("done", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def dying_after(steps: int) -> Callable[..., Awaitable[Any]]:
    """`act` of the executors, which is the end of the process when `steps` have been taken."""
    act, taken = apply.act, itertools.count()

    async def counted(*args: Any, **kwargs: Any) -> Any:
        if next(taken) == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        return await act(*args, **kwargs)

    return counted


if __name__ == "__main__":
    asyncio.run(change(Path(sys.argv[1]), int(sys.argv[2])) if len(sys.argv) > 2 else main(Path(sys.argv[1])))
