"""Details of builds that dockerd's own tests look for, on both engines."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.building import CLIENTS, built, docker_build, served, write_context
from support.engines import Engine
from support.raw import ask

_QUIET = ("buildx", "build", "-q")


def _tar(*members: tuple[str, str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
    return out.getvalue()


@pytest.fixture(autouse=True)
def _unnamed_images_go(engine: Engine) -> Iterator[None]:
    yield
    engine.docker("image", "prune", "-f", check=0)


def _files(engine: Engine, image: str, *paths: str) -> str:
    return engine.out("run", "--rm", "--network", "none", image, "cat", *paths)


def test_a_dockerfile_in_lower_case(engine: Engine, tmp_path: Path) -> None:
    body = _tar(("dockerfile", "FROM busybox\nENV from=lower\n"))
    assert b"ENV from=lower" in ask(engine.socket, "POST", "/build?t=lower:1", body).body
    (tmp_path / "context.tar").write_bytes(body)
    with served(engine, tmp_path) as address:
        image = engine.out(*_QUIET, f"{address}/context.tar")
    assert "from=lower" in engine.out("image", "inspect", "-f", "{{.Config.Env}}", image)
    assert (
        b"Cannot locate specified Dockerfile: other" in ask(engine.socket, "POST", "/build?dockerfile=other", body).body
    )
    engine.docker("rmi", "-f", "lower:1", image, check=0)


def test_our_command_line_finds_a_dockerfile_in_lower_case(havred: Engine, tmp_path: Path) -> None:
    (tmp_path / "dockerfile").write_text("FROM busybox\nENV from=lower\n")
    image = built(havred, tmp_path, client="havre")
    assert "from=lower" in havred.out("image", "inspect", "-f", "{{.Config.Env}}", image)
    missing = havred.havre("build", "-f", str(tmp_path / "other"), str(tmp_path), check=1)
    assert f"Dockerfile path: {tmp_path}/other" in missing.stderr


def test_a_dockerfile_alone_from_a_url_has_no_other_name(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("FROM busybox\nENV from=url\n")
    with served(engine, tmp_path) as address:
        told = ask(engine.socket, "POST", f"/build?dockerfile=baz&remote={address}/text").body
        image = engine.out(*_QUIET, "-f", "baz", f"{address}/text")
    assert b"ENV from=url" in told
    assert b"Successfully built" in told
    assert "from=url" in engine.out("image", "inspect", "-f", "{{.Config.Env}}", image)


def test_names_of_a_context_lead_nowhere_else(engine: Engine) -> None:
    text = "FROM busybox\nCOPY foo bar y/baz /\nRUN cat /foo /bar /baz > /all\n"
    for number in "01":  # what is changed is no cache hit
        body = _tar(("Dockerfile", text), ("../foo", f"f{number}"), ("/bar", "b"), ("x/../../../y/baz", "z"))
        told = ask(engine.socket, "POST", "/build?t=unclean:1", body).body
        assert b"Successfully built" in told
        assert _files(engine, "unclean:1", "/all") == f"f{number}bz"
        command = ["docker", *_QUIET, "-"]
        done = subprocess.run(command, input=body, env=engine.env, capture_output=True, check=True)
        assert _files(engine, done.stdout.decode().strip(), "/all") == f"f{number}bz"
    engine.docker("rmi", "unclean:1", check=0)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_comment_begins_its_line(engine: Engine, tmp_path: Path, client: str) -> None:
    files = {"#1": "1", "#2": "2", "a": "a", ".dockerignore": "# a\n#1\n  #2\n .dockerignore\nDockerfile\n"}
    image = built(engine, write_context(tmp_path, "FROM busybox\nCOPY . /c/\n", files), client=client)
    assert engine.out("run", "--rm", "--network", "none", image, "ls", "-A", "/c").split() == ["#1", "a"]


def test_without_files_the_order_of_ports_and_the_time_mean_nothing(engine: Engine, tmp_path: Path) -> None:
    texts = [f"FROM scratch\nEXPOSE {ports}\n" for ports in ("80 90", "90 80")]
    images = {engine.out(*_QUIET, "--no-cache", str(write_context(tmp_path, text))) for text in texts}
    assert len(images) == 1
    (image,) = images
    dates = [
        ask(engine.socket, "GET", f"/{version}/images/{image}/json").json.get("Created")
        for version in ("v1.43", "v1.44")
    ]
    assert dates == ["0001-01-01T00:00:00Z", None]


def test_build_arguments_that_nothing_declares(engine: Engine, tmp_path: Path) -> None:
    arguments = ("no", "yes", "early", "HTTP_PROXY")
    flags = [flag for name in arguments for flag in ("--build-arg", f"{name}=x")]
    context = write_context(tmp_path, "ARG early\nFROM busybox\nARG yes\nENV a=$yes\n")
    assert "[Warning] One or more build-args [no] were not consumed" in docker_build(engine, context, *flags).stdout
    assert "consumed" not in docker_build(engine, context, *flags[2:]).stdout


def test_what_triggers_say_is_told(engine: Engine, tmp_path: Path) -> None:
    docker_build(engine, write_context(tmp_path, "FROM busybox\nonbuild RUN echo qu''ux\n"), "-t", "triggers:1")
    context = write_context(
        tmp_path, "FROM triggers:1 AS one\nFROM triggers:1\nCOPY --from=one /etc/passwd /\nRUN echo l''ast\n"
    )
    told = docker_build(engine, context, "--no-cache").stdout

    assert told.index("quux\n") < told.index("COPY --from") < told.index("last\n")
    engine.docker("rmi", "-f", "triggers:1", check=0)


@pytest.mark.parametrize("client", CLIENTS)
def test_what_is_below_an_ignored_directory(engine: Engine, tmp_path: Path, client: str) -> None:
    files = {".dockerignore": "**/below/**", "a/below/x": "", "a/y": ""}
    write_context(tmp_path, "FROM busybox\nCOPY . /c\n", files)
    image = built(engine, tmp_path, client=client)
    shown = engine.out("run", "--rm", "--network", "none", image, "find", "/c/a").split()
    assert sorted(shown) == ["/c/a", "/c/a/below", "/c/a/y"]
