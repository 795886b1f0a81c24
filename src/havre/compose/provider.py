"""Services of a provider: a program that makes and removes what the service stands for.

    TYPE compose --project-name=P up --OPTION=VALUE ... SERVICE      also `down`, and `stop` where its metadata has it
    TYPE compose metadata                                            which options each of them takes, as JSON

The program is a plugin of docker's command line, `docker-TYPE`, or `TYPE` on the PATH. It answers in lines of JSON:

    {"type": "info" | "error" | "debug" | "setenv" | "rawsetenv", "message": TEXT}

`setenv NAME=VALUE` gives dependent services the variable SERVICE_NAME, `rawsetenv` the variable NAME.

Source: github.com/docker/compose, docs/extension.md.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from typing import Any

from havre.compose.project import Project, Service
from havre.compose.steps import Provide
from havre.errors import Failed, HavreError, InvalidInput, NotFound
from havre.golang.jsontext import decode

_PLUGINS = (
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
)
_VERBS = {"up": "create", "down": "remove", "stop": "stop"}


def provide(action: Provide, tell: Callable[[str], None]) -> bool:
    """Run the provider's command; the variables of `up` are added to `action.variables`. False: it has no such command.

    `tell` is called with its messages. Raises Failed, NotFound, InvalidInput.
    """
    service = action.project.services[action.key]
    program = _program(action.project, service["provider"]["type"])
    options = _options(action, service, _metadata(program, action.project))
    if options is None:
        return False
    name = f"--project-name={action.project.name}"
    with tempfile.TemporaryFile() as errors:
        with subprocess.Popen(
            [program, "compose", name, action.command, *options, action.key],
            env=dict(action.project.variables), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    _hear(line, action, tell)
            except HavreError:
                process.kill()
                raise
        if process.returncode:
            errors.seek(0)
            said = errors.read()[-1000:].decode("utf-8", "replace").strip()
            text = f"failed to {_VERBS[action.command]} service provider: exit status {process.returncode}"
            raise Failed(f"{text}: {said}" if said else text)
    return True


def _program(project: Project, kind: str) -> str:
    if kind == "compose":
        raise InvalidInput("'compose' is not a valid provider type")
    known = project.variables
    home = os.path.join(os.path.expanduser("~"), ".docker")
    own = known.get("HAVRE_CONFIG") or known.get("DOCKER_CONFIG") or home
    for folder in (os.path.join(own, "cli-plugins"), *_PLUGINS):
        if os.access(path := os.path.join(folder, f"docker-{kind}"), os.X_OK):
            return path
    if found := shutil.which(kind, path=known.get("PATH")):
        return found
    raise NotFound(f'no provider "{kind}": neither the plugin docker-{kind} nor a program {kind} on the PATH')


def _metadata(program: str, project: Project) -> dict[str, Any]:
    """What the provider says of its commands; empty for one that does not."""
    asked = subprocess.run(
        [program, "compose", "metadata"], env=dict(project.variables), stdin=subprocess.DEVNULL, capture_output=True,
        check=False,
    )  # fmt: skip
    try:
        found = decode(asked.stdout)
    except ValueError:
        return {}
    return found if isinstance(found, dict) and not asked.returncode else {}


def _options(action: Provide, service: Service, metadata: dict[str, Any]) -> list[str] | None:
    """The options of a command as flags; None if the provider does not have it. Raises InvalidInput."""
    if action.command == "stop" and not isinstance(metadata.get("stop"), dict):
        return None
    given: dict[str, list[str]] = service["provider"].get("options", {})
    flags = {name: [f"--{name}={value}" for value in values] for name, values in given.items()}
    if metadata:
        parameters = (metadata.get(action.command) or {}).get("parameters") or []
        for parameter in parameters:
            if parameter.get("required") and parameter["name"] not in given:
                kind = service["provider"]["type"]
                text = f'required parameter "{parameter["name"]}" is missing from provider "{kind}" definition'
                raise InvalidInput(f"service {action.key}: {text}")
        known = {parameter["name"] for parameter in parameters}
        flags = {name: texts for name, texts in flags.items() if name in known}
    return [text for texts in flags.values() for text in texts]


def _hear(line: bytes, action: Provide, tell: Callable[[str], None]) -> None:
    try:
        message = decode(line)
        kind, text = message["type"], str(message["message"])
    except (ValueError, KeyError, TypeError) as error:
        said = line.decode("utf-8", "replace").strip()
        raise Failed(f"service {action.key}: invalid response from provider: {said}") from error
    if kind == "error":
        raise Failed(f"service {action.key}: {text}")
    if kind == "info":
        tell(text.partition("\n")[0])
    elif kind in ("setenv", "rawsetenv"):
        name, equals, value = text.partition("=")
        if not equals:
            raise Failed(f"service {action.key}: invalid response from provider: {text}")
        action.variables[name if kind == "rawsetenv" else f"{action.key.upper()}_{name}"] = value
    elif kind != "debug":
        raise Failed(f"service {action.key}: invalid response from provider: {kind}")
