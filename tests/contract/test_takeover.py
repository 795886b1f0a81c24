"""A data root that an earlier version made is taken over with nothing lost."""

from __future__ import annotations

import json
import re
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.engines import Engine, Havred
from support.raw import ask
from support.waiting import until

ROOTS = Path(__file__).parents[1] / "golden" / "data-roots"


def unpack(version: str, engine: Engine) -> None:
    """Put the data root of a version where the engine has its own; paths in its rows are those of the engine."""
    with tarfile.open(ROOTS / f"{version}.tar.xz") as tar:
        tar.extractall(engine.root, filter="fully_trusted")
    with sqlite3.connect(engine.root / "data" / "havre.db") as db:
        for (table,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            moved = "CAST(replace(CAST(value AS TEXT), '/the/root', ?) AS BLOB)"
            db.execute(f"UPDATE {table} SET value = {moved}", (str(engine.root),))
    db.close()


@pytest.fixture
def taken(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Today's daemon on the data root of the version that the test names."""
    engine = Havred()
    try:
        unpack(request.param, engine)
        engine.open()
        yield engine
    finally:
        engine.close()


def facts(engine: Engine) -> Any:
    """What the daemon says of all that it has, in the API version in which it was recorded of the earlier daemon."""

    def get(path: str) -> Any:
        return ask(engine.socket, "GET", f"/v1.45{path}").json

    def text(path: str) -> str:
        return ask(engine.socket, "GET", f"/v1.45{path}").body.decode("latin-1")

    ids = {each["Names"][0][1:]: each["Id"] for each in get("/containers/json?all=1")}
    containers = {name: get(f"/containers/{id}/json?size=1") for name, id in ids.items()}
    begun = {name: id for name, id in ids.items() if containers[name]["State"]["Status"] != "created"}
    said = {
        "containers": containers,
        "images": {each["Id"]: get(f"/images/{each['Id']}/json") for each in get("/images/json")},
        "networks": {each["Name"]: get(f"/networks/{each['Id']}") for each in get("/networks")},
        "volumes": {each["Name"]: each for each in get("/volumes")["Volumes"]},
        "diff": {name: get(f"/containers/{id}/changes") for name, id in ids.items()},
        "logs": {name: text(f"/containers/{id}/logs?stdout=1&stderr=1&timestamps=1") for name, id in begun.items()},
    }
    plain = json.dumps(said).replace(str(engine.root), "/the/root").replace(engine.root.name, "the-root")
    return json.loads(re.sub(r"havre-[0-9a-f]{6}\b", "havre-link", plain))


@pytest.mark.parametrize("taken", ["0.1.0"], indirect=True)
def test_of_version_0_1_0(taken: Engine) -> None:
    recorded = re.sub(r"havre-[0-9a-f]{6}\b", "havre-link", (ROOTS / "0.1.0.json").read_text())
    assert facts(taken) == json.loads(recorded)
    assert taken.out("images", "--format", "{{.Repository}}:{{.Tag}}").split() != []
    # What it wrote and what is in its volume is there, and all of them can run again.
    for name, path in (("exited", "/precious"), ("exited", "/data/precious")):
        taken.docker("cp", f"{name}:{path}", str(taken.root / "saved"), check=0)
        assert (taken.root / "saved").read_text() == "still here\n"
    for name in ("exited", "made", "stopped", "again"):
        taken.docker("start", name, check=0)
    until(lambda: taken.out("logs", "exited").count("hello from 0.1.0") == 2, "a second greeting")
    assert taken.out("inspect", "-f", "{{.NetworkSettings.Networks.own.IPAddress}}", "made") == "10.96.0.9"
    assert taken.out("ps", "--format", "{{.Names}} {{.Ports}}").count("127.0.0.1:18080->80/tcp") == 1
    assert "damaged" not in taken.log.read_text()
    assert (taken.root / "data" / "havre.db.v2-before").is_file()
    taken.docker("rm", "-f", "-v", "exited", "made", "stopped", "again", check=0)
    taken.docker("volume", "rm", "kept", "memory", check=0)
    taken.docker("network", "rm", "own", "inner", check=0)
    taken.docker("rmi", "tiny:1", "tiny:2", "example.org/team/tiny:two", check=0)
