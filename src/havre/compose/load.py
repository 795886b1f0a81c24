"""Files to a project: reading, `extends`, `include` and merging, in docker's order.

    for each file, for each document in it:
        read -> variables -> check against the schema -> extends -> !reset -> include
        -> merge over what the files before it said -> one of each -> long forms
    defaults -> absolute paths -> names and implied parts -> values of their kinds -> profiles -> contradictions

Source: the Compose specification.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

from havre.compose.check import check_external, check_project
from havre.compose.composites import ReadError
from havre.compose.dotenv import read_env_file
from havre.compose.interpolate import Variables, interpolate
from havre.compose.merge import extend_service, keep_last, merge
from havre.compose.normalize import join, normalize, resolve_paths, set_defaults
from havre.compose.project import Project, has_profile
from havre.compose.remote import local
from havre.compose.schema import PROJECT
from havre.compose.shortforms import expand
from havre.compose.yamlread import Document, key_path, read_documents
from havre.compose.yamlread import Path as KeyPath
from havre.errors import InvalidInput, NotFound

_RESOURCES = ("services", "volumes", "networks", "secrets", "configs", "models")


class Source(NamedTuple):
    """The files to load, and options.

    files        absolute paths; "-" is `stdin`
    folder       base of relative paths
    name         the project's
    variables    for interpolation and for names without a value
    """

    files: tuple[str, ...]
    folder: str
    name: str
    variables: Mapping[str, str]
    profiles: tuple[str, ...] = ()
    stdin: str = ""
    interpolate: bool = True
    resolve: bool = True
    normalize: bool = True
    consistent: bool = True
    environment: bool = True


class Loader:
    """Loads one project; collects `warnings` for the user."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.warnings: list[str] = []

    def model(self) -> dict[str, Any]:
        """The model as plain values, before they are converted to their kinds. Raises InvalidInput."""
        source = self.source
        model = self._files(source.files, source.folder, source.variables, (), resolve=source.resolve)
        if not model:
            raise InvalidInput("empty compose file")
        return normalize(model, source.name, source.variables) if source.normalize else model

    def project(self) -> Project:
        """The project. Raises InvalidInput."""
        source = self.source
        try:
            model = PROJECT.read({**self.model(), "name": source.name})
        except ReadError as error:
            raise InvalidInput(f"{key_path(error.path)}: {error.reason}") from error
        for kind in _RESOURCES[1:]:
            model[kind] = {key: value or {} for key, value in model.get(kind, {}).items()}
        everything: dict[str, dict[str, Any]] = model.get("services", {})
        enabled = {key: s for key, s in everything.items() if has_profile(s, source.profiles)}
        project = Project(
            name=source.name,
            folder=source.folder,
            files=source.files,
            variables=source.variables,
            services=enabled,
            disabled={key: service for key, service in everything.items() if key not in enabled},
            profiles=source.profiles,
            **{kind: model[kind] for kind in _RESOURCES[1:]},
            extensions={key: value for key, value in model.items() if key.startswith("x-")},
        )
        if source.consistent:
            check_project(project)
        return self._with_files(project)

    def _with_files(self, project: Project) -> Project:
        """The project with the content of its files of variables and labels."""
        services = {key: self._with_labels(service) for key, service in project.services.items()}
        project = project._replace(services=services)
        return project.with_environment() if self.source.environment else project

    def _with_labels(self, service: dict[str, Any]) -> dict[str, Any]:
        files = service.get("label_file")
        if not files:
            return service
        labels: dict[str, str] = {}
        for file in files:
            labels.update(read_env_file(file, labels.get))
        rest = {key: value for key, value in service.items() if key != "label_file"}
        return {**rest, "labels": {**labels, **service.get("labels", {})}}

    def _files(
        self,
        files: Sequence[str],
        folder: str,
        variables: Mapping[str, str],
        included: tuple[str, ...],
        *,
        resolve: bool,
    ) -> dict[str, Any]:
        model: dict[str, Any] = {}
        for file in files:
            model = _File(self, file, folder, variables, included).over(model)
        model = set_defaults(model)
        check_external(model)
        if resolve:
            model = resolve_paths(model, folder)
        return _known_environment(model, variables)

    def read(self, file: str) -> str:
        """A file's text. Raises InvalidInput, NotFound."""
        if file == "-":
            return self.source.stdin
        try:
            with open(file, encoding="utf-8-sig") as opened:
                return opened.read()
        except UnicodeDecodeError as error:
            raise InvalidInput(f"{file}: the file is not UTF-8 text") from error
        except FileNotFoundError as error:
            raise NotFound(f"open {file}: no such file or directory") from error
        except OSError as error:
            raise InvalidInput(f"open {file}: {(error.strerror or '').lower()}") from error


