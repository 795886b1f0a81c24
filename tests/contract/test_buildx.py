"""Unmodified buildx, docker build and docker-compose: the same builds on havre and on dockerd."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.engines import Engine
from support.registry import PASSWORD, USER, real_registry
from support.waiting import until

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module", autouse=True)
def _base_in_use(_havre: Engine) -> Iterator[None]:
    """The base's layer stays mounted, so that no test need wait for it to become idle again."""
    container = _havre.out("run", "-d", "--network", "none", "busybox", "sleep", "1000")
    yield
    _havre.docker("rm", "-f", container, check=0)


@pytest.fixture
def context(tmp_path: Path, engine: Engine) -> Iterator[Path]:
    """A directory to build; images made of it go, and so does what the builds kept."""
    directory = tmp_path / "context"
    directory.mkdir()
    before = set(engine.out("images", "-q", "--no-trunc").split())
    yield directory
    if made := set(engine.out("images", "-q", "--no-trunc").split()) - before:
        engine.docker("rmi", "-f", *made, check=0)
    engine.docker("builder", "prune", "-af", check=0)


def write(directory: Path, **files: str) -> None:
    """Files by name; `__` stands for a dot."""
    for name, content in files.items():
        (directory / name.replace("__", ".")).write_text(content)


def build(engine: Engine, *arguments: str, check: int = 0, stdin: str | bytes | None = None) -> str:
    """What `docker build` tells in plain progress."""
    return engine.docker("build", "--progress=plain", *arguments, check=check, stdin=stdin).stderr


def steps(told: str) -> dict[str, bool]:
    """The steps of the Dockerfile by what they do, FROM left out, and whether each came from the cache."""
    named = dict(re.findall(r"^(#\d+) \[[^]]*\d/\d\] (.*)$", told, re.MULTILINE))
    return {what: f"{number} CACHED" in told.splitlines() for number, what in named.items() if "FROM " not in what}


def error_of(told: str) -> str:
    """The last error; of two that end a build at the same time, buildx shows the one it hears of first."""
    found = re.findall(r"^ERROR: failed to (?:solve|run Build function): (.*)", told, re.MULTILINE | re.DOTALL)
    assert found, told
    return str(found[-1])


def test_build_again_and_with_a_change(engine: Engine, context: Path) -> None:
    write(
        context,
        Dockerfile="FROM busybox\nARG V\nRUN echo $(env | grep ^V=) | tee /built\nCOPY a b /files/\nCMD cat /built\n",
        a="one",
        b="two",
        ignored="x",
        __dockerignore="ignored\n",
    )
    arguments = ("-t", "buildx-test:1", "--build-arg", "V=7", "--label", "who=me", str(context))
    told = build(engine, *arguments)
    assert steps(told) == {"RUN echo $(env | grep ^V=) | tee /built": False, "COPY a b /files/": False}
    assert " V=7\n" in told
    assert engine.out("run", "--rm", "buildx-test:1") == "V=7"
    image = json.loads(engine.out("inspect", "buildx-test:1"))[0]
    assert image["Config"]["Labels"] == {"who": "me"}
    assert image["Config"]["Cmd"] == ["/bin/sh", "-c", "cat /built"]

    again = build(engine, *arguments)
    assert list(steps(again).values()) == [True, True]
    assert engine.out("inspect", "-f", "{{.Id}}", "buildx-test:1") == image["Id"]

    write(context, a="ONE")
    changed = build(engine, *arguments)
    assert list(steps(changed).values()) == [True, False]
    assert engine.out("run", "--rm", "buildx-test:1", "cat", "/files/a", "/files/b") == "ONEtwo"
    assert list(steps(build(engine, "--no-cache", *arguments)).values()) == [False, False]


def test_a_step_that_fails(engine: Engine, context: Path) -> None:
    write(context, Dockerfile="FROM busybox\nRUN echo before; false\nRUN true\n")
    told = build(engine, str(context), check=1)
    problem = 'process "/bin/sh -c echo before; false" did not complete successfully: exit code: 1'
    lines = told.splitlines()
    assert error_of(told) == f"{problem}\n"
    assert any(line.endswith(f" ERROR: {problem}") for line in lines)
    assert " > [2/3] RUN echo before; false:" in lines
    assert "   2 | >>> RUN echo before; false" in lines
    assert engine.docker("build", "-q", str(context), check=1).stdout == ""


