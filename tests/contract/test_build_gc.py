"""The build cache's limits: by hand (`builder prune`) and by `builder.gc` in daemon.json."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from havre.api.buildkit import messages as m
from support.building import docker_build, write_context
from support.buildkit import CONTROL, calling
from support.engines import Engine, Havred, serving
from support.raw import ask
from support.waiting import until

_STEPS = "FROM busybox\n" + "".join(f"RUN dd if=/dev/zero of=/file{n} bs=1M count=2\n" for n in range(3))
_MEGABYTE = 1 << 20


def _records(engine: Engine) -> list[dict[str, object]]:
    cached: list[dict[str, object]] = ask(engine.socket, "GET", "/system/df").json["BuildCache"] or []
    return cached


def _size(engine: Engine) -> int:
    return sum(int(str(record["Size"])) for record in _records(engine))


@pytest.fixture
def limited(tmp_path: Path, archive: Path) -> Iterator[Engine]:
    """A daemon that keeps no more than 3 MB of cache."""
    file = tmp_path / "daemon.json"
    file.write_text(
        json.dumps({"builder": {"gc": {"enabled": True, "policy": [{"maxUsedSpace": "3MB", "all": True}]}}})
    )
    with serving(Havred(["--config-file", str(file)]), archive) as engine:
        yield engine


def test_a_policy_limits_the_cache(limited: Engine, tmp_path: Path) -> None:
    context = write_context(tmp_path / "context", _STEPS)
    docker_build(limited, context, "-t", "kept:1")
    until(lambda: _size(limited) <= 3 * _MEGABYTE, "the oldest records to go", 30)
    assert len(_records(limited)) == 1
    assert limited.out("run", "--rm", "--network", "none", "kept:1", "ls", "/file0") == "/file0"


def test_contexts_that_are_kept_count(havred: Engine, tmp_path: Path) -> None:
    havred.docker("builder", "prune", "-af", check=0)
    context = write_context(tmp_path / "context", "FROM scratch\nCOPY big /\n", {"big": "x" * 3 * _MEGABYTE})
    for command in (("havre", "build", "-q"), ("docker", "buildx", "build", "-q")):
        run = havred.havre if command[0] == "havre" else havred.docker
        run(*command[1:], str(context), check=0)
        kept = [record for record in _records(havred) if record["Type"] == "source.local"]
        assert len(kept) == 1
        assert int(str(kept[0]["Size"])) >= 3 * _MEGABYTE
        assert "source.local" in havred.out("buildx", "du", "--verbose")
        havred.docker("builder", "prune", "-af", check=0)
        assert _records(havred) == []
    havred.docker("image", "prune", "-f", check=0)


def test_pruning_by_size_and_age(havred: Engine, tmp_path: Path) -> None:
    havred.docker("builder", "prune", "-af", check=0)
    context = write_context(tmp_path / "context", _STEPS)
    docker_build(havred, context, "-t", "pruned:1")
    havred.docker("rmi", "-f", "pruned:1", check=0)
    assert _size(havred) > 6 * _MEGABYTE
    havred.docker("builder", "prune", "-af", "--filter", "until=1h", check=0)
    assert len(_records(havred)) == 3
    havred.docker("builder", "prune", "-af", "--keep-storage", "5MB", check=0)
    assert len(_records(havred)) == 2
    havred.docker("builder", "prune", "-af", "--filter", "until=0s", check=0)
    assert _records(havred) == []


def test_pruning_by_space_used_and_free(havred: Engine, tmp_path: Path) -> None:
    havred.docker("builder", "prune", "-af", check=0)
    context = write_context(tmp_path / "context", _STEPS)
    docker_build(havred, context, "-t", "pruned:2")
    havred.docker("rmi", "-f", "pruned:2", check=0)
    ask(havred.socket, "POST", "/build/prune?all=1&min-free-space=1")
    assert len(_records(havred)) == 3
    ask(havred.socket, "POST", "/build/prune?all=1&max-used-space=5000000")
    assert len(_records(havred)) == 2

    async def by_buildx(request: m.PruneRequest) -> int:
        async with asyncio.timeout(30), calling(havred.socket) as caller:
            return len([each async for each in caller.listen(f"{CONTROL}Prune", request, m.UsageRecord)])

    kept = m.PruneRequest(all=True, max_used_bytes=1, reserved_bytes=5_000_000)
    assert asyncio.run(by_buildx(kept)) == 0
    assert asyncio.run(by_buildx(m.PruneRequest(all=True, max_used_bytes=3_000_000))) == 1
    assert asyncio.run(by_buildx(m.PruneRequest(all=True, min_free_bytes=1 << 60))) == 1
    assert _records(havred) == []
