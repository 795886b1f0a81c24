"""System users and their ranges of subordinate IDs, changed by the host's own tools (useradd(8), usermod(8)).

The tools lock /etc/passwd and its companion files against concurrent edits, so nothing here writes these files itself.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

_TOOLS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")
_LIMIT_S = 30.0


def add_system_user(name: str) -> None:
    """Create a system user and a group of this name, without login or home directory. OSError carries the tool's
    message."""
    shell = next((path for path in ("/bin/false", "/usr/bin/false") if Path(path).exists()), "/bin/false")
    _run("useradd", "--system", "--user-group", "--no-create-home", "--shell", shell, name)


def add_subordinate_ids(name: str, first: int, count: int, *, groups: bool) -> None:
    """Give a user a range of subordinate user (or group) IDs, see subuid(5). OSError carries the tool's message."""
    _run("usermod", "--add-subgids" if groups else "--add-subuids", f"{first}-{first + count - 1}", name)


def _run(tool: str, *arguments: str) -> None:
    program = next((Path(folder, tool) for folder in _TOOLS if Path(folder, tool).exists()), None)
    if program is None:
        raise FileNotFoundError(2, f"{tool} is not installed (package passwd)")
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise TimeoutError(110, f"{tool} has not ended in {_LIMIT_S:.0f} s") from None
    if done.returncode:
        raise OSError(done.returncode, f"{tool}: {done.stderr.strip() or f'status {done.returncode}'}")
