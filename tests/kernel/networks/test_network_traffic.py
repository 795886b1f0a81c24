"""Who reaches whom: packets sent from the host, from containers, and from another host."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from network_world import Rows, ask, container, run

from havre.dataplane.firewall import Firewall
from havre.dataplane.plan import PortMap
from havre.errors import Failed
from havre.linux.namespaces import in_netns
from havre.networks.defaultbridge import DefaultBridge
from havre.networks.networks import NetworkOptions, Networks, Sandbox
from havre.networks.spec import NetworkSpec
from havre.wire.values import ContainerId
from support.waiting import until

Serve = Callable[[Path | None, str, int], None]


@asynccontextmanager
async def networks(run_root: Path, options: NetworkOptions | None = None) -> AsyncIterator[Networks]:
    """The room in operation; every sandbox is closed at the end."""
    room = Networks(Rows(), run_root, options or NetworkOptions())
    await room.start({})
    try:
        yield room
    finally:
        for network in room.list({}):
            for id in room.containers_on(network.id):
                await room.close_sandbox(id)
        await room.stop()


async def from_host(protocol: str, host: str, port: int) -> str:
    return await asyncio.to_thread(ask, protocol, host, port)


async def from_within(netns: Path | None, protocol: str, host: str, port: int, timeout_s: float = 1.0) -> str:
    assert netns is not None
    return await asyncio.to_thread(in_netns, netns, lambda: ask(protocol, host, port, timeout_s))


async def eventually(holds: Callable[[], Coroutine[None, None, bool]]) -> None:
    """Wait until it holds; the engine goes on meanwhile."""
    async with asyncio.timeout(20):
        while not await holds():
            await asyncio.sleep(0.02)


def address(sandbox: Sandbox, network: str = "bridge") -> str:
    return sandbox.endpoints[network].ip_address


def scenario(work: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_published_port_is_reached_from_everywhere(
    protocol: str, run_root: Path, outside: Path, serve: Serve
) -> None:
    async def work() -> None:
        async with networks(run_root) as room:
            server = await room.open_sandbox(container("a", ports={f"80/{protocol}": [":8080"]}))
            client = await room.open_sandbox(container("b"))
            serve(server.netns, protocol, 80)
            assert await from_host(protocol, "127.0.0.1", 8080) == "172.17.0.1"
            assert await from_host(protocol, "::1", 8080) == "172.17.0.1"
            assert await from_host(protocol, "198.51.100.1", 8080) != ""
            assert await from_within(outside, protocol, "198.51.100.1", 8080) == "198.51.100.2", "the source is kept"
            assert await from_within(client.netns, protocol, "172.17.0.1", 8080) == "172.17.0.1"
            assert await from_within(client.netns, protocol, address(server), 80) == address(client)
            assert await from_within(server.netns, protocol, "198.51.100.1", 8080) == "172.17.0.1", "hairpin"

    scenario(work())


def test_only_what_is_published_is_open(run_root: Path, outside: Path, serve: Serve) -> None:
    async def work() -> None:
        async with networks(run_root) as room:
            server = await room.open_sandbox(container("a", ports={"80/tcp": ["127.0.0.1:8080"]}))
            serve(server.netns, "tcp", 80)
            serve(server.netns, "tcp", 81)
            assert await from_host("tcp", "127.0.0.1", 8080) != ""
            assert await from_host("tcp", "198.51.100.1", 8080) == ""
            for port, where in ((8080, "198.51.100.1"), (80, address(server)), (81, address(server))):
                assert await from_within(outside, "tcp", where, port) == "", f"{where}:{port} is open to another host"

    scenario(work())


def test_nobody_on_the_wire_reaches_a_port_of_the_loopback(run_root: Path, outside: Path, serve: Serve) -> None:
    async def work() -> None:
        async with networks(run_root) as room:
            server = await room.open_sandbox(container("a", ports={"80/tcp": ["127.0.0.1:8080"]}))
            client = await room.open_sandbox(container("b"))
            serve(server.netns, "tcp", 80)
            serve(None, "tcp", 9090)
            for netns, gateway in ((outside, "198.51.100.1"), (client.netns, "172.17.0.1")):
                enter = f"nsenter --net={netns} "
                run(enter + "ip addr del 127.0.0.1/8 dev lo", enter + f"ip route add 127.0.0.1/32 via {gateway}")
                subprocess.run(
                    [*enter.split(), "sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet"], check=True
                )
                for port in (8080, 9090):
                    assert await from_within(netns, "tcp", "127.0.0.1", port) == ""

    scenario(work())


def test_a_container_goes_out_by_the_hosts_address(run_root: Path, outside: Path, serve: Serve) -> None:
    async def work() -> None:
        async with networks(run_root) as room:
            client = await room.open_sandbox(container("a"))
            serve(outside, "tcp", 7000)
            assert await from_within(client.netns, "tcp", "198.51.100.2", 7000) == "198.51.100.1"

    scenario(work())


def test_networks_are_apart_and_internal_ones_closed(run_root: Path, outside: Path, serve: Serve) -> None:
    async def work() -> None:
        async with networks(run_root) as room:
            await room.create(NetworkSpec(name="front"))
            await room.create(NetworkSpec(name="vault", internal=True))
            default = await room.open_sandbox(container("a"))
            front = await room.open_sandbox(container("b", "front", ports={"80/tcp": [":8080"]}))
            vault = await room.open_sandbox(container("c", "vault", ports={"80/tcp": [":8081"]}))
            fellow = await room.open_sandbox(container("d", "vault"))
            serve(outside, "tcp", 7000)
            for sandbox in (front, vault):
                serve(sandbox.netns, "tcp", 80)
            assert await from_within(default.netns, "tcp", address(front, "front"), 80) == ""
            assert await from_within(default.netns, "tcp", "198.51.100.1", 8080) == address(default), "published"
            assert await from_within(fellow.netns, "tcp", address(vault, "vault"), 80) != ""
            assert vault.ports == {}
            run(f"nsenter --net={fellow.netns} ip route add default via {room.get('vault').ipam.config[0].gateway}")
            for host, port in (("198.51.100.2", 7000), ("198.51.100.1", 8080), (address(front, "front"), 80)):
                assert await from_within(fellow.netns, "tcp", host, port) == "", f"an internal network reaches {host}"

    scenario(work())


def test_containers_of_a_network_without_icc_do_not_meet(run_root: Path, serve: Serve) -> None:
    async def work() -> None:
        async with networks(run_root) as room:
            await room.create(NetworkSpec(name="cells", options={"com.docker.network.bridge.enable_icc": "false"}))
            one = await room.open_sandbox(container("a", "cells"))
            other = await room.open_sandbox(container("b", "cells"))
            serve(one.netns, "tcp", 80)
            assert await from_within(other.netns, "tcp", address(one, "cells"), 80) == ""

    scenario(work())


def test_a_flushed_ruleset_comes_back(run_root: Path, outside: Path, serve: Serve) -> None:
    """CVE-2025-54388: a firewall that reloads must not open or close ports."""

    async def work() -> None:
        async with networks(run_root) as room:
            server = await room.open_sandbox(container("a", ports={"80/tcp": [":8080"]}))
            serve(server.netns, "tcp", 80)
            before = run("nft list ruleset")
            for damage in ("flush ruleset", "flush chain ip havre inbound", "flush map ip havre ports"):
                run(f"nft {damage}")
                await asyncio.to_thread(until, lambda: run("nft list ruleset") == before, f"{damage} undone", 5.0)
            assert await from_within(outside, "tcp", "198.51.100.1", 8080) == "198.51.100.2"
            assert await from_within(outside, "tcp", address(server), 80) == ""

    scenario(work())


def test_two_daemons_share_a_host(run_root: Path, tmp_path: Path, serve: Serve) -> None:
    async def work() -> None:
        other = NetworkOptions(tag="two", bridge=DefaultBridge(bip="10.77.0.1/24"))
        async with networks(run_root) as one, networks(tmp_path / "two", other) as two:
            here = await one.open_sandbox(container("a", ports={"80/tcp": [":8080"]}))
            there = await two.open_sandbox(container("a", ports={"80/tcp": [":8081"]}))
            serve(here.netns, "tcp", 80)
            serve(there.netns, "tcp", 80)
            assert address(there) == "10.77.0.2"
            assert await from_host("tcp", "127.0.0.1", 8080) == "172.17.0.1"
            assert await from_host("tcp", "127.0.0.1", 8081) == "10.77.0.1"
            assert await from_within(here.netns, "tcp", address(there), 80) == ""

    scenario(work())


def test_a_foreign_drop_policy_is_left_standing_and_said(
    run_root: Path, outside: Path, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        run("nft add table ip filter")
        policy = "{ type filter hook forward priority filter; policy drop; }"
        subprocess.run(["nft", f"add chain ip filter FORWARD {policy}"], check=True)
        async with networks(run_root) as room:
            assert "ip filter FORWARD" in caplog.text
            server = await room.open_sandbox(container("a", ports={"80/tcp": [":8080"]}))
            serve(server.netns, "tcp", 80)
            assert await from_within(outside, "tcp", "198.51.100.1", 8080) == ""
            assert await from_host("tcp", "127.0.0.1", 8080) == "172.17.0.1"
            assert await from_host("tcp", "::1", 8080) == "172.17.0.1"
        assert "FORWARD" in run("nft list ruleset")

    scenario(work())


def test_a_udp_client_follows_the_port_to_its_next_container(run_root: Path, outside: Path, serve: Serve) -> None:
    def client() -> socket.socket:
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def exchange(sender: socket.socket) -> str:
        sender.settimeout(1.0)
        sender.sendto(b"?", ("198.51.100.1", 5300))
        try:
            return sender.recv(100).decode()
        except OSError:
            return ""

    async def work() -> None:
        async with networks(run_root) as room:
            first = await room.open_sandbox(container("a", ports={"53/udp": [":5300"]}))
            serve(first.netns, "udp", 53)
            with await asyncio.to_thread(in_netns, outside, client) as sender:
                assert await asyncio.to_thread(exchange, sender) == "198.51.100.2"
                await room.open_sandbox(container("b"))
                await room.close_sandbox(ContainerId("a" * 64))
                await room.open_sandbox(container("d"))
                second = await room.open_sandbox(container("c", ports={"53/udp": [":5300"]}))
                assert address(second) != address(first)
                serve(second.netns, "udp", 53)
                assert await asyncio.to_thread(exchange, sender) == "198.51.100.2"

    scenario(work())


def _input_chain(*accepted: str) -> None:
    """A host's own firewall as its administrator writes it: what arrives is denied but for `accepted`."""
    head = "table inet own {\n chain in {\n type filter hook input priority filter; policy drop;\n"
    rules = "\n".join(("ct state established,related accept", 'iifname "lo" accept', *accepted))
    subprocess.run(["nft", f"destroy table inet own\n{head}{rules}\n}}\n}}\n"], check=True)


