#!/usr/bin/env python3
"""Record what docker compose makes of the files in tests/golden/compose: `expected.yaml` beside each good one.

Needs docker-compose 2.26 (Debian's package). For each folder of `good/`: `arguments` are the words between `compose`
and `config`, `environment` the variables, a NAME=VALUE a line. `expected.yaml` has the folder's path as @HERE@, and
ends with the services' hashes as comments where these do not depend on that path. What is in `bad/` must be refused.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1] / "tests" / "golden" / "compose"
HOME = "/home/u"


def compose(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run docker compose in a folder, with the folder's environment and nothing else."""
    given = folder / "environment"
    lines = given.read_text().splitlines() if given.exists() else []
    environment = {"PATH": "/usr/bin:/bin", "HOME": HOME, **dict(line.split("=", 1) for line in lines)}
    return subprocess.run(
        ["docker-compose", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def record(folder: Path) -> None:
    """Write a folder's expected.yaml."""
    given = folder / "arguments"
    words = given.read_text().split() if given.exists() else []
    before = words[: words.index("config")] if "config" in words else words
    services = words[words.index("config") + 1 :] if "config" in words else []
    done = compose(folder, *before, "config", *services)
    if done.returncode:
        sys.exit(f"{folder.name}: {done.stderr}")
    text = done.stdout.replace(str(folder), "@HERE@").replace(str(folder.parent), "@ABOVE@")
    hashes = compose(folder, *before, "config", "--hash", "*").stdout
    with tempfile.TemporaryDirectory() as elsewhere:
        copy = shutil.copytree(folder, Path(elsewhere) / folder.name)
        same = compose(copy, *before, "config", "--hash", "*").stdout == hashes
    if same and "@HERE@" not in text and "@ABOVE@" not in text:
        text += "".join(f"# {line}\n" for line in hashes.splitlines())
    (folder / "expected.yaml").write_text(text)


def main() -> None:
    """Record all."""
    for folder in sorted((ROOT / "good").iterdir()):
        record(folder)
    for file in sorted((ROOT / "bad").glob("*.yaml")):
        if not compose(file.parent, "-f", file.name, "config").returncode:
            sys.exit(f"{file.name}: docker compose takes it")


if __name__ == "__main__":
    main()
