"""A project of real software, `tests/examples/shop`: nginx, PostgreSQL, redis, and Python that is built, through its
whole life by docker compose on our socket and by `havre compose`, each taking over from the other."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.composing import Both, living
from support.engines import ROOT, Engine
from support.images import debian_tree
from support.waiting import until

IMAGE = "debian:shop"
CONTAINERS = ["app-1", "app-2", "cache-1", "db-1", "web-1", "worker-1"]
BUILT = ("app", "worker")
SLOW_S = 180


class Shop(Both):
    """The example, with the ways in that its users have."""

    def ask(self, path: str) -> str:
        """What the shop answers at its published port; empty when it does not."""
        command = [*self.engine.inside, "curl", "-sf", "-m", "5", f"http://127.0.0.1:18080{path}"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    def serves(self, greeting: str, visits: int) -> None:
        """One visit more, the last of so many, is answered and comes to the database."""
        assert self.ask("/") == f"{greeting} {visits}"
        until(lambda: self.ask("/written") == str(visits), "the worker to write")

    def objects(self) -> dict[str, Any]:
        """As `inspected`, without the IDs of the images that each tool has built in its own way."""
        found = self.inspected()
        for name, container in found["containers"].items():
            if any(f"-{service}-" in name for service in BUILT):
                del container["Config"]["Labels"]["com.docker.compose.image"]
        return found


@pytest.fixture
def shop(havred: Engine, tmp_path: Path) -> Iterator[Shop]:
    """The example in a folder of its own, and the image that it is made from."""
    havred.docker("import", str(debian_tree()), IMAGE, check=0, timeout_s=SLOW_S)
    shutil.copytree(ROOT / "tests" / "examples" / "shop", tmp_path, dirs_exist_ok=True)
    shop = Shop(havred, tmp_path)
    havred.env |= {"COMPOSE_PROJECT_NAME": shop.name, "PASSWORD": "open sesame", "DEBIAN": IMAGE}
    try:
        yield from living(shop)  # type: ignore[misc]
    finally:
        for name in ("COMPOSE_PROJECT_NAME", "PASSWORD", "DEBIAN"):
            del havred.env[name]
        images = [f"{shop.name}-{service}" for service in BUILT]
        havred.docker("rmi", "-f", *images, IMAGE)


def test_a_shop_lives_by_either_tool(shop: Shop) -> None:
    shop.docker("up", "-d", "--build", "--wait", timeout_s=SLOW_S)
    assert sorted(shop.containers()) == CONTAINERS
    shop.serves("welcome", 1)
    first, theirs = shop.containers(), shop.objects()
    _live(shop, "havre", first)
    shop.havre("down", "-v", "--rmi", "local", timeout_s=SLOW_S)
    assert not shop.left()
    shop.havre("up", "-d", "--build", "--wait", timeout_s=SLOW_S)
    second, mine = shop.containers(), shop.objects()
    assert mine == theirs
    shop.serves("welcome", 1)
    _live(shop, "docker", second)
    _rebuild(shop)
    shop.docker("down", "-v", "--rmi", "local", timeout_s=SLOW_S)
    assert not shop.left()


def _live(shop: Shop, tool: str, before: dict[str, str]) -> None:
    """The middle of the project's life, by the tool that has not begun it."""
    shop.by(tool, "up", "-d", "--wait", timeout_s=SLOW_S)
    assert shop.containers() == before, f"{tool} replaced what the other has made"
    running = [json.loads(line) for line in shop.by(tool, "ps", "--format", "json").stdout.splitlines()]
    assert {row["Service"] for row in running} == {"web", "app", "worker", "cache", "db"}
    assert shop.by(tool, "run", "--rm", "-T", "admin").stdout == "1\n"
    assert shop.by(tool, "exec", "-T", "cache", "redis-cli", "get", "visits").stdout == "1\n"
    assert "Ready to accept connections" in shop.by(tool, "logs", "cache").stdout
    shop.by(tool, "stop", "worker")
    assert shop.ask("/") == "welcome 2"
    shop.by(tool, "start", "worker")
    until(lambda: shop.ask("/written") == "2", "the worker to write what was queued")
    shop.by(tool, "up", "-d", "--no-deps", "--scale", "app=1", "app")


def _rebuild(shop: Shop) -> None:
    """What was changed is built anew and replaced, the rest is left alone."""
    before = shop.containers()
    code = shop.folder / "app" / "shop.py"
    code.write_text(code.read_text().replace('GREETING = "welcome"', 'GREETING = "hello"'))
    shop.havre("up", "-d", "--build", "--wait", timeout_s=SLOW_S)
    after = shop.containers()
    assert _services(after) == _services(CONTAINERS), "a number is free to be another after scaling down and up"
    kept = {name for name in after if after[name] == before.get(name)}
    assert {"cache-1", "db-1"} <= kept, "what was not built is not replaced"
    assert not {"app", "worker"} & set(_services(kept))
    until(lambda: shop.ask("/").startswith("hello"), "the new application behind nginx")


def _services(containers: Iterable[str]) -> list[str]:
    """Of each container the service that it belongs to."""
    return sorted(name.rpartition("-")[0] for name in containers)
