"""`cp` and the archive calls under it: both ways, every form of path, running and stopped, as docker does it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.engines import Engine
from support.raw import Reply, ask

SCRIPT = """
mkdir -p /d/sub; echo content > /d/file; echo deep > /d/sub/deep; ln -s file /d/link; ln -s none /d/broken
ln -s /d /link; mkfifo /d/fifo; chown 7:8 /d/file; chmod 4755 /d/file; echo volume > /v/file; sleep 1000
"""
TAR = {"Content-Type": "application/x-tar"}


@pytest.fixture
def box(engine: Engine) -> Iterator[str]:
    """A running container with files, a volume, a read-only volume and a tmpfs."""
    mounts = ("-v", "copied:/v", "-v", "copied:/readonly:ro", "--tmpfs", "/t")
    engine.out("run", "-d", "--name", "box", "-u", "0", *mounts, "busybox", "sh", "-c", SCRIPT)
    engine.out("exec", "box", "sh", "-c", "until [ -e /v/file ]; do sleep 0.01; done")
    yield "box"
    engine.docker("rm", "-f", "-v", "box")
    engine.docker("volume", "rm", "copied")


def archive(*members: tuple[str, bytes, dict[str, Any]]) -> bytes:
    """A tar of members: name, content, fields of the header."""
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as tar:
        for name, content, fields in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            for field, value in fields.items():
                setattr(entry, field, value)
            tar.addfile(entry, io.BytesIO(content))
    return body.getvalue()


def get(engine: Engine, path: str, method: str = "GET") -> Reply:
    return ask(engine.socket, method, f"/containers/box/archive?path={path}")


def put(engine: Engine, path: str, body: bytes, query: str = "") -> Reply:
    return ask(engine.socket, "PUT", f"/containers/box/archive?path={path}{query}", body, TAR)


def names(reply: Reply) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(reply.body)) as tar:
        return tar.getnames()


def described(reply: Reply) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(base64.b64decode(reply.headers["X-Docker-Container-Path-Stat"]))
    return value


class TestApi:
    def test_what_is_at_a_path(self, engine: Engine, box: str) -> None:
        file = described(get(engine, "/d/file", "HEAD"))
        assert (file["name"], file["size"], file["mode"], file["linkTarget"]) == ("file", 8, 1 << 23 | 0o755, "")
        link = described(get(engine, "/d/link", "HEAD"))
        assert (link["mode"] >> 27, link["linkTarget"]) == (1, "/d/file")
        assert described(get(engine, "/d/broken", "HEAD"))["linkTarget"] == "/d/none"
        assert described(get(engine, "/link/.", "HEAD"))["name"] == "."
        assert described(get(engine, "/", "HEAD"))["name"] == "/"

    def test_names_follow_the_form_of_the_path(self, engine: Engine, box: str) -> None:
        below = ["broken", "fifo", "file", "link", "sub", "sub/deep"]
        assert names(get(engine, "/d")) == ["d", *(f"d/{name}" for name in below)]
        assert names(get(engine, "/link/")) == ["link", *(f"link/{name}" for name in below)]
        for path in ("d/.", "d/./"):
            assert names(get(engine, path)) == [".", *(f"./{name}" for name in below)]
        assert names(get(engine, "/link")) == ["link"]
        assert names(get(engine, "/d/fifo")) == ["fifo"]

    def test_refusals(self, engine: Engine, box: str) -> None:
        gone = get(engine, "/none")
        assert (gone.status, gone.message) == (404, "Could not find the file /none in container box")
        assert get(engine, "/d/file/").message == "lstat /d/file/: not a directory"
        assert get(engine, "").message == "bad parameter: pathcannot be empty"
        assert ask(engine.socket, "GET", "/containers/none/archive?path=/").status == 404
        assert put(engine, "/none", b"").message == "Could not find the file /none in container box"
        assert put(engine, "/d/file", b"").message == "extraction point is not a directory"
        assert put(engine, "/readonly", b"").message == "mounted volume is marked read-only"

    def test_owner_and_mode_come_from_the_archive(self, engine: Engine, box: str) -> None:
        body = archive(("set", b"x", {"mode": 0o4751, "uid": 5, "gid": 6}), ("new/er/file", b"y", {}))
        assert put(engine, "/d", body).status == 200
        shown = engine.out("exec", box, "stat", "-c", "%a %u %g", "/d/set", "/d/new/er")
        assert shown.splitlines() == ["4751 5 6", "755 0 0"]

    def test_directories_and_files_do_not_replace_each_other_where_that_is_asked(
        self, engine: Engine, box: str
    ) -> None:
        keep = "&noOverwriteDirNonDir=true"
        file_for_directory = put(engine, "/d", archive(("sub", b"x", {})), keep)
        assert file_for_directory.message == 'cannot overwrite directory "/d/sub" with non-directory "/d"'
        directory_for_file = put(engine, "/d", archive(("file", b"", {"type": tarfile.DIRTYPE})), keep)
        assert directory_for_file.message == 'cannot overwrite non-directory "/d/file" with directory "/d"'
        assert put(engine, "/d", archive(("sub", b"x", {}))).status == 200
        assert engine.out("exec", box, "cat", "/d/sub") == "x"

    def test_a_damaged_archive_is_refused(self, engine: Engine, box: str) -> None:
        whole = archive(("file", b"x" * 5000, {}))
        for body in (whole[:2000], b"garbage" * 1000, archive(("../out", b"x", {}))):
            assert put(engine, "/d", body).status in (400, 500)
        assert put(engine, "/d", b"").status == 200

    def test_events_tell_of_it(self, engine: Engine, box: str) -> None:
        begun = engine.out("info", "--format", "{{.SystemTime}}")
        get(engine, "/d/file")
        put(engine, "/d", archive(("a", b"", {})))
        window = ("--since", begun, "--until", engine.out("info", "--format", "{{.SystemTime}}"))
        told = engine.out("events", *window, "--filter", "container=box", "--format", "{{.Action}}").splitlines()
        assert [action for action in told if action in ("archive-path", "extract-to-dir")] == [
            "archive-path",
            "extract-to-dir",
        ]


class TestCommand:
    def test_out_of_a_container(self, engine: Engine, box: str, tmp_path: Path) -> None:
        engine.docker("cp", "box:/d", str(tmp_path / "new"), check=0)
        assert (tmp_path / "new" / "sub" / "deep").read_text() == "deep\n"
        assert os.readlink(tmp_path / "new" / "link") == "file"
        engine.docker("cp", "box:/d/.", str(tmp_path), check=0)
        assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o4755
        engine.docker("cp", "-L", "box:/d/link", str(tmp_path / "followed"), check=0)
        assert (tmp_path / "followed").read_text() == "content\n"
        assert engine.docker("cp", "box:/d/file", str(tmp_path / "none" / "x")).returncode != 0
        streamed = engine.docker("cp", "box:/d/file", "-", check=0).stdout
        assert streamed.startswith("file\0")

    def test_into_a_container(self, engine: Engine, box: str, tmp_path: Path) -> None:
        (tmp_path / "tree" / "below").mkdir(parents=True)
        (tmp_path / "tree" / "below" / "file").write_text("from here")
        (tmp_path / "link").symlink_to("tree")
        engine.docker("cp", str(tmp_path / "tree"), "box:/d", check=0)
        engine.docker("cp", f"{tmp_path}/tree/.", "box:/link/sub", check=0)
        engine.docker("cp", str(tmp_path / "tree"), "box:/d/renamed", check=0)
        engine.docker("cp", str(tmp_path / "tree" / "below" / "file"), "box:/d/file", check=0)
        engine.docker("cp", "-L", str(tmp_path / "link"), "box:/d/by-link", check=0)
        paths = ("/d/tree/below/file", "/d/sub/below/file", "/d/renamed/below/file", "/d/file", "/d/by-link/below/file")
        assert engine.out("exec", box, "cat", *paths) == "from here" * 5
        engine.docker("cp", "-", "box:/d", stdin=archive(("piped", b"p", {})), check=0)
        assert engine.out("exec", box, "cat", "/d/piped") == "p"

    def test_a_big_file_is_the_same_inside(self, engine: Engine, box: str, tmp_path: Path) -> None:
        for size in (256 << 10, (3 << 20) + 1):
            (tmp_path / "big").write_bytes(os.urandom(size))
            told = hashlib.sha256((tmp_path / "big").read_bytes()).hexdigest()
            for command in (engine.docker, engine.havre):
                command("cp", str(tmp_path / "big"), "box:/d/big", check=0)
                assert engine.out("exec", box, "sha256sum", "/d/big").split()[0] == told

    def test_volumes_of_a_running_and_of_a_stopped_container(self, engine: Engine, box: str, tmp_path: Path) -> None:
        (tmp_path / "new").write_text("new")
        engine.docker("cp", str(tmp_path / "new"), "box:/v/running", check=0)
        engine.docker("stop", "-t", "0", box, check=0)
        engine.docker("cp", str(tmp_path / "new"), "box:/v/stopped", check=0)
        engine.docker("cp", "box:/v", str(tmp_path), check=0)
        assert sorted(os.listdir(tmp_path / "v")) == ["file", "running", "stopped"]
        refused = engine.docker("cp", str(tmp_path / "new"), "box:/readonly")
        assert refused.returncode == 1
        assert "mounted volume is marked read-only" in refused.stderr
        engine.docker("cp", str(tmp_path / "new"), "box:/d/stopped", check=0)
        engine.docker("start", box, check=0)
        assert engine.out("exec", box, "cat", "/v/stopped", "/d/stopped") == "newnew"

    def test_what_is_mounted_upon_is_not_replaced(self, engine: Engine, tmp_path: Path) -> None:
        (tmp_path / "of-the-host").write_text("of the host")
        (tmp_path / "new").write_text("new")
        mount = ("-v", f"{tmp_path}/of-the-host:/mounted")
        engine.out("run", "-d", "--name", "over", *mount, "busybox", "sleep", "1000")
        for state in ("running", "stopped"):
            for path in ("/etc/hosts", "/mounted"):
                refused = engine.docker("cp", str(tmp_path / "new"), f"over:{path}", check=1)
                assert "device or resource busy" in refused.stderr
            if state == "running":
                assert "localhost" in engine.out("exec", "over", "cat", "/etc/hosts")
                assert engine.out("exec", "over", "cat", "/mounted") == "of the host"
                engine.out("kill", "over")
                engine.out("wait", "over")
        assert (tmp_path / "of-the-host").read_text() == "of the host"
        engine.out("rm", "over")

    def test_a_container_that_never_ran(self, engine: Engine, tmp_path: Path) -> None:
        (tmp_path / "new").write_text("new")
        engine.out("create", "--name", "fresh", "-v", "/made/for/it", "busybox", "cat", "/etc/new", "/made/for/it/new")
        engine.docker("cp", str(tmp_path / "new"), "fresh:/etc", check=0)
        engine.docker("cp", str(tmp_path / "new"), "fresh:/made/for/it", check=0)
        assert engine.out("start", "-a", "fresh") == "newnew"
        engine.docker("rm", "-v", "fresh", check=0)

    def test_a_read_only_root(self, engine: Engine, tmp_path: Path) -> None:
        (tmp_path / "new").write_text("new")
        engine.out("create", "--name", "sealed", "--read-only", "-v", "/v", "busybox", "true")
        refused = engine.docker("cp", str(tmp_path / "new"), "sealed:/etc")
        assert "container rootfs is marked read-only" in refused.stderr
        engine.docker("cp", str(tmp_path / "new"), "sealed:/v", check=0)
        engine.docker("rm", "-v", "sealed", check=0)


class TestOurs:
    """Where docker stops short."""

    def test_tmpfs_of_a_running_container(self, havred: Engine) -> None:
        havred.out("run", "-d", "--name", "box", "--tmpfs", "/t", "busybox", "sh", "-c", "echo 1 > /t/f; sleep 1000")
        assert put(havred, "/t", archive(("in", b"2", {}))).status == 200
        assert havred.out("exec", "box", "cat", "/t/in") == "2"
        assert sorted(names(get(havred, "/t"))) == ["t", "t/f", "t/in"]
        assert "/proc/1" not in names(get(havred, "/"))
        havred.docker("rm", "-f", "box", check=0)

    def test_archive_mode_gives_everything_to_the_container_s_user(self, havred: Engine, tmp_path: Path) -> None:
        # dockerd wants getent inside the container for this.
        (tmp_path / "mine").write_text("x")
        havred.out("run", "-d", "--name", "box", "-u", "1000:1001", "busybox", "sleep", "1000")
        for flags, owner in (((), "0 0"), (("-a",), "1000 1001")):
            havred.docker("cp", *flags, str(tmp_path / "mine"), "box:/tmp/mine", check=0)
            assert havred.out("exec", "box", "stat", "-c", "%u %g", "/tmp/mine") == owner
        havred.docker("rm", "-f", "box", check=0)

    def test_our_command_line_does_the_same(self, havred: Engine, tmp_path: Path) -> None:
        (tmp_path / "tree").mkdir()
        (tmp_path / "tree" / "file").write_text("ours")
        havred.out("create", "--name", "box", "busybox", "cat", "/tree/file")
        havred.havre("cp", str(tmp_path / "tree"), "box:/", check=0)
        assert havred.out("start", "-a", "box") == "ours"
        havred.havre("cp", "box:/tree", str(tmp_path / "back"), check=0)
        assert (tmp_path / "back" / "file").read_text() == "ours"
        havred.docker("rm", "box", check=0)
