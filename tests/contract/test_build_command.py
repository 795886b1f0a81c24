"""`havre build`: what it sends, what it shows, where it puts what was built."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import tarfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from support.building import tree_of, wanted_files, write_context
from support.engines import HAVRE, Engine
from support.raw import ask
from support.terminals import Terminal
from support.waiting import until

_SECRET = "hunter2-unmistakable"


def _build(engine: Engine, *arguments: str, code: int = 0) -> str:
    return engine.havre("build", *arguments, check=code).stderr


def test_only_what_changed_is_wanted_again(havred: Engine, tmp_path: Path) -> None:
    context = write_context(tmp_path / "c", "FROM scratch\nCOPY a b /\n", {"a": "1", "b": "2"})
    _build(havred, "-q", str(context))
    # The same list under the same key, which is the directory's: nothing is wanted, so contents would be too many.
    assert wanted_files(havred, context, f"context:{context}") == {"context": []}
    assert wanted_files(havred, context, "another") == {"context": [0, 1, 2]}
    (context / "b").write_text("3")
    first = _build(havred, "--progress", "plain", "-t", "changed", str(context))
    assert "COPY a b /\n" in first
    assert tree_of(havred, "changed")["b"][4] == b"3"
    again = _build(havred, "--progress", "plain", "-t", "changed", str(context))
    assert re.search(r"#\d \[1/1\] COPY a b /\n#\d CACHED", again.replace("[2/2]", "[1/1]")), again
    havred.docker("rmi", "changed", check=0)


def test_a_list_that_lies(havred: Engine) -> None:
    headers = {"Content-Type": "application/vnd.havre.context"}

    def told(files: list[list[object]], rest: bytes = b"") -> str:
        head = json.dumps({"Contexts": {"context": {"Key": "", "Files": files}}}).encode() + b"\n"
        return ask(havred.socket, "POST", "/build", head + rest, headers).body.decode()

    assert "before its directory" in told([["d/f", 0o100644, 1, 1, ""]])
    assert "a file named" in told([["../f", 0o100644, 1, 1, ""]])
    assert "which no context can have" in told([["f", 0o020644, 1, 1, ""]])
    assert "is no bytes" in told([["\u4e00", 0o100644, 1, 1, ""]])
    assert "ends before its last file" in told([["f", 0o100644, 9, 1, ""]], b"\0" * 7)
    assert "goes on after its last file" in told([["f", 0o100644, 1, 1, ""]], (1).to_bytes(8, "big") + b"xy")
    assert "a file of" in told([["f", 0o100644, 1, 1, ""]], b"\xff" * 9)
    assert "has no head" in ask(havred.socket, "POST", "/build", b"x", headers).body.decode()
    assert (
        "the head of the build context is wrong" in ask(havred.socket, "POST", "/build", b"{}\n", headers).body.decode()
    )


def test_secrets_contexts_and_outputs(havred: Engine, tmp_path: Path) -> None:
    text = """
FROM busybox AS made
RUN --mount=type=secret,id=file --mount=type=secret,id=VARIABLE,env=V cat /run/secrets/file > /dev/null && \
    echo "$V" | wc -c > /length
COPY --from=other x /
FROM scratch
COPY --from=made /length /x /
"""
    context = write_context(tmp_path / "c", text)
    other = write_context(tmp_path / "other", "", {"x": "from elsewhere"})
    (tmp_path / "secret").write_text(_SECRET)
    havred.env["VARIABLE"] = _SECRET
    try:
        flags = ["--secret", f"id=file,src={tmp_path / 'secret'}", "--secret", "id=VARIABLE"]
        flags += ["--build-context", f"other={other}"]
        metadata, graph = tmp_path / "metadata", tmp_path / "graph.svg"
        _build(havred, *flags, "-o", str(tmp_path / "out"), "--graph", str(graph), str(context))
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["length", "x"]
        assert (tmp_path / "out/length").read_text() == f"{len(_SECRET) + 1}\n"
        done = subprocess.run(
            [HAVRE, "build", *flags, "-o", "-", "--metadata-file", str(metadata), str(context)],
            env=havred.env,
            capture_output=True,
            check=True,
        )
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as files:
            assert sorted(files.getnames()) == ["length", "x"]
        assert json.loads(metadata.read_text())["containerimage.digest"].startswith("sha256:")
        drawn = "".join(ElementTree.parse(graph).getroot().itertext())
        assert "COPY --from=made /length /x /" in drawn
        assert "made" in drawn
        missing = _build(havred, "--build-context", f"other={other}", "--no-cache", str(context), code=1)
        assert "failed to solve" in missing
    finally:
        del havred.env["VARIABLE"]


def test_secrets_are_nowhere_afterwards(havred: Engine, tmp_path: Path) -> None:
    """Not in history, layers, cache records, logs or the daemon's files."""
    seen = "test -s /s && cp /s /tmp/gone && rm /tmp/gone && date > /d"
    text = f"FROM busybox\nRUN --mount=type=secret,id=s,target=/s {seen}\n"
    context = write_context(tmp_path / "c", text)
    (tmp_path / "secret").write_text(_SECRET)
    _build(havred, "--secret", f"id=s,src={tmp_path / 'secret'}", "-t", "secretive", str(context))
    archive = subprocess.run(["docker", "save", "secretive"], env=havred.env, capture_output=True, check=True).stdout
    told = havred.out("history", "--no-trunc", "secretive") + havred.out("system", "df", "-v")
    assert _SECRET.encode() not in archive
    assert _SECRET not in told + havred.log.read_text()
    found = subprocess.run(
        ["grep", "-rlF", "--binary-files=text", _SECRET, str(havred.root)], capture_output=True, text=True, check=False
    )
    assert found.stdout == "", "a secret on the disk"
    havred.docker("rmi", "secretive")


