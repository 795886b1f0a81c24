"""The same Dockerfiles by every command line, on havre and on dockerd, give the same images."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from support.building import CLIENTS, built, config_of, docker_build, tree_of, write_context
from support.engines import Engine

each_client = pytest.mark.parametrize("client", CLIENTS)

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@each_client
def test_instructions_that_configure(engine: Engine, tmp_path: Path, client: str) -> None:
    context = write_context(
        tmp_path,
        """
FROM busybox
MAINTAINER someone <one@example.org>
ARG WHO=world
ENV A=1 B="two words" C=$A$WHO
ENV D old form
LABEL a=b "c d"="e $A"
EXPOSE 80 443/tcp 53/udp
VOLUME /data /more
WORKDIR /w
WORKDIR sub
USER 1:2
STOPSIGNAL SIGUSR1
SHELL ["/bin/sh", "-ec"]
HEALTHCHECK --interval=5s --timeout=1s --start-period=2s --retries=4 CMD true
ONBUILD RUN one
ENTRYPOINT ["e", "$A"]
CMD c d
""",
    )
    image = built(engine, context, "--build-arg", "WHO=me", "--label", "given=1", client=client)
    assert config_of(engine, image) == {
        "User": "1:2",
        "ExposedPorts": {"443/tcp": {}, "53/udp": {}, "80/tcp": {}},
        "Env": [_PATH, "A=1", "B=two words", "C=me", "D=old form"],
        "Cmd": ["/bin/sh", "-ec", "c d"],
        "Healthcheck": {
            "Test": ["CMD-SHELL", "true"],
            "Interval": 5_000_000_000,
            "Timeout": 1_000_000_000,
            "StartPeriod": 2_000_000_000,
            "Retries": 4,
        },
        "Volumes": {"/data": {}, "/more": {}},
        "WorkingDir": "/w/sub",
        "Entrypoint": ["e", "$A"],
        "OnBuild": ["RUN one"],
        "Labels": {"a": "b", "c d": "e 1", "given": "1"},
        "StopSignal": "SIGUSR1",
        "Shell": ["/bin/sh", "-ec"],
    }
    author = engine.out("image", "inspect", "-f", "{{.Author}}", image)
    assert author == "someone <one@example.org>"


@each_client
def test_copy_and_add(engine: Engine, tmp_path: Path, client: str) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        member = tarfile.TarInfo("in/side.txt")
        member.size, member.uid, member.mode = 3, 77, 0o640
        tar.addfile(member, io.BytesIO(b"tar"))
    context = write_context(
        tmp_path,
        """
FROM busybox
RUN mkdir /there && ln -s /there /link && echo old > /there/a.txt
COPY a.txt /one.txt
COPY a.txt b.txt /two/
COPY dir /three
COPY dir/ /four/
COPY *.txt /five/
COPY d?r/*.md /six/
COPY a.txt /link/
COPY --chown=12:34 a.txt dir /seven/
COPY --chown=nobody:65534 b.txt /eight/
WORKDIR /w
COPY a.txt .
COPY a.txt sub/
COPY ["with space.md", "/nine/"]
COPY to-a /ten
ADD x.tar.gz /eleven/
ADD a.txt /twelve
COPY nothing/ /thirteen
""",
        {
            "a.txt": "a",
            "b.txt": "b",
            "dir/c.txt": "c",
            "dir/deep/d.md": "d",
            "dir/e.md": "e",
            "dir/link": "-> /etc/passwd",
            "with space.md": "s",
            "to-a": "-> a.txt",
            "x.tar.gz": archive.getvalue(),
            "nothing/": "",
            "ignored.txt": "no",
            "dir/ignored.log": "no",
            ".dockerignore": "ignored.txt\n**/*.log\n!keep.log\nx.dockerfile\n",
        },
    )
    (tmp_path / "dir" / "e.md").chmod(0o751)
    tree = tree_of(engine, built(engine, context, client=client))
    shown = {
        name: (mode, uid, gid, content if isinstance(content, bytes) else None, link)
        for name, (_, mode, uid, gid, content, link) in tree.items()
        if name.split("/")[0] in _NUMBERS
    }
    assert shown == _COPIED


_NUMBERS = (
    "one.txt", "two", "three", "four", "five", "six", "there", "link", "seven", "eight", "w", "nine", "ten", "eleven",
    "twelve", "thirteen",
)  # fmt: skip
_DIRECTORY = ("0o755", 0, 0, None, "")


def _file(content: str, mode: str = "0o644", uid: int = 0, gid: int = 0) -> tuple[str, int, int, bytes, str]:
    return (mode, uid, gid, content.encode(), "")


