"""Details of builds that dockerd's own tests look for, on both engines."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from havre.api.buildkit.messages import StatusResponse
from havre.api.buildkit.protobuf import decode
from support.building import CLIENTS, built, docker_build, served, tree_of, write_context
from support.engines import Engine, Havred, serving
from support.raw import ask

TRACE = "moby.buildkit.trace"
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
    assert f"open {tmp_path}/other: no such file or directory" in missing.stderr


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


def _asked(engine: Engine, query: str, dockerfile: str = "FROM busybox\nENV A=1\n") -> tuple[int, str]:
    """Status and answer of a classic build."""
    reply = ask(engine.socket, "POST", f"/build?{query}", _tar(("Dockerfile", dockerfile)))
    return reply.status, reply.body.decode()


def test_what_a_query_may_hold(engine: Engine) -> None:
    for query in ("memory=abc", "memswap=x", "cpushares=", "cpuquota=1e3", "cpuperiod=-"):
        status, told = _asked(engine, query)
        assert (status, "Successfully built" in told) == (200, True), query
    for name, called in (
        ("ulimits", "ulimit settings"),
        ("buildargs", "build args"),
        ("labels", "labels"),
        ("cachefrom", "cache-from"),
    ):
        status, told = _asked(engine, f"{name}=abc")
        assert status == 400
        assert f"error reading {called}: invalid character 'a'" in told
    status, told = _asked(engine, "t=null-label:1&labels=%7B%22a%22%3Anull%7D")
    assert status == 200
    assert engine.out("image", "inspect", "-f", "{{json .Config.Labels}}", "null-label:1") == '{"a":""}'
    engine.docker("rmi", "null-label:1", check=0)


def test_arguments_that_nothing_declares(engine: Engine) -> None:
    _, told = _asked(engine, "buildargs=%7B%22NAME%22%3Anull%2C%22B%22%3A%221%22%7D")
    lines = [json.loads(line) for line in told.splitlines()]
    at = next(number for number, line in enumerate(lines) if "[Warning]" in line.get("stream", ""))
    assert lines[at]["stream"] == "[Warning] One or more build-args [B NAME] were not consumed\n"
    assert "ID" in lines[at - 1]["aux"]
    assert lines[at + 1]["stream"].startswith("Successfully built")


def test_steps_that_use_the_cache(engine: Engine) -> None:
    dockerfile = "FROM busybox\nENV FOO=cached\nRUN touch baz\nRUN touch bax\nCMD true\n"

    def count(query: str) -> int:
        return _asked(engine, query, dockerfile)[1].count("Using cache")

    try:
        assert count("t=cached:1&nocache=1") == 0
        assert count("t=cached:2") == 4
        assert count("t=cached:2&cachefrom=%5B%22cached%3A1%22%5D") == 4
        assert count("t=cached:3&cachefrom=%5B%22no-such-image%22%5D") == 0
    finally:
        engine.docker("rmi", "-f", "cached:1", "cached:2", "cached:3", check=None)


def test_permissions_in_symbols(havred: Engine, tmp_path: Path) -> None:
    dockerfile = "FROM busybox\nCOPY --chmod=u=rwX,go=rX dir /dir\nADD --chmod=a-w,+x file /file\n"
    context = write_context(tmp_path / "c", dockerfile, {"dir/plain": "", "dir/run": "", "file": ""})
    (context / "dir").chmod(0o700)
    (context / "dir" / "run").chmod(0o700)
    (context / "dir" / "plain").chmod(0o600)
    (context / "file").chmod(0o640)
    for client in CLIENTS:
        tree = tree_of(havred, built(havred, context, client=client), ("dir", "file"))
        modes = {name: row[1] for name, row in tree.items()}
        assert modes == {"dir": "0o755", "dir/plain": "0o644", "dir/run": "0o755", "file": "0o551"}


def test_the_default_log_driver_is_no_matter_of_builds(archive: Path) -> None:
    flags = ["--log-driver=fluentd", "--log-opt=fluentd-address=127.0.0.1:1"]
    with serving(Havred(flags), archive) as engine:
        assert "told" in _asked(engine, "", "FROM busybox\nRUN echo told\n")[1]
        assert engine.docker("run", "--rm", "--network", "none", "busybox", "true").returncode != 0


def _traced(told: str) -> tuple[list[str], str]:
    """The steps that BuildKit's trace in an answer tells of, and the image."""
    lines = [json.loads(line) for line in told.splitlines()]
    traces = [decode(StatusResponse, base64.b64decode(line["aux"])) for line in lines if line["id"] == TRACE]
    image = [line["aux"]["ID"] for line in lines if line["id"] == "moby.image.id"]
    names = [vertex.name for trace in traces for vertex in trace.vertexes if vertex.completed]
    return names, image[0] if image else ""


def test_buildkit_by_the_classic_endpoint(engine: Engine, tmp_path: Path) -> None:
    assert ask(engine.socket, "GET", "/_ping").headers["Builder-Version"] == "2"
    dockerfile = "FROM busybox\nARG A\nRUN echo $A > /a\n"
    query = "version=2&buildargs=%7B%22A%22%3A%22x%22%7D&labels=%7B%22l%22%3A%221%22%7D"
    status, told = _asked(engine, f"{query}&t=posted:1", dockerfile)
    assert status == 200
    names, image = _traced(told)
    assert any("RUN echo" in name for name in names)
    assert engine.out("image", "inspect", "-f", "{{.Id}} {{.Config.Labels.l}}", "posted:1") == f"{image} 1"
    assert _files(engine, "posted:1", "/a") == "x"
    quiet = _asked(engine, f"{query}&q=1", dockerfile)
    assert json.loads(quiet[1]) == {"stream": f"{image}\n"}
    failed = _asked(engine, "version=2", "FROM busybox\nRUN exit 3\n")[1].splitlines()[-1]
    assert "did not complete successfully: exit code: 3" in json.loads(failed)["error"]
    unknown = "version=2&outputs=%5B%7B%22Type%22%3A%22nowhere%22%7D%5D"
    assert "could not be found" in _asked(engine, unknown, dockerfile)[1]
    assert _asked(engine, "version=3")[0] == 400
    engine.docker("rmi", "-f", "posted:1", check=0)


def test_a_context_that_comes_by_another_request(engine: Engine) -> None:
    def upload() -> tuple[int, str]:
        return _asked(engine, "version=2&buildid=upload-request:b1", "FROM busybox\nENV A=1\n")

    with ThreadPoolExecutor() as pool:
        uploading = pool.submit(upload)
        reply = ask(engine.socket, "POST", "/build?version=2&remote=upload-request&buildid=b1&t=posted:2", b"")
        assert uploading.result()[0] == 200
    assert _traced(reply.body.decode())[1].startswith("sha256:")
    engine.docker("rmi", "-f", "posted:2", check=0)
