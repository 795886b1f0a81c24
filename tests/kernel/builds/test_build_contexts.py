"""Contexts: what a client's list or tar makes of a tree, what it is asked for again, what it may not say."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from havre.builds.contexts import KEPT, Contexts, read_file
from havre.builds.intake import MAX_OPEN, PackUpdate, TarIntake
from havre.builds.packed import Node, PackedTree
from havre.dockerfile.ignore import IgnoreRules
from havre.errors import InvalidInput, NotFound
from havre.tar.reader import Entry
from support import tars


def entry(
    path: str, kind: str = "file", *, size: int = 0, link: str = "", mtime: int = 1000, mode: int = 0o644
) -> Entry:
    return Entry(path.encode(), kind, mode, 0, 0, mtime, 5, size, link.encode())


def sync(tree: PackedTree, *files: tuple[Entry, bytes]) -> list[str]:
    """Update the tree to these files; the paths that were asked for."""
    asked = []
    update = PackUpdate(tree)
    for each, content in files:
        if update.want(each):
            asked.append(os.fsdecode(each.path))
            update.write(each, content[:1])
            update.write(each, content[1:])
            update.seal(each)
    update.finish()
    return asked


def from_tar(tree: PackedTree, tar: bytes, piece: int = 1000) -> None:
    intake = TarIntake(tree)
    for at in range(0, len(tar), piece):
        intake.write(tar[at : at + piece])
    intake.seal()


def content(tree: PackedTree, path: str) -> bytes:
    return tree.read(path, 1 << 20)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[PackedTree]:
    with closing(PackedTree(tmp_path)) as made:
        yield made
    assert not list(tmp_path.iterdir()), "something stays when a tree is closed"


def test_a_tree_and_what_changes_in_it(tree: PackedTree) -> None:
    directory = (entry("d", "dir", mode=0o755, mtime=7), b"")
    a, b = (entry("a", size=3), b"one"), (entry("d/b", size=3), b"two")
    link, twin, empty = (
        (entry("l", "symlink", link="d/b"), b""),
        (entry("z", "hardlink", link="a"), b""),
        (entry("e"), b""),
    )
    assert sync(tree, a, directory, b, empty, link, twin) == ["a", "d/b"]
    assert content(tree, "l") == b"two"
    assert tree.item("a").inode == tree.item("z").inode is not None
    root = tree.directory()
    assert (root / "d/b").read_text() == "two"
    assert (root / "a").stat().st_ino == (root / "z").stat().st_ino
    assert os.readlink(root / "l") == "d/b"
    assert (root / "d").stat().st_mtime == pytest.approx(7, abs=0.1)

    assert sync(tree, a, directory, b, empty, link) == []
    assert not root.exists(), "a directory of an older state"
    assert tree.locate("z") is None
    newer = (entry("d/b", size=3, mtime=1001), b"TWO")
    assert sync(tree, a, directory, newer) == ["d/b"]
    assert content(tree, "d/b") == b"TWO"
    assert tree.names("") == ["a", "d"]
    told = (entry("a", "dir", mode=0o755), b""), (entry("a/f", size=1), b"x"), (entry("d", size=1), b"y")
    assert sync(tree, *told) == ["a/f", "d"]


def test_what_was_cut_off_is_asked_for_again(tree: PackedTree) -> None:
    half = entry("f", size=4)
    update = PackUpdate(tree)
    assert update.want(half)
    update.write(half, b"ha")
    with pytest.raises(InvalidInput, match="did not send the content"):
        update.finish()
    assert sync(tree, (half, b"half")) == ["f"]
    assert content(tree, "f") == b"half"


def test_bytes_that_nobody_reads_any_more_go(tree: PackedTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("havre.builds.packed._WASTE", 1 << 20)
    kept = (entry("kept", size=9), b"untouched")
    for number in range(40):
        sync(tree, kept, (entry("f", size=1 << 17, mtime=number), bytes([number]) * (1 << 17)))
    assert tree.pack.size < 3 << 20
    assert content(tree, "kept") == b"untouched"
    assert content(tree, "f") == bytes([39]) * (1 << 17)


@pytest.mark.parametrize(
    "hostile",
    [
        [entry("../x")],
        [entry("/x")],
        [entry("a//b")],
        [entry(".")],
        [entry("")],
        [entry("a\0b")],
        [entry("n" * 256)],
        [entry("d/f")],
        [entry("f"), entry("f")],
        [entry("l", "symlink", link=".."), entry("l/x", size=1)],
        [entry("h", "hardlink", link="../../etc/passwd")],
        [entry("h", "hardlink", link="h2")],
    ],
    ids=lambda entries: str(entries[-1].path[:12]),
)
def test_lists_that_are_refused(tree: PackedTree, hostile: list[Entry]) -> None:
    with pytest.raises(InvalidInput):
        sync(tree, *[(each, b"x") for each in hostile])


def test_files_open_at_once_are_bounded(tree: PackedTree) -> None:
    files = [entry(f"f{number}", size=2) for number in range(MAX_OPEN + 1)]
    update = PackUpdate(tree)
    for file in files:
        assert update.want(file)
    for file in files[:-1]:
        update.write(file, b"x")
    with pytest.raises(InvalidInput, match="at the same time"):
        update.write(files[-1], b"x")


def test_a_tar_and_its_odd_members(tree: PackedTree) -> None:
    tar = (
        tars.directory(b"./")
        + tars.member(b"implied/f", b"x" * 5000)
        + tars.symlink(b"link", b"/implied")
        + tars.member(b"link/through", b"inside")
        + tars.member(b"twice", b"first")
        + tars.member(b"twice", b"second")
        + tars.directory(b"becomes")
        + tars.member(b"becomes/gone", b"")
        + tars.member(b"becomes", b"a file")
        + tars.END
    )
    from_tar(tree, tar)
    assert content(tree, "implied/f") == b"x" * 5000
    assert content(tree, "implied/through") == b"inside"
    assert content(tree, "twice") == b"second"
    assert content(tree, "becomes") == b"a file"
    assert tree.names("") == ["becomes", "implied", "link", "twice"]
    kept = tree.without(IgnoreRules(["implied", "!implied/f", "twice"]))
    assert [item.path for item in kept.walk("")] == ["becomes", "implied", "implied/f", "link"]


def test_what_was_made_of_a_tree_goes_when_it_changes_or_is_closed(tree: PackedTree) -> None:
    sync(tree, (entry("a", size=1), b"a"), (entry("b", size=1), b"b"))
    made = [tree.directory(), tree.without(IgnoreRules(["a"])).directory()]
    assert [sorted(os.listdir(each)) for each in made] == [["a", "b"], ["b"]]
    sync(tree, (entry("c", size=1), b"c"))
    assert not any(each.exists() for each in made)
    assert os.listdir(tree.without(IgnoreRules(["a"])).directory()) == ["c"]  # gone with the tree, as the fixture sees


class SlowToIndex(dict[bytes, Node]):
    """Files of which the first to go through them all does so only when `passed` is set."""

    def __init__(self, nodes: dict[bytes, Node]) -> None:
        super().__init__(nodes)
        self.entered, self.passed = threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        if not self.entered.is_set():
            self.entered.set()
            assert self.passed.wait(30)
        return super().__iter__()


def test_threads_that_walk_a_new_tree_all_see_all_of_it(tree: PackedTree) -> None:
    files = SlowToIndex({path: Node(entry(path.decode(), "dir")) for path in (b"a", b"a/b", b"c")})
    tree.become(files)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: [item.path for item in tree.walk("")])
        assert files.entered.wait(30)
        second = [item.path for item in tree.walk("")]
        files.passed.set()
        assert first.result(30) == second == ["a", "a/b", "c"]


class Interrupted(PackedTree):
    """A tree whose content is read only when `go` says so, which may raise."""

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.go = lambda: None

    def pieces(self, path: str) -> Iterator[bytes]:
        self.go()
        return super().pieces(path)


def test_a_directory_is_handed_out_when_it_is_whole(tmp_path: Path) -> None:
    reading, asked = threading.Event(), threading.Event()

    def wait_for_the_second() -> None:
        reading.set()
        assert asked.wait(30)

    def ask() -> list[str]:
        assert reading.wait(30)
        asked.set()
        return sorted(os.listdir(tree.directory()))

    names = [f"{number:03}" for number in range(300)]
    with closing(Interrupted(tmp_path)) as tree, ThreadPoolExecutor(1) as pool:
        sync(tree, *((entry(name, size=1), b"x") for name in names))
        tree.go = wait_for_the_second
        second = pool.submit(ask)
        assert sorted(os.listdir(tree.directory())) == second.result(30) == names


def test_a_directory_that_could_not_be_made_leaves_nothing_and_is_made_again(tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "no space")

    with closing(Interrupted(tmp_path)) as tree:
        sync(tree, (entry("a"), b""), (entry("b", size=1), b"x"))
        tree.go = fail
        with pytest.raises(OSError, match="no space"):
            tree.directory()
        assert not list(tmp_path.iterdir())
        tree.go = lambda: None
        assert sorted(os.listdir(tree.directory())) == ["a", "b"]


@pytest.mark.parametrize(
    "tar",
    [
        tars.member(b"f", b"x") + tars.member(b"f/below", b"y"),
        tars.symlink(b"l", b"nowhere/f") + tars.member(b"nowhere", b"") + tars.member(b"l/x", b""),
        tars.symlink(b"l", b"l") + tars.member(b"l/x", b""),
    ],
    ids=["below a file", "below a link to a file", "below a loop"],
)
def test_tars_that_are_refused(tree: PackedTree, tar: bytes) -> None:
    with pytest.raises(InvalidInput):
        from_tar(tree, tar + tars.END)


def test_a_link_leads_nowhere_outside(tree: PackedTree, tmp_path: Path) -> None:
    from_tar(tree, tars.symlink(b"out", b"../../../tmp") + tars.member(b"out/f", b"x") + tars.END)
    assert content(tree, "tmp/f") == b"x"
    sync(tree, (entry("d", "symlink", link="/tmp"), b""))
    sync(tree, (entry("d", "dir", mode=0o755), b""), (entry("d/f", size=1), b"x"))
    assert content(tree, "d/f") == b"x"


def test_reading_stays_inside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "in").write_text("inside")
    (root / "out").symlink_to("../../../../etc/passwd")
    (root / "link").symlink_to("/in")
    assert read_file(root, "link", 10) == b"inside"
    for missing in ("out", "none", "."):
        with pytest.raises(NotFound):
            read_file(root, missing, 10)
    with pytest.raises(InvalidInput, match="larger"):
        read_file(root, "in", 3)


def test_reading_of_a_packed_tree_stays_inside(tree: PackedTree) -> None:
    links = [(entry("out", "symlink", link="../../etc/passwd"), b""), (entry("link", "symlink", link="/in"), b"")]
    sync(tree, (entry("in", size=6), b"inside"), *links)
    assert read_file(tree, "link", 10) == b"inside"
    for missing in ("out", "none", "."):
        with pytest.raises(NotFound):
            read_file(tree, missing, 10)
    with pytest.raises(InvalidInput, match="larger"):
        read_file(tree, "in", 3)


def test_trees_are_kept_by_key_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use() -> None:
        contexts = Contexts(tmp_path / "kept")
        await contexts.open()
        async with contexts.tree("k") as first:
            sync(first, (entry("f", size=1), b"x"))
            async with contexts.tree("k") as second:
                assert second is not first
        async with contexts.tree("k") as again:
            assert again is first
        async with contexts.tree() as nameless, contexts.borrow() as directory:
            assert nameless.count == 0
        assert not directory.exists()
        for number in range(KEPT + 1):
            async with contexts.tree(f"other{number}") as other:
                sync(other, (entry("f", size=1), b"x"))
        async with contexts.tree("k") as pushed_out:
            assert pushed_out.count == 0
        monkeypatch.setattr("havre.builds.contexts.KEPT_FILES", 2)
        async with contexts.tree("last") as last:
            sync(last, (entry("a"), b""), (entry("b"), b""))
        async with contexts.tree(f"other{KEPT}") as too_many:
            assert too_many.count == 0
        for record in contexts.records():
            await contexts.remove(record.id)
        assert not contexts.records()
        assert not list((tmp_path / "kept").iterdir())

    asyncio.run(use())


def test_builds_at_once_of_one_context_share_it_and_keep_one_record(tmp_path: Path) -> None:
    async def use() -> None:
        contexts = Contexts(tmp_path / "kept")
        await contexts.open()
        async with contexts.tree("k", shared=True) as first:
            sync(first, (entry("f", size=1), b"x"))
            async with contexts.tree("k", shared=True) as second:
                assert sync(second, (entry("f", size=1), b""), (entry("g", size=1), b"y")) == ["g"]
                assert (first.names(""), second.names("")) == (["f"], ["f", "g"])
            ended_first = contexts.records()
        (left,) = contexts.records()
        assert [(each.id, each.created_at) for each in ended_first] == [(left.id, left.created_at)]
        assert left.created_at <= left.last_used_at

    asyncio.run(use())