@pytest.mark.parametrize(
    ("dockerfile", "problem"),
    [
        ("FROM busybox\nRUNN x\n", "unknown instruction: RUNN"),
        ("FROM busybox\nCOPY none /\n", "none"),
        ("RUN x\n", "no build stage in current context"),
        (None, "failed to read dockerfile: open Dockerfile: no such file or directory"),
    ],
    ids=["unknown", "no source", "no FROM", "no Dockerfile"],
)
def test_what_cannot_be_built(engine: Engine, context: Path, dockerfile: str | None, problem: str) -> None:
    if dockerfile is not None:
        write(context, Dockerfile=dockerfile)
    told = build(engine, str(context), check=1)
    assert problem in error_of(told)


def test_files_that_tell_the_result(engine: Engine, context: Path, tmp_path: Path) -> None:
    write(context, Dockerfile="FROM busybox AS one\nENV A=1\nFROM one AS two\nENV B=1\n")
    iid, metadata = tmp_path / "iid", tmp_path / "metadata"
    arguments = ("-t", "buildx-test:q", "--target", "one", "--iidfile", str(iid), "--metadata-file", str(metadata))
    printed = engine.out("build", "-q", *arguments, str(context))
    inspected = json.loads(engine.out("inspect", "buildx-test:q"))[0]
    assert printed == iid.read_text() == inspected["Id"]
    told = json.loads(metadata.read_text())
    assert told["containerimage.config.digest"] == told["containerimage.digest"] == printed
    assert told["image.name"] == "docker.io/library/buildx-test:q"
    assert "A=1" in inspected["Config"]["Env"]
    assert "B=1" not in inspected["Config"]["Env"]


def test_the_result_as_files(engine: Engine, context: Path, tmp_path: Path) -> None:
    write(context, Dockerfile="FROM scratch\nCOPY tree /\n")
    (context / "tree/deep").mkdir(parents=True)
    write(context / "tree/deep", a="content")
    (context / "tree/deep/a").chmod(0o640)
    (context / "tree/link").symlink_to("deep/a")
    out, archive = tmp_path / "out", tmp_path / "out.tar"
    engine.docker("buildx", "build", "-o", str(out), str(context), check=0)
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == ["deep", "deep/a", "link"]
    assert (out / "deep/a").read_text() == "content"
    assert (out / "deep/a").stat().st_mode & 0o777 == 0o640
    assert os.readlink(out / "link") == "deep/a"
    engine.docker("buildx", "build", "-o", f"type=tar,dest={archive}", str(context), check=0)
    with tarfile.open(archive) as tar:
        members = {member.name.rstrip("/"): member for member in tar}
        assert set(members) == {"deep", "deep/a", "link"}
        assert tar.extractfile("deep/a").read() == b"content"  # type: ignore[union-attr]


def test_secrets_and_named_contexts(engine: Engine, context: Path, tmp_path: Path) -> None:
    command = "RUN --mount=type=secret,id=s cat /run/secrets/s | tr a-z A-Z > /shown"
    write(context, Dockerfile=f"FROM busybox\n{command}\nCOPY --from=other f /\n")
    other, secret = tmp_path / "other", tmp_path / "secret"
    other.mkdir()
    write(other, f="from another")
    secret.write_text("confidential")
    build(
        engine,
        *("-t", "buildx-test:s", "--secret", f"id=s,src={secret}", "--build-context", f"other={other}", str(context)),
    )
    assert engine.out("run", "--rm", "buildx-test:s", "cat", "/shown", "/f") == "CONFIDENTIALfrom another"
    assert "confidential" not in engine.out("history", "--no-trunc", "buildx-test:s")


def test_flags_that_steps_feel(engine: Engine, context: Path, tmp_path: Path) -> None:
    command = "RUN grep myhost /etc/hosts; df -k /dev/shm | tail -1; ulimit -n; ls /sys/class/net"
    (context / "sub").mkdir()
    write(context, x="1", y="2", Dockerfile=f"FROM busybox AS a\n{command}\nFROM a\nCOPY x /\n")
    flags = ("--add-host", "myhost:1.2.3.4", "--shm-size", "32m", "--ulimit", "nofile=77:88", "--network", "none")
    told = build(engine, *flags, str(context))
    said = [line.split(" ", 2)[2].split() for line in told.splitlines() if re.match(r"#\d+ \d+\.\d+ ", line)]
    assert [said[0], said[1][1], *said[2:]] == [["1.2.3.4", "myhost"], "32768", ["77"], ["lo"]]
    again = build(engine, *flags, "--no-cache-filter", "a", str(context))
    assert not steps(again)[command]

    own = "sub/Own.Dockerfile"
    (context / own).write_text("FROM scratch\nCOPY . /\n")
    (context / f"{own}.dockerignore").write_text("*\n!x\n")
    build(engine, "-f", str(context / own), "-o", str(tmp_path / "out"), str(context))
    assert os.listdir(tmp_path / "out") == ["x"]


