"""Whatever is done to files in a container, `diff` says what comparing all would, and a commit repeats it."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from havre.linux import mounts
from havre.oci.digest import Digest
from havre.storage import Storage
from support import tars

NAMES = ("a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "n", "n/a", "n/d")
BASE = (
    tars.member(b"a", b"1")
    + tars.symlink(b"b", b"a")
    + tars.directory(b"d")
    + tars.member(b"d/a", b"22")
    + tars.directory(b"d/e")
    + tars.member(b"d/e/a", b"333")
)

paths = st.sampled_from(NAMES)
operations = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["write", "append", "mkdir", "symlink", "remove", "chmod", "chown", "xattr"]), paths),
        st.tuples(st.sampled_from(["rename", "link"]), paths, paths),
    ),
    max_size=8,
)


def perform(root: Path, operation: tuple[str, ...]) -> None:
    """One operation; those that make no sense at that moment do nothing."""
    verb, path = operation[0], root / operation[1]
    with suppress(OSError):
        match verb:
            case "write":
                path.write_text(operation[1] * 3)
            case "append":
                with path.open("ab") as file:
                    file.write(b"+")
            case "mkdir":
                path.mkdir()
            case "symlink":
                path.symlink_to("target")
            case "remove":
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            case "chmod":
                path.chmod(0o700)
            case "chown":
                os.lchown(path, 5, 5)
            case "xattr":
                os.setxattr(path, "user.x", b"y")
            case "rename":
                os.rename(path, root / operation[2])
            case "link":
                os.link(path, root / operation[2], follow_symlinks=False)


def look(root: Path) -> dict[str, tuple[Any, ...]]:
    """What Docker compares of each entry."""
    found: dict[str, tuple[Any, ...]] = {}
    for directory, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            row: tuple[Any, ...] = (status.st_mode, status.st_uid, status.st_gid)
            if not stat.S_ISDIR(status.st_mode):
                row += (status.st_size, status.st_mtime_ns)
            found[os.path.relpath(path, root)] = row
    return found


def expected(before: dict[str, tuple[Any, ...]], after: dict[str, tuple[Any, ...]]) -> list[tuple[str, str]]:
    """The answer by brute force."""
    kinds: dict[str, str] = dict.fromkeys(after.keys() - before.keys(), "A")
    kinds |= {path: "C" for path in after.keys() & before.keys() if after[path] != before[path]}
    for path in before.keys() - after.keys():
        parent = os.path.dirname(path)
        if not parent or (parent in after and stat.S_ISDIR(after[parent][0])):
            kinds[path] = "D"
    for path in list(kinds):
        while path := os.path.dirname(path):
            kinds.setdefault(path, "C")
    return [(kind, "/" + path) for path, kind in sorted(kinds.items())]


class Store:
    """One store for all examples of a driver."""

    def __init__(self, root: Path, driver: str) -> None:
        self._runner = asyncio.Runner()
        self.storage = self._runner.run(Storage.open(root / "data", root / "run", driver=driver))
        self.base = self._runner.run(self.ingest(tars_of(BASE)))

    async def ingest(self, pieces: Any) -> Digest:
        async with self.storage.layers.ingest() as sink:
            async for piece in pieces:
                await sink.write(piece)
            return (await sink.finish()).diff_id

    async def try_out(self, script: list[tuple[str, ...]]) -> None:
        snapshots = self.storage.snapshots
        try:
            await snapshots.create("c", [self.base])
            root = await snapshots.mount("c")
            before = look(root)
            for operation in script:
                perform(root, operation)
            after = look(root)
            assert [(change.kind, change.path) for change in await snapshots.changes("c")] == expected(before, after)
            committed = await self.ingest(snapshots.diff_tar("c"))
            await snapshots.create("again", [self.base, committed])
            assert whole_seconds(look(await snapshots.mount("again"))) == whole_seconds(after)
        finally:
            await snapshots.remove("again")
            await snapshots.remove("c")

    def run(self, script: list[tuple[str, ...]]) -> None:
        self._runner.run(self.try_out(script))

    def close(self) -> None:
        self._runner.run(self.storage.close())
        self._runner.close()


async def tars_of(content: bytes) -> Any:
    yield content + tars.END


def whole_seconds(tree: dict[str, tuple[Any, ...]]) -> dict[str, tuple[Any, ...]]:
    return {path: (*row[:4], row[4] // 10**9) if len(row) > 4 else row for path, row in tree.items()}


@pytest.fixture(scope="module", params=["erofs", "copy"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    root = tmp_path_factory.mktemp("changes")
    store = Store(root, request.param)
    try:
        yield store
    finally:
        store.close()
        for entry in reversed(mounts.mounts_below(root)):
            mounts.unmount_all(entry.target)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations)
def test_diff_and_commit_tell_the_truth(store: Store, script: list[tuple[str, ...]]) -> None:
    store.run(script)
