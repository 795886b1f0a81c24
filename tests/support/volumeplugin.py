"""A small real volume plugin: a process of its own that answers Docker's volume plugin protocol on a unix socket.

    python volumeplugin.py SOCKET ROOT

Volumes are directories below ROOT/volumes; each call is a line of ROOT/calls. Options of a volume make it misbehave:
`fail=TEXT` refuses its creation, `hang=METHOD` never answers METHOD (such as Mount) of it, `METHOD=TEXT` answers METHOD
with a body of that text.

Source: Docker's plugin API and volume plugin protocol.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from support.jsonserver import PluginServer
from support.waiting import until


class _Volumes:
    """The plugin's behaviour, by the name of the call."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._volumes = root / "volumes"
        self._volumes.mkdir(exist_ok=True)

    def answer(self, call: str, asked: dict[str, Any]) -> Any:
        """What it says to a call: bytes where a volume's option gives the body."""
        answer = self._act(call, asked)
        name = asked.get("Name", "")
        said = self._options(name, asked).get(call.partition(".")[2]) if name else None
        return answer if said is None else said.encode()

    def _act(self, call: str, asked: dict[str, Any]) -> dict[str, Any]:
        with (self._root / "calls").open("a") as calls:
            calls.write(json.dumps([call, asked]) + "\n")
        noun, _, verb = call.partition(".")
        name = asked.get("Name", "")
        if noun == "Plugin":
            return {"Implements": ["VolumeDriver"]}
        if name and self._options(name, asked).get("hang") == verb:
            threading.Event().wait()
        answers = {
            "Create": self._create, "Remove": self._remove, "Get": self._get, "List": self._list,
            "Mount": self._path, "Path": self._path, "Unmount": self._unmount, "Capabilities": self._capabilities,
        }  # fmt: skip
        try:
            return answers[verb](name, asked)
        except FileNotFoundError:
            return {"Err": f"no volume {name} here"}

    def _options(self, name: str, asked: dict[str, Any]) -> dict[str, str]:
        kept = self._root / f"{name}.json"
        return asked.get("Opts") or (json.loads(kept.read_text()) if kept.exists() else {})

    def _create(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        options = asked.get("Opts") or {}
        if "fail" in options:
            return {"Err": options["fail"]}
        (self._volumes / name).mkdir(exist_ok=True)
        (self._root / f"{name}.json").write_text(json.dumps(options))
        return {"Err": ""}

    def _remove(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        shutil.rmtree(self._volumes / name)
        (self._root / f"{name}.json").unlink(missing_ok=True)
        return {"Err": ""}

    def _shown(self, name: str) -> dict[str, Any]:
        path = self._volumes / name
        if not path.is_dir():
            raise FileNotFoundError(name)
        return {"Name": name, "Mountpoint": str(path), "CreatedAt": "2020-01-02T03:04:05Z", "Status": {"made": "here"}}

    def _get(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        return {"Volume": self._shown(name), "Err": ""}

    def _list(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        return {"Volumes": [self._shown(path.name) for path in sorted(self._volumes.iterdir())], "Err": ""}

    def _path(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        return {"Mountpoint": self._shown(name)["Mountpoint"], "Err": ""}

    def _unmount(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        return {"Err": ""}

    def _capabilities(self, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        return {"Capabilities": {"Scope": "global"}}


class VolumePlugin:
    """The plugin as a process that tests start, kill and query for its requests."""

    def __init__(self, socket: Path, root: Path) -> None:
        self.socket = socket
        self.root = root
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.socket.unlink(missing_ok=True)
        path = {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        command = [sys.executable, __file__, str(self.socket), str(self.root)]
        self._process = subprocess.Popen(command, env={**os.environ, **path})
        until(self.socket.exists, "the plugin to listen")

    def kill(self) -> None:
        """Kill it; its socket file stays, as after a crash."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def signal(self, number: int) -> None:
        """SIGSTOP makes it hang: connections are accepted but not answered, until SIGCONT."""
        assert self._process is not None
        self._process.send_signal(number)

    def calls(self, verb: str) -> list[dict[str, Any]]:
        """The requests by `VolumeDriver.VERB`, in order."""
        log = self.root / "calls"
        lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return [asked for call, asked in lines if call == f"VolumeDriver.{verb}"]


def main(socket: str, root: str) -> None:
    """Serve until killed."""
    with PluginServer(Path(socket), _Volumes(Path(root)).answer) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
