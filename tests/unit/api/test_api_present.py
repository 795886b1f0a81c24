"""Containers as JSON, field by field against what dockerd 26 answered for the same containers (tests/golden/api)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from havre.api.present import (
    Sizes,
    duration_text,
    present_container,
    present_ports,
    present_summary,
    status_text,
)
from havre.api.system import present_event
from havre.containers.container import Container, State
from havre.containers.containers import Placement
from havre.events import Actor, Event
from havre.wire.config import OMITTED_OF_CONFIG, PortBinding
from havre.wire.conversion import lower
from havre.wire.images import ImageDetails
from havre.wire.queries import parse_time
from havre.wire.values import without_empty
from havre.wire.versions import Version

GOLDEN = Path(__file__).parents[2] / "golden" / "api"


def golden(name: str) -> Any:
    return json.loads((GOLDEN / f"{name}.json").read_text())


def container_of(shown: dict[str, Any]) -> Container:
    """The engine's value that must be shown so."""
    asked = ("Id", "Created", "Path", "Args", "Image", "Config", "HostConfig", "Mounts")
    spec = {name: shown[name] for name in asked}
    run = {name: shown["NetworkSettings"][name] for name in ("Networks", "Ports")}
    row = {"Name": shown["Name"].removeprefix("/"), "Spec": spec, "State": shown["State"], "Run": run}
    return msgspec.convert(row, Container)


def placement_of(shown: dict[str, Any]) -> Placement:
    directory = Path(shown["HostsPath"]).parent
    sandbox = shown["NetworkSettings"]["SandboxKey"]
    return Placement(directory, shown["Driver"], shown["LogPath"], shown["GraphDriver"]["Data"]["MergedDir"], sandbox)


@pytest.mark.parametrize("name", ["container_created", "container_running", "container_exited"])
def test_inspect(name: str) -> None:
    expected = golden(name)
    sizes = Sizes(expected["SizeRw"], expected["SizeRootFs"]) if "SizeRw" in expected else None
    made = present_container(container_of(expected), placement_of(expected), sizes=sizes, with_mac=True)
    answer = msgspec.to_builtins(lower(made, Version(1, 45)))
    expected["GraphDriver"]["Data"] = {"MergedDir": expected["GraphDriver"]["Data"]["MergedDir"]}
    if answer["NetworkSettings"]["SandboxKey"]:
        assert answer["NetworkSettings"]["SandboxID"]
    expected["NetworkSettings"]["SandboxID"] = answer["NetworkSettings"]["SandboxID"]
    assert answer == expected


@pytest.mark.parametrize(
    ("list_name", "inspect_name"), [("list_created", "container_created"), ("list_running", "container_running")]
)
def test_summary(list_name: str, inspect_name: str) -> None:
    (expected,) = golden(list_name)
    container = container_of(golden(inspect_name))
    now = parse_time(container.state.started_at, "now", 0) + 2.6 if container.state.running else 0.0
    sizes = Sizes(0, expected["SizeRootFs"]) if "SizeRootFs" in expected else None
    assert msgspec.to_builtins(lower(present_summary(container, now, sizes=sizes), Version(1, 45))) == expected


def test_image() -> None:
    expected = golden("image")
    details = msgspec.convert(expected, ImageDetails)
    details.config = without_empty(details.config, OMITTED_OF_CONFIG)
    assert msgspec.to_builtins(details) == expected


START = "2026-01-01T00:00:00Z"
ZERO = parse_time(START, "zero", 0)


@pytest.mark.parametrize(
    ("state", "text"),
    [
        (State(), "Created"),
        (State(status="running", started_at=START), "Up 3 seconds"),
        (State(status="paused", started_at=START), "Up 3 seconds (Paused)"),
        (State(status="exited", exit_code=137, started_at=START, finished_at=START), "Exited (137) 3 seconds ago"),
        (
            State(status="restarting", exit_code=1, started_at=START, finished_at=START),
            "Restarting (1) 3 seconds ago",
        ),
        (State(status="removing"), "Removal In Progress"),
        (State(status="dead"), "Dead"),
    ],
)
def test_status(state: State, text: str) -> None:
    assert status_text(state, ZERO + 3.2) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (150, "2 minutes"),
        (3600, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (13 * 86400, "13 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (729 * 86400, "24 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_ports() -> None:
    container = container_of(golden("container_running"))
    both = [PortBinding(host_ip="0.0.0.0", host_port="8080"), PortBinding(host_ip="::", host_port="8080")]
    container.note_run(ports={"80/tcp": both, "53/udp": None})
    assert msgspec.to_builtins(present_ports(container)) == [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 53, "Type": "udp"},
    ]


def test_events_carried_the_old_fields_in_front_before_1_52() -> None:
    event = Event("container", "die", Actor("abc", {"image": "busybox", "exitCode": "0"}), "local", 5, 5_000_000_000)
    older = present_event(event, Version(1, 51))
    assert older is not None
    assert list(older.items())[:4] == [
        ("status", "die"),
        ("id", "abc"),
        ("from", "busybox"),
        ("Type", "container"),
    ]
    plain = {"Type", "Action", "Actor", "scope", "time", "timeNano"}
    assert set(present_event(event, Version(1, 52)) or ()) == plain
    network = Event("network", "connect", Actor("n", {}), "local", 5, 5_000_000_000)
    assert set(present_event(network, Version(1, 51)) or ()) == plain


def test_that_an_image_was_made_is_told_since_1_46() -> None:
    event = Event("image", "create", Actor("i", {}), "local", 5, 5_000_000_000)
    assert present_event(event, Version(1, 45)) is None
    assert present_event(event, Version(1, 46)) is not None
