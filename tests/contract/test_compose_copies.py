"""`compose cp` with services of several containers, by both tools."""

from __future__ import annotations

import tarfile
from io import BytesIO

from support.composing import Both

_THREE = """
name: {name}
services:
  app: {{image: busybox, init: true, command: sleep 1000, scale: 3}}
  idle: {{image: busybox, scale: 0}}
"""


def _contents(project: Both, path: str) -> list[str]:
    """The file's content in each container of the service."""
    words = ("exec", "-T", "--index")
    return [project.docker(*words, str(n), "app", "cat", path, check=None).stdout for n in (1, 2, 3)]


def test_a_copy_reaches_all_containers_of_a_service_or_the_one_that_index_names(project: Both) -> None:
    project.write(_THREE.format(name=project.name))
    project.docker("up", "-d")
    for tool in ("docker", "havre"):
        (file := project.folder / tool).write_text(tool)
        project.by(tool, "cp", str(file), "app:/all")
        assert _contents(project, "/all") == [tool] * 3, tool
        project.by(tool, "cp", "--index", "2", str(file), f"app:/{tool}")
        assert _contents(project, f"/{tool}") == ["", tool, ""], tool


def test_an_archive_on_stdin_reaches_all_containers(ours: Both) -> None:
    ours.write(_THREE.format(name=ours.name))
    ours.havre("up", "-d")
    packed = BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("f")
        member.size = 6
        archive.addfile(member, BytesIO(b"packed"))
    ours.engine.havre("compose", "-f", str(ours.file), "cp", "-", "app:/tmp", stdin=packed.getvalue())
    assert _contents(ours, "/tmp/f") == ["packed"] * 3


def test_copies_from_a_service_and_refusals(ours: Both) -> None:
    ours.write(_THREE.format(name=ours.name))
    ours.havre("up", "-d")
    ours.havre("exec", "-T", "--index", "1", "app", "sh", "-c", "echo first > /own")
    ours.havre("cp", "app:/own", str(ours.folder / "own"))
    assert (ours.folder / "own").read_text() == "first\n"
    for words, text in (
        (("idle:/x", "."), 'no container found for service "idle"'),
        (("app:/x", "app:/y"), "copying between services is not supported"),
        (("./x", "./y"), "one path must be SERVICE:PATH"),
        (("./missing", "app:/x"), "no such file or directory"),
    ):
        assert text in ours.havre("cp", *words, check=1).stderr


def test_all_includes_containers_of_the_run_command(ours: Both) -> None:
    ours.write(_THREE.format(name=ours.name))
    ours.havre("up", "-d")
    one = ours.havre("run", "-d", "app").stdout.strip()
    (ours.folder / "f").write_text("here")
    ours.havre("cp", str(ours.folder / "f"), "app:/services")
    ours.havre("cp", "--all", str(ours.folder / "f"), "app:/everywhere")
    assert ours.engine.out("exec", one, "sh", "-c", "ls -d /services /everywhere 2>/dev/null; true") == "/everywhere"