def test_a_dockerfile_and_a_tar_from_standard_input(engine: Engine, context: Path) -> None:
    dockerfile = "FROM busybox\nCOPY . /here/\n"
    write(context, a="1", __dockerignore="")
    build(engine, "-t", "buildx-test:i", "-f", "-", str(context), stdin=dockerfile)
    assert engine.out("run", "--rm", "buildx-test:i", "cat", "/here/a") == "1"
    build(engine, "-t", "buildx-test:i", "-", stdin="FROM busybox\nENV ALONE=1\n")
    assert "ALONE=1" in engine.out("inspect", "-f", "{{.Config.Env}}", "buildx-test:i")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in (("Dockerfile", dockerfile.encode()), ("in-the-tar", b"2")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    build(engine, "-t", "buildx-test:i", "-", stdin=buffer.getvalue())
    assert engine.out("run", "--rm", "buildx-test:i", "cat", "/here/in-the-tar") == "2"


def test_interrupting_a_build(engine: Engine, context: Path, tmp_path: Path) -> None:
    write(context, Dockerfile="FROM busybox\nRUN echo it has begun; sleep 300\n")
    output = tmp_path / "output"
    with output.open("wb") as out:
        command = ["docker", "build", "--progress=plain", str(context)]
        running = subprocess.Popen(command, env=engine.env, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    until(lambda: " it has begun\n" in output.read_text(), "the step to begin")
    running.send_signal(signal.SIGINT)
    assert running.wait(20) == 1
    assert "context canceled" in output.read_text().splitlines()[-1]
    write(context, Dockerfile="FROM busybox\nRUN true\n")
    build(engine, str(context))


def test_compose_builds(engine: Engine, context: Path) -> None:
    write(
        context,
        Dockerfile="FROM busybox\nARG GREETING\nRUN echo $GREETING > /greeting\n",
        compose__yaml="services: {web: {image: 'buildx-test:c', build: {context: ., args: {GREETING: hello}}}}\n",
    )
    done = subprocess.run(
        ["docker-compose", "-p", "buildxtest", "build"],
        cwd=context,
        env=engine.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert engine.out("run", "--rm", "buildx-test:c", "cat", "/greeting") == "hello"


def test_a_private_base_and_a_push(engine: Engine, context: Path, tmp_path: Path) -> None:
    with real_registry(tmp_path / "registry", htpasswd=True, inside=engine.inside) as registry:
        base, out = f"{registry.host}/base:1", f"{registry.host}/out:1"
        engine.docker("login", "-u", USER, "--password-stdin", registry.host, stdin=PASSWORD, check=0)
        engine.docker("tag", "busybox", base, check=0)
        engine.docker("push", "-q", base, check=0)
        engine.docker("rmi", base, check=0)
        write(context, Dockerfile=f"FROM {base}\nENV MADE=1\n")
        build(engine, "--push", "-t", out, str(context))
        engine.docker("rmi", out, check=0)
        engine.docker("pull", "-q", out, check=0)
        assert "MADE=1" in engine.out("inspect", "-f", "{{.Config.Env}}", out)
        engine.docker("logout", registry.host, check=0)
        engine.docker("rmi", "-f", out, base)  # dockerd's builder keeps the base for itself
        engine.docker("builder", "prune", "-af", check=0)
        build(engine, str(context), check=1)


def test_what_buildx_tells_of_the_builder(engine: Engine, context: Path) -> None:
    write(context, Dockerfile="FROM busybox\nRUN echo remembered > /x\n")
    build(engine, str(context))
    inspected = engine.out("buildx", "inspect")
    assert "Driver:        docker" in inspected
    assert "Status:           running" in inspected
    assert "linux/amd64" in inspected
    assert "echo remembered" in engine.out("buildx", "du", "--verbose")
    assert "Total:" in engine.out("buildx", "prune", "-af")
    assert "echo remembered" not in engine.out("buildx", "du", "--verbose")
