"""Contexts: named daemons, stored in docker's own files, so that docker's command line uses the same ones."""

from __future__ import annotations

import posix
import sys

from havre.cli.format.table import Listing
from havre.cli.parser import StatusError
from havre.client.config import (
    context_directory,
    environment,
    environment_host,
    exists,
    make_directories,
    read_context,
    read_file,
)
from havre.client.endpoint import DEFAULT_HOST
from havre.golang.jsontext import decode, encode
from havre.golang.texts import ellipsis

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from havre.cli.format.table import Fields
    from havre.cli.session import Session
    from havre.client.config import Config
    from havre.golang.flags import Options

    Json = dict[str, Any]

_FILES = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
_DEFAULT_TEXT = "Current DOCKER_HOST based configuration"


def _check_name(name: str) -> None:
    if name == "default":
        raise StatusError(1, '"default" is a reserved context name')
    first, rest = name[:1], name[1:]
    if not (first.isalnum() and rest and all(c.isalnum() or c in "_.+-" for c in rest) and name.isascii()):
        raise StatusError(1, f'context name "{name}" is invalid, names are validated against regexp '
                          '"^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"')  # fmt: skip


def all_contexts(session: Session) -> list[Json]:
    """Every context's document, the default one first, the others by name."""
    config = session.config
    directory = config.directory + "/contexts/meta"
    found = []
    for entry in posix.listdir(directory) if exists(directory) else []:
        path = f"{directory}/{entry}/meta.json"
        if exists(path):
            found.append(decode(read_file(path)))
    return [_default(session), *sorted(found, key=lambda meta: str(meta["Name"]))]


def _default(session: Session) -> Json:
    host = session.options.host[0] if session.options.host else environment_host() or DEFAULT_HOST
    endpoint = {"docker": {"Host": host, "SkipTLSVerify": False}}
    return {"Name": "default", "Metadata": {"Description": _DEFAULT_TEXT}, "Endpoints": endpoint}


def _get(session: Session, name: str) -> Json:
    return _default(session) if name == "default" else read_context(session.config, name)


def ls(session: Session, options: Options, arguments: list[str]) -> int:
    """List contexts."""
    contexts = all_contexts(session)
    if options.quiet:
        sys.stdout.write("".join(meta["Name"] + "\n" for meta in contexts))
        return 0
    if options.format == "json":
        sys.stdout.write("".join(encode(_row(session, meta), escape_html=True) + "\n" for meta in contexts))
        _warn_of_environment(session, "a context")
        return 0
    fields: Fields = {
        "Name": ("NAME", lambda m: m["Name"] + (" *" if m["Name"] == session.context and not options.format else "")),
        "Description": ("DESCRIPTION", lambda m: ellipsis(_description(m), 60)),
        "DockerEndpoint": ("DOCKER ENDPOINT", _host),
        "Error": ("ERROR", lambda m: ""),
        "Current": ("", lambda m: m["Name"] == session.context),
    }
    columns = ["Name", "Description", "DockerEndpoint", "Error"]
    sys.stdout.write(Listing("*formatter.clientContextContext", fields, columns).render(contexts, options.format))
    _warn_of_environment(session, "a context")
    return 0


def _row(session: Session, meta: Json) -> Json:
    """A context in the JSON listing, in docker's order of members."""
    return {"Name": meta["Name"], "Description": _description(meta), "DockerEndpoint": _host(meta),
            "Current": meta["Name"] == session.context, "Error": "", "ContextType": "moby"}  # fmt: skip


def _description(meta: Json) -> str:
    return str((meta.get("Metadata") or {}).get("Description", ""))


def _host(meta: Json) -> str:
    return str(meta.get("Endpoints", {}).get("docker", {}).get("Host", ""))


def show(session: Session, options: Options, arguments: list[str]) -> int:
    """Print the current context's name."""
    if session.context != "default":
        read_context(session.config, session.context)
    print(session.context)
    return 0


def use(session: Session, options: Options, arguments: list[str]) -> int:
    """Make a context the current one."""
    name = arguments[0]
    if name != "default":
        read_context(session.config, name)
        session.config.values["currentContext"] = name
    else:
        session.config.values.pop("currentContext", None)
    session.config.save()
    print(name)
    session.warn(f'Current context is now "{name}"')
    _warn_of_environment(session, f'"{name}"')
    return 0


