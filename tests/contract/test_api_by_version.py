"""What `info`, images and events show by API version, from 1.45 to 1.55, asked by raw HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from support.engines import Engine, Havred, serving
from support.raw import ask

Ask = Callable[..., Any]


@pytest.fixture
def at(havred: Engine) -> Ask:
    """Ask for a path at a version; the decoded answer."""
    return lambda version, path: ask(havred.socket, "GET", f"/v{version}{path}").json


# -- info


def test_info_drops_what_became_void(at: Ask) -> None:
    by_version = {version: at(version, "/info") for version in ("1.46", "1.48", "1.49", "1.50", "1.55")}
    kinds = "AllowNondistributableArtifactsCIDRs", "AllowNondistributableArtifactsHostnames"
    assert all(by_version["1.46"]["RegistryConfig"][kind] is None for kind in kinds)
    assert not set(kinds) & set(by_version["1.49"]["RegistryConfig"])
    for program in ("ContainerdCommit", "RuncCommit", "InitCommit"):
        older = by_version["1.48"][program]
        assert older["Expected"] == older["ID"]
        assert by_version["1.49"][program] == {"ID": older["ID"]}
    for bridge in ("BridgeNfIptables", "BridgeNfIp6tables"):
        assert by_version["1.49"][bridge] is False
        assert bridge not in by_version["1.50"]
    assert not {"Containerd", "KernelMemoryTCP", "NRI"} & set(by_version["1.55"])


def test_info_names_the_firewall_since_1_49(at: Ask) -> None:
    assert at("1.49", "/info")["FirewallBackend"] == {"Driver": "nftables", "Info": [["EnableUserlandProxy", "true"]]}
    assert "FirewallBackend" not in at("1.48", "/info")


def test_info_lists_cdi_devices_since_1_50(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"cdiVersion": "0.6.0", "kind": "x.org/gpu", "devices": [{"name": "1"}]}')
    (tmp_path / "b.yaml").write_text('cdiVersion: "0.6.0"\nkind: x.org/disk\ndevices: [{name: b}, {name: a}]\n')
    (tmp_path / "broken.json").write_text("{")
    with serving(Havred(["--cdi-spec-dir", str(tmp_path)])) as engine:
        shown, older = (ask(engine.socket, "GET", f"/v{version}/info").json for version in ("1.50", "1.49"))
    names = ("x.org/disk=a", "x.org/disk=b", "x.org/gpu=1")
    assert shown["DiscoveredDevices"] == [{"Source": "cdi", "ID": name} for name in names]
    (problem,) = [text for text in shown["Warnings"] if "CDI" in text]
    assert problem.startswith(f"CDI: Error associated with spec file {tmp_path}/broken.json: ")
    assert "DiscoveredDevices" not in older


# -- images


@pytest.fixture
def committed(havred: Engine) -> Iterator[str]:
    """An image committed from a container that had a host name and a terminal, by its ID."""
    havred.out("create", "--name", "made", "--hostname", "h", "-t", "busybox", "true")
    yield havred.out("commit", "made", "committed:1")
    havred.out("rm", "made")
    havred.out("rmi", "committed:1")


def test_the_configuration_of_images_loses_what_is_the_containers(at: Ask, committed: str) -> None:
    path = f"/images/{committed}/json"
    configs = {version: at(version, path)["Config"] for version in ("1.49", "1.50", "1.51", "1.52")}
    own = ("Hostname", "Domainname", "AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce")
    for name in (*own, "Image"):
        assert configs["1.49"][name] in ("", False)
        assert name not in configs["1.50"]
    empty = {"Entrypoint": None, "Labels": {}, "OnBuild": None, "User": "", "Volumes": None}
    for name, value in empty.items():
        assert configs["1.51"][name] in (value, None), name
        assert name not in configs["1.52"]
    assert configs["1.52"]["Cmd"] == configs["1.49"]["Cmd"] == ["true"]


def test_empty_texts_of_images_are_left_out_since_1_52(at: Ask, committed: str) -> None:
    texts = {"Parent", "Comment", "DockerVersion", "Author"}
    older, today = at("1.51", "/images/busybox/json"), at("1.52", "/images/busybox/json")
    assert texts <= set(older)
    assert texts & set(today) == {name for name in texts if older[name]} < texts
    assert at("1.52", f"/images/{committed}/json")["Parent"] == older["Id"]


def test_images_have_a_descriptor_since_1_48(at: Ask) -> None:
    shown, (row,) = at("1.48", "/images/busybox/json"), at("1.48", "/images/json?filters=" + quote(_NAMED))
    assert shown["Descriptor"] == row["Descriptor"]
    assert set(shown["Descriptor"]) == {"mediaType", "digest", "size"}
    with_manifests = at("1.48", "/images/busybox/json?manifests=1")
    assert with_manifests["Descriptor"] == shown["Descriptor"]
    assert "Descriptor" not in at("1.47", "/images/busybox/json")
    assert "Descriptor" not in at("1.47", "/images/json")[0]


_NAMED = '{"reference": ["busybox"]}'


def test_containers_of_images_are_counted_since_1_51(havred: Engine, at: Ask) -> None:
    havred.out("create", "busybox")
    havred.out("create", "busybox")
    path = "/images/json?filters=" + quote(_NAMED)
    assert [at(version, path)[0]["Containers"] for version in ("1.50", "1.51")] == [-1, 2]
    (counted,) = (row for row in at("1.45", "/system/df")["Images"] if row["RepoTags"] == ["busybox:latest"])
    assert counted["Containers"] == 2


def test_a_list_tells_identities_only_of_manifests(havred: Engine) -> None:
    refused = ask(havred.socket, "GET", "/v1.54/images/json?identity=1")
    assert (refused.status, refused.message) == (400, "conflicting options: identity requires manifests=1")
    assert ask(havred.socket, "GET", "/v1.54/images/json?identity=1&manifests=1").status == 200
    assert ask(havred.socket, "GET", "/v1.53/images/json?identity=1").status == 200


# -- events


def told(engine: Engine, version: str, since: float, accept: str = "") -> tuple[str, bytes]:
    """The media type and the body of the events of images since a moment."""
    query = f"since={since:.9f}&until={time.time() + 0.01:.9f}&filters=" + quote('{"type": ["image"]}')
    reply = ask(engine.socket, "GET", f"/v{version}/events?{query}", headers={"Accept": accept} if accept else None)
    return reply.headers["Content-Type"], reply.body


@pytest.fixture
def began(havred: Engine) -> Iterator[float]:
    """The moment before an image was built and named."""
    begin = time.time()
    havred.docker("build", "-q", "-t", "told:1", "-", stdin="FROM busybox\nLABEL a=b\n", check=0)
    yield begin
    havred.out("rmi", "told:1")


def test_a_built_image_is_told_of_since_1_46(havred: Engine, began: float) -> None:
    def actions(version: str) -> list[tuple[str, str]]:
        events = map(json.loads, told(havred, version, began)[1].splitlines())
        return [(event["Action"], event["Actor"]["Attributes"]["name"]) for event in events]

    id = havred.out("images", "-q", "--no-trunc", "told:1")
    assert actions("1.46") == [("create", id), ("tag", "told:1")]
    assert actions("1.45") == [("tag", "told:1")]


def test_events_have_no_more_fields_twice_since_1_52(havred: Engine, began: float) -> None:
    for version, twice in (("1.51", {"status", "id"}), ("1.52", set[str]())):
        for line in told(havred, version, began)[1].splitlines():
            assert set(json.loads(line)) & {"status", "id", "from"} == twice


@pytest.mark.parametrize(
    ("version", "accept", "content_type", "start"),
    [
        ("1.51", "", "application/json", b"{"),
        ("1.52", "", "application/jsonl", b"{"),
        ("1.52", "application/json", "application/jsonl", b"{"),
        ("1.52", "application/x-ndjson", "application/x-ndjson", b"{"),
        ("1.55", "application/json-seq", "application/json-seq", b"\x1e{"),
        ("1.55", "text/html, application/jsonl;q=0.5", "application/jsonl", b"{"),
    ],
)
def test_the_form_of_events_is_negotiated(
    havred: Engine, began: float, version: str, accept: str, content_type: str, start: bytes
) -> None:
    kind, body = told(havred, version, began, accept)
    assert kind == content_type
    assert all(line.startswith(start) for line in body.splitlines())
    assert body.endswith(b"}\n")


# -- containers and networks


def warned(engine: Engine, version: str, host: dict[str, Any]) -> list[str]:
    """The warnings of a creation."""
    made = ask(engine.socket, "POST", f"/v{version}/containers/create", {"Image": "busybox", "HostConfig": host}).json
    ask(engine.socket, "DELETE", f"/containers/{made['Id']}?v=1")
    return made["Warnings"]  # type: ignore[no-any-return]


def test_what_is_read_otherwise_is_warned_of(havred: Engine) -> None:
    (empty,) = warned(havred, "1.52", {"PortBindings": {"81/tcp": [], "80/tcp": None, "82/tcp": [{}]}})
    assert empty.startswith("Following container port(s) have an empty list of port-bindings: 80/tcp, 81/tcp. Such")
    assert warned(havred, "1.51", {"PortBindings": {"80/tcp": []}}) == []
    mount = {"Type": "volume", "Source": "warned", "Target": "/v"}
    driven = {**mount, "VolumeOptions": {"DriverConfig": {"Name": "local"}}}
    (driver,) = warned(havred, "1.48", {"VolumeDriver": "local", "Mounts": [mount]})
    assert driver.startswith("WARNING: the container-wide volume-driver configuration is ignored for volumes")
    for version, host in (
        ("1.47", {"VolumeDriver": "local", "Mounts": [mount]}),
        ("1.48", {"VolumeDriver": "local", "Mounts": [driven]}),
        ("1.48", {"Mounts": [mount]}),
    ):
        assert warned(havred, version, host) == []


def test_a_container_has_no_mac_address_of_its_own_since_1_52(havred: Engine) -> None:
    for version, mac in (("1.51", "02:00:00:00:00:51"), ("1.52", None)):
        asked = {"Image": "busybox", "Cmd": ["sleep", "1000"], "MacAddress": "02:00:00:00:00:51"}
        made = ask(havred.socket, "POST", f"/v{version}/containers/create?name=addressed", asked).json
        assert bool(made["Warnings"]) == (mac is not None)
        ask(havred.socket, "POST", "/containers/addressed/start")
        shown = ask(havred.socket, "GET", "/v1.51/containers/addressed/json").json
        today = ask(havred.socket, "GET", "/v1.52/containers/addressed/json").json
        havred.out("rm", "-f", "addressed")
        assert shown["Config"].get("MacAddress") == mac
        assert (today["NetworkSettings"]["Networks"]["bridge"]["MacAddress"] == "02:00:00:00:00:51") == (
            mac is not None
        )
        assert "MacAddress" not in today["Config"]
        assert shown["NetworkSettings"]["IPAddress"] == today["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]


def test_lists_tell_of_health_since_1_52(havred: Engine) -> None:
    havred.out(
        "run", "-d", "--name", "well", "--health-cmd", "true", "--health-interval", "1h", "busybox", "sleep", "99"
    )
    havred.out("run", "-d", "--name", "plain", "busybox", "sleep", "99")
    rows = {row["Names"][0]: row for row in ask(havred.socket, "GET", "/v1.52/containers/json").json}
    havred.out("rm", "-f", "well", "plain")
    assert rows["/plain"]["Health"] == {"Status": "none", "FailingStreak": 0}
    assert rows["/well"]["Health"]["Status"] in ("starting", "healthy")


def test_networks_count_their_addresses_since_1_52(havred: Engine) -> None:
    options = ("--subnet", "10.97.0.0/24", "--ip-range", "10.97.0.128/25", "--aux-address", "a=10.97.0.9", "--ipv6")
    havred.out("network", "create", *options, "--subnet", "fd00:97::/48", "counted")
    havred.out("run", "-d", "--name", "counts", "--network", "counted", "busybox", "sleep", "1000")

    def subnets(name: str) -> dict[str, Any]:
        return ask(havred.socket, "GET", f"/v1.52/networks/{name}").json["Status"]["IPAM"].get("Subnets", {})  # type: ignore[no-any-return]

    # network, broadcast, gateway, the reserved one and the container; of them broadcast and container are in the range
    four, six = {"IPsInUse": 5, "DynamicIPsAvailable": 126}, {"IPsInUse": 3, "DynamicIPsAvailable": 2**64 - 1}
    assert subnets("counted") == {"10.97.0.0/24": four, "fd00:97::/48": six}
    havred.out("rm", "-f", "counts")
    assert subnets("counted")["10.97.0.0/24"] == {"IPsInUse": 4, "DynamicIPsAvailable": 127}
    assert subnets("host") == {}
    havred.out("network", "rm", "counted")
