"""One Compose project, on one engine, driven by docker compose and by `havre compose`."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.engines import Engine


class Both:
    """A project in its own folder with the file `compose.yaml`, named after the folder."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder
        self.name = "p" + re.sub(r"[^a-z0-9]", "", folder.name.lower())[-20:]
        self.file = folder / "compose.yaml"

    def write(self, text: str) -> None:
        self.file.write_text(text)

    def docker(self, *words: str, check: int | None = 0, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        return self.engine.docker("compose", "-f", str(self.file), *words, check=check, timeout_s=timeout_s)

    def havre(self, *words: str, check: int | None = 0, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        return self.engine.havre("compose", "-f", str(self.file), *words, check=check, timeout_s=timeout_s)

    def by(self, tool: str, *words: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        return self.docker(*words, timeout_s=timeout_s) if tool == "docker" else self.havre(*words, timeout_s=timeout_s)

    def containers(self) -> dict[str, str]:
        """IDs by name without the project's prefix."""
        rows = self.engine.out("ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.ID}}",
                               "--filter", f"label=com.docker.compose.project={self.name}")  # fmt: skip
        return {name.removeprefix(f"{self.name}-"): id for name, id in (row.split() for row in rows.splitlines())}

    def left(self) -> str:
        """The IDs of the project's remaining objects in the engine."""
        wanted = f"label=com.docker.compose.project={self.name}"
        return self.engine.out("ps", "-aq", "--filter", wanted) + "".join(
            self.engine.out(kind, "ls", "-q", "--filter", wanted) for kind in ("network", "volume")
        )

    def inspected(self) -> dict[str, Any]:
        """The project's objects as inspected, without fields that differ between runs."""
        ids = self.containers()
        text = json.dumps({row["Name"]: _facts(row) for row in json.loads(self.engine.out("inspect", *ids.values()))})
        for name, identifier in ids.items():
            text = text.replace(identifier, name)
        wanted = f"label=com.docker.compose.project={self.name}"
        found: dict[str, Any] = {"containers": json.loads(text)}
        kept = ("Name", "Driver", "Internal", "Labels", "Options", "EnableIPv6")
        for kind in ("network", "volume"):
            names = sorted(self.engine.out(kind, "ls", "--format", "{{.Name}}", "--filter", wanted).split())
            rows = json.loads(self.engine.out(kind, "inspect", *names)) if names else []
            found[kind] = [{key: row.get(key) for key in kept} for row in rows]
        return found


def _facts(row: dict[str, Any]) -> dict[str, Any]:
    config, host = row["Config"], row["HostConfig"]
    config["Env"] = sorted(config["Env"] or [])
    labels = config["Labels"]
    labels["com.docker.compose.depends_on"] = sorted(labels["com.docker.compose.depends_on"].split(","))
    if str(host["NetworkMode"]).startswith("container:"):  # its hash contains the other's ID
        del labels["com.docker.compose.config-hash"]
    if re.fullmatch("[0-9a-f]{12}", config["Hostname"]) or host["NetworkMode"].startswith("container:"):
        config["Hostname"] = ""
    host["Mounts"] = sorted(host.get("Mounts") or [], key=lambda mount: mount["Target"])
    host["Binds"] = sorted(host["Binds"] or [])
    endpoints = {
        name: {key: sorted(endpoint.get(key) or []) for key in ("Aliases", "Links")} | {"ipam": endpoint["IPAMConfig"]}
        for name, endpoint in row["NetworkSettings"]["Networks"].items()
    }
    mounts = sorted(
        (mount["Type"], mount["Destination"], mount["RW"], mount.get("Name", "")[:10].startswith("p"))
        for mount in row["Mounts"]
    )
    return {"Config": config, "HostConfig": host, "endpoints": endpoints, "mounts": mounts}


def living(both: Both) -> Iterator[Both]:
    """Yield the project; at the end, take it down with its built images and assert that nothing is left."""
    yield both
    both.havre("--profile", "*", "down", "-v", "--remove-orphans", "-t", "0", check=None)
    assert not both.left()
    wanted = f"label=com.docker.compose.project={both.name}"
    if built := both.engine.out("images", "-q", "--filter", wanted).split():
        both.engine.docker("rmi", "-f", *set(built), check=0)
