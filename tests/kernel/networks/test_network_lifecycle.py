"""Networks and sandboxes come and go: nothing is left, nothing is given twice, and `kill -9` is survived."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from network_victim import Legacy
from network_world import Rows, ask, container, run

from havre.errors import Conflict, Failed, Forbidden, InvalidInput, NotFound, Unavailable
from havre.networks.networks import NetworkOptions, Networks
from havre.networks.sandbox import Held
from havre.networks.spec import Ipam, IpamPool, NetworkSpec
from havre.wire.config import EndpointIpam, EndpointSettings
from havre.wire.values import ContainerId
from support.descriptors import many_open
from support.waiting import until

Serve = Callable[[Path | None, str, int], None]


def scenario(work: Coroutine[None, None, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def traces(run_root: Path) -> str:
    """Everything the room can leave: links, rules, sockets, namespaces."""
    names = sorted(os.listdir(run_root / "netns")) if (run_root / "netns").is_dir() else []
    links = [line.split(":")[1].partition("@")[0] for line in run("ip -o link").splitlines()]
    return "\n".join([run("nft list ruleset"), run("ss -Hlntu"), *sorted(links), *names])


async def settles(run_root: Path, expected: str) -> None:
    """Devices are removed in the background; soon there is what is expected and nothing else."""
    await asyncio.to_thread(until, lambda: traces(run_root) == expected, "no trace left", 5.0)


def test_a_sandbox_leaves_nothing(run_root: Path) -> None:
    async def work() -> None:
        bare = traces(run_root)
        room = Networks(Rows(), run_root, NetworkOptions())
        await room.start({})
        idle = traces(run_root)
        wanted = {"80/tcp": [":8080"], "81/udp": ["127.0.0.1:8080"], "82/sctp": [":7"], "90/tcp": [":", ":9000-9009"]}
        sandbox = await room.open_sandbox(container("a", ports=wanted))
        assert traces(run_root) != idle
        assert sandbox.ports["90/tcp"] is not None
        assert [binding.host_port for binding in sandbox.ports["90/tcp"]][2:] == ["9000", "9000"]
        for _ in range(2):
            await room.close_sandbox(ContainerId("a" * 64))
            await settles(run_root, idle)
        await room.stop()
        await settles(run_root, bare)

    scenario(work())


def test_a_start_that_fails_leaves_nothing(run_root: Path) -> None:
    async def work() -> None:
        room = Networks(Rows(), run_root, NetworkOptions())
        await room.start({})
        with socket.create_server(("127.0.0.1", 8081)):
            idle = traces(run_root)
            with pytest.raises(Failed, match=r"failed programming external .* bind: address already in use"):
                await room.open_sandbox(container("a", ports={"80/tcp": [":8080"], "81/tcp": [":8081"]}))
            await settles(run_root, idle)
        await room.open_sandbox(container("a", ports={"80/tcp": [":8080"]}))
        one = traces(run_root)
        with pytest.raises(Failed, match=r"Bind for 0\.0\.0\.0:8080 failed: port is already allocated"):
            await room.open_sandbox(container("b", ports={"80/tcp": [":8080"]}))
        (run_root / "netns" / ("c" * 64)).touch()
        with pytest.raises(Failed, match="cannot set up network namespace"):
            await room.open_sandbox(container("c", ports={"80/tcp": [":8088"]}))
        await settles(run_root, one)
        again = await room.open_sandbox(container("b"))
        assert again.endpoints["bridge"].ip_address == "172.17.0.3", "the failed start gave its address back"
        for letter in "ab":
            await room.close_sandbox(ContainerId(letter * 64))
        await room.stop()

    scenario(work())


def test_the_daemon_is_killed_and_comes_back(run_root: Path, serve: Serve) -> None:
    victim = [sys.executable, str(Path(__file__).with_name("network_victim.py")), str(run_root)]
    died = subprocess.run(victim, capture_output=True, check=False)
    assert died.returncode == -9, died.stderr
    legacy = msgspec.json.decode(died.stdout, type=Legacy)
    one, other, gone = legacy.containers

    async def work() -> None:
        serve(run_root / "netns" / one.id, "tcp", 80)
        assert await asyncio.to_thread(ask, "tcp", "127.0.0.1", 8080) == "172.17.0.1", "works while the daemon is dead"
        run("ip link del havre0", "nft flush ruleset")
        room = Networks(Rows(dict(legacy.networks)), run_root, NetworkOptions())
        await room.start({ContainerId(each.id): each for each in (one, other)})
        for host in ("127.0.0.1", "::1"):
            assert await asyncio.to_thread(ask, "tcp", host, 8080) == "172.17.0.1"
        assert not (run_root / "netns" / gone.id).exists()
        lost = "hve" + gone.endpoints["bridge"].endpoint_id[:12]
        await asyncio.to_thread(until, lambda: lost not in run("ip -o link"), "the device ends with its namespace", 5.0)
        assert room.containers_on(room.get("front").id) == {other.id}
        assert room.get("bridge").containers[one.id].ipv4_address == "172.17.0.2/16"
        with pytest.raises(Failed, match="port is already allocated"):
            await room.open_sandbox(container("d", ports={"80/tcp": [":8080"]}))
        newcomer = await room.open_sandbox(container("d", ports={"80/tcp": [":8090"]}))
        assert newcomer.endpoints["bridge"].ip_address == "172.17.0.3", "the address of the one that is gone"
        for letter in "abd":
            await room.close_sandbox(ContainerId(letter * 64))
        await room.remove("front")
        await room.stop()
        assert run("nft list ruleset") == ""
        assert len(run("ip -o link").splitlines()) == 1
        assert os.listdir(run_root / "netns") == []

    scenario(work())


def test_a_stop_leaves_running_containers_alone(run_root: Path, serve: Serve) -> None:
    async def work() -> None:
        rows = Rows()
        room = Networks(rows, run_root, NetworkOptions())
        await room.start({})
        row = container("a", ports={"80/tcp": [":8080"]})
        sandbox = await room.open_sandbox(row)
        row = replace(row, endpoints=sandbox.endpoints, ports=sandbox.ports)
        serve(sandbox.netns, "tcp", 80)
        await room.stop()
        assert await asyncio.to_thread(ask, "tcp", "127.0.0.1", 8080) == "172.17.0.1"
        again = Networks(rows, run_root, NetworkOptions())
        await again.start({ContainerId(row.id): row})
        assert await asyncio.to_thread(ask, "tcp", "::1", 8080) == "172.17.0.1"
        await again.close_sandbox(ContainerId(row.id))
        await again.stop()

    scenario(work())


def test_many_at_once_get_addresses_and_ports_of_their_own(run_root: Path) -> None:
    async def work() -> None:
        room = Networks(Rows(), run_root, NetworkOptions())
        await room.start({})
        letters = "0123456789abcdef"
        opened = await asyncio.gather(*(room.open_sandbox(container(x, ports={"80/tcp": [":"]})) for x in letters))
        assert len({sandbox.endpoints["bridge"].ip_address for sandbox in opened}) == len(letters)
        assert len({sandbox.endpoints["bridge"].mac_address for sandbox in opened}) == len(letters)
        assert len({(sandbox.ports["80/tcp"] or [])[0].host_port for sandbox in opened}) == len(letters)
        await asyncio.gather(*(room.close_sandbox(ContainerId(x * 64)) for x in letters))
        await room.stop()

    scenario(work())


def test_no_network_and_the_hosts_network(run_root: Path) -> None:
    async def work() -> None:
        room = Networks(Rows(), run_root, NetworkOptions())
        await room.start({})
        none = await room.open_sandbox(container("a", "none"))
        assert "eth0" not in run(f"nsenter --net={none.netns} ip -o link")
        assert "127.0.0.1" in run(f"nsenter --net={none.netns} ip -o addr")
        assert list(none.endpoints) == ["none"]
        disabled = replace(container("b"), asked={"none": EndpointSettings()})
        assert list((await room.open_sandbox(disabled)).endpoints) == ["none"]
        host = await room.open_sandbox(container("c", "host", ports={"80/tcp": [":8080"]}))
        assert host.netns is None
        assert host.ports == {}
        assert host.hosts == Path("/etc/hosts").read_text()
        shared = await room.open_sandbox(container("d", "container:" + "a" * 64), joined=ContainerId("a" * 64))
        assert shared.netns == none.netns
        with pytest.raises(Conflict, match="cannot join network of a non running container"):
            await room.open_sandbox(container("e", "container:" + "f" * 64), joined=ContainerId("f" * 64))
        for letter in "abcd":
            await room.close_sandbox(ContainerId(letter * 64))
        await room.stop()

    scenario(work())


def test_a_container_has_no_ipv6_that_nobody_asked_for(run_root: Path) -> None:
    """CVE-2024-32473."""

    async def work() -> None:
        room = Networks(Rows(), run_root, NetworkOptions())
        await room.start({})
        sandbox = await room.open_sandbox(container("a"))
        assert run(f"nsenter --net={sandbox.netns} ip -6 -o addr show dev eth0") == ""
        assert "::1/128" in run(f"nsenter --net={sandbox.netns} ip -6 -o addr show dev lo")
        await room.close_sandbox(ContainerId("a" * 64))
        await room.stop()

    scenario(work())


def test_the_default_bridge_evades_what_the_host_uses(run_root: Path) -> None:
    async def work() -> None:
        run("ip link add hvbusy type bridge", "ip addr add 172.17.5.1/24 dev hvbusy", "ip link set hvbusy up")
        room = Networks(Rows(), run_root, NetworkOptions())
        await room.start({})
        assert (room.get("bridge").ipam.config or [])[0].subnet == "172.18.0.0/16"
        network = await room.create(NetworkSpec(name="next"))
        assert (network.ipam.config or [])[0].subnet == "172.19.0.0/16"
        await room.remove("next")
        await room.stop()

    scenario(work())


def test_addresses_that_users_ask_for(run_root: Path) -> None:
    async def work() -> None:
        room = Networks(Rows(), run_root, NetworkOptions())
        await room.start({})
        pool = IpamPool(subnet="10.9.0.0/29", ip_range="10.9.0.4/30", gateway="10.9.0.6")
        await room.create(NetworkSpec(name="tiny", ipam=Ipam(config=[pool])))

        async def join(letter: str, address: str = "", network: str = "tiny") -> str:
            asked = EndpointSettings(ipam_config=EndpointIpam(ipv4_address=address) if address else None, aliases=["x"])
            row = replace(container(letter, network), asked={network: asked})
            return (await room.open_sandbox(row)).endpoints[network].ip_address

        assert await join("a", "10.9.0.1") == "10.9.0.1"
        assert await join("b") == "10.9.0.4"
        assert await join("c") == "10.9.0.5"
        with pytest.raises(Unavailable, match=r"no available IPv4 addresses on this network's address pools: tiny \("):
            await join("d")
        with pytest.raises(Forbidden, match="Address already in use"):
            await join("d", "10.9.0.1")
        with pytest.raises(InvalidInput, match=r"no configured subnet or ip-range contain the IP address 10\.10"):
            await join("d", "10.10.0.1")
        with pytest.raises(InvalidInput, match="user specified IP address is supported on user defined networks only"):
            await join("d", "172.17.0.9", "bridge")
        with pytest.raises(Forbidden, match=r"network tiny id .* has active endpoints"):
            await room.remove("tiny")
        for letter in "abc":
            await room.close_sandbox(ContainerId(letter * 64))
        assert await room.prune({"until": ["1000000000"]}) == ()
        assert await room.prune({"until": ["99999999999"]}) == ("tiny",)
        await room.stop()

    scenario(work())


def test_a_network_that_is_removed_while_others_use_its_name(run_root: Path) -> None:
    async def work() -> None:
        room = Networks(Rows(), run_root, NetworkOptions())
        await room.start({})
        guest = container("a")
        await room.open_sandbox(guest)
        await room.create(NetworkSpec(name="back"))
        found = room.get("back")  # a client that connects has found it
        await room.remove("back")
        before = traces(run_root)
        with pytest.raises(NotFound, match="network back not found"):
            await room.connect(guest, found, EndpointSettings())
        assert traces(run_root) == before
        for name in ("one", "two", "three"):
            await room.create(NetworkSpec(name=name))
        pruned, _, _ = await asyncio.gather(
            room.prune({}), room.remove("two"), room.connect(guest, room.get("three"), EndpointSettings())
        )
        assert pruned == ("one",)
        await room.close_sandbox(ContainerId("a" * 64))
        await room.stop()

    scenario(work())


def test_networks_that_cannot_be(run_root: Path) -> None:
    async def work() -> None:
        room = Networks(Rows(), run_root, NetworkOptions())
        await room.start({})
        run("ip link add hvmine type veth peer name hvpeer")
        made = await room.create(NetworkSpec(name="mine", labels={"k": "v"}))
        before = traces(run_root)
        overlap = Ipam(config=[IpamPool(subnet="172.17.0.0/24")])
        for spec, error, text in (
            (NetworkSpec(name="mine"), Conflict, "network with name mine already exists"),
            (NetworkSpec(name="bridge"), Forbidden, "operation is not permitted on predefined bridge network"),
            (NetworkSpec(name=" "), InvalidInput, "invalid name"),
            (NetworkSpec(name="x", driver="nope"), NotFound, 'plugin "nope" not found'),
            (NetworkSpec(name="x", driver="host"), Forbidden, 'only one instance of "host" network is allowed'),
            (NetworkSpec(name="x", ipam=overlap), Forbidden, "Pool overlaps with other one on this address space"),
            (NetworkSpec(name="x", options={"com.docker.network.bridge.name": "hvmine"}), Failed, "is not a bridge"),
        ):
            with pytest.raises(error, match=text):
                await room.create(spec)
            await settles(run_root, before)
        for name in ("bridge", "host", "none"):
            with pytest.raises(Forbidden, match=f"{name} is a pre-defined network and cannot be removed"):
                await room.remove(name)
        with pytest.raises(NotFound, match="network nope not found"):
            room.get("nope")
        assert room.get(made.id[:8]).name == "mine"
        assert [network.name for network in room.list({"label": ["k=v"]})] == ["mine"]
        assert [network.name for network in room.list({"type": ["custom"], "dangling": ["true"]})] == ["mine"]
        with pytest.raises(InvalidInput, match="invalid filter 'nope'"):
            room.list({"nope": ["x"]})
        await room.remove("mine")
        await room.stop()

    scenario(work())


def test_a_network_that_is_going_does_not_stand_in_the_next_ones_way(run_root: Path) -> None:
    async def work() -> None:
        room = Networks(Rows(), run_root, NetworkOptions())
        await room.start({})
        for driver, options in (("bridge", {"com.docker.network.bridge.name": "br9"}), ("overlay", {})):
            seen = set()
            for _ in range(3):
                made = await room.create(NetworkSpec(name="n", driver=driver, attachable=True, options=options))
                seen.add((made.ipam.config or [])[0].subnet)
                sandbox = await room.open_sandbox(container("a", "n"))
                assert sandbox.endpoints["n"].ip_address
                await room.close_sandbox(ContainerId("a" * 64))
                await room.remove("n")
            assert len(seen) == 1
        await room.stop()
        assert "br9" not in run("ip -o link")

    asyncio.run(asyncio.wait_for(work(), 60))


def test_a_firewall_opened_early_works_beside_many_descriptors(run_root: Path) -> None:
    """Taking over containers needs descriptors; the library's select(2) ends at number 1023."""

    async def work() -> None:
        room, late = Networks(Rows(), run_root, NetworkOptions()), Networks(Rows(), run_root, NetworkOptions())
        room.open()
        with many_open(1024):
            with pytest.raises(OSError, match="libnftables needs a descriptor below 1024"):
                late.open()
            await room.start({})
            await room.create(NetworkSpec(name="front"))
            await room.open_sandbox(container("a", "front", ports={"80/tcp": [":8080"]}))
            assert "8080 : " in run("nft list ruleset")
            await room.close_sandbox(ContainerId("a" * 64))
            await room.stop()

    scenario(work())


def test_a_network_is_found_without_a_look_at_its_containers(run_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A create beside hundreds of running containers costs what it costs beside one."""

    async def work() -> None:
        room = Networks(Rows(), run_root, NetworkOptions())
        await room.start({})
        network = await room.create(NetworkSpec(name="front"))
        await room.open_sandbox(container("a", "front"))
        with monkeypatch.context() as patched:
            patched.setattr(Held, "member", None)
            assert room.find("front").id == network.id
            assert room.containers_on(network.id) == {"a" * 64}
            assert network.id not in [each.id for each in room.list({"dangling": ["true"]})]
            assert room.prunable({}) == []
        assert list(room.get("front").containers) == ["a" * 64]
        await room.close_sandbox(ContainerId("a" * 64))
        await room.stop()

    scenario(work())
