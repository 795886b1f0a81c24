"""The content store: whole and verified, or not there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from havre.errors import Failed, InvalidInput, NotFound
from havre.oci.digest import Digest, digest_of
from havre.storage.blobs import Blobs

DATA = b'{"schemaVersion": 2}'


async def chunks(pieces: Iterable[bytes], failure: Exception | None = None) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
    if failure is not None:
        raise failure


def test_a_blob_comes_back(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    digest = asyncio.run(blobs.add(DATA))
    assert digest == digest_of(DATA)
    assert asyncio.run(blobs.add(DATA)) == digest
    assert blobs.has(digest)
    assert asyncio.run(blobs.read(digest)) == blobs.path(digest).read_bytes() == DATA
    assert blobs.all() == [digest]
    assert asyncio.run(blobs.remove(digest)) == len(DATA)
    assert asyncio.run(blobs.remove(digest)) == 0
    assert not blobs.has(digest)
    with pytest.raises(NotFound):
        asyncio.run(blobs.read(digest))


def test_a_changed_blob_is_not_given_out(tmp_path: Path) -> None:
    blobs = Blobs(tmp_path / "blobs")
    digest = asyncio.run(blobs.add(DATA))
    blobs.path(digest).write_bytes(DATA + b" ")
    with pytest.raises(Failed, match="damaged"):
        asyncio.run(blobs.read(digest))


def test_leftovers_of_a_crash_are_swept(tmp_path: Path) -> None:
    digest = asyncio.run(Blobs(tmp_path / "blobs").add(DATA))
    (tmp_path / "blobs/tmp/half").write_bytes(b"half")
    assert Blobs(tmp_path / "blobs").all() == [digest]
    assert os.listdir(tmp_path / "blobs/tmp") == []


@pytest.mark.parametrize("bad", ["", "sha256:..", "sha256:../../../../etc/passwd", "sha512:" + "0" * 64, "0" * 64])
def test_only_a_digest_is_a_name(tmp_path: Path, bad: str) -> None:
    with pytest.raises(InvalidInput):
        Blobs(tmp_path / "blobs").path(Digest(bad))


def test_the_directory_of_another_algorithm_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = Blobs(tmp_path / "blobs")
    synced: list[str] = []
    monkeypatch.setattr("havre.storage.blobs.sync_directory", lambda path: synced.append(path.name))
    asyncio.run(blobs.add(DATA, "sha512"))
    asyncio.run(blobs.add(DATA + b" ", "sha512"))
    assert synced == ["blobs", "sha512", "sha512"]
