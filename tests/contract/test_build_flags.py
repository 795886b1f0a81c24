"""Flags of builds, by every command line: what each does is looked for in the image, or in the steps' own words."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from support.building import CLIENTS, built, config_of, served, tree_of, write_context
from support.engines import Engine, Havred, serving
from support.imagery import archive
from support.raw import ask

pytestmark = pytest.mark.peer

each_client = pytest.mark.parametrize("client", CLIENTS)

_FELT = """FROM busybox
RUN grep myhost /etc/hosts | cut -f1 >> /felt; df -k /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2 >> /felt
RUN ulimit -n >> /felt; ls /sys/class/net >> /felt; cat /proc/self/cgroup > /groups
"""


def _run(engine: Engine, client: str, *words: str, stdin: str = "", check: int = 0) -> str:
    """What `build` says in plain progress."""
    if client == "havre":
        done = engine.havre("build", *words, stdin=stdin, check=check)
    else:
        docker = ("build",) if client == "classic" else ("buildx", "build", "--progress=plain")
        env, engine.env = engine.env, {**engine.env, "DOCKER_BUILDKIT": "0" if client == "classic" else "1"}
        try:
            done = engine.docker(*docker, *words, stdin=stdin, check=check)
        finally:
            engine.env = env
    return done.stdout + done.stderr


def _files(engine: Engine, image: str) -> set[str]:
    return set(tree_of(engine, image)) - {""}


@each_client
def test_what_steps_feel(havred: Engine, tmp_path: Path, client: str) -> None:
    context = write_context(tmp_path / "c", _FELT)
    flags = ("--add-host", "myhost:1.2.3.4", "--shm-size", "32m", "--ulimit", "nofile=77:88", "--network", "none")
    _run(havred, client, *flags, "--cgroup-parent", "/havre/mine", "--no-cache", "-t", "felt:1", str(context))
    tree = tree_of(havred, "felt:1", ("felt", "groups"))
    assert tree["felt"][4].split() == [b"1.2.3.4", b"32768", b"77", b"lo"]
    assert b"/havre/mine/" in tree["groups"][4]
    havred.docker("rmi", "felt:1", check=0)


def test_the_cgroup_namespace_of_steps_is_the_daemons_default(archive: Path, tmp_path: Path) -> None:
    context = write_context(tmp_path / "c", "FROM busybox\nRUN readlink /proc/self/ns/cgroup > /namespace\n")
    own = os.readlink("/proc/self/ns/cgroup")
    for mode in ("private", "host"):
        with serving(Havred(("--default-cgroupns-mode", mode)), archive) as engine:
            _run(engine, "havre", "-t", "felt:1", str(context))
            seen = tree_of(engine, "felt:1", ("namespace",))["namespace"][4].decode().strip()
        assert (seen == own) == (mode == "host"), mode


@each_client
def test_a_cgroup_parent_stays_below_the_hierarchy(havred: Engine, tmp_path: Path, client: str) -> None:
    name = f"havre-test-{os.getpid()}"
    context = write_context(tmp_path / "c", "FROM busybox\nRUN cat /proc/self/cgroup > /groups\n")
    _run(havred, client, "--cgroup-parent", f"../../../../{name}", "--no-cache", "-t", "felt:1", str(context))
    assert f":/{name}/".encode() in tree_of(havred, "felt:1", ("groups",))["groups"][4]
    assert not Path("/", name).exists()
    havred.docker("rmi", "felt:1", check=0)
    for top in Path("/sys/fs/cgroup").glob(f"**/{name}"):
        top.rmdir()


@each_client
def test_names_labels_and_stages(havred: Engine, tmp_path: Path, client: str) -> None:
    text = "ARG BASE=none\nFROM $BASE AS one\nARG V=1\nENV V=$V\nFROM one\nENV TWO=1\n"
    (tmp_path / "iid").write_text("an earlier one")
    flags = ("--build-arg", "BASE=busybox", "--build-arg", "V=2", "--label", "a=b", "--target", "one")
    names = ("-t", "named:1", "-t", "other/named", "--iidfile", str(tmp_path / "iid"))
    _run(havred, client, *flags, *names, str(write_context(tmp_path / "c", text)))
    ids = {havred.out("image", "inspect", "-f", "{{.Id}}", name) for name in ("named:1", "other/named:latest")}
    assert ids == {(tmp_path / "iid").read_text()}
    config = config_of(havred, "named:1")
    assert config["Labels"] == {"a": "b"}
    assert [each for each in config["Env"] if not each.startswith("PATH=")] == ["V=2"]
    havred.docker("rmi", "named:1", "other/named", check=0)


@each_client
def test_where_the_context_is(havred: Engine, tmp_path: Path, client: str) -> None:
    """A file elsewhere, standard input, an address of a Dockerfile and of a tar; a file of its own to ignore others."""
    context = write_context(
        tmp_path / "c", "FROM scratch\n", {"kept": "k", "left": "l", "Own.dockerignore": "*\n!kept\n"}
    )
    (context / "Own").write_text("FROM scratch\nCOPY . /\n")
    _run(havred, client, "-f", str(context / "Own"), "-t", "where:1", str(context))
    assert _files(havred, "where:1") == {"kept"}
    _run(havred, client, "-t", "where:1", "-", stdin="FROM scratch\nENV ALONE=1\n")
    assert config_of(havred, "where:1")["Env"][-1] == "ALONE=1"
    _run(havred, client, "-f", "-", "-t", "where:1", str(context), stdin="FROM scratch\nCOPY left /\n")
    assert _files(havred, "where:1") == {"left"}
    if client == "classic":
        havred.docker("rmi", "where:1", check=0)
        return  # its client fetches addresses itself, from where no server of the engine's network can be reached
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "Dockerfile").write_text("FROM scratch\nENV REMOTE=1\n")
    (pages / "c.tar").write_bytes(archive({"Dockerfile": b"FROM scratch\nCOPY in /\n", "in": b"i"}))
    with served(havred, pages) as url:
        _run(havred, client, "-t", "where:1", f"{url}/Dockerfile")
        assert config_of(havred, "where:1")["Env"][-1] == "REMOTE=1"
        _run(havred, client, "-t", "where:1", f"{url}/c.tar")
        assert _files(havred, "where:1") == {"in"}
    havred.docker("rmi", "where:1", check=0)


@pytest.mark.parametrize("client", CLIENTS[1:])
def test_named_contexts(havred: Engine, tmp_path: Path, client: str) -> None:
    """An image in the place of one, and of a stage; the classic endpoint knows no such thing."""
    havred.docker("tag", "busybox", "stand-in:1", check=0)
    context = write_context(
        tmp_path / "c", "FROM nowhere/at-all AS a\nRUN echo 1 > /x\nFROM scratch\nCOPY --from=b /bin/sh /\n"
    )
    flags = (
        "--build-context",
        "nowhere/at-all=docker-image://stand-in:1",
        "--build-context",
        "b=docker-image://busybox",
    )
    _run(havred, client, *flags, "-t", "contexts:1", str(context))
    assert _files(havred, "contexts:1") == {"sh"}
    _run(havred, client, *flags, "--target", "a", "-t", "contexts:1", str(context))
    assert tree_of(havred, "contexts:1", ("x",))["x"][4] == b"1\n"
    (context / "Dockerfile").write_text("FROM files\nENV A=1\nCOPY --from=files /in /more/\n")
    write_context(tmp_path / "files", "x", {"in/deep": "d"})
    _run(havred, client, "--build-context", f"files={tmp_path / 'files'}", "-t", "contexts:1", str(context))
    assert _files(havred, "contexts:1") == {"Dockerfile", "in", "in/deep", "more", "more/deep"}
    assert config_of(havred, "contexts:1")["Env"][-1] == "A=1"
    havred.docker("rmi", "contexts:1", "stand-in:1", check=0)


@each_client
def test_of_the_cache_and_of_platforms(havred: Engine, tmp_path: Path, client: str) -> None:
    context = write_context(
        tmp_path / "c", "FROM busybox AS a\nRUN cat /proc/sys/kernel/random/uuid > /x\nFROM a\nRUN cp /x /y\n"
    )

    def made(*flags: str) -> bytes:
        _run(havred, client, *flags, "-t", "cached:1", str(context))
        return bytes(tree_of(havred, "cached:1", ("x",))["x"][4])

    first = made()
    assert made() == first
    second = made("--no-cache")
    assert made() == second != first
    if client != "classic":
        assert made("--no-cache-filter", "a") != second
    assert made("--platform", "linux/amd64")
    refused = _run(havred, client, "--platform", "linux/s390x", "--no-cache", str(context), check=1)
    assert re.search(r"s390x", refused), refused
    epoch = ("--build-arg", "SOURCE_DATE_EPOCH=1700000000", "--no-cache")
    plain = write_context(tmp_path / "p", "FROM busybox\nRUN echo 1 > /x\nCOPY f /\n", {"f": "1"})
    ids = set()
    for time in (1_800_000_000, 1_900_000_000):
        os.utime(plain / "f", (time, time))
        _run(havred, client, *epoch, "-t", "cached:1", str(plain))
        ids.add(havred.out("image", "inspect", "-f", "{{.Id}}", "cached:1"))
    assert len(ids) == 1
    havred.docker("rmi", "-f", "cached:1", check=0)


def test_squashed(havred: Engine, tmp_path: Path) -> None:
    """One layer above the base, the same files. Classic docker asks only engines with experimental features for it."""
    text = """FROM busybox AS base
