"""Configurations that no container can be made from: refused whichever way they come, as dockerd refuses them.

What each case does with dockerd 26.1 was tried with `docker load` there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from havre.errors import InvalidInput, NotFound
from havre.images.documents import read_config, read_image
from havre.oci.digest import digest_of
from havre.oci.image import decode_image
from support.imagery import Stage, archive, config_of, layer_tar, staged, stream

LAYER = layer_tar("file")

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"config": {"Labels": {"a": 5}}}, "Labels"),
    ({"config": {"Labels": ["a=b"]}}, "Labels"),
    ({"config": {"labels": {"a": 5}}}, "Labels"),
    ({"CONFIG": {}, "config": None}, "config: named more than once"),
    ({"config": {"Env": [1, None]}}, r"Env\[0\]"),
    ({"config": {"Env": "A=b"}}, "Env"),
    ({"config": {"Cmd": [1]}}, r"Cmd\[0\]"),
    ({"config": {"Entrypoint": {}}}, "Entrypoint"),
    ({"config": {"ExposedPorts": ["80"]}}, "ExposedPorts"),
    ({"config": {"ExposedPorts": {"80/tcp": 5}}}, "ExposedPorts"),
    ({"config": {"Volumes": ["/v"]}}, "Volumes"),
    ({"config": {"Volumes": {"/v": 5}}}, "Volumes"),
    ({"config": {"User": 5}}, "User"),
    ({"config": {"WorkingDir": 5}}, "WorkingDir"),
    ({"config": {"Tty": "true"}}, "Tty"),
    ({"config": {"StopTimeout": "5"}}, "StopTimeout"),
    ({"config": {"StopTimeout": 5.5}}, "StopTimeout"),
    ({"config": {"StopSignal": 9}}, "StopSignal"),
    ({"config": {"Healthcheck": {"Test": "x"}}}, "Healthcheck.Test"),
    ({"config": {"Healthcheck": {"Interval": "5s"}}}, "Healthcheck.Interval"),
    ({"config": {"OnBuild": "x"}}, "OnBuild"),
    ({"config": {"Hostname": 5}}, "Hostname"),
    ({"config": []}, "config"),
    ({"config": "x"}, "config"),
    ({"created": "yesterday"}, "created"),
    ({"created": "2026-02-31T00:00:00Z"}, "created"),
    ({"created": 5}, "created"),
    ({"author": 5}, "author"),
    ({"architecture": 5}, "architecture"),
    ({"history": {}}, "history"),
    ({"history": [5]}, "history"),
    ({"history": [{"created": "yesterday"}]}, "history"),
    ({"history": [{"created_by": 5}]}, "history"),
]
MALFORMED = config_of(LAYER, Labels={"a": 5})


def play(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 20))


def document(change: dict[str, Any]) -> bytes:
    return json.dumps({**json.loads(config_of(LAYER)), **change}).encode()


@pytest.mark.parametrize(("change", "field"), REFUSED, ids=lambda value: json.dumps(value)[:40])
def test_a_wrong_type_is_refused_by_its_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        read_image(document(change))


@pytest.mark.parametrize(
    ("config", "attribute", "read"),
    [
        ({"Labels": {"a": None}}, "labels", {"a": ""}),
        ({"Env": ["A=b", None]}, "env", ["A=b", ""]),
        ({"Cmd": "sh"}, "cmd", ["sh"]),
        ({"Shell": "sh"}, "shell", ["sh"]),
        ({"ExposedPorts": {"80/tcp": None}}, "exposed_ports", {"80/tcp": {}}),
        ({"Healthcheck": {"Test": ["NONE"], "Interval": None}}, "healthcheck.interval", 0),
        ({"labels": {"a": "x"}}, "labels", {"a": "x"}),
        ({"Unknown": 5}, "labels", None),
        (None, "labels", None),
    ],
)
def test_what_go_forgives_is_read_as_go_reads_it(config: dict[str, Any] | None, attribute: str, read: Any) -> None:
    found: Any = read_config(read_image(document({"config": config})), "x")
    for name in attribute.split("."):
        found = getattr(found, name)
    assert found == read


def test_pull_and_load_refuse_it_and_keep_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            stage.registry.put_image("a/b:1", MALFORMED, [LAYER])
            with pytest.raises(InvalidInput, match="Labels"):
                await stage.images.pull("r.io/a/b", "1")
            item = [{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["0.tar"]}]
            held = archive({"0.tar": LAYER, "c.json": MALFORMED, "manifest.json": json.dumps(item).encode()})
            with pytest.raises(InvalidInput, match="Labels"):
                await stage.images.load(stream(held))
            assert stage.images.list() == []
            assert stage.registry.downloads == []
            assert stage.storage.layers.all() == []
            assert stage.storage.blobs.all() == []

    play(work)


async def _as_an_older_havre_left_it(stage: Stage) -> str:
    """A malformed image in the store, named old:1."""
    await stage.storage.blobs.add(MALFORMED)
    id = digest_of(MALFORMED)
    for table, key, row in (
        ("images", id, {"added_at": 1.0}),
        ("image_names", "docker.io/library/old:1", {"image": id}),
    ):
        value = json.dumps(row).encode()
        await stage.storage.db.submit(lambda db, at=(table, key, value): _insert(db, *at))
    return id


def _insert(db: Any, table: str, key: str, value: bytes) -> None:
    db.execute(f'CREATE TABLE IF NOT EXISTS "{table}" (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID')
    db.execute(f'INSERT INTO "{table}" VALUES (?, ?)', (key, value))


def test_one_that_is_here_is_listed_and_removed_but_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            id = await _as_an_older_havre_left_it(stage)
        async with staged(tmp_path) as stage:
            assert f"configuration of image {id} is malformed: Labels" in caplog.text
            (row,) = stage.images.list(shared_size=True, containers=True)
            assert (row.id, row.repo_tags, row.labels) == (id, ["old:1"], None)
            assert stage.images.list({"label": ["a"]}) == []
            with pytest.raises(InvalidInput, match="remove the image"):
                await stage.images.acquire("old:1")
            removed = await stage.images.remove("old:1")
            assert [item.deleted for item in removed if item.deleted] == [id]
            assert stage.images.list() == []

    play(work)


@pytest.mark.parametrize("table", ["images", "image_names", "image_indexes"])
@pytest.mark.parametrize("value", [b"{", b"[]", b'{"added_at": "x", "image": 5, "images": 5}'])
def test_a_bad_row_spoils_no_other(tmp_path: Path, table: str, value: bytes) -> None:
    good = config_of(LAYER)
    name = "docker.io/library/bad:1" if table == "image_names" else digest_of(MALFORMED)

    async def work() -> None:
        async with staged(tmp_path) as stage:
            stage.registry.put_image("a/b:1", good, [LAYER])
            await stage.images.pull("r.io/a/b", "1")
            await stage.storage.db.submit(lambda db: _insert(db, table, name, value))
        async with staged(tmp_path) as stage:
            assert [row.repo_tags for row in stage.images.list()] == [["r.io/a/b:1"]]
            await stage.images.prune({"dangling": ["true"]})
            assert [row.repo_tags for row in stage.images.list()] == [["r.io/a/b:1"]]

    play(work)


def test_an_image_without_its_configuration_can_be_removed(tmp_path: Path) -> None:
    async def work() -> None:
        async with staged(tmp_path) as stage:
            id = await _as_an_older_havre_left_it(stage)
            await stage.storage.blobs.remove(digest_of(MALFORMED))
        async with staged(tmp_path) as stage:
            assert stage.images.list() == []
            removed = await stage.images.remove("old:1")
            assert [item.deleted for item in removed] == [id]
            with pytest.raises(NotFound):
                await stage.images.remove(id)

    play(work)


def test_the_view_of_a_document_alone_is_not_stricter() -> None:
    """What is only looked at (a manifest list's platforms) need not be run."""
    assert decode_image(MALFORMED).architecture == "amd64"
