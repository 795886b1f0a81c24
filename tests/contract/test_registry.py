"""Moving images between our store and real partners: Debian's docker-registry and skopeo."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from havre.errors import HavreError, NotFound, Unauthorized
from havre.images.images import Images
from havre.oci.digest import digest_of
from havre.oci.reference import parse_reference
from havre.registry import Auth, Registry, RegistryConfig
from support.imagery import PlainStorage, archive, config_of, layer_tar, stream
from support.registry import PASSWORD, USER, RealRegistry, real_registry

pytestmark = pytest.mark.peer

BASE, TOP = layer_tar("base", content=bytes(range(256)) * 4096), layer_tar("top")
CONFIG = config_of(BASE, TOP)
ARCHIVE = archive(
    {
        "0.tar": BASE,
        "1.tar": TOP,
        "c.json": CONFIG,
        "manifest.json": json.dumps([{"Config": "c.json", "RepoTags": ["x:1"], "Layers": ["0.tar", "1.tar"]}]).encode(),
    }
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    with real_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(scope="module")
def closed_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    with real_registry(tmp_path_factory.mktemp("closed"), htpasswd=True) as running:
        yield running


@asynccontextmanager
async def opened(root: Path) -> AsyncIterator[tuple[Images, Registry]]:
    registry = Registry(RegistryConfig())
    async with PlainStorage.open(root) as storage:
        yield await Images.open(storage, registry, lambda *_: None, lambda _: ()), registry  # type: ignore[arg-type]
    await registry.close()


def play(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), 60))


def test_pushed_image_is_what_skopeo_sees(registry: RealRegistry, tmp_path: Path) -> None:
    async def work() -> None:
        async with opened(tmp_path / "one") as (images, _):
            await images.load(stream(ARCHIVE))
            await images.tag("x:1", f"{registry.host}/push/a", "1")
            lines: list[str] = []
            await images.push(f"{registry.host}/push/a", "1", progress=lambda line: lines.append(line.status))
            assert lines.count("Pushed") == 2
            await images.tag("x:1", f"{registry.host}/push/b", "1")
            await images.push(f"{registry.host}/push/b", "1", progress=lambda line: lines.append(line.status))
            assert lines.count("Mounted from push/a") == 2
            pushed = images.inspect("x:1").repo_digests

        seen = json.loads(registry.skopeo("inspect", "--tls-verify=false", f"docker://{registry.host}/push/b:1"))
        assert f"{registry.host}/push/b@{seen['Digest']}" in pushed
        assert (seen["Architecture"], seen["Os"], len(seen["Layers"])) == ("amd64", "linux", 2)
        raw = registry.skopeo(
            "inspect", "--tls-verify=false", "--config", "--raw", f"docker://{registry.host}/push/a:1"
        )
        assert digest_of(raw.encode()) == digest_of(CONFIG)

        async with opened(tmp_path / "two") as (images, client):
            name = f"{registry.host}/push/a"
            assert await images.pull(name, "1") == digest_of(CONFIG)
            assert images.inspect(f"{name}:1").root_fs.layers == [digest_of(BASE), digest_of(TOP)]
            assert await images.pull(name, seen["Digest"]) == digest_of(CONFIG)
            assert await client.tags(parse_reference(name)) == ["1"]
            assert {"push/a", "push/b"} <= set(await client.catalog(registry.host))

    play(work)


@pytest.mark.parametrize("form", ["v2s2", "oci"])
@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_what_skopeo_put_there_comes_out_the_same(
    registry: RealRegistry, tmp_path: Path, form: str, compression: str
) -> None:
    if (form, compression) == ("v2s2", "zstd"):
        compression = "none"  # schema 2 knows no zstd: the layers lie there uncompressed
    source, name = tmp_path / "image.tar", f"{registry.host}/skopeo/{form}-{compression}"
    source.write_bytes(ARCHIVE)
    squeeze = [] if compression == "none" else [f"--dest-compress-format={compression}", "--dest-compress"]
    registry.skopeo(
        "copy",
        "-q",
        "--dest-tls-verify=false",
        f"--format={form}",
        *squeeze,
        f"docker-archive:{source}",
        f"docker://{name}:1",
    )
    seen = json.loads(registry.skopeo("inspect", "--tls-verify=false", f"docker://{name}:1"))

    async def work() -> None:
        async with opened(tmp_path / "store") as (images, _):
            await images.pull(name, "1")
            details = images.inspect(f"{name}:1")
            assert details.root_fs.layers == [digest_of(BASE), digest_of(TOP)]
            assert details.repo_digests == [f"{name}@{seen['Digest']}"]
            await images.tag(f"{name}:1", f"{name}-again", "1")
            await images.push(f"{name}-again", "1")

    play(work)
    again = json.loads(registry.skopeo("inspect", "--tls-verify=false", f"docker://{name}-again:1"))
    assert again["Digest"] == seen["Digest"]


def test_saved_image_is_read_by_skopeo_both_ways(registry: RealRegistry, tmp_path: Path) -> None:
    saved = tmp_path / "saved.tar"

    async def save() -> None:
        async with opened(tmp_path / "store") as (images, _):
            await images.load(stream(ARCHIVE))
            saved.write_bytes(b"".join([chunk async for chunk in images.save(["x:1"])]))

    play(save)
    for transport in (f"docker-archive:{saved}:x:1", f"oci-archive:{saved}"):
        seen = registry.skopeo("inspect", "--config", "--raw", transport)
        assert digest_of(seen.encode()) == digest_of(CONFIG)
    converted = tmp_path / "converted.tar"
    registry.skopeo("copy", "-q", f"docker-archive:{saved}:x:1", f"oci-archive:{converted}:docker.io/library/y:2")

    async def load() -> None:
        async with opened(tmp_path / "other") as (images, _):
            await images.load(stream(converted.read_bytes()))
            assert images.inspect("y:2").root_fs.layers == [digest_of(BASE), digest_of(TOP)]

    play(load)


def test_accounts(closed_registry: RealRegistry, tmp_path: Path) -> None:
    host = closed_registry.host
    good = Auth(username=USER, password=PASSWORD, server_address=host)
    bad = Auth(username=USER, password="wrong", server_address=host)

    async def work() -> None:
        async with opened(tmp_path) as (images, _):
            assert await images.login(good) == ""
            with pytest.raises(Unauthorized, match="401 Unauthorized"):
                await images.login(bad)
            await images.import_(stream(TOP), f"{host}/a", "1")
            for auth in (None, bad):
                with pytest.raises(HavreError, match=r"no basic auth credentials|denied|unauthorized"):
                    await images.push(f"{host}/a", "1", auth=auth)
            await images.push(f"{host}/a", "1", auth=good)
            for auth in (None, bad):
                with pytest.raises(HavreError, match=r"no basic auth credentials|unauthorized"):
                    await images.pull(f"{host}/a", "1", auth=auth)
            await images.pull(f"{host}/a", "1", auth=good)
            with pytest.raises(NotFound, match="manifest unknown"):
                await images.pull(f"{host}/a", "2", auth=good)

    play(work)


def test_damaged_blob_is_refused_and_leaves_nothing(registry: RealRegistry, tmp_path: Path) -> None:
    name = f"{registry.host}/damaged"

    async def work() -> None:
        async with opened(tmp_path / "one") as (images, _):
            await images.import_(stream(BASE), name, "1")
            await images.push(name, "1")
        seen = json.loads(registry.skopeo("inspect", "--tls-verify=false", f"docker://{name}:1"))
        hex_digits = seen["Layers"][0].removeprefix("sha256:")
        (blob,) = registry.root.glob(f"data/**/{hex_digits}/data")
        data = blob.read_bytes()
        for lie in (data[:-100], data[:-1] + b"\x7f", data[: len(data) // 2] + bytes(len(data) - len(data) // 2)):
            blob.write_bytes(lie)
            async with opened(tmp_path / "two") as (images, _):
                with pytest.raises(HavreError):
                    await images.pull(name, "1")
                assert images.list() == []
                assert images._storage.layers.all() == []

    play(work)


def test_embedded_images_are_reproducible_and_load(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    for folder in ("one", "two"):
        subprocess.run(["python3", str(root / "tools/embedded_images.py"), str(tmp_path / folder)], check=True)
    for name in ("busybox", "hello"):
        tar = (tmp_path / "one" / f"{name}.tar").read_bytes()
        assert tar == (tmp_path / "two" / f"{name}.tar").read_bytes()

    async def work() -> None:
        async with opened(tmp_path / "store") as (images, _):
            for name in ("busybox", "hello"):
                await images.load(stream((tmp_path / "one" / f"{name}.tar").read_bytes()))
            assert images.inspect("busybox").config.cmd == ["sh"]
            base = images.inspect("busybox").root_fs.layers
            assert images.inspect("hello").root_fs.layers[:1] == base

    play(work)
