"""Starting the daemon when nobody listens on havre's own default socket.

The daemon is the program `havred` beside the command line's own; it gets a session of its own (setsid) and a log file.
Whether it is up is seen by connecting; whether it died, by its exit status, and then the end of its log is the reason.
"""

from __future__ import annotations

import _socket
import posix
import sys
import time

from havre.client.config import environment, exists, make_directories
from havre.client.endpoint import DEFAULT_SOCKET
from havre.errors import Unavailable

DEADLINE_S = 20.0
_PAUSE_S = 0.005
_LOGS = ("/var/log/havre.log", "/run/havre/havre.log")


def daemon_program() -> str:
    """The path of `havred`, beside this program."""
    directory, slash, _ = sys.argv[0].rpartition("/")
    return directory + slash + "havred"


def interpreter() -> str:
    """The Python that our programs run under, with their packages: beside the real file of this program."""
    from os.path import realpath

    return realpath(sys.argv[0]).rpartition("/")[0] + "/python"


def start_daemon() -> None:
    """Start the daemon and wait until it listens. Raises Unavailable with its own words when it does not come up."""
    program = daemon_program()
    if environment("HAVRE_AUTOSTART") == "0" or posix.geteuid() != 0 or not exists(program):
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
    while time.monotonic() < end:
        if _listens():
            return
        ended, status = posix.waitpid(pid, posix.WNOHANG)
        if ended:
            said = posix.pread(log, 64 << 10, start).decode("utf-8", "replace").strip()
            code = posix.waitstatus_to_exitcode(status)
            raise Unavailable(f"the daemon ended with status {code}: {said or 'it said nothing'}", f"see {log_path}")
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