RUN mkdir -p /gone/deep /opaque/below /kept && touch /gone/deep/x /opaque/old /opaque/below/y /kept/z
FROM base
RUN rm -r /gone && mkdir /gone && touch /gone/new && rm -r /opaque && rm /bin/ls && ln /bin/busybox /linked
RUN mkdir -p /opaque/fresh && rm -r /gone && ln -s kept /gone && chmod 700 /kept && chown 5:6 /kept/z && rm /etc/passwd
COPY f /kept/
RUN rm /kept/f && mkdir /kept/f && touch /kept/f/g && rm /linked && touch /etc/passwd
"""
    context = write_context(tmp_path, text, {"f": "f"})
    plain, squashed = (built(havred, context, *flags, client="havre") for flags in ((), ("--squash",)))
    assert tree_of(havred, plain) == tree_of(havred, squashed)
    assert config_of(havred, plain) == config_of(havred, squashed)
    inspect = ("image", "inspect", "-f", "{{json .RootFS.Layers}}")
    layers = [json.loads(havred.out(*inspect, each)) for each in (plain, squashed)]
    assert [len(each) for each in layers] == [6, 3]
    assert layers[0][:2] == layers[1][:2]
    history = havred.out("history", "--no-trunc", "--format", "{{.Comment}}|{{.Size}}", squashed).splitlines()
    assert re.match(rf"merge {plain} to sha256:[0-9a-f]+\|", history[0])
    assert all(line.endswith("|0B") for line in history[1:5])
    assert built(havred, context, "--squash", client="havre") == squashed
    query = "/build?q=1&squash=1&dockerfile=Own"
    files = archive({"Own": text.encode(), "f": b"f"})
    told = ask(havred.socket, "POST", query, files, {"Content-Type": "application/x-tar"}).body.decode()
    assert "sha256:" in told
    havred.docker("image", "prune", "-f", check=0)


def test_the_same_by_buildah(havred: Engine, tmp_path: Path) -> None:
    """The same file tree and configuration as by another builder."""
    text = (
        "FROM busybox\nENV A=1 B=$A\nWORKDIR /w\nCOPY --chown=5:6 a dir /to/\nCOPY a .\nADD --chmod=750 a /added\n"
        "RUN rm /bin/ls && mkdir -m 700 /made && echo $A > /made/x && ln -s x /made/y\n"
        'USER 7\nEXPOSE 80\nLABEL l=1\nVOLUME /v\nENTRYPOINT ["e"]\nCMD ["c"]\n'
    )
    context = write_context(tmp_path / "c", text, {"a": "1", "dir/b": "2", "dir/deep/c": "3"})
    havred.docker("save", "-o", str(tmp_path / "base.tar"), "busybox", check=0)
    store = ("--root", str(tmp_path / "r"), "--runroot", str(tmp_path / "rr"), "--storage-driver", "vfs")

    def buildah(*words: str) -> None:
        command = [*havred.inside, "buildah", *store, *words]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr

    buildah("pull", f"docker-archive:{tmp_path / 'base.tar'}")
    flags = (
        "--isolation",
        "chroot",
        "--network",
        "host",
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=1024:1024",
    )
    buildah("build", *flags, "--pull=never", "--format", "docker", "-t", "theirs:1", str(context))
    buildah("push", "theirs:1", f"docker-archive:{tmp_path / 'theirs.tar'}:theirs:1")
    loaded = havred.out("load", "-i", str(tmp_path / "theirs.tar")).split()[-1]
    built(havred, context, "-t", "ours:1", client="havre")
    ours, theirs = (tree_of(havred, name) for name in ("ours:1", loaded))
    assert ours.keys() ^ theirs.keys() <= {"run", "v"}, "buildah makes mount points of its own"
    assert {name for name in ours.keys() & theirs.keys() if ours[name] != theirs[name]} == set()
    configs = [config_of(havred, name) for name in ("ours:1", loaded)]
    configs[1]["Labels"].pop("io.buildah.version", None)
    assert configs[0] == configs[1]
    havred.docker("rmi", "-f", "ours:1", loaded, check=0)
