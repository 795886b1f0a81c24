"""The model against docker compose's `config`: files in tests/golden/compose, by tools/record_compose.py."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from havre.compose.find import Wanted, env_files, find
from havre.compose.load import Loader, Source
from havre.compose.project import Project, service_hash
from havre.errors import HavreError

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "compose"
GOOD = sorted(folder.name for folder in (GOLDEN / "good").iterdir())
ONE_WAY = {"build-ssh", "depends-profile", "interpolation-more", "merge-build", "resources"}
"""Folders whose printed form docker compose, too, does not read, or reads as something else."""
BAD = sorted(file.name for file in (GOLDEN / "bad").glob("*.yaml"))
UPDATE = bool(os.environ.get("UPDATE_GOLDEN"))


def words(folder: Path, environment: dict[str, str]) -> tuple[Wanted, list[str]]:
    """What the folder's `arguments` say: flags before the verb, and services behind it."""
    given: dict[str, list[str]] = {}
    services: list[str] = []
    rest = (folder / "arguments").read_text().split() if (folder / "arguments").exists() else []
    while rest:
        word, *rest = rest
        if word == "config":
            services, rest = rest, []
        else:
            given.setdefault(word, []).append(rest.pop(0))
    wanted = Wanted(
        files=tuple(given.get("-f", ())),
        project="".join(given.get("-p", ())),
        folder="".join(given.get("--project-directory", ())),
        env_files=env_files(given.get("--env-file", ()), environment),
        profiles=tuple(given.get("--profile", ())),
    )
    return wanted, services


def source_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Source, list[str]]:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", "/home/u")
    file = folder / "environment"
    environment = dict(line.split("=", 1) for line in file.read_text().splitlines()) if file.exists() else {}
    wanted, services = words(folder, environment)
    return find(wanted, environment), services


def project_of(source: Source, services: list[str]) -> Project:
    return Loader(source).project().enabling(services).used_only().selecting(services)


@pytest.mark.parametrize("name", GOOD)
def test_config_is_docker_composes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = GOLDEN / "good" / name
    source, services = source_of(folder, monkeypatch)
    printed = project_of(source, services).to_yaml().replace("$", "$$")
    printed = printed.replace(str(folder), "@HERE@").replace(str(folder.parent), "@ABOVE@")
    expected = (folder / "expected.yaml").read_text()
    hashed = Loader(source._replace(environment=False)).project()
    if "\n# " in expected:  # hashes were recorded: they do not depend on where the project lies
        printed += "".join(f"# {key} {service_hash(hashed.services[key])}\n" for key in sorted(hashed.services))
    assert printed == expected


@pytest.mark.parametrize("name", sorted(set(GOOD) - ONE_WAY))
def test_what_is_printed_means_the_same_when_read_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = GOLDEN / "good" / name
    source, services = source_of(folder, monkeypatch)
    project = project_of(source, services)
    again = Loader(source._replace(files=("-",), stdin=project.to_yaml().replace("$", "$$"))).project()
    assert json.loads(again.enabling(services).to_json()) == json.loads(project.to_json())


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_told_with_its_place(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(GOLDEN / "bad")
    with pytest.raises(HavreError) as raised:
        Loader(find(Wanted(files=(name,)), {})).project()
    told = str(raised.value).replace(str(GOLDEN / "bad"), "@HERE@") + "\n"
    file = GOLDEN / "bad" / f"{name.removesuffix('.yaml')}.txt"
    if UPDATE:
        file.write_text(told)
    assert told == file.read_text()