def test_a_published_port_never_opens_what_the_host_denies(run_root: Path, outside: Path, serve: Serve) -> None:
    async def work() -> None:
        _input_chain("tcp dport 8081 accept")
        async with networks(run_root) as room:
            server = await room.open_sandbox(container("a", ports={"80/tcp": [":8080", ":8081"], "53/udp": [":53"]}))
            serve(server.netns, "tcp", 80)
            serve(server.netns, "udp", 53)
            assert await from_within(outside, "tcp", "198.51.100.1", 8080) == ""
            # The first packet goes through the host's chain, and its repetition to the container, unchanged.
            assert await from_within(outside, "tcp", "198.51.100.1", 8081, 5.0) == "198.51.100.2"
            assert await from_within(outside, "tcp", "198.51.100.1", 8081) == "198.51.100.2"
            assert await from_within(outside, "tcp", "198.51.100.1", 8080) == ""
            assert await from_host("tcp", "127.0.0.1", 8080) == "172.17.0.1"
            other = await room.open_sandbox(container("b"))
            assert await from_within(other.netns, "tcp", "198.51.100.1", 8080) == "172.17.0.1"
            _input_chain("udp dport 53 accept")  # what was admitted is so no longer

            async def answers(protocol: str, port: int) -> bool:
                return await from_within(outside, protocol, "198.51.100.1", port) == "198.51.100.2"

            await eventually(lambda: answers("udp", 53))
            assert not await answers("tcp", 8081)
            run("nft delete table inet own")
            await eventually(lambda: answers("tcp", 8080))

    scenario(work())