def _warn_of_environment(session: Session, name: str) -> None:
    if environment("DOCKER_HOST"):
        session.warn(
            "Warning: DOCKER_HOST environment variable overrides the active context. To use "
            f"{name}, either set the global --context flag, or unset DOCKER_HOST environment variable."
        )


def inspect(session: Session, options: Options, arguments: list[str]) -> int:
    """Show contexts in full."""
    from havre.cli.inspect import show as show_objects

    def get(name: str) -> Json:
        meta = _get(session, name) if name != "default" else {**_default(session), "Metadata": {}}
        paths = {kind: context_directory(session.config, kind, name) for kind in ("meta", "tls")}
        storage = {"MetadataPath": "<IN MEMORY>", "TLSPath": "<IN MEMORY>"}
        if name != "default":
            storage = {"MetadataPath": paths["meta"], "TLSPath": paths["tls"]}
        return {"Name": name, "Metadata": meta.get("Metadata") or {}, "Endpoints": meta.get("Endpoints") or {},
                "TLSMaterial": _material(paths["tls"]), "Storage": storage}  # fmt: skip

    return show_objects(arguments or [session.context], options.format, get)


def _material(directory: str) -> Json:
    files = [file for file in _FILES.values() if exists(f"{directory}/docker/{file}")]
    return {"docker": files} if files else {}


def _endpoint(session: Session, text: list[str]) -> tuple[Json, dict[str, str]]:
    """The endpoint that --docker describes, and the PEM files to copy. Raises StatusError."""
    pairs = dict(pair.partition("=")[::2] for item in text for pair in item.split(","))
    unknown = set(pairs) - {"host", "ca", "cert", "key", "skip-tls-verify", "from"}
    if unknown:
        raise StatusError(1, f"unable to create docker endpoint config: unrecognized config key: {sorted(unknown)[0]}")
    endpoint: Json = {"Host": pairs.get("host", ""), "SkipTLSVerify": pairs.get("skip-tls-verify") == "true"}
    if "from" in pairs:
        endpoint = _get(session, pairs["from"])["Endpoints"]["docker"]
    return endpoint, {name: pairs[name] for name in _FILES if pairs.get(name)}


def create(session: Session, options: Options, arguments: list[str]) -> int:
    """Create a context."""
    name = arguments[0]
    _check_name(name)
    if exists(context_directory(session.config, "meta", name) + "/meta.json"):
        raise StatusError(1, f'context "{name}" already exists')
    files: dict[str, str] = {}
    if getattr(options, "from"):
        meta = {**_get(session, getattr(options, "from"))}
        endpoint = meta["Endpoints"]["docker"]
    elif options.docker:
        endpoint, files = _endpoint(session, options.docker)
    else:
        raise StatusError(1, "docker endpoint configuration is required")
    _write(session.config, name, options.description, endpoint, files)
    print(name)
    session.warn(f'Successfully created context "{name}"')
    return 0


def update(session: Session, options: Options, arguments: list[str]) -> int:
    """Change a context."""
    name = arguments[0]
    _check_name(name)
    meta = read_context(session.config, name)
    description = options.description if "description" in options.given else _description(meta)
    endpoint: Json = meta["Endpoints"]["docker"]
    files: dict[str, str] = {}
    if options.docker:
        endpoint, files = _endpoint(session, options.docker)
    _write(session.config, name, description, endpoint, files)
    print(name)
    session.warn(f'Successfully updated context "{name}"')
    return 0


def _write(config: Config, name: str, description: str, endpoint: Json, files: dict[str, str]) -> None:
    metadata = {"Description": description} if description else {}
    document = {"Name": name, "Metadata": metadata, "Endpoints": {"docker": endpoint}}
    _store(context_directory(config, "meta", name), "meta.json", encode(document).encode())
    for kind, path in files.items():
        try:
            data = read_file(path)
        except OSError as error:
            reason = (error.strerror or "").lower()
            raise StatusError(1, f"unable to create docker endpoint config: open {path}: {reason}") from error
        _store(context_directory(config, "tls", name) + "/docker", _FILES[kind], data)


