"""The images that come with havre, once they have been removed."""

from __future__ import annotations

from pathlib import Path

from support.engines import Engine


def test_a_missing_one_is_made_again(havred: Engine) -> None:
    done = havred.havre("run", "--rm", "hello", check=0)
    assert "Made hello:latest from this host's busybox" in done.stderr
    assert done.stdout.strip()
    assert havred.out("images", "-q", "hello")
    havred.out("rmi", "hello")


def test_other_names_are_not(havred: Engine) -> None:
    assert "anew" not in havred.havre("run", "--rm", "hello:2", check=125).stderr
    assert "anew" not in havred.havre("create", "--pull", "never", "hello", check=1).stderr


def test_a_context_without_a_dockerfile(havred: Engine, tmp_path: Path) -> None:
    said = havred.havre("build", str(tmp_path), check=1).stderr
    assert said.startswith(f"failed to read dockerfile: open {tmp_path}/Dockerfile: no such file or directory")
