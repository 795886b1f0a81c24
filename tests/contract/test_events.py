"""Events: a scripted life told in docker's words and order, and the filters."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from support.engines import Engine
from support.waiting import until

NAMED = {"image", "name", "a"}
CONTAINER = {
    "create": NAMED,
    "start": NAMED,
    "exec_create: echo hi": NAMED | {"execID"},
    "exec_start: echo hi": NAMED | {"execID"},
    "exec_create: true ": NAMED | {"execID"},
    "exec_start: true ": NAMED | {"execID"},
    "exec_die": NAMED | {"execID", "exitCode"},
    "pause": NAMED,
    "unpause": NAMED,
    "rename": NAMED | {"oldName"},
    "top": NAMED,
    "update": NAMED,
    "kill": NAMED | {"signal"},
    "die": NAMED | {"exitCode", "execDuration"},
    "stop": NAMED,
    "restart": NAMED,
    "archive-path": NAMED,
    "extract-to-dir": NAMED,
    "commit": NAMED | {"comment", "imageID", "imageRef"},
    "destroy": NAMED,
}
OTHERS = {
    ("network", "create"): {"name", "type"},
    ("network", "connect"): {"container", "name", "type"},
    ("network", "disconnect"): {"container", "name", "type"},
    ("network", "destroy"): {"name", "type"},
    ("volume", "create"): {"driver"},
    ("volume", "mount"): {"container", "destination", "driver", "propagation", "read/write"},
    ("volume", "unmount"): {"container", "driver"},
    ("volume", "destroy"): {"driver"},
    ("image", "tag"): {"name", "a"},
    ("image", "untag"): {"name", "a"},
}
LIFE = (
    "network create wire",
    "volume create store",
    "create --name told -l a=b -v store:/v busybox sleep 1000",
    "start told",
    "exec told echo hi",
    "exec -d told true",
    "pause told",
    "unpause told",
    "rename told renamed",
    "top renamed",
    "update --cpu-shares 100 renamed",
    "network connect wire renamed",
    "network disconnect wire renamed",
    "kill -s WINCH renamed",
    "restart -t 0 renamed",
    "stop -t 0 renamed",
    "commit renamed told",
    "cp renamed:/etc/passwd -",
)
END = ("rm renamed", "rmi told", "volume rm store", "network rm wire")


@pytest.fixture
def told(engine: Engine) -> tuple[Engine, float, float]:
    """A life, and when it began and ended."""
    began = time.time()
    for line in LIFE:
        engine.docker(*line.split(), check=0)
    engine.docker("cp", "-", "renamed:/", stdin=_empty_tar(), check=0)
    for line in END:
        engine.docker(*line.split(), check=0)
    return engine, began, time.time()


def _empty_tar() -> bytes:
    return bytes(1024)


def events(engine: Engine, began: float, ended: float, *filters: str) -> list[dict[str, Any]]:
    options = [word for each in filters for word in ("--filter", each)]
    window = ("--since", f"{began:.9f}", "--until", f"{ended:.9f}")
    return [json.loads(line) for line in engine.out("events", *window, "--format", "json", *options).splitlines()]


def test_a_life(told: tuple[Engine, float, float]) -> None:
    seen = events(*told)
    keys = {(each["Type"], each["Action"]): set(each["Actor"]["Attributes"]) for each in seen}
    expected = {("container", action): names for action, names in CONTAINER.items()} | OTHERS
    assert {kind: keys.get(kind) for kind in expected} == expected
    assert set(keys) - set(expected) <= {("image", "delete"), ("image", "create")}
    for each in seen:
        assert each["scope"] == "local"
        assert each["time"] == each["timeNano"] // 1_000_000_000
        if each["Type"] == "container":
            assert re.fullmatch("[0-9a-f]{64}", each["Actor"]["ID"])
            assert (each["id"], each["status"], each["from"]) == (each["Actor"]["ID"], each["Action"], "busybox")
    values = {each["Action"]: each["Actor"]["Attributes"] for each in seen if each["Type"] == "container"}
    assert (values["rename"]["oldName"], values["rename"]["name"]) == ("/told", "renamed")
    assert values["die"]["exitCode"] == "137"
    assert values["commit"]["imageRef"] == "told:latest"
    _check_filters(told)


def _check_filters(told: tuple[Engine, float, float]) -> None:
    def actions(*filters: str) -> set[tuple[str, str]]:
        return {(each["Type"], each["Action"]) for each in events(*told, *filters)}

    assert {kind for kind, _ in actions("type=volume")} == {"volume"}
    assert actions("event=pause", "event=unpause") == {("container", "pause"), ("container", "unpause")}
    assert actions("event=exec_create") == {("container", "exec_create: echo hi"), ("container", "exec_create: true ")}
    assert actions("type=volume", "event=create") == {("volume", "create")}
    assert actions("container=renamed", "event=destroy") == {("container", "destroy")}
    assert actions("container=nobody") == set()
    assert {kind for kind, _ in actions("network=wire")} == {"network"}
    assert ("volume", "mount") in actions("volume=store")
    assert ("container", "start") in actions("label=a=b", "type=container")
    assert actions("label=a=c") == set()
    assert ("container", "start") in actions("image=busybox")
    assert actions("scope=swarm") == set()
    engine, _, ended = told
    assert events(engine, ended, ended + 0.01) == []
    assert "cannot be after" in engine.docker("events", "--since", "20", "--until", "10", check=1).stderr


ORDERED = (
    ("create --name told -v store:/v busybox sleep 1000", "volume create, container create"),
    ("start told", "network connect, volume mount, container start"),
    ("cp told:/v -", "volume mount, container archive-path, volume unmount"),
    ("restart -t 0 told", "kill, kill, END, network connect, volume mount, container start, container restart"),
    ("stop -t 0 told", "kill, kill, END"),
    ("cp told:/etc -", "volume mount, container archive-path, volume unmount"),
    ("rm told", "container destroy"),
    ("run -d --name told --network none -v store:/v busybox sleep 1000", "container create, STARTED"),
    ("rm -f told", "kill, network disconnect, volume unmount, container die, container destroy"),
    ("create --name told -v store:/v busybox no-such-program", "container create"),
    ("start told", "network connect, volume mount, network disconnect, volume unmount"),
    ("container prune -f", "container destroy, container prune"),
    ("run --rm -v store:/v busybox true", "container create, container attach, STARTED, DOWN, container destroy"),
    ("run --rm -m 16m busybox tail /dev/zero", "container create, container attach, network connect, container start"),
    ("ps", "container oom, network disconnect, container die, container destroy"),
    ("volume rm store", "volume destroy"),
    ("network prune -f", "network prune"),
    ("image prune -f", "image prune"),
)
SHORT = {
    "kill": "container kill",
    "STARTED": "network connect, volume mount, container start",
    "DOWN": "network disconnect, volume unmount, container die",
    # in dockerd two tasks tell these last two, and either may be first
    "END": "network disconnect, volume unmount, container die, container stop",
}


def test_the_order_of_a_life(engine: Engine) -> None:
    engine.docker("image", "prune", "-f", check=0)  # of which each would be told
    began = time.time()
    expected = []
    for line, told in ORDERED:
        engine.docker(*line.split())
        expected += [action for word in told.split(", ") for action in SHORT.get(word, word).split(", ")]

    def seen() -> list[str]:
        found = [f"{each['Type']} {each['Action']}" for each in events(engine, began, time.time())]
        for place in range(1, len(found)):
            if found[place - 1 : place + 1] == ["container stop", "container die"]:
                found[place - 1 : place + 1] = ["container die", "container stop"]
        return found

    until(lambda: "image prune" in seen(), "the last event")
    assert seen() == expected
