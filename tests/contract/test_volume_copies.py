"""What docker's volumes have not: clone, rename, export, import, du; whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import io
import signal
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import Engine
from support.raw import ask
from support.waiting import until

LIST = "cd /v; find . | sort; cat f; stat -c '%a %u %g' f; readlink l; [ f -ef hard ] && echo linked"


@pytest.fixture
def box(havred: Engine) -> Iterator[Engine]:
    """A volume `source` with a file, a directory, a hard and a symbolic link."""
    havred.out("volume", "create", "--label", "team=a", "source")
    script = "cd /v; mkdir d; echo text > f; chmod 640 f; chown 7:8 f; ln f hard; ln -s d l; echo deep > d/deep"
    havred.out("run", "--rm", "-v", "source:/v", "busybox", "sh", "-c", script)
    yield havred
    if names := havred.out("volume", "ls", "-q").split():
        havred.docker("volume", "rm", *names, check=0)


def shown(engine: Engine, volume: str) -> str:
    return engine.out("run", "--rm", "-v", f"{volume}:/v", "busybox", "sh", "-c", LIST)


def volumes(engine: Engine) -> set[str]:
    return set(engine.out("volume", "ls", "-q").split())


def test_a_clone_is_the_same_and_another(box: Engine) -> None:
    before = shown(box, "source")
    assert "linked" in before
    assert box.havre("volume", "clone", "source", "copy", check=0).stdout == "copy\n"
    assert shown(box, "copy") == before
    assert box.out("volume", "inspect", "--format", "{{.Labels.team}}", "copy") == "a"
    box.out("run", "--rm", "-v", "copy:/v", "busybox", "rm", "/v/f")
    assert shown(box, "source") == before
    assert "a volume of that name exists" in box.havre("volume", "cp", "source", "copy", check=1).stderr
    assert "no such volume" in box.havre("volume", "cp", "nope", "other", check=1).stderr
    sizes = box.havre("volume", "du", check=0).stdout.splitlines()
    assert sizes == ["11B\tcopy", "11B\tsource"]
    assert box.havre("volume", "snapshot", "source", "then", check=0).stdout == "then\n"
    assert shown(box, "then") == before


def test_a_rename_moves_it(box: Engine) -> None:
    before = shown(box, "source")
    box.out("run", "-d", "--name", "user", "-v", "source:/v", "busybox", "sleep", "1000")
    assert "volume is in use" in box.havre("volume", "rename", "source", "target", check=1).stderr
    box.docker("rm", "-f", "user", check=0)
    box.havre("volume", "mv", "source", "target", check=0)
    assert volumes(box) == {"target"}
    assert box.out("volume", "inspect", "--format", "{{.Labels.team}}", "target") == "a"
    assert shown(box, "target") == before


def test_out_as_a_tar_and_in_again(box: Engine, tmp_path: Path) -> None:
    archive = tmp_path / "v.tar"
    box.havre("volume", "export", "-o", str(archive), "source", check=0)
    with tarfile.open(archive) as tar:
        assert {member.name for member in tar} == {"d", "d/deep", "f", "hard", "l"}
    zipped = gzip.compress(archive.read_bytes())
    assert box.havre("volume", "import", "again", "-", stdin=zipped, check=0).stdout == "again\n"
    assert shown(box, "again") == shown(box, "source")
    assert box.out("volume", "inspect", "--format", "{{.Labels.team}}", "again") == "a"
    small = tmp_path / "v.tar.zst"
    box.havre("volume", "export", "--zstd", "-o", str(small), "source", check=0)
    assert small.read_bytes()[:4] == b"\x28\xb5\x2f\xfd"
    box.havre("volume", "import", "smaller", str(small), check=0)
    assert shown(box, "smaller") == shown(box, "source")
    assert box.out("volume", "rm", "smaller") == "smaller"
    cut = box.havre("volume", "import", "broken", "-", stdin=zipped[: len(zipped) // 2], check=1)
    assert cut.stderr
    assert volumes(box) == {"source", "again"}


def test_hostile_archives_stay_inside(box: Engine) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        link = tarfile.TarInfo("out")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(link)
        for name in ("out/havre-was-here", "../../havre-was-here"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
    box.havre("volume", "import", "hostile", "-", stdin=buffer.getvalue())
    assert not Path("/etc/havre-was-here").exists()
    assert not list(box.root.rglob("havre-was-here")) or volumes(box) == {"source", "hostile"}


def test_a_copy_that_is_killed_leaves_nothing(box: Engine) -> None:
    fill = "for i in $(seq 400); do dd if=/dev/urandom of=/v/$i bs=64k count=1 2>/dev/null; done"
    box.out("run", "--rm", "-v", "source:/v", "busybox", "sh", "-c", fill)
    before = shown(box, "source")
    root = box.root / "data" / "volumes"

    def clone() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):  # the daemon is killed meanwhile
            ask(box.socket, "POST", "/volumes/source/clone?name=half")

    copying = threading.Thread(target=clone)
    copying.start()
    until(lambda: list(root.glob(".gone-*")) or "half" in volumes(box), "a copy to begin")
    box.stop(signal.SIGKILL)
    box.start()
    copying.join(10)
    assert volumes(box) - {"half"} == {"source"}
    assert list(root.glob(".gone-*")) == []
    assert shown(box, "source") == before
    if "half" in volumes(box):  # it was faster than the signal
        assert shown(box, "half") == before