def _store(directory: str, file: str, data: bytes) -> None:
    make_directories(directory)
    descriptor = posix.open(f"{directory}/{file}", posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC, 0o600)
    try:
        posix.write(descriptor, data)
    finally:
        posix.close(descriptor)


def rm(session: Session, options: Options, arguments: list[str]) -> int:
    """Remove contexts."""
    from shutil import rmtree

    def remove(name: str) -> None:
        if name == "default":
            raise StatusError(1, 'default: context "default" cannot be removed')
        if not options.force:
            read_context(session.config, name)
        if session.context == name:
            if not options.force:
                raise StatusError(1, f'context "{name}" is in use, set -f flag to force remove')
            session.config.values.pop("currentContext", None)
            session.config.save()
        for kind in ("meta", "tls"):
            rmtree(context_directory(session.config, kind, name), ignore_errors=True)

    return session.each(arguments, remove)


def export(session: Session, options: Options, arguments: list[str]) -> int:
    """Write a context to a tar archive."""
    name, *target = arguments
    read_context(session.config, name)
    path = target[0] if target else f"{name}.dockercontext"
    archive = _archive_of(session.config, name)
    if path == "-":
        if posix.isatty(1):
            raise StatusError(1, "cowardly refusing to export to a terminal, specify a file path")
        sys.stdout.flush()
        sys.stdout.buffer.write(archive)
        return 0
    try:
        with open(path, "xb") as file:
            file.write(archive)
    except OSError as error:
        raise StatusError(1, f"open {path}: {(error.strerror or '').lower()}") from error
    session.warn(f'Written file "{path}"')
    return 0


def _archive_of(config: Config, name: str) -> bytes:
    """The files of a context as a tar; without those of TLS where it has none."""
    import stat

    from havre.tar.headers import FLAGS, end, header, padding

    files = {"meta.json": context_directory(config, "meta", name) + "/meta.json"}
    tls = context_directory(config, "tls", name) + "/docker"
    files |= {f"tls/docker/{file}": f"{tls}/{file}" for file in _FILES.values() if exists(f"{tls}/{file}")}
    pieces = [header(folder, FLAGS[stat.S_IFDIR], mode=0o700) for folder in (b"tls/", b"tls/docker/") if len(files) > 1]
    for inside, path in files.items():
        data = read_file(path)
        pieces += [header(inside.encode(), mode=0o600, size=len(data)), data, padding(len(data))]
    return b"".join([*pieces, end(0)])


def import_(session: Session, options: Options, arguments: list[str]) -> int:
    """Read a context from a tar or zip archive."""
    name, path = arguments
    _check_name(name)
    if exists(context_directory(session.config, "meta", name) + "/meta.json"):
        raise StatusError(1, f'context "{name}" already exists')
    members = _read_archive(path)
    try:
        meta = decode(members["meta.json"])
        endpoint = meta["Endpoints"]["docker"]
    except (KeyError, ValueError, TypeError) as error:
        raise StatusError(1, "invalid context: no metadata found") from error
    _write(session.config, name, _description(meta), endpoint, {})
    for file in _FILES.values():
        if data := members.get(f"tls/docker/{file}"):
            _store(context_directory(session.config, "tls", name) + "/docker", file, data)
    print(name)
    session.warn(f'Successfully imported context "{name}"')
    return 0


def _read_archive(path: str) -> dict[str, bytes]:
    """The files of an archive, by name; only known names are used, so no path is followed."""
    import io
    import zipfile

    from havre.errors import InvalidInput
    from havre.tar.reader import read_members

    data = sys.stdin.buffer.read() if path == "-" else _read_or_fail(path)
    try:
        if data[:2] == b"PK":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
        members = read_members([data])
        return {entry.path.decode(): b"".join(content) for entry, content in members if entry.kind == "file"}
    except (InvalidInput, UnicodeDecodeError, zipfile.BadZipFile) as error:
        raise StatusError(1, f"invalid context archive: {error}") from error


def _read_or_fail(path: str) -> bytes:
    try:
        return read_file(path)
    except OSError as error:
        raise StatusError(1, f"open {path}: {(error.strerror or '').lower()}") from error
