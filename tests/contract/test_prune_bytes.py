"""What `system df` says can be freed is what pruning then frees, to the byte: cache mounts and leftovers included."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_prune_plan import plan_of

from support.engines import Engine
from support.raw import ask
from support.waiting import until

DOCKERFILE = """\
FROM busybox
RUN head -c 40000 /dev/urandom > /first
RUN --mount=type=cache,target=/c head -c 25000 /dev/urandom > /c/kept; head -c 30000 /dev/urandom > /second
"""


@pytest.fixture
def built(havred: Engine, tmp_path: Path, archive: Path) -> Iterator[Engine]:
    """An image and its cache, a container, volumes; all of it in the way of pruning."""
    havred.docker("system", "prune", "-a", "--volumes", "-f", check=0)
    havred.docker("load", "-i", str(archive), check=0)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    havred.havre("build", "-t", "built", str(tmp_path), check=0)
    fill = "head -c 9000 /dev/zero > /big; head -c 8000 /dev/zero > /v/f; head -c 7000 /dev/zero > /w/f"
    havred.out("run", "--name", "done", "-v", "/v", "-v", "named:/w", "built", "sh", "-c", fill)
    yield havred
    havred.docker("rm", "-f", "done")
    havred.docker("volume", "rm", "-f", "named", check=0)
    havred.docker("system", "prune", "-a", "--volumes", "-f", check=0)


def used(engine: Engine) -> dict[str, int]:
    """The bytes of each kind, as `system df` has them."""
    usage: dict[str, Any] = ask(engine.socket, "GET", "/system/df").json
    return {
        "container": sum(each.get("SizeRw", 0) for each in usage["Containers"]),
        "volume": sum(each["UsageData"]["Size"] for each in usage["Volumes"]),
        "layer": usage["LayersSize"],
        **{
            name: sum(each["Size"] for each in usage["BuildCache"] if each["Type"] == kind)
            for name, kind in (("mount", "exec.cachemount"), ("context", "source.local"))
        },
    }


def freed(engine: Engine, path: str) -> int:
    return int(ask(engine.socket, "POST", path).json["SpaceReclaimed"])


def test_every_prune_frees_what_df_said(built: Engine) -> None:
    before = used(built)
    assert (before["container"], before["volume"], before["mount"]) == (9000, 15000, 25000)
    assert freed(built, "/containers/prune") == before["container"]
    assert freed(built, '/volumes/prune?filters={"all":["1"]}') == before["volume"]
    images = freed(built, '/images/prune?filters={"dangling":["0"]}')
    cache = freed(built, "/build/prune?all=1")
    after = used(built)
    assert set(after.values()) == {0}
    assert images + cache == before["layer"] + before["mount"] + before["context"]


def test_a_plan_has_the_cache_and_its_mounts(built: Engine) -> None:
    before = used(built)
    plan = ask(built.socket, "GET", "/system/prune?all=1&volumes=1").json
    kinds = [item["Kind"] for item in plan["Items"]]
    assert kinds == sorted(kinds, key=["container", "volume", "network", "image", "cache"].index)
    assert "cache mount /c" in {item["Name"] for item in plan["Items"]}
    assert plan["Reclaimable"] == sum(before.values()) - 7000, "the named volume stays"
    done = ask(built.socket, "POST", f"/system/prune?all=1&volumes=1&plan={plan['ID']}").json
    assert done["Reclaimable"] == plan["Reclaimable"]
    assert sum(used(built).values()) == 7000


def test_a_plan_of_the_cache_alone(built: Engine) -> None:
    before = used(built)
    id, rows, size = plan_of(built, "builder", "prune", "-a")
    assert {row[0] for row in rows} == {"cache"}
    assert "cache mount /c" in {" ".join(row[2:5]) for row in rows}
    done = built.havre("builder", "prune", "-a", "--plan", id, "-f", check=0).stdout
    assert done.endswith(f"Total reclaimed space: {size}\n")
    after = used(built)
    assert (before["mount"] - after["mount"], before["layer"] - after["layer"]) == (25000, 0), "an image has the layers"


def test_a_cache_mount_that_two_steps_share_is_spared(havred: Engine, tmp_path: Path) -> None:
    """The first of them ends while the other goes on: the directory is still in use."""
    freed(havred, "/build/prune?all=1")
    wait = "until [ -e /c/end-{0} ]; do sleep 0.05; done"
    step = f"RUN --mount=type=cache,id=shared,target=/c touch /c/has-{{0}}; {wait}"
    stages = "\n".join(f"FROM busybox AS s{each}\n{step.format(each)}\nRUN touch /made" for each in (1, 2))
    text = f"{stages}\nFROM busybox\nCOPY --from=s1 /made /1\nCOPY --from=s2 /made /2\n"
    (tmp_path / "Dockerfile").write_text(text)
    mounts = havred.root / "data/build/mounts"
    codes: list[int] = []

    def build() -> None:
        codes.append(havred.havre("build", "-t", "shared", str(tmp_path)).returncode)

    building = threading.Thread(target=build)
    building.start()
    until(lambda: {path.name for path in mounts.glob("*/has-*")} == {"has-1", "has-2"}, "both steps to have it")
    (directory,) = {path.parent for path in mounts.glob("*/has-*")}
    (directory / "end-1").touch()
    until(lambda: first_ended(havred), "the first step to end")
    assert freed(havred, "/build/prune?all=1") == 0
    assert directory.is_dir()
    (directory / "end-2").touch()
    building.join(30)
    assert codes == [0]
    (record,) = [each for each in ask(havred.socket, "GET", "/system/df").json["BuildCache"] if "mount" in each["Type"]]
    assert record["Description"] == "cache mount shared"
    freed(havred, "/build/prune?all=1")
    assert not directory.exists()
    havred.docker("rmi", "-f", "shared", check=0)


def first_ended(engine: Engine) -> bool:
    """Whether one of two commands is left."""
    cache = ask(engine.socket, "GET", "/system/df").json["BuildCache"]
    return any("end-1" in record["Description"] for record in cache)


def test_leftovers_are_in_the_plan(havred: Engine) -> None:
    """What a pull that was cut off has left: a layer that no image needs."""
    havred.docker("system", "prune", "-f", check=0)
    blob = havred.root / "data/blobs/sha256" / ("ab" * 32)
    blob.write_bytes(b"x" * 321)
    id, rows, size = plan_of(havred, "system", "prune")
    assert [row[0] for row in rows] == ["leftover"]
    assert size == "321B"
    done = havred.havre("system", "prune", "--plan", id, "-f", check=0).stdout
    assert done.endswith("Total reclaimed space: 321B\n")
    assert not blob.exists()
