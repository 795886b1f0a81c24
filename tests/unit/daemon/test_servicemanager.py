"""What the daemon hears of systemd (a stand-in for systemctl), and what it tells those who wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from pathlib import Path

import pytest

from havre.daemon import program as daemon
from havre.daemon.servicemanager import host_goes_down, refuse_waiting


def ask(directory: Path, script: str) -> bool:
    systemctl = directory / "systemctl"
    systemctl.write_text(f'#!/bin/sh\n[ "$*" = is-system-running ] || exit 9\n{script}\n')
    systemctl.chmod(0o755)
    return asyncio.run(host_goes_down(directory, str(systemctl)))


@pytest.mark.parametrize(
    ("state", "down"), [("stopping", True), ("running", False), ("degraded", False), ("starting", False), ("", False)]
)
def test_only_stopping_is_the_hosts_end(tmp_path: Path, state: str, down: bool) -> None:
    assert ask(tmp_path, f"echo {state}; exit 1") is down


def test_a_host_without_systemd_is_not_asked(tmp_path: Path) -> None:
    assert not asyncio.run(host_goes_down(tmp_path / "absent", "/bin/false"))
    assert not asyncio.run(host_goes_down(tmp_path, str(tmp_path / "no-systemctl")))


def test_systemd_that_does_not_answer_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("havre.daemon.servicemanager._ANSWER_S", 0.05)
    assert not ask(tmp_path, "echo stopping; exec sleep 60")


@pytest.mark.parametrize("error", [OSError("disk"), RuntimeError("defect")])
def test_a_start_that_fails_by_a_defect_is_told_to_those_who_wait(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[list[int], str]] = []

    def fail(values: object) -> None:
        raise error

    monkeypatch.setattr(daemon, "load", fail)
    monkeypatch.setattr(daemon, "inherited_sockets", lambda: [3])
    monkeypatch.setattr(daemon, "refuse_waiting", lambda sockets, why: told.append((sockets, why)))
    with pytest.raises(type(error)):
        daemon.main([])
    assert told == [([3], f"the daemon does not start: {type(error).__name__}: {error}")]


def test_silent_clients_do_not_hold_up_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("havre.daemon.servicemanager._REFUSING_S", 0.2)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(tmp_path / "s"))
        listener.listen(100)
        clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(50)]
        for client in clients:
            client.connect(str(tmp_path / "s"))
        clients[-1].sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        begun = time.monotonic()
        refuse_waiting([listener.fileno()], "no disk")
        assert time.monotonic() - begun < 5, "one wait for all of them, not one for each"
        for client in (clients[-1], clients[0]):
            answer = client.recv(4096)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert answer.endswith(b'{"message": "no disk"}')
    refuse_waiting([], "nobody waits")