def test_what_is_shown(havred: Engine, tmp_path: Path) -> None:
    context = write_context(tmp_path / "c", "FROM busybox\nRUN echo one; echo two\nRUN echo broken >&2; exit 3\n")
    failed = _build(havred, "--progress", "plain", str(context), code=3)
    assert re.search(r"#2 \[2/3\] RUN echo one; echo two\n#2 \d+\.\d+ one\n#2 \d+\.\d+ two\n#2 DONE", failed), failed
    assert " > [3/3] RUN echo broken >&2; exit 3:\nbroken\n------" in failed
    assert "Dockerfile:3" in failed
    assert "\n   2 |     RUN echo one; echo two\n   3 | >>> RUN echo broken >&2; exit 3\n" in failed
    assert failed.splitlines()[-1].startswith("ERROR: failed to solve: process")
    lines = _build(havred, "--progress", "rawjson", str(context), code=3).splitlines()
    assert any('"vertexes"' in line and "RUN echo one" in line for line in lines)
    with Terminal([str(HAVRE), "build", str(context)], havred.env) as terminal:
        terminal.expect("[+] Building")
        terminal.expect("=> CACHED [2/3] RUN echo one; echo two")
        terminal.expect("=> ERROR [3/3]")
        terminal.expect("exit code: 3")


def test_a_client_that_is_interrupted_ends_its_build(havred: Engine, tmp_path: Path) -> None:
    context = write_context(tmp_path / "c", "FROM busybox\nRUN echo begun; sleep 1357\n")
    process = subprocess.Popen(
        [HAVRE, "build", "--progress", "plain", str(context)], env=havred.env, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert any("begun" in line for line in process.stderr)
    until(lambda: _sleepers(havred), "the command to sleep")
    process.send_signal(signal.SIGINT)
    process.wait(30)
    process.stderr.close()
    runs = havred.root / "run"
    until(lambda: not list(runs.glob("**/bundle*/**/config.json")) and not _sleepers(havred), "it to be gone", 30)


def _sleepers(engine: Engine) -> list[str]:
    """The processes of the test's command that the engine has started."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            sleeps = entry.name.isdigit() and (entry / "cmdline").read_bytes() == b"sleep\x001357\x00"
            if sleeps and f"{engine.cgroup}/" in (entry / "cgroup").read_text():
                found.append(entry.name)
        except OSError:
            continue
    return found


def test_by_a_daemon_of_another_kind(engine: Engine, tmp_path: Path) -> None:
    """dockerd takes the same command by its classic endpoint, and what that cannot do is told."""
    context = write_context(tmp_path / "c", "FROM busybox\nCOPY f /\n", {"f": "content"})
    _build(engine, "-t", "plain", str(context))
    assert tree_of(engine, "plain", ("f",))["f"][4] == b"content"
    _build(engine, "-q", "-o", str(tmp_path / "out"), str(context))
    assert (tmp_path / "out/f").read_text() == "content"
    if engine.name != "havre":
        assert "needs havre's daemon" in _build(engine, "--secret", "id=HOME", str(context), code=1)
    engine.docker("rmi", "plain")


def test_an_error_is_red_on_a_terminal(havred: Engine, tmp_path: Path) -> None:
    context = write_context(tmp_path / "c", "FROM busybox\nRUN exit 3\n")
    for variables, red in (({}, "\x1b[31m"), ({"NO_COLOR": "1"}, "")):
        with Terminal([str(HAVRE), "build", str(context)], {**havred.env, "TERM": "xterm", **variables}) as terminal:
            terminal.expect("/2)")
            terminal.expect(f"\x1b[2K{red} => ERROR [2/2] RUN exit 3")
            terminal.expect("   2 | >>> RUN exit 3")
            terminal.expect(f"\r\n{red}ERROR: failed to solve: process")


def test_annotations_and_builders(havred: Engine, tmp_path: Path) -> None:
    context, archive = write_context(tmp_path / "c", "FROM scratch\nCOPY Dockerfile /\n"), tmp_path / "image.tar"
    _build(havred, "--annotation", "a=b", "--annotation", "manifest[linux/arm64]:c=d", "--annotation", "index:e=f",
           "--builder", "default", "--platform", "linux/amd64,linux/arm64", "-o", f"type=oci,dest={archive}",
           str(context))  # fmt: skip
    with tarfile.open(archive) as tar:

        def document(digest: str) -> dict[str, Any]:
            file = tar.extractfile(f"blobs/{digest.replace(':', '/')}")
            assert file is not None
            found: dict[str, Any] = json.load(file)
            return found

        layout = tar.extractfile("index.json")
        assert layout is not None
        index = document(json.load(layout)["manifests"][0]["digest"])
        manifests = [document(each["digest"])["annotations"] for each in index["manifests"]]
    assert index["annotations"] == {"e": "f"}
    assert manifests == [{"a": "b"}, {"a": "b", "c": "d"}]
    assert "--annotation is for outputs" in _build(havred, "--annotation", "a=b", str(context), code=1)
    assert "KEY=VALUE is expected" in _build(havred, "--annotation", "a", str(context), code=1)
    for command in (("build", str(context)), ("builder", "prune", "-f")):
        told = havred.havre(*command, "--builder", "other", check=1).stderr
        assert told == 'no builder "other" found\n'
    havred.havre("builder", "prune", "-f", "--builder", "default", check=0)
