"""`cp` on our side: archives we make, archives we take apart."""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from havre.cli import copy
from havre.cli.commands.container import COMMANDS
from havre.cli.parser import StatusError, parse

CP = next(command for command in COMMANDS if command.top == "cp")


class FakeResponse:
    """A response whose body is an archive."""

    def __init__(self, data: bytes, stat: dict[str, Any]) -> None:
        self.data = data
        encoded = base64.b64encode(json.dumps(stat).encode()).decode()
        self.headers = {"x-docker-container-path-stat": encoded}

    def chunks(self) -> Any:
        for start in range(0, len(self.data), 700):
            yield self.data[start : start + 700]


class FakeSession:
    """A session whose client answers with one archive."""

    def __init__(self, response: FakeResponse) -> None:
        self.client = self
        self.response = response

    def call(self, *_: Any, **__: Any) -> FakeResponse:
        return self.response


def archive(*members: tuple[str, bytes | str | None]) -> bytes:
    """A tar: bytes are a file, text is a link, None a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type, member.mode = tarfile.DIRTYPE, 0o755
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return buffer.getvalue()


def download(data: bytes, target: Path | str, *, directory: bool, source: str = "c:/src") -> int:
    options, arguments = parse(CP.flags, [source, str(target)], stop=False)
    session: Any = FakeSession(FakeResponse(data, {"mode": (1 << 31) if directory else 0, "name": "src"}))
    return copy.cp(session, options, arguments)


TREE = archive(("src", None), ("src/a", b"x" * 2000), ("src/l", "a"))


def test_a_tree_goes_into_a_directory_or_takes_a_new_name(tmp_path: Path) -> None:
    download(TREE, tmp_path, directory=True)
    download(TREE, tmp_path / "new", directory=True)
    for name in ("src", "new"):
        assert (tmp_path / name / "a").read_bytes() == b"x" * 2000
        assert os.readlink(tmp_path / name / "l") == "a"


def test_a_file_replaces_a_file(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("old")
    download(archive(("src", b"new")), tmp_path / "old", directory=False)
    assert (tmp_path / "old").read_text() == "new"


@pytest.mark.parametrize(
    ("target", "directory", "message"),
    [("file", True, "cannot copy directory"), ("nope/", False, "no such directory"),
     ("nope/x", False, "invalid output path")],
)  # fmt: skip
def test_targets_refused(tmp_path: Path, target: str, directory: bool, message: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StatusError, match=message):
        download(TREE, f"{tmp_path}/{target}", directory=directory)


@pytest.mark.parametrize(
    "data",
    [
        archive(("../escaped", b"x")),
        archive(("src", None), ("src/../../escaped", b"x")),
        archive(("link", ".."), ("link/escaped", b"x")),
        archive(("link", "/"), ("link/havre-escaped", b"x")),
    ],
)
def test_nothing_leads_outside(tmp_path: Path, data: bytes) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(StatusError):
        download(data, inside, directory=True)
    assert not (tmp_path / "escaped").exists()
    assert not Path("/havre-escaped").exists()


def test_long_names_links_and_what_is_in_the_way(tmp_path: Path) -> None:
    long, away = "n" * 150 + "\u00e9", tmp_path / "away"
    away.mkdir()
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
            for name, kind, link in (("src", tarfile.DIRTYPE, ""), ("src/" + long, tarfile.REGTYPE, "")):
                member = tarfile.TarInfo(name)
                member.type, member.linkname, member.mode, member.mtime = kind, link, 0o2775, 1000
                member.size = 3 if kind == tarfile.REGTYPE else 0
                tar.addfile(member, io.BytesIO(b"abc"))
            member = tarfile.TarInfo("src/second")
            member.type, member.linkname = tarfile.LNKTYPE, "src/" + long
            tar.addfile(member)
        target = tmp_path / str(form)
        target.mkdir()
        (target / "src").symlink_to(away)
        download(buffer.getvalue(), target, directory=True)
        assert os.listdir(away) == []
        assert (target / "src" / "second").samefile(target / "src" / long)
        status = (target / "src" / long).stat()
        assert (status.st_mode & 0o7777, status.st_mtime, status.st_size) == (0o775, 1000, 3)
        assert (target / "src").stat().st_mtime == 1000


def test_hard_links_follow_when_the_tree_takes_a_new_name(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind, link in (
            ("src", tarfile.DIRTYPE, ""), ("src/a", tarfile.REGTYPE, ""), ("src/b", tarfile.LNKTYPE, "src/a"),
        ):  # fmt: skip
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.mode = kind, link, 0o755
            tar.addfile(member)
    download(buffer.getvalue(), tmp_path / "new", directory=True)
    assert (tmp_path / "new" / "b").samefile(tmp_path / "new" / "a")


def test_a_directory_in_the_way_of_a_file_stays(tmp_path: Path) -> None:
    (tmp_path / "src" / "keep").mkdir(parents=True)
    with pytest.raises(StatusError, match="cannot write"):
        download(archive(("src", b"x")), tmp_path, directory=False)
    assert (tmp_path / "src" / "keep").is_dir()


def test_a_directory_without_rights_is_filled_all_the_same(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, kind in (("src", tarfile.DIRTYPE), ("src/in", tarfile.DIRTYPE), ("src/in/a", tarfile.REGTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.mode, member.mtime = kind, 0o555, 1000
            tar.addfile(member)
    download(buffer.getvalue(), tmp_path, directory=True)
    status = (tmp_path / "src" / "in").stat()
    assert (status.st_mode & 0o777, status.st_mtime) == (0o555, 1000)
    assert (tmp_path / "src" / "in" / "a").is_file()


@pytest.mark.parametrize("cut", [100, 512, 700, 2100])
def test_an_archive_that_breaks_off(tmp_path: Path, cut: int) -> None:
    with pytest.raises(StatusError, match="cannot write"):
        download(TREE[:cut], tmp_path, directory=True)


def test_an_archive_we_make_holds_the_tree_under_the_name_it_is_to_have(tmp_path: Path) -> None:
    source = tmp_path / "tree"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_bytes(b"z" * 1500)
    (source / "link").symlink_to("sub/file")

    def names(path: str, name: str | None) -> dict[str, bytes | None]:
        with tarfile.open(fileobj=io.BytesIO(b"".join(copy.tar_chunks(path, name)))) as tar:
            return {m.name: tar.extractfile(m).read() if m.isfile() else None for m in tar}  # type: ignore[union-attr]

    inner = {"/link": None, "/sub": None, "/sub/file": b"z" * 1500}
    assert names(str(source), None) == {"tree": None, **{"tree" + k: v for k, v in inner.items()}}
    assert names(str(source), "new") == {"new": None, **{"new" + k: v for k, v in inner.items()}}
    assert names(f"{source}/.", None) == {".": None, **{"." + k: v for k, v in inner.items()}}
    assert names(str(source / "link"), None) == {"link": None}


@pytest.mark.parametrize(
    ("text", "parts"),
    [("c:/a", ("c", "/a")), ("/a:b", ("", "/a:b")), ("./a:b", ("", "./a:b")), ("a", ("", "a")), ("-", ("", "-")),
     ("c:a:b", ("c", "a:b"))],
)  # fmt: skip
def test_paths(text: str, parts: tuple[str, str]) -> None:
    assert copy.split_path(text) == parts
