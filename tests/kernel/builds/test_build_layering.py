"""The layer of a copy, planned over files that are there, and what it refuses; a layer whose writing ends early."""

from __future__ import annotations

import asyncio
import io
import tarfile
import threading
from contextlib import closing
from pathlib import Path

import pytest

from havre.builds.copying import Placement, choose
from havre.builds.layering import plan_layer
from havre.builds.trees import DirectoryTree
from havre.errors import Failed, InvalidInput
from havre.storage import Storage
from havre.storage.making import LayerOut
from havre.tar.reader import Entry, Extent, TarParser
from support import tars


@pytest.fixture
def below(tmp_path: Path) -> Path:
    root = tmp_path / "below"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr").chmod(0o711)
    (root / "usr/bin/tool").write_text("old")
    (root / "bin").symlink_to("usr/bin")
    return root


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "d/sub").mkdir(parents=True)
    (root / "d/a").write_text("one")
    (root / "d/twin").hardlink_to(root / "d/a")
    (root / "d/sub/b").write_text("two")
    (root / "e").mkdir()
    (root / "e/a").write_text("another")
    return root


class Written(io.BytesIO):
    """A layer's tar, and what was said of its members."""

    def __init__(self) -> None:
        super().__init__()
        self.members: list[Entry] = []

    def member(self, entry: Entry) -> None:
        self.members.append(entry)


def layer(below: Path, source: Path, sources: list[str], target: str) -> dict[str, tarfile.TarInfo]:
    """What the layer of COPY says, by path."""
    placement = Placement(target, into=target.endswith("/"), owner=(0, 0))
    out = Written()
    with closing(plan_layer(below, choose(DirectoryTree(source), sources), (), placement)) as plan:
        plan.write(out)
    assert list(TarParser().feed(out.getvalue())) == out.members
    if not out.members:
        return {}
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as tar:
        return {member.name: member for member in tar}


def test_parents_are_as_they_are_below(below: Path, source: Path) -> None:
    found = layer(below, source, ["d/a"], "/bin/tool")
    assert list(found) == ["usr", "usr/bin", "usr/bin/tool"], "the link was followed"
    assert found["usr"].mode == 0o711
    assert found["usr"].mtime == int((below / "usr").stat().st_mtime)
    assert found["usr/bin/tool"].size == 3
    made = layer(below, source, ["d"], "/new/deep/")
    assert list(made) == ["new", "new/deep", "new/deep/a", "new/deep/sub", "new/deep/sub/b", "new/deep/twin"]
    assert (made["new"].mode, made["new/deep/twin"].linkname) == (0o755, "new/deep/a")
    assert list(layer(below, source, ["e"], "/")) == ["a"]


def test_later_sources_replace_earlier_ones(below: Path, source: Path) -> None:
    found = layer(below, source, ["d", "e"], "/x/")
    assert found["x/a"].size == len("another")
    assert found["x/twin"].isreg(), "what was linked to the replaced file keeps its content"
    assert found["x/twin"].size == 3


def test_what_is_in_the_way(below: Path, source: Path) -> None:
    (source / "bin").write_text("a file")
    with pytest.raises(InvalidInput, match="cannot replace the directory 'usr/bin'"):
        layer(below, source, ["bin"], "/usr/")
    (below / "x").mkdir()
    (below / "x/sub").write_text("a file")
    with pytest.raises(InvalidInput, match="cannot copy to non-directory: 'x/sub'"):
        layer(below, source, ["d"], "/x/")
    (source / "e/.wh.gone").write_text("")
    with pytest.raises(InvalidInput, match=r"names beginning with \.wh\."):
        layer(below, source, ["e"], "/y/")


def test_a_copy_of_nothing_is_no_layer(below: Path, source: Path) -> None:
    (source / "empty").mkdir()
    assert layer(below, source, ["empty"], "/usr/bin") == {}


def test_a_layer_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    begun = threading.Event()

    def fail(out: LayerOut) -> None:
        out.write(tars.member(b"f", b"x" * 2_000_000))
        raise Failed("half-way")

    def endless(out: LayerOut) -> None:
        while True:
            out.write(b"\1" * 512)
            begun.set()

    def whole(out: LayerOut) -> None:
        out.write(tars.member(b"f", b"x"))
        out.member(Entry(b"f", "file", 0o644, 0, 0, 0, 0, 1, extents=(Extent(0, 1, 512),)))
        out.write(tars.END)

    async def use() -> None:
        storage = await Storage.open(tmp_path / "data", tmp_path / "run")
        try:
            held: list[str] = []
            with pytest.raises(Failed, match="half-way"):
                await storage.layers.make(fail, held.append)
            assert await storage.layers.make(lambda out: None, held.append) is None
            work = asyncio.ensure_future(storage.layers.make(endless, held.append))
            while not begun.is_set():
                await asyncio.sleep(0.01)
            work.cancel()
            await asyncio.wait([work])
            assert not held
            assert not list((tmp_path / "data/layers").iterdir())
            made = await storage.layers.make(whole, held.append)
            assert held == [made]
            assert [each.diff_id for each in storage.layers.all()] == [made]
        finally:
            await storage.close()

    asyncio.run(use())
