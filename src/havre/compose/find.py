"""Determines a command's files, project name, profiles and variables from flags, `COMPOSE_*` variables and `.env`.

    files      -f, COMPOSE_FILE, else the first of the default names in this or a parent directory, and its override
    folder     --project-directory, else that of the first file
    variables  the environment, over --env-file, over `.env` in the folder
    name       -p, COMPOSE_PROJECT_NAME, `name:` in the last file that has one, else the folder's name

Source: the Compose specification; https://docs.docker.com/compose/environment-variables/envvars/.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from havre.compose.dotenv import read_env_file
from havre.compose.interpolate import Variables, substitute
from havre.compose.load import Loader, Source
from havre.compose.remote import NAMES, local
from havre.compose.yamlread import read_documents
from havre.errors import InvalidInput, NotFound

OVERRIDES = ("compose.override.yml", "compose.override.yaml", "docker-compose.override.yml",
             "docker-compose.override.yaml")  # fmt: skip


class NoFile(NotFound):
    """No Compose file was given or found."""


class Wanted(NamedTuple):
    """The user's options before the verb."""

    files: tuple[str, ...] = ()
    project: str = ""
    folder: str = ""
    env_files: tuple[str, ...] = ()
    profiles: tuple[str, ...] = ()


def env_files(given: Sequence[str], environment: Mapping[str, str]) -> tuple[str, ...]:
    """Absolute paths of the files of variables: those of --env-file, else of COMPOSE_ENV_FILES."""
    named = given or [file for file in environment.get("COMPOSE_ENV_FILES", "").split(",") if file]
    return tuple(os.path.abspath(file) for file in named)


def find(wanted: Wanted, environment: Mapping[str, str]) -> Source:
    """The source to load. Raises NoFile, InvalidInput, Unsupported."""
    variables = dict(environment)
    files = tuple(wanted.files) or _from_variable(variables)
    folder = wanted.folder or (_folder_of(files) if files else "")
    if not files:
        # `.env` in this directory may set COMPOSE_FILE
        variables = _with_env_files(wanted, os.path.abspath(folder or os.curdir), environment)
        files = _from_variable(variables) or _search(os.path.abspath(folder or os.curdir))
    if not files:
        raise NoFile("no configuration file provided: not found", "name one with -f")
    paths = tuple(file if file == "-" else os.path.abspath(local(file)) for file in files)
    base = os.path.abspath(wanted.folder) if wanted.folder else _folder_of(paths)
    variables = _with_env_files(wanted, base, environment)
    stdin = sys.stdin.read() if "-" in paths else ""
    profiles = wanted.profiles or _split(variables.get("COMPOSE_PROFILES", ""))
    source = Source(paths, base, "", variables, profiles, stdin)
    name = _name(wanted, source)
    return Source(paths, base, name, {**variables, "COMPOSE_PROJECT_NAME": name}, profiles, stdin)


def project_name(wanted: Wanted, environment: Mapping[str, str]) -> str:
    """The project name only; needs no file when it is given. Raises NoFile, InvalidInput."""
    name = wanted.project or environment.get("COMPOSE_PROJECT_NAME", "")
    return _checked(name) if name else find(wanted, environment).name


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in re.split(r"[,\n]", text))


def _from_variable(variables: Mapping[str, str]) -> tuple[str, ...]:
    text = variables.get("COMPOSE_FILE", "")
    separator = variables.get("COMPOSE_PATH_SEPARATOR") or os.pathsep
    return tuple(text.split(separator)) if text else ()


def _folder_of(files: tuple[str, ...]) -> str:
    first = next((file for file in files if file != "-"), "")
    return os.path.dirname(os.path.abspath(first)) if first else os.getcwd()


def _search(folder: str) -> tuple[str, ...]:
    while True:
        found = [os.path.join(folder, name) for name in NAMES if os.path.exists(os.path.join(folder, name))]
        if found:
            overrides = [os.path.join(folder, n) for n in OVERRIDES if os.path.exists(os.path.join(folder, n))]
            return (found[0], *overrides[:1])
        parent = os.path.dirname(folder)
        if parent == folder:
            return ()
        folder = parent


def _with_env_files(wanted: Wanted, folder: str, environment: Mapping[str, str]) -> dict[str, str]:
    files = [os.path.abspath(file) for file in wanted.env_files]
    default = os.path.join(folder, ".env")
    disabled = environment.get("COMPOSE_DISABLE_ENV_FILE", "").lower() in ("1", "true", "t")
    if not files and not disabled and os.path.isfile(default):
        files = [default]
    found: dict[str, str] = {}
    for file in files:
        if not os.path.exists(file):
            raise InvalidInput(f"couldn't find env file: {file}")
        found.update(read_env_file(file, lambda name: environment.get(name, found.get(name))))
    return {**found, **environment}


def _name(wanted: Wanted, source: Source) -> str:
    if explicit := wanted.project or source.variables.get("COMPOSE_PROJECT_NAME", ""):
        return _checked(explicit)
    name = ""
    loader = Loader(source)
    for file in source.files:
        for document in read_documents(loader.read(file), file):
            given = document.value.get("name") if isinstance(document.value, dict) else None
            name = given if isinstance(given, str) and given else name
    if name:
        try:
            name = substitute(name, Variables(source.variables))
        except ValueError as error:
            raise InvalidInput(f"name: {error}") from error
    found = normal_name(name) or normal_name(os.path.basename(source.folder))
    if not found:
        raise InvalidInput("project name must not be empty", "give one with -p")
    return found


def normal_name(text: str) -> str:
    """`text` as a valid project name: lower case, without invalid characters."""
    return re.sub(r"[^a-z0-9_-]", "", text.lower()).lstrip("_-")


def _checked(name: str) -> str:
    if normal_name(name) != name:
        raise InvalidInput(
            f'invalid project name "{name}": must consist only of lowercase alphanumeric characters, hyphens, and '
            "underscores as well as start with a letter or number"
        )
    return name
