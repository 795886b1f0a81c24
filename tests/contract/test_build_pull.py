"""`--pull`: a base that is here is asked for again at its registry, and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.building import docker_build, write_context
from support.engines import Engine
from support.registry import real_registry

pytestmark = pytest.mark.peer


def _version(engine: Engine, image: str) -> str:
    return engine.out("image", "inspect", "-f", "{{.Config.Labels.v}}", image)


def test_a_base_that_has_moved_on(engine: Engine, tmp_path: Path) -> None:
    with real_registry(tmp_path / "registry", inside=engine.inside) as registry:
        base = f"{registry.host}/base:1"
        for version in ("1", "2"):
            source = write_context(tmp_path / version, f"FROM busybox\nLABEL v={version}\n")
            docker_build(engine, source, "-t", base, "-t", f"base:{version}")
            engine.docker("push", "-q", base, check=0)
        engine.docker("tag", "base:1", base, check=0)
        context = write_context(tmp_path / "context", f"FROM {base}\nENV MADE=1\n")
        docker_build(engine, context, "-t", "mine:1")
        assert _version(engine, "mine:1") == "1"
        docker_build(engine, context, "--pull", "-t", "mine:1")
        assert _version(engine, "mine:1") == _version(engine, base) == "2"
        engine.docker("rmi", "-f", "mine:1", base, "base:1", "base:2", check=0)
    engine.docker("image", "prune", "-f", check=0)
