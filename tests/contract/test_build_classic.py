"""Builds on havre by the classic endpoint: what BuildKit's Dockerfiles can say, the cache, and hostile clients."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support import raw
from support.building import CLIENTS, built, docker_build, served, tree_of, write_context
from support.engines import Engine
from support.waiting import until

_NEWER = """# syntax=docker/dockerfile:1
FROM busybox AS tools
RUN <<EOF
echo one > /tool
echo two >> /tool
EOF
FROM busybox
ENV N=name
COPY <<a.txt <<'b.txt' /docs/
$N
a.txt
$N
b.txt
RUN cat > /joined <<X && cat >> /joined <<-'Y'
x $N
X
\ty $N
\tY
RUN --mount=type=cache,target=/cache,id=c echo kept > /cache/k && ls /cache > /seen
RUN --mount=type=cache,target=/other/cache,id=c cat /other/cache/k > /again
RUN --mount=from=tools,target=/t,source=/ cat /t/tool > /tool && ! touch /t/x
RUN --mount=target=/ctx,rw touch /ctx/written && cat /ctx/p/q/deep.txt > /deep
RUN --mount=type=tmpfs,target=/scratch touch /scratch/x
RUN --mount=type=secret,id=none ! test -e /run/secrets/none
RUN --network=none ! ip addr show eth0 2> /dev/null
COPY --chmod=751 --chown=5 --exclude=*.o p /p/
COPY --parents p/q/deep.txt /parents/
COPY --link --from=tools /tool /linked/
ADD URL/file.txt /fetched/
ADD --unpack=true in.tar /unpacked/
ADD --unpack=false in.tar /packed/
"""


def _tar(files: dict[str, str], links: dict[str, str] | None = None, fifos: tuple[str, ...] = ()) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
        for name in fifos:
            member = tarfile.TarInfo(name)
            member.type = tarfile.FIFOTYPE
            tar.addfile(member)
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


@pytest.mark.parametrize("client", CLIENTS)
def test_newer_syntax(havred: Engine, tmp_path: Path, client: str) -> None:
    pages = tmp_path / "served"
    pages.mkdir()
    (pages / "file.txt").write_text("fetched")
    files = {"p/q/deep.txt": "deep", "p/x.o": "o", "in.tar": _tar({"inside": "i"})}
    with served(havred, pages) as url:
        context = write_context(tmp_path / "context", _NEWER.replace("URL", url), files)
        tree = tree_of(havred, built(havred, context, client=client))
        wrong = f"FROM scratch\nADD --checksum=sha256:{'0' * 64} {url}/file.txt /\n"
        refused = docker_build(havred, write_context(tmp_path / "wrong", wrong), check=1)
        assert "digest mismatch" in refused.stderr
    content = {name: row[4] for name, row in tree.items()}
    assert content["docs/a.txt"] == b"name\n"
    assert content["docs/b.txt"] == b"$N\n"
    assert content["joined"] == b"x name\ny $N\n"
    assert content["again"] == b"kept\n"
    assert content["seen"] == b"k\n"
    assert content["tool"] == content["linked/tool"] == b"one\ntwo\n"
    assert content["deep"] == b"deep"
    assert content["fetched/file.txt"] == b"fetched"
    assert tree["fetched/file.txt"][1] == "0o600"
    assert content["unpacked/inside"] == b"i"
    assert "packed/in.tar" in tree
    assert tree["p/q/deep.txt"][1:4] == ("0o751", 5, 5)
    assert content["parents/p/q/deep.txt"] == b"deep"
    # Mount points are no part of any layer.
    assert not {"cache", "other", "t", "ctx", "scratch", "run/secrets", "p/x.o"} & set(tree)


def test_the_cache_goes_by_content(havred: Engine, tmp_path: Path) -> None:
    dockerfile = "FROM busybox\nCOPY in /in\nRUN cat /proc/sys/kernel/random/uuid > /random\n"
    context = write_context(tmp_path / "one", dockerfile, {"in/a": "1"})
    first = built(havred, context)
    os.utime(context / "in" / "a", (1, 1))
    assert built(havred, context) == first
    (context / "in" / "a").chmod(0o600)
    other = built(havred, context)
    assert other != first
    (context / "in" / "a").write_text("2")
    kept = built(havred, context)
    assert kept not in (first, other)
    assert built(havred, context, "--no-cache") != built(havred, context, "--no-cache")
    # The layers of a removed image stay with the cache, until that is emptied.
    kept = built(havred, context)
    havred.docker("rmi", "-f", kept, check=0)
    assert built(havred, context) == kept
    usage = json.loads(havred.out("system", "df", "-v", "--format", "{{json .BuildCache}}"))
    assert any(row["CacheType"] == "regular" and int(row["UsageCount"]) > 1 for row in usage)
    assert "Total:" in havred.out("builder", "prune", "-af")
    assert built(havred, context) != kept
    # The same input gives the same bytes.
    dockerfile = "FROM busybox\nWORKDIR /w\nRUN echo 1 > a && rm /etc/passwd\nCOPY in b\n"
    context = write_context(tmp_path / "same", dockerfile, {"in/a": "1"})
    flags = ("--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1700000000")
    first = built(havred, context, *flags)
    os.utime(context / "in" / "a")
    assert built(havred, context, *flags) == first
    assert havred.out("image", "inspect", "-f", "{{.Created}}", first).startswith("2023-11-14T22:13:20")


def test_a_client_that_leaves_ends_its_build(havred: Engine, tmp_path: Path) -> None:
    """The leak check sees that no process, mount or namespace of it stays."""
    context = write_context(tmp_path, "FROM busybox\nRUN echo begun; sleep 1000\n")
    env = {**havred.env, "DOCKER_BUILDKIT": "0"}
    command = ["docker", "build", str(context)]
    client = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert client.stdout is not None
    assert any(line == b"begun\n" for line in client.stdout)
    client.send_signal(signal.SIGINT)
    client.wait(10)
    client.stdout.close()
    containers = havred.root / "run" / "containers"
    until(lambda: not any(containers.iterdir()), "the end of the RUN")
    # A build that was given an ID can also be cancelled by it.
    body = _tar({"Dockerfile": "FROM busybox\nRUN sleep 1000\n"})
    with ThreadPoolExecutor() as pool:
        running = pool.submit(raw.ask, havred.socket, "POST", "/build?buildid=mine", body)
        until(lambda: any(containers.iterdir()), "the container of the RUN")
        assert raw.ask(havred.socket, "POST", "/build/cancel?id=mine").status == 200
        assert b"the build was cancelled" in running.result(30).body


def test_hostile_contexts(havred: Engine, tmp_path: Path) -> None:
    links = {"esc": "/etc", "up": "../../../../..", "loop": "loop"}
    files = {
        "Dockerfile": "FROM scratch\nCOPY esc/hostname /a\n",
        "two": "FROM scratch\nCOPY up/tmp /x\n",
        "three": "FROM busybox\nCOPY pipe /pipe\nCOPY loop /y\n",
        "up/havre-escaped": "x",
    }
    context = tmp_path / "context.tar"
    context.write_bytes(_tar(files, links, ("pipe",)))
    env = {**havred.env, "DOCKER_BUILDKIT": "0"}
    for file, words in (("Dockerfile", '"/esc/hostname": not found'), ("two", "not found"), ("three", '"/loop": not')):
        with context.open("rb") as stdin:
            command = ["docker", "build", "-f", file, "-"]
            done = subprocess.run(command, stdin=stdin, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert words in done.stderr
    assert not Path("/havre-escaped").exists()


def test_our_command_line(havred: Engine, tmp_path: Path) -> None:
    files = {
        "kept": "k",
        "no/x": "x",
        "no/yes": "y",
        ".dockerignore": "no\n!no/yes\nDockerfile\n.dockerignore\n",
        "link": "-> kept",
    }
    context = write_context(tmp_path / "c", "FROM busybox AS a\nARG V\nRUN echo $V > /v\nCOPY . /c\n", files)
    shown = havred.havre(
        "build", "-t", "mine:1", "--build-arg", "V=7", "--iidfile", str(tmp_path / "iid"), str(context), check=0
    )
    image = (tmp_path / "iid").read_text()
    assert "#1 [a 1/3] FROM busybox\n#1 CACHED" in shown.stderr
    assert shown.stderr.splitlines()[-2:] == [f"writing image {image}", "naming to mine:1"]
    tree = tree_of(havred, "mine:1", ("c", "v"))
    assert {name: row[4] for name, row in tree.items() if isinstance(row[4], bytes)} == {
        "v": b"7\n", "c/kept": b"k", "c/no/yes": b"y",
    }  # fmt: skip
    quiet = havred.havre("build", "-q", "--build-arg", "V=7", str(context), check=0)
    assert (quiet.stdout, quiet.stderr) == (f"{image}\n", "")
    text = "FROM busybox\nRUN exit 9\n"
    failed = havred.havre("build", "-", stdin=text, check=9)
    assert 'failed to solve: process "/bin/sh -c exit 9" did not complete successfully: exit code: 9' in failed.stderr
    archive = _tar({"Dockerfile": "FROM busybox\nCOPY x /\n", "x": "x"})
    havred.havre("build", "-q", "-", stdin=archive, check=0)
    elsewhere = tmp_path / "other"
    elsewhere.write_text("FROM busybox\nCOPY kept /\n")
    havred.havre("build", "-q", "-f", str(elsewhere), str(context), check=0)
    havred.havre("build", "-q", "-f", "-", str(context), stdin=elsewhere.read_text(), check=0)
    refused = havred.havre("build", "-", stdin="FROM busybox\n\nCOPPY a b\n", check=1)
    assert "line 3: unknown instruction: COPPY (did you mean COPY?)" in refused.stderr
    assert "   3 | COPPY a b\n     | ^^^^^" in refused.stderr
    havred.docker("rmi", "mine:1", check=0)


_MEETING = """
FROM busybox AS left
RUN --mount=type=cache,id=meeting,target=/c touch /c/l; until test -e /c/r; do sleep 0.02; done; touch /l
FROM busybox AS right
RUN --mount=type=cache,id=meeting,target=/c touch /c/r; until test -e /c/l; do sleep 0.02; done; touch /r
FROM scratch
COPY --from=left /l /
COPY --from=right /r /
"""


def test_stages_at_once_and_an_image_that_claims_a_step(havred: Engine, tmp_path: Path) -> None:
    """CVE-2024-24557: an image that was loaded must not stand for a step because its history or parent says so."""
    # Stages are built at the same time, or these two would wait for ever.
    assert {"l", "r"} <= set(tree_of(havred, built(havred, write_context(tmp_path / "meeting", _MEETING))))
    context = write_context(tmp_path / "good", "FROM busybox\nRUN echo good > /x\n")
    good = built(havred, context)
    archive = subprocess.run(["docker", "save", good], env=havred.env, capture_output=True, check=True).stdout
    havred.docker("rmi", good, check=0)
    havred.docker("builder", "prune", "-af", check=0)
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as old, tarfile.open(fileobj=out, mode="w") as new:
        for member in old:
            file = old.extractfile(member)
            data = file.read() if file is not None else b""
            if data.startswith(b'{"architecture"'):
                data = data.replace(b'"Cmd":["sh"]', b'"Cmd":["ev"]')
            member.size = len(data)
            new.addfile(member, io.BytesIO(data) if member.isreg() else None)
    havred.docker("load", stdin=out.getvalue())
    done = docker_build(havred, context)
    assert "Using cache" not in done.stdout
