"""Messages and hints for a daemon that cannot be reached."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from havre.client import autostart, unreachable
from havre.client.endpoint import DEFAULT_HOST, parse_endpoint


@pytest.mark.parametrize(
    ("group", "mode", "hint"),
    [
        (os.getgid() or 1, 0o660, "use sudo, or join the group: sudo usermod -aG {} $USER, then log in again"),
        (0, 0o660, "use sudo"),
        (1, 0o600, "use sudo"),
    ],
)
def test_rights_are_those_of_the_sockets_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int, mode: int, hint: str
) -> None:
    import grp

    status = os.stat_result((0o140000 | mode, 0, 0, 1, 0, group, 0, 0, 0, 0))
    monkeypatch.setattr(unreachable.posix, "stat", lambda path: status)
    message, said = unreachable.explain(parse_endpoint(f"unix://{tmp_path}/s"), PermissionError(13, "denied"))
    assert message == f"permission denied while trying to connect to the daemon at unix://{tmp_path}/s"
    assert said == hint.format(grp.getgrgid(group).gr_name)


def test_a_group_without_a_name_cannot_be_joined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status = os.stat_result((0o140660, 0, 0, 1, 0, 4_000_000_001, 0, 0, 0, 0))
    monkeypatch.setattr(unreachable.posix, "stat", lambda path: status)
    assert unreachable.explain(parse_endpoint(f"unix://{tmp_path}/s"), PermissionError(13, "denied"))[1] == "use sudo"


@pytest.mark.parametrize(
    ("present", "user", "hint"),
    [
        (("/run/systemd/system", "/etc/systemd/system/havre.service"), 1000, "start it: sudo systemctl start havre"),
        (("/run/systemd/system",), 0, "start it: havred"),
        ((), 1000, "start it: sudo havred"),
    ],
)
def test_how_to_start_it(monkeypatch: pytest.MonkeyPatch, present: tuple[str, ...], user: int, hint: str) -> None:
    monkeypatch.setattr(autostart, "exists", present.__contains__)
    monkeypatch.setattr(unreachable.posix, "geteuid", lambda: user)
    message, said = unreachable.explain(parse_endpoint(DEFAULT_HOST), FileNotFoundError(2, "no such file"))
    assert (message, said) == (f"Cannot connect to the daemon at {DEFAULT_HOST}. Is it running?", hint)


def test_nothing_is_known_of_other_engines() -> None:
    endpoint = parse_endpoint("tcp://192.0.2.1:2375")
    assert unreachable.explain(endpoint, ConnectionRefusedError(111, "refused"))[1] is None
