"""Git repositories as contexts and as sources of ADD, served over loopback."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import Engine
from support.raw import ask
from support.repository import Repository

pytestmark = pytest.mark.peer

_FILES = {"sub/Dockerfile": "FROM busybox\nCOPY . /tree/\n", "sub/name": "first"}


@pytest.fixture
def repository(tmp_path: Path, engine: Engine) -> Iterator[Repository]:
    served = Repository(tmp_path, _FILES, engine.inside)
    yield served
    served.close()
    engine.docker("rmi", "-f", "git-built:1", check=None)
    engine.docker("builder", "prune", "-af", check=0)


def _tree(engine: Engine) -> str:
    return engine.out(
        "run", "--rm", "--network", "none", "git-built:1", "sh", "-c", "cd /tree && find . | sort && cat name"
    )


def test_contexts(engine: Engine, repository: Repository) -> None:
    second = repository.commit({"sub/name": "second"})
    for reference, name in (("v1", "first"), ("main", "second"), (second, "second"), ("", "second")):
        engine.docker("buildx", "build", "-q", "-t", "git-built:1", f"{repository.url}#{reference}:sub", check=0)
        assert _tree(engine) == f".\n./Dockerfile\n./name\n{name}"
    query = f"/build?t=git-built:1&remote={repository.url}%23v1:sub"
    assert '"error"' not in ask(engine.socket, "POST", query).body.decode()
    assert _tree(engine).endswith("\nfirst")
    missing = engine.docker("buildx", "build", f"{repository.url}#nothing", check=1).stderr
    assert "nothing" in missing.splitlines()[-1] or "couldn't find remote ref" in missing
    assert engine.docker("buildx", "build", f"{repository.url}#v1:nowhere", check=1).stderr


def test_added(engine: Engine, repository: Repository, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    build = ("buildx", "build", "-q", "-t", "git-built:1", str(context))
    for flags, found in (("", "Dockerfile name"), ("--keep-git-dir=true ", ".git Dockerfile name")):
        text = f"FROM busybox\nADD {flags}{repository.url}#v1 /tree\nRUN mv /tree/sub/* /tree && rmdir /tree/sub\n"
        (context / "Dockerfile").write_text(text)
        engine.docker(*build, check=0)
        assert (
            engine.out("run", "--rm", "--network", "none", "git-built:1", "ls", "-A", "/tree").split() == found.split()
        )


def test_our_own_command_line(havred: Engine, tmp_path: Path) -> None:
    served = Repository(tmp_path, _FILES, havred.inside)
    try:
        havred.havre("build", "-t", "git-built:1", f"{served.url}#v1:sub", check=0)
        assert _tree(havred).endswith("\nfirst")
        commit = served.git("rev-parse", "v1")
        for query in ("ref=v1", "tag=v1", f"checksum={commit[:9]}&tag=v1"):
            havred.havre("build", "-t", "git-built:1", f"{served.url}?{query}&subdir=sub", check=0)
            assert _tree(havred).endswith("\nfirst")
        lie = havred.havre("build", f"{served.url}?branch=main&checksum={'0' * 40}", check=1).stderr
        assert f"{'0' * 40} was expected" in lie
        unknown = havred.havre("build", f"{served.url}?reff=v1", check=1).stderr
        assert "unexpected query of a git repository: reff" in unknown
        wrong = "0" * 40
        (tmp_path / "Dockerfile").write_text(f"FROM scratch\nADD --checksum={wrong} {served.url}#v1 /\n")
        assert f"{wrong} was expected" in havred.havre("build", str(tmp_path), check=1).stderr
    finally:
        served.close()
        havred.docker("rmi", "-f", "git-built:1", check=0)


def test_hostile_repositories(havred: Engine, tmp_path: Path) -> None:
    served = Repository(tmp_path, _FILES, havred.inside)
    try:
        served.commit({"out": "-> /etc", "up": "-> ../../../..", "Dockerfile": "FROM scratch\nCOPY out/passwd /\n"})
        for directory in ("out", "../../etc", "up/etc"):
            told = havred.docker("buildx", "build", f"{served.url}#main:{directory}", check=1).stderr
            assert "has no directory" in told, told
        assert "not found" in havred.docker("buildx", "build", f"{served.url}#main", check=1).stderr
        secret = tmp_path / "secret.git"
        subprocess.run(["git", "init", "-q", "--bare", str(secret)], check=True)
        modules = f'[submodule "s"]\n\tpath = s\n\turl = file://{secret}\n'
        served.commit({".gitmodules": modules})
        head = served.git("rev-parse", "HEAD")
        served.git("update-index", "--add", "--cacheinfo", f"160000,{head},s")
        served.git("commit", "-q", "-m", "a submodule")
        served.publish()
        told = havred.docker("buildx", "build", f"{served.url}#main", check=1).stderr
        assert "transport 'file' not allowed" in told
        for address in (f"{served.url}#--upload-pack=x", "ext::sh -c x"):
            assert havred.docker("buildx", "build", address, check=1).stderr
    finally:
        served.close()
