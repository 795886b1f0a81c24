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
