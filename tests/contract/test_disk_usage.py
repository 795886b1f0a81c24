"""`GET /system/df`: the sums of today, and the lists that older clients read."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from support.engines import Engine
from support.raw import ask

_OLDER = ["BuildCache", "Containers", "Images", "LayersSize", "Volumes"]
_TODAY = ["BuildCacheUsage", "ContainerUsage", "ImageUsage", "VolumeUsage"]


def usage(engine: Engine, query: str = "", version: str = "1.55") -> dict[str, Any]:
    shown: dict[str, Any] = ask(engine.socket, "GET", f"/v{version}/system/df{query}").json
    return shown


@pytest.fixture
def used(havred: Engine) -> Iterator[Engine]:
    """A running and a stopped container that have written, a used and an unused volume, an image that is not used.

    Images that other tests share are beside it.
    """
    havred.out("run", "-d", "--name", "on", "-v", "kept:/v", "busybox", "sh", "-c", "echo 12345 > /f; sleep 1000")
    havred.out("run", "--name", "off", "busybox", "sh", "-c", "echo 1234567 > /f")
    havred.out("run", "--rm", "-v", "left:/v", "busybox", "sh", "-c", "echo 123 > /v/f")
    havred.out("import", "-", "spare:1", stdin=_tar("spare", 4096))
    yield havred
    havred.out("rm", "-f", "on", "off")
    havred.out("volume", "rm", "kept", "left")
    havred.docker("rmi", "-f", "spare:1")


def _tar(name: str, size: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = size
        archive.addfile(entry, io.BytesIO(bytes(size)))
    return out.getvalue()


def test_sums_by_kind(used: Engine) -> None:
    shown = usage(used, "?verbose=1")
    assert sorted(shown) == _TODAY
    images, containers, volumes = shown["ImageUsage"], shown["ContainerUsage"], shown["VolumeUsage"]
    assert (images["ActiveCount"], images["TotalCount"]) == (1, len(images["Items"]))
    (spare,) = [each for each in images["Items"] if each["RepoTags"] == ["spare:1"]]
    assert spare["Size"] > 4096
    assert (containers["ActiveCount"], containers["TotalCount"], containers["Reclaimable"]) == (1, 2, 8)
    assert containers["TotalSize"] == 14
    assert {each["Names"][0]: each["SizeRw"] for each in containers["Items"]} == {"/on": 6, "/off": 8}
    assert (volumes["ActiveCount"], volumes["TotalCount"], volumes["Reclaimable"]) == (1, 2, 4)
    assert {each["Name"] for each in volumes["Items"]} == {"kept", "left"}
    used.out("rmi", "spare:1")
    without = usage(used)["ImageUsage"]
    assert without["TotalSize"] == images["TotalSize"] - spare["Size"]
    assert without.get("Reclaimable", 0) == images["Reclaimable"] - spare["Size"]


def test_zeros_and_what_was_not_asked_for_are_left_out(havred: Engine) -> None:
    assert usage(havred, "?type=volume&verbose=1") == {"VolumeUsage": {}}
    assert usage(havred, "?type=volume") == {"VolumeUsage": {}, "Volumes": []}
    assert sorted(usage(havred)) == sorted(_OLDER + _TODAY)


def test_clients_before_1_52_have_the_lists_alone(used: Engine) -> None:
    shown = usage(used, version="1.51")
    assert sorted(shown) == sorted(usage(used, "?verbose=1", "1.51")) == _OLDER
    assert len(shown["Containers"]) == 2
    assert usage(used, "?type=volume", "1.51")["Images"] is None
    assert usage(used, "?type=bogus", "1.41") == usage(used, "", "1.41")  # `type` came with 1.42


def test_both_forms_name_the_same_rows(used: Engine) -> None:
    today, older = usage(used, "?verbose=1"), usage(used, version="1.51")
    for row in today["ContainerUsage"]["Items"]:
        assert set(row.pop("Health")) == {"Status", "FailingStreak"}  # since 1.52
    for kind, rows in (("ContainerUsage", "Containers"), ("VolumeUsage", "Volumes"), ("ImageUsage", "Images")):
        assert json.dumps(today[kind]["Items"]) == json.dumps(older[rows]), kind
