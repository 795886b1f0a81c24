"""SSH agents in builds: `--ssh` of havre's command line and of buildx, seen by ssh-add in a RUN."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.building import write_context
from support.engines import Engine

pytestmark = pytest.mark.peer

_TEXT = """FROM busybox
COPY tree /
RUN --mount=type=ssh,required ssh-add -l
RUN --mount=type=ssh,id=other,uid=7 ls -ln $SSH_AUTH_SOCK && ssh-add -l; ssh-add -l & ssh-add -l; wait
RUN test ! -e /run/buildkit && test -z "$SSH_AUTH_SOCK"
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A context with ssh-add and its libraries."""
    program = "/usr/bin/ssh-add"
    linked = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    context = write_context(tmp_path / "context", _TEXT)
    for path in (program, *re.findall(r"(?:^|[ \t])(/\S+) \(0x", linked, re.MULTILINE)):
        copy = context / "tree" / path.lstrip("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return context


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "the-key", "-f", str(path)], check=True)
    return path


@pytest.fixture
def agent(tmp_path: Path, key: Path) -> Iterator[Path]:
    """An agent that has the key."""
    path = tmp_path / "agent"
    command = ["ssh-agent", "-a", str(path), "sh", "-c", f"ssh-add -q {key} && echo && exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        assert running.stdin is not None
        assert running.stdout.readline() == b"\n"
        yield path
        running.stdin.close()


@pytest.mark.parametrize("client", [("havre",), ("docker", "buildx")], ids=lambda client: client[-1])
def test_agents_and_keys(havred: Engine, context: Path, agent: Path, key: Path, client: tuple[str, ...]) -> None:
    run = havred.havre if client == ("havre",) else havred.docker
    build = (*client[1:], "build", "--progress=plain", "--no-cache")
    told = run(*build, "--ssh", f"default={agent}", "--ssh", f"other={key}", str(context), check=0).stderr
    assert len(re.findall(r"256 SHA256:\S+ .*\(ED25519\)", told)) == 4, told
    assert re.search(r"srw-------\s+1 7 ", told), told
    havred.env["SSH_AUTH_SOCK"] = str(agent)
    try:
        told = run(*build, "--ssh", "default", str(context), check=0).stderr
        assert told.count("the-key") == 1
    finally:
        del havred.env["SSH_AUTH_SOCK"]
    missing = run(*build, str(context), check=1).stderr
    assert "ssh agent default: not forwarded" in missing
    wrong = run(*build, "--ssh", f"default={context}/none", str(context), check=1).stderr
    assert "no such file or directory" in wrong.lower()
    no_key = run(*build, "--ssh", f"default={context}/Dockerfile", str(context), check=1).stderr
    assert "Dockerfile" in no_key
    havred.docker("builder", "prune", "-af", check=0)
