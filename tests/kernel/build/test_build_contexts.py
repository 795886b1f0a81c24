"""Contexts on the disk: what a client's list makes of a directory, what it is asked for again, what it may not say."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from havre.build.contexts import KEPT, MAX_OPEN, Contexts, TreeUpdate, read_file
from havre.errors import InvalidInput, NotFound
from havre.storage.tar import Entry


def entry(
    path: str, kind: str = "file", *, size: int = 0, link: str = "", mtime: int = 1000, mode: int = 0o644
) -> Entry:
    return Entry(path.encode(), kind, mode, 0, 0, mtime, 5, size, link.encode())


def sync(root: Path, *files: tuple[Entry, bytes]) -> list[str]:
    """Update `root` to these files; the paths that were asked for."""
    asked = []
    with closing(TreeUpdate(root)) as tree:
        for each, content in files:
            if tree.want(each):
                asked.append(os.fsdecode(each.path))
                tree.write(each, content[:1])
                tree.write(each, content[1:])
                tree.seal(each)
        tree.finish()
    return asked


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "context"
    directory.mkdir()
    yield directory
    assert sorted(path.name for path in tmp_path.iterdir()) == ["context"], "something was made outside"


def test_a_tree_and_what_changes_in_it(root: Path) -> None:
    directory = (entry("d", "dir", mode=0o755, mtime=7), b"")
    a, b = (entry("a", size=3), b"one"), (entry("d/b", size=3), b"two")
    link, twin, empty = (
        (entry("l", "symlink", link="d/b"), b""),
        (entry("z", "hardlink", link="a"), b""),
        (entry("e"), b""),
    )
    assert sync(root, a, directory, b, empty, link, twin) == ["a", "d/b"]
    assert (root / "d/b").read_text() == "two"
    assert (root / "a").stat().st_ino == (root / "z").stat().st_ino
    assert os.readlink(root / "l") == "d/b"
    assert (root / "d").stat().st_mtime == pytest.approx(7, abs=0.1)

    assert sync(root, a, directory, b, empty, link) == ["a"], "a file with another name is not known to be as it was"
    assert sync(root, a, directory, b, empty, link) == []
    assert not (root / "z").exists()
    newer = (entry("d/b", size=3, mtime=1001), b"TWO")
    assert sync(root, a, directory, newer) == ["d/b"]
    assert (root / "d/b").read_text() == "TWO"
    assert sorted(path.name for path in root.iterdir()) == ["a", "d"]
    assert sync(
        root, (entry("a", "dir", mode=0o755), b""), (entry("a/f", size=1), b"x"), (entry("d", size=1), b"y")
    ) == [
        "a/f",
        "d",
    ]


def test_what_was_cut_off_is_asked_for_again(root: Path) -> None:
    half = entry("f", size=4)
    with closing(TreeUpdate(root)) as tree:
        assert tree.want(half)
        tree.write(half, b"ha")
    assert sync(root, (half, b"half")) == ["f"]
    assert (root / "f").read_text() == "half"


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
def test_lists_that_are_refused(root: Path, hostile: list[Entry]) -> None:
    with pytest.raises(InvalidInput):
        sync(root, *[(each, b"x") for each in hostile])


def test_a_link_in_the_old_tree_leads_nowhere(root: Path) -> None:
    sync(root, (entry("d", "symlink", link="/tmp"), b""))
    sync(root, (entry("d", "dir", mode=0o755), b""), (entry("d/f", size=1), b"x"))
    assert (root / "d/f").read_text() == "x"
    assert not (root / "d").is_symlink()


def test_files_open_at_once_are_bounded(root: Path) -> None:
    files = [entry(f"f{number}", size=2) for number in range(MAX_OPEN + 1)]
    with closing(TreeUpdate(root)) as tree:
        for file in files:
            assert tree.want(file)
        for file in files[:-1]:
            tree.write(file, b"x")
        with pytest.raises(InvalidInput, match="at the same time"):
            tree.write(files[-1], b"x")


def test_reading_stays_inside(root: Path) -> None:
    (root / "in").write_text("inside")
    (root / "out").symlink_to("../../../../etc/passwd")
    (root / "link").symlink_to("/in")
    assert read_file(root, "link", 10) == b"inside"
    for missing in ("out", "none", "."):
        with pytest.raises(NotFound):
            read_file(root, missing, 10)
    with pytest.raises(InvalidInput, match="larger"):
        read_file(root, "in", 3)


def test_directories_are_kept_by_key_and_bounded(tmp_path: Path) -> None:
    async def use() -> None:
        contexts = Contexts(tmp_path / "kept")
        await contexts.open()
        async with contexts.borrow("k") as first:
            (first / "f").write_text("x")
            async with contexts.borrow("k") as second:
                assert second != first
        async with contexts.borrow("k") as again:
            assert again == first
        async with contexts.borrow() as nameless:
            pass
        assert not nameless.exists()
        for number in range(KEPT + 1):
            async with contexts.borrow(f"other{number}"):
                pass
        assert len(list((tmp_path / "kept").iterdir())) == KEPT
        await contexts.drop()
        assert not list((tmp_path / "kept").iterdir())

    asyncio.run(use())
