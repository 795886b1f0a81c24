"""The daemon is started when nobody listens, waited for, and its last words are told when it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from havre.client import api, autostart
from havre.client.endpoint import Endpoint
from havre.errors import Unavailable

LISTENS = """\
import os, socket, sys
with open({pid!r}, "w") as file:
    file.write(f"{{os.getpid()}} {{os.getsid(0)}}")
listener = socket.socket(socket.AF_UNIX)
listener.bind({socket!r})
listener.listen()
while True:
    connection, _ = listener.accept()
    if connection.recv(1000):
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n[]")
"""
DIES = """\
import sys
sys.exit("no room on the data root")
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `havred` is expected; socket and log are the test's own."""
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "havre")])
    monkeypatch.setattr(autostart, "DEFAULT_SOCKET", str(tmp_path / "s"))
    monkeypatch.setattr(autostart, "_BOOTED", str(tmp_path / "no-systemd"))
    monkeypatch.setattr(autostart, "_LOGS", ("/proc/no/such.log", str(tmp_path / "logs" / "havre.log")))
    monkeypatch.setattr(autostart.posix, "geteuid", lambda: 0)
    return tmp_path / "havred"


def write(program: Path, text: str) -> None:
    program.write_text(f"#!{sys.executable}\n{text}")
    program.chmod(0o755)


def test_a_call_that_finds_nobody_starts_the_daemon_and_goes_through(
    program: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(program, LISTENS.format(pid=str(tmp_path / "pid"), socket=str(tmp_path / "s")))
    client = api.Client(Endpoint("unix", str(tmp_path / "s"), "unix://s"), None, autostart.start_daemon)
    client._version = ""
    try:
        assert client.get("/containers/json") == []
        pid, session = (int(word) for word in (tmp_path / "pid").read_text().split())
        assert session == pid != os.getsid(0)
        assert capsys.readouterr().err == f"havre: starting the daemon (log: {tmp_path}/logs/havre.log)\n"
    finally:
        os.kill(int((tmp_path / "pid").read_text().split()[0]), signal.SIGKILL)
        os.wait()


def test_a_daemon_that_dies_is_told_with_its_last_words(program: Path) -> None:
    write(program, DIES)
    with pytest.raises(Unavailable, match="ended with status 1: no room on the data root"):
        autostart.start_daemon()


def test_another_clients_daemon_that_comes_up_meanwhile_is_waited_for(program: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "go")
    write(program, LISTENS.format(pid=str(tmp_path / "pid"), socket=str(tmp_path / "s")))
    other = subprocess.Popen([sys.executable, "-c", f"open({str(tmp_path / 'go')!r}).read()\n{program.read_text()}"])
    write(
        program, f"open({str(tmp_path / 'go')!r}, 'w').close()\nraise SystemExit('process with PID 1 is still running')"
    )
    try:
        autostart.start_daemon()
        assert autostart._listens()
    finally:
        other.kill()
        other.wait()


@pytest.fixture
def systemd(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with systemd and our unit: where its systemctl is expected."""
    write(program, DIES)
    (tmp_path / "units").mkdir()
    (tmp_path / "units" / "havre.service").touch()
    monkeypatch.setattr(autostart, "_BOOTED", str(tmp_path))
    monkeypatch.setattr(autostart, "_UNIT_DIRECTORIES", (str(tmp_path / "units"),))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path / "systemctl"


def test_where_the_unit_is_installed_systemd_starts_it(
    systemd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(systemd, f"import sys; open({str(tmp_path / 'asked')!r}, 'w').write(' '.join(sys.argv[1:]))")
    autostart.start_daemon()
    assert (tmp_path / "asked").read_text() == "start havre.service"
    assert capsys.readouterr().err == "havre: starting havre.service\n"


def test_a_unit_that_does_not_start_is_told_with_where_its_log_is(systemd: Path) -> None:
    write(systemd, "raise SystemExit('Job for havre.service failed')")
    with pytest.raises(Unavailable, match=r"havre\.service does not start") as failed:
        autostart.start_daemon()
    assert failed.value.hint == "see why: journalctl -u havre.service -n 20"
    systemd.unlink()
    with pytest.raises(Unavailable, match=r"cannot start havre\.service: systemctl: No such file"):
        autostart.start_daemon()


def test_without_systemd_the_unit_file_counts_for_nothing(
    systemd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autostart, "_BOOTED", str(tmp_path / "absent"))
    with pytest.raises(Unavailable, match="ended with status 1: no room on the data root"):
        autostart.start_daemon()


@pytest.mark.parametrize("reason", ["forbidden", "not there"])
def test_no_daemon_is_started_where_it_is_forbidden_or_not_there(
    program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    if reason == "forbidden":
        write(program, DIES)
        monkeypatch.setitem(autostart.posix.environ, b"HAVRE_AUTOSTART", b"0")
    client = api.Client(Endpoint("unix", str(tmp_path / "s"), "unix://s"), None, autostart.start_daemon)
    client._version = ""
    with pytest.raises(api.CannotConnect, match="Cannot connect to the daemon"):
        client.get("/x")
