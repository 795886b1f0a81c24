"""With the host going down: which containers end before which, and how long that may take."""

from __future__ import annotations

import pytest

from havre.containers.container import Container
from havre.containers.life.shutdown import LONGEST_S, longest_s, plan_waves, stop_timeout_s
from havre.wire.config import Config, HostConfig
from support.rows import container_row


def container(name: str, stop_timeout: int | None = None, **host: object) -> Container:
    return container_row(
        name,
        id=name * 8,
        config=Config(stop_timeout=stop_timeout),
        host_config=HostConfig(**host),  # type: ignore[arg-type]
    )


def names(*containers: Container) -> list[str]:
    return ["".join(each.name for each in wave) for wave in plan_waves(containers)]


def test_those_that_need_nobody_end_at_once() -> None:
    assert names() == []
    assert names(container("a"), container("b"), container("c")) == ["abc"]


@pytest.mark.parametrize("kind", ["network_mode", "pid_mode", "ipc_mode"])
def test_who_has_a_namespace_of_anothers_ends_before_it(kind: str) -> None:
    joined = {kind: f"container:{'a' * 8}"}
    assert names(container("a"), container("b", **joined), container("c")) == ["bc", "a"]
    assert names(container("b", **joined)) == ["b"]  # the other one does not run


def test_who_is_linked_to_another_ends_before_it() -> None:
    chain = [container("a"), container("b", links=["/a:db"]), container("c", links=["B"]), container("d")]
    assert names(*chain) == ["cd", "b", "a"]
    other_network = container("b", network_mode="mine", links=["a"])  # by name there, which changes nothing
    assert names(container("a"), other_network) == ["ab"]


def test_a_circle_ends_at_once() -> None:
    circle = [container("a", links=["b"]), container("b", links=["a"]), container("c", links=["a"])]
    assert names(*circle) == ["c", "ab"]


def test_how_long_it_may_take() -> None:
    assert stop_timeout_s(container("a")) == 10
    assert stop_timeout_s(container("a", 0)) == 0
    assert stop_timeout_s(container("a", -1)) == stop_timeout_s(container("a", 99999)) == LONGEST_S
    assert longest_s([]) == 0
    assert longest_s([[container("a", 3), container("b", 60)], [container("c", 1)]]) == 65 + 6
