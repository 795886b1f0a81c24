"""The filters of the list of containers, and top."""

from __future__ import annotations

import pytest

from havre.containers.container import Container, MountPoint, Run, State
from havre.containers.selection import select
from havre.containers.streams.top import parse_arguments, parse_ps
from havre.errors import Failed, InvalidInput, NotFound
from havre.wire.config import Config, EndpointSettings, PortBinding
from support.rows import container_row


def container(name: str, created: int, **state: object) -> Container:
    networks = {"net": EndpointSettings(network_id="feed")}
    return container_row(
        name,
        state=State(**state),  # type: ignore[arg-type]
        run=Run(networks=networks, ports={"80/tcp": [PortBinding(host_port="8080")]}),
        id=name * 8,
        created=f"2026-01-01T00:00:{created:02d}Z",
        config=Config(labels={"who": name}),
        mounts=[MountPoint(type="volume", name="vol", destination="/d")],
    )


ALL = [
    container("old", 1, status="exited", exit_code=3, started_at="2026-01-01T00:00:01Z"),
    container("mid", 2, status="running"),
    container("new", 3, status="created"),
]


def names(filters: dict[str, list[str]], **options: object) -> list[str]:
    def find(ref: str) -> Container:
        for each in ALL:
            if each.name == ref:
                return each
        raise NotFound(f"No such container: {ref}")

    chosen = select(ALL, filters, find=find, descended=lambda name: ["sha256:1"] if name == "img" else [], **options)  # type: ignore[arg-type]
    return [each.name for each in chosen]


def test_running_alone_unless_asked() -> None:
    assert names({}) == ["mid"]
    assert names({}, all=True) == ["new", "mid", "old"]
    assert names({}, limit=2) == ["new", "mid"]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"name": ["ol"]}, ["old"]),
        ({"name": ["^/mid$"]}, ["mid"]),
        ({"id": ["new"]}, ["new"]),
        ({"label": ["who=old"]}, ["old"]),
        ({"label!": ["who=old"]}, ["new", "mid"]),
        ({"exited": ["3"]}, ["old"]),
        ({"exited": ["0"]}, []),
        ({"status": ["created", "exited"]}, ["new", "old"]),
        ({"before": ["new"]}, ["mid", "old"]),
        ({"since": ["old"]}, ["new", "mid"]),
        ({"network": ["fee"]}, ["new", "mid", "old"]),
        ({"network": ["other"]}, []),
        ({"volume": ["vol"]}, ["new", "mid", "old"]),
        ({"volume": ["/nope"]}, []),
        ({"publish": ["8080"]}, ["new", "mid", "old"]),
        ({"expose": ["70-90/tcp"]}, ["new", "mid", "old"]),
        ({"expose": ["81"]}, []),
        ({"ancestor": ["img"]}, ["new", "mid", "old"]),
        ({"ancestor": ["none"]}, []),
        ({"is-task": ["true"]}, []),
    ],
)
def test_filters(filters: dict[str, list[str]], found: list[str]) -> None:
    assert names(filters, all=True) == found


@pytest.mark.parametrize(
    ("filters", "text"),
    [
        ({"foo": ["x"]}, "invalid filter 'foo'"),
        ({"status": ["odd"]}, "invalid filter 'status=odd'"),
        ({"exited": ["x"]}, "invalid filter 'exited=x'"),
        ({"health": ["odd"]}, "unrecognized filter value for health: odd"),
        ({"publish": ["1:2"]}, "should not contain ':'"),
        ({"expose": ["0"]}, "error while looking up for expose 0"),
    ],
)
def test_bad_filters(filters: dict[str, list[str]], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        names(filters)


def test_unknown_container_in_before() -> None:
    with pytest.raises(NotFound):
        names({"before": ["nobody"]})


def test_ps_output_is_narrowed() -> None:
    text = "UID  PID CMD\nroot 1 init\nroot 77 sleep 1000 and more\n"
    assert parse_ps(text, {77}).processes == [["root", "77", "sleep 1000 and more"]]
    with pytest.raises(Failed, match="Couldn't find PID field"):
        parse_ps("COMMAND\nx\n", {1})


def test_pid_column_keeps_its_name() -> None:
    with pytest.raises(InvalidInput, match="is not allowed"):
        parse_arguments("-o args -o pid=foo")