_COPIED = {
    "one.txt": _file("a"),
    "two": _DIRECTORY,
    "two/a.txt": _file("a"),
    "two/b.txt": _file("b"),
    **dict.fromkeys(("three", "three/deep", "four", "four/deep", "five", "six"), _DIRECTORY),
    **dict.fromkeys(("there", "w", "w/sub", "nine", "eleven"), _DIRECTORY),
    **{f"{name}/c.txt": _file("c") for name in ("three", "four")},
    **{f"{name}/deep/d.md": _file("d") for name in ("three", "four")},
    **{f"{name}/e.md": _file("e", "0o751") for name in ("three", "four", "six")},
    **{f"{name}/link": ("0o777", 0, 0, None, "/etc/passwd") for name in ("three", "four")},
    "five/a.txt": _file("a"),
    "five/b.txt": _file("b"),
    "there/a.txt": _file("a"),
    "link": ("0o777", 0, 0, None, "/there"),
    "seven": ("0o755", 12, 34, None, ""),
    "seven/a.txt": _file("a", uid=12, gid=34),
    "seven/c.txt": _file("c", uid=12, gid=34),
    "seven/e.md": _file("e", "0o751", 12, 34),
    "seven/deep": ("0o755", 12, 34, None, ""),
    "seven/deep/d.md": _file("d", uid=12, gid=34),
    "seven/link": ("0o777", 12, 34, None, "/etc/passwd"),
    "eight": ("0o755", 65534, 65534, None, ""),
    "eight/b.txt": _file("b", uid=65534, gid=65534),
    "w/a.txt": _file("a"),
    "w/sub/a.txt": _file("a"),
    "nine/with space.md": _file("s"),
    "ten": _file("a"),
    "eleven/in": _DIRECTORY,
    "eleven/in/side.txt": _file("tar", "0o640", 77),
    "twelve": _file("a"),
    "thirteen": _DIRECTORY,
}


@each_client
def test_run_stages_and_triggers(engine: Engine, tmp_path: Path, client: str) -> None:
    context = write_context(
        tmp_path,
        """
ARG BASE=busybox
FROM $BASE AS base
ONBUILD ARG T=triggered
ONBUILD RUN echo $T > /trigger
FROM base AS build
ARG V=1
ENV E=env
WORKDIR /src
RUN echo "$V $E $HTTP_PROXY $(pwd) $(id -u)" > out && mkdir -p a/b && chmod 700 a && ln -s out link
RUN rm -r /home
RUN ["/bin/sh", "-c", "echo exec > exec"]
FROM busybox
COPY --from=build /src /src
COPY --from=0 /bin/sh /copied-sh
RUN mkdir /gone && rm -r /gone && test ! -e /run/secrets
USER 12:13
RUN id -u > /tmp/me && id -g >> /tmp/me
""",
    )
    flags = ("--build-arg", "V=2", "--build-arg", "HTTP_PROXY=http://proxy.example:1")
    image = built(engine, context, "-t", "stages:1", *flags, client=client)
    tree = tree_of(engine, image, ("src", "tmp/me", "trigger", "home", "gone", "copied-sh", "etc"))
    assert {"src", "src/a", "src/a/b", "src/exec", "src/link", "src/out", "tmp/me", "copied-sh"} <= set(tree)
    assert "trigger" not in tree
    assert "gone" not in tree
    assert tree["src/out"][4] == b"2 env http://proxy.example:1 /src 0\n"
    assert tree["src/a"][1] == "0o700"
    assert tree["tmp/me"][1:5] == ("0o644", 12, 13, b"12\n13\n")
    assert config_of(engine, image) == {"User": "12:13", "Env": [_PATH], "Cmd": ["sh"], "WorkingDir": "/"}
    assert "proxy.example" not in engine.out("history", "--no-trunc", image)
    build = built(engine, context, "--target", "build", *flags, client=client)
    stage = tree_of(engine, build, ("trigger", "home"))
    assert {name: row[4] for name, row in stage.items()} == {"trigger": b"triggered\n"}
    # Wholly from the cache, it is the same image again.
    assert built(engine, context, "-t", "stages:1", *flags, client=client) == image
    if client == "classic":
        again = docker_build(engine, context, *flags)
        assert "Using cache" in again.stdout
        assert again.stdout.splitlines()[-1] == f"Successfully built {image.removeprefix('sha256:')[:12]}"
    engine.docker("rmi", "stages:1", check=0)


_REFUSED = {
    "FROM busybox\nRUN exit 7\n": (7, "returned a non-zero code: 7"),
    "FROM busybox\nRUNN x\n": (1, "dockerfile parse error on line 2: unknown instruction: RUNN"),
    "FROM busybox\nCOPY nope /\n": (1, "COPY failed"),
    "FROM busybox\nCOPY ../../../etc/passwd /\n": (1, "COPY failed"),
}


def test_what_goes_wrong(engine: Engine, tmp_path: Path) -> None:
    for number, (dockerfile, (code, words)) in enumerate(_REFUSED.items()):
        done = docker_build(engine, write_context(tmp_path / str(number), dockerfile), check=None)
        assert done.returncode == code
        assert words in done.stderr
