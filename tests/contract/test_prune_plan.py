"""Pruning by plan: what is shown goes, and nothing else; when the world has changed nothing goes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from support.engines import Engine


@pytest.fixture
def litter(havred: Engine) -> Iterator[Engine]:
    """A stopped container, its anonymous volume and its image, an idle network; and things in use."""
    havred.out("run", "-d", "--name", "alive", "-v", "kept:/v", "busybox", "sleep", "1000")
    havred.docker("system", "prune", "-a", "--volumes", "-f", check=0)  # what other tests left
    write = "head -c 50000 /dev/zero > /big; head -c 7000 /dev/zero > /anon/f"
    havred.out("run", "--name", "base", "busybox", "sh", "-c", "head -c 30000 /dev/urandom > /layer")
    havred.out("commit", "base", "litter:1")
    havred.docker("rm", "base", check=0)
    havred.out("run", "--name", "done", "-v", "/anon", "litter:1", "sh", "-c", write)
    havred.out("network", "create", "idle")
    yield havred
    havred.docker("rm", "-f", "-v", "alive", "done", "new")
    havred.docker("network", "rm", "idle")
    havred.docker("rmi", "litter:1")
    havred.docker("volume", "rm", "kept", check=0)


def listed(engine: Engine) -> list[str]:
    """Everything that pruning could remove."""
    return [
        *sorted(engine.out("ps", "-a", "--format", "container {{.Names}}").splitlines()),
        *sorted(engine.out("volume", "ls", "--format", "volume {{.Name}}").splitlines()),
        *sorted(engine.out("network", "ls", "--format", "network {{.Name}}").splitlines()),
        *sorted(engine.out("images", "--format", "image {{.Repository}}").splitlines()),
    ]


def test_a_plan_is_shown_and_carried_out(litter: Engine) -> None:
    before = listed(litter)
    shown = litter.havre("system", "prune", "-a", "--volumes", "--dry-run", check=0).stdout
    assert listed(litter) == before
    rows = [line.split() for line in shown.splitlines()]
    assert [row[0] for row in rows[1:5]] == ["container", "volume", "network", "image"]
    assert sum(row[:1] == ["image"] for row in rows) == 1, "busybox is in use"
    found = re.search(r"^Plan: (\w+)\nReclaimable space: (.*)$", shown, re.MULTILINE)
    assert found
    done = litter.havre("system", "prune", "-a", "--volumes", "--plan", found[1], "-f", check=0).stdout
    assert done.endswith(f"Total reclaimed space: {found[2]}\n")
    assert "container done\n" in done
    gone = set(before) - set(listed(litter))
    assert {item for item in gone if not item.startswith("volume")} == {
        "container done", "network idle", "image litter",
    }  # fmt: skip
    assert "volume kept" in listed(litter)
    assert "does not hold any more" in litter.havre("system", "prune", "-a", "--plan", found[1], "-f", check=1).stderr


def test_a_plan_that_is_out_of_date_is_refused(litter: Engine) -> None:
    shown = litter.havre("system", "prune", "--dry-run", check=0).stdout
    plan = shown.partition("Plan: ")[2].split()[0]
    litter.out("create", "--name", "new", "busybox", "true")
    before = listed(litter)
    refused = litter.havre("system", "prune", "--plan", plan, "-f", check=1)
    assert "something was added, removed or used since" in refused.stderr
    assert listed(litter) == before


def plan_of(engine: Engine, *command: str) -> tuple[str, list[list[str]], str]:
    """The ID of what `--dry-run` shows, its rows, and the bytes it would free as they are shown."""
    shown = engine.havre(*command, "--dry-run", check=0).stdout
    rows, _, totals = shown.partition("\nPlan: ")
    id, _, size = totals.strip().partition("\nReclaimable space: ")
    return id, [line.split() for line in rows.splitlines()[1:]], size


@pytest.mark.parametrize(
    ("command", "kind", "name"),
    [
        (("container", "prune"), "container", "done"),
        (("network", "prune"), "network", "idle"),
        (("volume", "prune", "-a"), "volume", "spare"),
        (("image", "prune"), "image", ""),
    ],
)
def test_each_noun_has_plans(litter: Engine, command: tuple[str, ...], kind: str, name: str) -> None:
    litter.out("volume", "create", "spare")
    litter.out("commit", "done")
    before = listed(litter)
    id, rows, size = plan_of(litter, *command)
    assert listed(litter) == before
    assert {row[0] for row in rows} == {kind}
    assert name in {row[2] for row in rows} | {""}
    gone = litter.havre(*command, "--plan", id, "-f", check=0).stdout
    assert gone.endswith(f"Total reclaimed space: {size}\n")
    assert len(before) - len(listed(litter)) == len(rows)
    assert plan_of(litter, *command)[1] == []
    assert "does not hold any more" in litter.havre(*command, "--plan", id, "-f", check=1).stderr
    litter.docker("volume", "rm", "-f", "spare", check=0)
