"""Starts the daemon when nothing listens on havre's own default socket.

Where its systemd unit is installed, systemd starts it: a daemon started from a login session would keep the unit from
starting (the PID file), and end with the session.

Elsewhere the daemon is the program `havred` beside the command line's own; it gets its own session (setsid(2)) and a
log
file. Connecting shows whether it is up, its exit status whether it died; the end of its log is then the reason.
"""

from __future__ import annotations

import _socket
import posix
import sys
import time

from havre.client.config import environment, exists, make_directories
from havre.client.endpoint import DEFAULT_SOCKET
from havre.errors import Unavailable

DEADLINE_S = 60.0
_PAUSE_S = 0.005
_TAKEN = "is still running"  # printed by a daemon that finds another one, started by another client just before
_BOOTED = "/run/systemd/system"  # sd_booted(3)
_UNIT_DIRECTORIES = ("/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system")
_UNIT = "havre.service"
_LOGS = ("/var/log/havre.log", "/run/havre/havre.log")


def daemon_program() -> str:
    """The path of `havred`, beside this program."""
    directory, slash, _ = sys.argv[0].rpartition("/")
    return directory + slash + "havred"


def interpreter() -> str:
    """The Python interpreter of our programs, with their packages: beside the resolved path of this program."""
    from os.path import realpath

    return realpath(sys.argv[0]).rpartition("/")[0] + "/python"


def start_daemon() -> None:
    """Start the daemon and wait until it listens. Raises Unavailable with its log output when it does not start."""
    if environment("HAVRE_AUTOSTART") == "0" or posix.geteuid() != 0:
        return
    if has_unit():
        _start_unit()
        return
    program = daemon_program()
    if not exists(program):
        return
    log_path, log = _open_log()
    start = posix.fstat(log).st_size
    print(f"havre: starting the daemon (log: {log_path})", file=sys.stderr, flush=True)
    null = posix.open("/dev/null", posix.O_RDWR)
    actions = [(posix.POSIX_SPAWN_DUP2, null, 0), (posix.POSIX_SPAWN_DUP2, log, 1), (posix.POSIX_SPAWN_DUP2, log, 2)]
    pid = posix.posix_spawn(program, [program], posix.environ, file_actions=actions, setsid=True)
    posix.close(null)
    try:
        _wait(pid, log_path, log, start)
    finally:
        posix.close(log)


def has_unit() -> bool:
    """Report whether systemd runs this host and has the daemon's unit."""
    return exists(_BOOTED) and any(exists(f"{directory}/{_UNIT}") for directory in _UNIT_DIRECTORIES)


def _start_unit() -> None:
    """Start the service, and its socket; systemctl waits until it listens or has failed."""
    print(f"havre: starting {_UNIT}", file=sys.stderr, flush=True)
    null = posix.open("/dev/null", posix.O_RDWR)
    actions = [(posix.POSIX_SPAWN_DUP2, null, descriptor) for descriptor in (0, 1, 2)]
    try:
        pid = posix.posix_spawnp("systemctl", ["systemctl", "start", _UNIT], posix.environ, file_actions=actions)
    except OSError as error:
        raise Unavailable(f"cannot start {_UNIT}: systemctl: {error.strerror}") from error
    finally:
        posix.close(null)
    if posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1]) != 0:
        raise Unavailable(f"{_UNIT} does not start", f"see why: journalctl -u {_UNIT} -n 20")


def _open_log() -> tuple[str, int]:
    for path in _LOGS:
        try:
            make_directories(path.rpartition("/")[0])
            flags = posix.O_RDWR | posix.O_APPEND | posix.O_CREAT | posix.O_CLOEXEC
            return path, posix.open(path, flags, 0o640)
        except OSError:
            continue
    raise Unavailable("cannot start the daemon: neither " + " nor ".join(_LOGS) + " can be written")


def _wait(pid: int, log_path: str, log: int, start: int) -> None:
    end = time.monotonic() + DEADLINE_S
    gone = False
    while time.monotonic() < end:
        if _listens():
            return
        ended, status = (0, 0) if gone else posix.waitpid(pid, posix.WNOHANG)
        if ended:
            gone = True
            said = posix.pread(log, 64 << 10, start).decode("utf-8", "replace").strip()
            code = posix.waitstatus_to_exitcode(status)
            if _TAKEN in said:
                continue
            raise Unavailable(f"the daemon ended with status {code}: {said or 'its log is empty'}", f"see {log_path}")
        time.sleep(_PAUSE_S)
    raise Unavailable(f"the daemon does not listen after {DEADLINE_S:g} s", f"see {log_path}")


def _listens() -> bool:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.connect(DEFAULT_SOCKET)
    except OSError:
        return False
    finally:
        sock.close()
    return True