def _known_environment(model: dict[str, Any], variables: Mapping[str, str]) -> dict[str, Any]:
    """Resolve names without a value in `environment` lists, and configs from variables, while the variables of this
    file
    are known: an included file has its own.
    """
    for service in (model.get("services") or {}).values():
        environment = service.get("environment") if service else None
        if isinstance(environment, list):
            service["environment"] = [f"{e}={variables[e]}" if e in variables else e for e in environment]
    for config in (model.get("configs") or {}).values():
        name = config.get("environment") if config else None
        if name is not None and name in variables:
            config["content"] = variables[name]
    return model


class _File(NamedTuple):
    """One file on its way into the model."""

    loader: Loader
    file: str
    folder: str
    variables: Mapping[str, str]
    included: tuple[str, ...]

    def over(self, model: dict[str, Any]) -> dict[str, Any]:
        """Merge this file over `model`."""
        for document in read_documents(self.loader.read(self.file), self.file):
            own = self._checked(document)
            own, resets = self._extended(own, document)
            model = _without(model, (), resets)
            own = self._with_includes(own)
            model = keep_last(expand(keep_last(merge(model, own))))
        return model

    def _checked(self, document: Document) -> dict[str, Any]:
        """The document's value with variables substituted, validated key by key."""
        if not isinstance(document.value, dict):
            raise InvalidInput(f"{document.file}:{document.line(())}: expected a mapping at the top of the file")
        value: dict[str, Any] = document.value
        if self.loader.source.interpolate:
            variables = Variables(self.variables)
            value = interpolate(document, variables)
            self._warn(*(f'The "{n}" variable is not set. Defaulting to a blank string.' for n in variables.missing))
        problems = [] if not self.loader.source.interpolate else list(PROJECT.problems(value, ()))
        if problems:
            raise _refused(document, problems)
        if "version" in value:
            self._warn(f"{self.file}: the attribute `version` is obsolete and ignored; remove it")
        return {key: member for key, member in value.items() if key not in ("version", "name")}

    def _warn(self, *texts: str) -> None:
        self.loader.warnings += [text for text in texts if text not in self.loader.warnings]

    def _extended(self, own: dict[str, Any], document: Document) -> tuple[dict[str, Any], list[KeyPath]]:
        services = dict(own.get("services") or {})
        resets = list(document.resets)
        extends = _Extends(self, services, resets)
        for name in services:
            services[name] = extends.resolved(self.file, name, ())
        return ({**own, "services": services} if services else own), resets

    def _with_includes(self, own: dict[str, Any]) -> dict[str, Any]:
        result = {key: value for key, value in own.items() if key != "include"}
        for entry in own.get("include") or ():
            imported = self._included({"path": entry} if isinstance(entry, str) else entry)
            for kind in _RESOURCES:
                if imported.get(kind):
                    result[kind] = _joined(kind, result.get(kind) or {}, imported[kind])
        return result

    def _included(self, entry: dict[str, Any]) -> dict[str, Any]:
        paths = [entry["path"]] if isinstance(entry.get("path"), str) else list(entry.get("path") or ())
        files = [join(self.folder, local(path)) for path in paths]
        for file in files[:1]:
            if file in (*self.included, self.file):
                chain = "\n include ".join((*self.included, self.file, file))
                raise InvalidInput(f"include cycle detected:\n{chain}")
        project = entry.get("project_directory")
        folder = join(self.folder, project) if project else os.path.dirname(files[0])
        variables = {**self._include_variables(entry, folder), **self.variables}
        chain_now = (*self.included, self.file)
        return self.loader._files(files, folder, variables, chain_now, resolve=True)

    def _include_variables(self, entry: dict[str, Any], folder: str) -> dict[str, str]:
        given = entry.get("env_file") or []
        files = [join(self.folder, file) for file in ([given] if isinstance(given, str) else given)]
        default = os.path.join(folder, ".env")
        found: dict[str, str] = {}
        for file in files or ([default] if os.path.isfile(default) else []):
            found.update(read_env_file(file, lambda name: self.variables.get(name, found.get(name))))
        return found


