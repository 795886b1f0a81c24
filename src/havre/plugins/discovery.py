"""Plugin discovery: a file named after each plugin in well-known directories.

    SOCKETS/NAME.sock          the plugin listens here
    SPECS/NAME.spec            one line: unix:///path or tcp://host:port
    SPECS/NAME.json            {"Addr": as above, "TLSConfig": {"CAFile", "CertFile", "KeyFile", "InsecureSkipVerify"}}

Each may also lie in a directory named after the plugin (SOCKETS/NAME/NAME.sock). A socket precedes a spec, a spec JSON.
Read again at every look-up, since plugins come and go. Blocking.

Source: Docker's plugin API, "Plugin discovery".
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from havre.errors import Failed, InvalidInput
from havre.golang import gojson


class TlsFiles(msgspec.Struct, kw_only=True):
    """The TLS files of a plugin."""

    ca: str = msgspec.field(name="CAFile", default="")
    certificate: str = msgspec.field(name="CertFile", default="")
    key: str = msgspec.field(name="KeyFile", default="")
    insecure: bool = msgspec.field(name="InsecureSkipVerify", default=False)


class _Description(msgspec.Struct, kw_only=True):
    address: str = msgspec.field(name="Addr")
    tls: TlsFiles | None = msgspec.field(name="TLSConfig", default=None)


@dataclass(frozen=True, slots=True)
class Directories:
    """The directories to search; the first with a plugin of that name wins."""

    sockets: tuple[Path, ...]
    specs: tuple[Path, ...]


@dataclass(frozen=True)
class Address:
    """A plugin's address: a unix socket, or HOST:PORT."""

    socket: Path | None = None
    host: str = ""
    tls: TlsFiles | None = None

    def __str__(self) -> str:
        return str(self.socket or self.host)

    @property
    def scheme(self) -> str:
        """Scheme of its URLs."""
        return "https" if self.tls else "http"


def find(directories: Directories, name: str) -> Address | None:
    """The plugin's address; None if there is none of that name. Failed for an invalid file."""
    if not name or name.startswith(".") or "/" in name or "\0" in name:
        return None
    for socket in _candidates(directories.sockets, name, "sock"):
        if socket.is_socket():
            return Address(socket=socket)
    for suffix, read in (("spec", _read_spec), ("json", _read_json)):
        for file in _candidates(directories.specs, name, suffix):
            if file.is_file():
                return read(file)
    return None


def names(directories: Directories) -> list[str]:
    """The names of all plugins found, sorted."""
    found: set[str] = set()
    for roots, suffixes in ((directories.sockets, {".sock"}), (directories.specs, {".spec", ".json"})):
        for root in roots:
            for file in (*_listed(root), *(file for below in _listed(root) for file in _listed(below))):
                if file.suffix in suffixes and file.parent in (root, root / file.stem):
                    found.add(file.stem)
    return sorted(found)


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """The context of TLS connections. Failed where a file cannot be used. Blocking."""
    try:
        context = ssl.create_default_context(cafile=files.ca or None)
        if files.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if files.certificate:
            context.load_cert_chain(files.certificate, files.key or None)
    except OSError as error:  # ssl's errors are OSErrors
        raise Failed(f"TLS files of a plugin: {error}") from error
    return context


def _candidates(roots: Iterable[Path], name: str, suffix: str) -> Iterator[Path]:
    for root in roots:
        yield root / f"{name}.{suffix}"
        yield root / name / f"{name}.{suffix}"


def _listed(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read_spec(file: Path) -> Address:
    return _parse(file.read_text().strip(), None, file)


def _read_json(file: Path) -> Address:
    try:
        described = gojson.decode(file.read_bytes(), _Description)
    except InvalidInput as error:
        raise Failed(f"plugin file {file}: {error.message}", "expected an object with Addr") from error
    return _parse(described.address, described.tls, file)


def _parse(text: str, tls: TlsFiles | None, file: Path) -> Address:
    scheme, _, rest = text.partition("://")
    if scheme == "unix" and rest.startswith("/"):
        return Address(socket=Path(rest))
    if scheme in ("tcp", "http", "https") and rest:
        return Address(host=rest.rstrip("/"), tls=tls or (TlsFiles() if scheme == "https" else None))
    raise Failed(f"plugin file {file}: {text!r} is not an address", "expected unix:///PATH or tcp://HOST:PORT")