def test_publishing_overrides_the_host_only_where_the_daemon_is_told_so(
    run_root: Path, outside: Path, serve: Serve
) -> None:
    async def work() -> None:
        _input_chain()
        run("nft add table ip filter")
        chain = "{ type filter hook forward priority filter; policy drop; }"
        subprocess.run(["nft", f"add chain ip filter FORWARD {chain}"], check=True)
        before = run("nft -s list table ip filter")
        async with networks(run_root, NetworkOptions(publish_policy="docker")) as room:
            server = await room.open_sandbox(container("a", ports={"80/tcp": [":8080"]}))
            serve(server.netns, "tcp", 80)

            async def answers() -> bool:
                return await from_within(outside, "tcp", "198.51.100.1", 8080) == "198.51.100.2"

            assert await answers()
            assert await from_within(outside, "tcp", address(server), 80) == ""  # what is not published stays closed
            run("nft flush chain ip filter FORWARD")  # a reload of that firewall
            await eventually(answers)
        assert run("nft -s list table ip filter") == before

    scenario(work())


def test_ports_that_cannot_be_opened_change_nothing() -> None:
    async def live() -> None:
        web = PortMap("tcp", ip_address("0.0.0.0"), 8080, ip_address("172.17.0.2"), 80)
        odd = replace(web, protocol="odd")
        firewall = Firewall("hv-odd")
        await firewall.start([], [web])
        before = run("nft list ruleset")
        for old in ([], [web]):
            with pytest.raises(Failed):
                await firewall.exchange(old, [odd])
            assert run("nft list ruleset") == before
        run("nft flush ruleset")
        await asyncio.to_thread(until, lambda: run("nft list ruleset") == before, "all as it was", 5.0)
        await firewall.stop(remove=True)

    asyncio.run(live())
