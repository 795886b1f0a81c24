"""What each API version from 1.24 to the newest answers, field by field, compared with files.

A file of tests/golden/versions lists the fields of one answer of the newest version with the kinds of their values, and
then, for each older version, what its answer lacks (-) and has instead (+) in comparison with the version above it.
After an intended change of the API run this file with HAVRE_WRITE_GOLDEN=1 and read the difference.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from support.engines import Engine, Havred, serving
from support.raw import ask

GOLDEN = Path(__file__).parents[1] / "golden" / "versions"
VERSIONS = [f"1.{minor}" for minor in range(55, 23, -1)]


def _filtered(**filters: list[str]) -> str:
    return "filters=" + quote(json.dumps(filters))


ANSWERS = {
    "container": "/containers/shown/json",
    "containers": f"/containers/json?{_filtered(name=['shown'])}",
    "disk-usage": "/system/df",
    "event": f"/events?since=0&until={{now}}&{_filtered(type=['container'], event=['start'])}",
    "exec": "/exec/{exec}/json",
    "image": "/images/busybox/json",
    "images": f"/images/json?{_filtered(reference=['busybox'])}",
    "info": "/info",
    "network": "/networks/shown",
    "networks": f"/networks?{_filtered(name=['shown'])}",
    "version": "/version",
    "volume": "/volumes/shown",
}
_OF_THE_HOST = (
    "AppArmorProfile", "CPUSet", "CPUShares", "Components", "CpuCfsPeriod", "CpuCfsQuota", "DriverStatus", "HttpProxy",
    "HttpsProxy", "IPv4Forwarding", "MaskedPaths", "MemoryLimit", "NoProxy", "OomKillDisable", "PidsLimit", "Plugins",
    "Runtimes", "SecurityOptions", "SwapLimit", "Warnings",
)  # fmt: skip
_KEYS = {r"[0-9a-f]{64}": "ID", r"[0-9a-f:.]+/\d+": "SUBNET"}


@pytest.fixture(scope="module")
def shown(archive: Path) -> Iterator[tuple[Engine, str]]:
    """A daemon with a container, a network and a volume `shown`, and the ID of an exec in the container."""
    with serving(Havred(), archive) as engine:
        engine.out("network", "create", "shown")
        options = ("--annotation", "a=b", "--label", "l=m", "-p", "127.0.0.1:8468:80", "-v", "shown:/data")
        engine.out("run", "-d", "--name", "shown", *options, "--network", "shown", "busybox", "sleep", "1000")
        engine.out("network", "connect", "bridge", "shown")
        exec = ask(engine.socket, "POST", "/containers/shown/exec", {"Cmd": ["true"]}).json["Id"]
        yield engine, exec


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_by_version(shown: tuple[Engine, str], name: str) -> None:
    engine, exec = shown
    path = ANSWERS[name].format(now=f"{time.time():.9f}", exec=exec)
    replies = {version: ask(engine.socket, "GET", f"/v{version}{path}") for version in VERSIONS}
    assert {reply.status for reply in replies.values()} == {200}
    told = _render({version: _fields(reply.json) for version, reply in replies.items()})
    file = GOLDEN / f"{name}.txt"
    if os.environ.get("HAVRE_WRITE_GOLDEN"):
        file.write_text(told)
    assert told == file.read_text()


def test_no_other_files() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == set(ANSWERS)


def _render(answers: dict[str, list[str]]) -> str:
    newest, *older = VERSIONS
    lines = [newest, *(f"  {field}" for field in answers[newest])]
    above = answers[newest]
    for version in older:
        if changes := _changes(above, answers[version]):
            lines += ["", version, *changes]
        above = answers[version]
    return "\n".join(lines) + "\n"


def _changes(above: Sequence[str], below: Sequence[str]) -> list[str]:
    gone, new = [each for each in above if each not in below], [each for each in below if each not in above]
    return [*(f"- {each}" for each in gone), *(f"+ {each}" for each in new)]


def _fields(value: Any, path: str = "") -> list[str]:
    """A line for each field: its path and its value, or the kind of a value that depends on host and moment."""
    name = path.rpartition(".")[2]
    if name in _OF_THE_HOST:
        return [f"{path} ..."]
    if isinstance(value, bool) or value in (None, "", [], {}):
        return [f"{path} {json.dumps(value)}"]
    if isinstance(value, dict):
        fields = [_fields(each, f"{path}.{_key(key)}") for key, each in value.items()]
    elif isinstance(value, list):
        fields = [_fields(each, f"{path}[]") for each in value]
    else:
        return [f"{path} {'text' if isinstance(value, str) else 'number'}"]
    return list(dict.fromkeys(line for lines in fields for line in lines))


def _key(key: str) -> str:
    return next((word for pattern, word in _KEYS.items() if re.fullmatch(pattern, key)), key)
