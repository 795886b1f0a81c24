"""`havre builder` and `havre buildx`: the words of docker's plugin, by havre's own command line."""

from __future__ import annotations

from pathlib import Path

from support.building import docker_build, write_context
from support.engines import Engine
from support.raw import ask

_STEPS = "FROM busybox\n" + "".join(f"RUN dd if=/dev/zero of=/file{n} bs=1M count=2\n" for n in range(3))


def _records(engine: Engine) -> list[dict[str, object]]:
    cached: list[dict[str, object]] = ask(engine.socket, "GET", "/system/df").json["BuildCache"] or []
    return cached


def test_each_word_builds(havred: Engine, tmp_path: Path) -> None:
    context = write_context(tmp_path / "context", "FROM busybox\nARG who\nRUN echo $who >/who\n")
    for word in (("builder", "build"), ("buildx", "build"), ("buildx", "b")):
        havred.havre(*word, "--build-arg", f"who={word[1]}", "-t", "worded:1", str(context), check=0)
        assert havred.out("run", "--rm", "--network", "none", "worded:1", "cat", "/who") == word[1]
    havred.docker("builder", "prune", "-af", check=0)


def test_usage_and_prune_by_space(havred: Engine, tmp_path: Path) -> None:
    havred.docker("builder", "prune", "-af", check=0)
    docker_build(havred, write_context(tmp_path / "context", _STEPS), "-t", "spaced:1")
    havred.docker("rmi", "-f", "spaced:1", check=0)
    usage = havred.havre("buildx", "du", check=0).stdout.splitlines()
    assert usage[0].split() == ["ID", "RECLAIMABLE", "SIZE", "LAST", "ACCESSED"]
    assert {line.split()[0] for line in usage[1:4]} == {record["ID"] for record in _records(havred)}
    assert usage[4].startswith("Reclaimable:\t6.")
    one = str(_records(havred)[0]["ID"])
    shown = havred.havre("buildx", "du", "--verbose", "--filter", f"id={one}", check=0).stdout
    assert [line.split()[1] for line in shown.splitlines() if line.startswith("ID:")] == [one]
    assert havred.havre("buildx", "du", "--filter", "kind=x", check=1).stderr.startswith("invalid filter 'kind'")
    havred.havre("builder", "prune", "-af", "--min-free-space", "1", check=0)
    assert len(_records(havred)) == 3
    planned = havred.havre("builder", "prune", "-a", "--dry-run", "--max-used-space", "5MB", check=0).stdout
    assert len([line for line in planned.splitlines() if line.startswith("cache ")]) == 1
    havred.havre("buildx", "prune", "-af", "--max-used-space", "5MB", check=0)
    assert len(_records(havred)) == 2
    havred.havre("builder", "prune", "-af", "--max-used-space", "1", "--reserved-space", "3MB", check=0)
    assert len(_records(havred)) == 1
    havred.havre("builder", "prune", "-af", check=0)


def test_the_daemon_is_the_one_builder(havred: Engine) -> None:
    listed = havred.havre("buildx", "ls", check=0).stdout.splitlines()
    assert listed[1].split()[:3] == ["default*", "docker", "running"]
    assert len(listed) == 2
    assert "Driver: docker\n" in havred.havre("buildx", "inspect", check=0).stdout
    havred.havre("buildx", "use", "default", check=0)
    for words in (("inspect", "other"), ("use", "other"), ("du", "--builder", "other")):
        assert 'no builder "other" found' in havred.havre("buildx", *words, check=1).stderr
    assert havred.havre("buildx", "version", check=0).stdout.startswith("havre buildx ")


def test_limits_of_space_on_daemons_that_do_not_know_them(engine: Engine) -> None:
    words = ("builder", "prune", "-af", "--reserved-space", "1GB")
    engine.havre(*words, check=0)
    if engine.name == "havre":
        engine.havre(*words, "--max-used-space", "2GB", check=0)
    else:
        assert '"--max-used-space" requires API' in engine.havre(*words, "--max-used-space", "2GB", check=1).stderr