def _refused(document: Document, problems: list[tuple[KeyPath, str, str | None]]) -> InvalidInput:
    """One error with each problem on a line."""
    lines = [
        f"{document.where(path)}: {text}" + (f"; {hint}" if hint else "")
        for path, text, hint in sorted(problems, key=lambda problem: document.line(problem[0]))
    ]
    return InvalidInput("\n".join(lines))


def _joined(kind: str, own: dict[str, Any], imported: dict[str, Any]) -> dict[str, Any]:
    for name, value in imported.items():
        if name in own and own[name] != value:
            raise InvalidInput(f"{kind}.{name} conflicts with imported resource")
    return {**own, **imported}


def _without(value: Any, path: KeyPath, resets: list[KeyPath]) -> Any:
    """`value` without the paths in `resets`."""
    if not resets or not isinstance(value, dict):
        return value
    return {key: _without(member, (*path, key), resets) for key, member in value.items() if (*path, key) not in resets}


class _Extends:
    """The services of one file, each merged over the one that it extends, recursively."""

    def __init__(self, file: _File, services: dict[str, Any], resets: list[KeyPath]) -> None:
        self._file = file
        self._services = services
        self._resets = resets

    def resolved(self, file: str, name: str, chain: tuple[tuple[str, str], ...]) -> Any:
        """The service `name`, with nothing left to extend."""
        service = self._services[name]
        if not service or "extends" not in service:
            return service
        extends = service["extends"]
        base_name = extends if isinstance(extends, str) else extends["service"]
        base_file = None if isinstance(extends, str) else extends.get("file")
        if (file, name) in chain:
            raise InvalidInput(_circle((*chain, (file, name))))
        chain = (*chain, (file, name))
        if base_file is None:
            if base_name not in self._services:
                raise InvalidInput(f"cannot extend service {name!r} in {file}: service {base_name!r} not found")
            base = self.resolved(file, base_name, chain)
        else:
            base = self._from_file(file, name, base_name, base_file, chain)
        if base is None:
            return service
        kept = _without({"services": {name: deepcopy(base)}}, (), self._resets)["services"][name]
        self._services[name] = extend_service(kept, service)
        return self._services[name]

    def _from_file(self, file: str, name: str, base: str, base_file: str, chain: tuple[tuple[str, str], ...]) -> Any:
        loader = self._file.loader
        path = join(self._file.folder, base_file)
        folder = os.path.dirname(path)
        if not loader.source.resolve:
            folder = os.path.relpath(folder, self._file.folder)
        other = _File(loader, path, os.path.dirname(path), self._file.variables, ())
        services: dict[str, Any] = {}
        resets: list[KeyPath] = []
        for document in read_documents(loader.read(path), path):
            own = other._checked(document)
            services.update(resolve_paths(expand(own), folder).get("services") or {})
            resets += document.resets
        if base not in services:
            raise InvalidInput(f"cannot extend service {name!r} in {file}: service {base!r} not found in {base_file}")
        return _Extends(other, services, resets).resolved(path, base, chain)


def _circle(chain: tuple[tuple[str, str], ...]) -> str:
    (first_file, first), *rest = chain
    lines = [f"  {first} in {first_file}", *(f"  extends {name} in {file}" for file, name in rest)]
    return "Circular reference:\n" + "\n".join(lines)
