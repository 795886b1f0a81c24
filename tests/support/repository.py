"""A git repository, served over loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from support.waiting import until

_WHO = {f"GIT_{role}_{what}": "a@example.com" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def _ended_or_answers(server: subprocess.Popen[bytes], command: Sequence[str]) -> bool:
    return server.poll() is not None or subprocess.run(command, capture_output=True, check=False).returncode == 0


class Repository:
    """A repository served by `git daemon` at `url`, in the network entered by the command prefix `inside`.

    Its first commit, of `files`, is tagged `v1`.
    """

    def __init__(self, root: Path, files: dict[str, str], inside: Sequence[str] = ()) -> None:
        self._work = root / "work"
        self._work.mkdir()
        self._bare = root / "repo.git"
        self.git("init", "-q", "-b", "main")
        self.commit(files, "v1")
        self._server, self.url = self._serve(root, inside)

    def _serve(self, root: Path, inside: Sequence[str]) -> tuple[subprocess.Popen[bytes], str]:
        """The server and its address. The port was free outside the network; inside another may be needed."""
        for _ in range(5):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            command = ["git", "daemon", "--export-all", "--listen=127.0.0.1", f"--port={port}", f"--base-path={root}"]
            server = subprocess.Popen([*inside, *command], stderr=subprocess.PIPE, start_new_session=True)
            url = f"git://127.0.0.1:{port}/repo.git"
            listed = [*inside, "git", "ls-remote", url]
            until(partial(_ended_or_answers, server, listed), "git daemon to serve")
            if server.poll() is None:
                return server, url
            said = server.communicate()[1]
        raise AssertionError(f"git daemon ended: {said!r}")

    def git(self, *arguments: str) -> str:
        env = {**os.environ, **_WHO, "GIT_CONFIG_GLOBAL": "/dev/null"}
        command = ["git", "-C", str(self._work), *arguments]
        return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, files: dict[str, str], tag: str = "") -> str:
        """Write files (`-> x` is a symbolic link to x), commit and publish them. Returns the commit's ID."""
        for name, content in files.items():
            path = self._work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content.startswith("-> "):
                path.symlink_to(content.removeprefix("-> "))
            else:
                path.write_text(content)
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "change")
        self.git(*(["tag", tag] if tag else ["status"]))
        self.publish()
        return self.git("rev-parse", "HEAD")

    def publish(self) -> None:
        """Push the commits to the served repository."""
        if not self._bare.exists():
            subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(self._bare)], check=True)
        self.git("push", "-q", "--force", "--mirror", str(self._bare))

    def close(self) -> None:
        os.killpg(self._server.pid, signal.SIGTERM)
        self._server.communicate()
