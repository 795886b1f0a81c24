"""CVE-2018-15664, 2019-14271, 2026-41567, 2026-41568, 2026-42306: `cp` against a container that works against it."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import tarfile
from http.client import IncompleteRead
from pathlib import Path

from support.engines import Engine
from support.raw import ask
from support.waiting import until

#: swaps a directory for a link to the host's directory that the test watches, and a file for a device
SWAPPER = """
mkdir /x; echo inside > /x/secret; echo inside > /f; mknod /dev0 c 1 5
while :; do mv /x /aside; ln -s $OUTSIDE /x; rm /x; mv /aside /x
mv /f /aside; ln /dev0 /f; rm /f; mv /aside /f; done
"""


def _tar(name: str, content: bytes) -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return body.getvalue()


def test_cve_2018_15664_a_link_swapper(havred: Engine, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("outside")
    outside = ("-e", f"OUTSIDE={tmp_path}")
    havred.out("run", "-d", "--name", "swapper", *outside, "busybox", "sh", "-c", SWAPPER)
    until(lambda: havred.docker("exec", "swapper", "ls", "/x").returncode == 0, "the swapper")
    where = "/containers/swapper/archive?path="
    for _ in range(60):
        for path in ("/x/secret", "/x/", "/f"):
            try:
                got = ask(havred.socket, "GET", where + path)
            except IncompleteRead:  # it went away while it was being read
                continue
            assert b"outside" not in got.body
            if path == "/f" and got.status == 200:
                assert len(got.body) < 1 << 16  # the device that has its name at times was never read
        ask(havred.socket, "PUT", where + "/x", _tar("planted", b"x"), {"Content-Type": "application/x-tar"})
        ask(havred.socket, "PUT", where + "/", _tar("x/planted", b"x"), {"Content-Type": "application/x-tar"})
    havred.docker("rm", "-f", "swapper", check=0)
    assert os.listdir(tmp_path) == ["secret"]
    assert secret.read_text() == "outside"


def test_cve_2019_14271_nothing_of_the_container_s_is_run(havred: Engine) -> None:
    """The container's decompressors, name services and libraries would leave a mark if anybody ran them."""
    script = (
        "for p in xz gzip unpigz zstd getent tar; do printf '#!/bin/sh\\ntouch /ran\\n' > /bin/$p; chmod 755 /bin/$p"
    )
    library = "; done; mkdir -p /lib/x86_64-linux-gnu; cp /bin/busybox /lib/x86_64-linux-gnu/libnss_files.so.2"
    havred.out("run", "-d", "--name", "evil", "busybox", "sh", "-c", script + library + "; touch /ready; sleep 1000")
    until(lambda: havred.docker("exec", "evil", "test", "-e", "/ready").returncode == 0, "the trap")
    target = "/containers/evil/archive?path=/tmp&copyUIDGID=1"
    for compress in (gzip.compress, lzma.compress):
        body = compress(_tar("in", b"content"))
        assert ask(havred.socket, "PUT", target, body, {"Content-Type": "application/x-tar"}).status == 200
        assert havred.out("exec", "evil", "cat", "/tmp/in") == "content"
    assert ask(havred.socket, "GET", "/containers/evil/archive?path=/tmp").status == 200
    assert havred.docker("exec", "evil", "test", "-e", "/ran").returncode == 1
    havred.docker("rm", "-f", "evil", check=0)


def test_cve_2026_41568_links_in_an_archive_stay_inside(havred: Engine, tmp_path: Path) -> None:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as tar:
        for name, target in (("up", "../" * 20 + str(tmp_path)), ("absolute", str(tmp_path)), ("fd", "/proc/self/fd")):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
            tar.addfile(tarfile.TarInfo(f"{name}/planted"))
    havred.out("create", "--name", "stopped", "busybox", "true")
    for _ in range(2):
        where = "/containers/stopped/archive?path=/"
        ask(havred.socket, "PUT", where, body.getvalue(), {"Content-Type": "application/x-tar"})
    assert os.listdir(tmp_path) == []
    havred.docker("rm", "-f", "stopped", check=0)
