"""The client's config directory: `config.json` and contexts, in docker's own format and place.

    ~/.docker/config.json                          auths, detachKeys, psFormat, currentContext, HttpHeaders ...
    ~/.docker/contexts/meta/SHA256(name)/meta.json Name, Metadata, Endpoints.docker.Host
    ~/.docker/contexts/tls/SHA256(name)/docker/    ca.pem, cert.pem, key.pem

`HAVRE_CONFIG`, else `DOCKER_CONFIG`, moves the directory.
"""

from __future__ import annotations

import posix

from havre.client.endpoint import DEFAULT_HOST, Endpoint, TlsFiles, parse_endpoint
from havre.errors import HavreError, InvalidInput, NotFound
from havre.golang.jsontext import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def environment(name: str) -> str:
    """An environment variable, "" when it is not set."""
    value: bytes = posix.environ.get(name.encode(), b"")
    return value.decode("utf-8", "surrogateescape")


def home() -> str:
    """The user's home directory."""
    if directory := environment("HOME"):
        return directory
    import pwd

    return pwd.getpwuid(posix.getuid()).pw_dir


def read_file(path: str) -> bytes:
    """The bytes of a file. Raises OSError."""
    with open(path, "rb", buffering=0) as file:
        return file.read() or b""


def exists(path: str) -> bool:
    """Whether something is at `path`."""
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def make_directories(path: str) -> None:
    """Create `path` and its parents, private to the user."""
    if path and not exists(path):
        make_directories(path.rpartition("/")[0])
        posix.mkdir(path, 0o700)


class Config:
    """`config.json`, read once; unknown members are preserved when it is written."""

    def __init__(self, directory: str = "") -> None:
        given = directory or environment("HAVRE_CONFIG") or environment("DOCKER_CONFIG")
        self.directory = given or home() + "/.docker"
        self.path = self.directory + "/config.json"
        self.values: dict[str, Any] = {}
        try:
            data = read_file(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise InvalidInput(f"cannot read {self.path}: {error.strerror}") from error
        try:
            values = _without_nulls(decode(data)) if data.strip() else {}
        except (ValueError, RecursionError) as error:
            raise InvalidInput(f"cannot read {self.path}: {error}", "correct or remove that file") from error
        if not isinstance(values, dict | None):
            raise InvalidInput(f"cannot read {self.path}: it is not a JSON object", "correct or remove that file")
        self.values = values or {}

    def text(self, name: str) -> str:
        """A string member, "" when it is missing."""
        value = self.values.get(name)
        return value if isinstance(value, str) else ""

    def save(self) -> None:
        """Write the file atomically, readable by the user only."""
        make_directories(self.directory)
        temporary = f"{self.path}.{posix.getpid()}"
        descriptor = posix.open(temporary, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600)
        try:
            posix.write(descriptor, encode(self.values, indent="\t").encode() + b"\n")
        finally:
            posix.close(descriptor)
        posix.rename(temporary, self.path)


def _without_nulls(value: Any) -> Any:
    """Like Go, treat members that are null as absent."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return value


def context_id(name: str) -> str:
    """The directory name of a context."""
    from hashlib import sha256

    return sha256(name.encode()).hexdigest()


def context_directory(config: Config, kind: str, name: str) -> str:
    """The directory of a context's `meta` or `tls` files."""
    return f"{config.directory}/contexts/{kind}/{context_id(name)}"


def read_context(config: Config, name: str) -> dict[str, Any]:
    """A context's metadata document. Raises NotFound."""
    path = context_directory(config, "meta", name) + "/meta.json"
    try:
        value: dict[str, Any] = decode(read_file(path))
    except FileNotFoundError:
        reason = f'context "{name}": context not found: open {path}: no such file or directory'
        raise NotFound(reason) from None
    except (OSError, ValueError) as error:
        raise InvalidInput(f'context "{name}": cannot read {path}: {error}') from error
    return value


def context_endpoint(config: Config, name: str) -> Endpoint:
    """The endpoint of a context. Raises NotFound, InvalidInput."""
    docker = read_context(config, name).get("Endpoints", {}).get("docker", {})
    files = context_directory(config, "tls", name) + "/docker"
    paths = [f"{files}/{name}.pem" for name in ("ca", "cert", "key")]
    ca, cert, key = (path if exists(path) else "" for path in paths)
    verify = not docker.get("SkipTLSVerify", False)
    tls = TlsFiles(ca, cert, key, verify) if ca or cert or not verify else None
    return parse_endpoint(docker.get("Host") or DEFAULT_HOST, tls)


def environment_host() -> str:
    """The daemon's address from the environment, "" when none is there."""
    return environment("HAVRE_HOST") or environment("DOCKER_HOST")


def current_context(config: Config, chosen: str, hosts: list[str]) -> str:
    """The name of the context in use: `-c`, "default" when a host is given, else the environment's or the file's."""
    if chosen and hosts:
        raise InvalidInput("conflicting options: either specify --host or --context, not both")
    if chosen:
        return chosen
    if hosts or environment_host():
        return "default"
    return environment("DOCKER_CONTEXT") or config.text("currentContext") or "default"


def resolve(config: Config, context: str, hosts: list[str], tls: TlsFiles | None) -> Endpoint:
    """The daemon's endpoint. Raises InvalidInput in docker's words."""
    if len(hosts) > 1:
        raise InvalidInput("specify only one -H")
    try:
        if context != "default":
            return context_endpoint(config, context)
        return parse_endpoint(hosts[0] if hosts else environment_host() or DEFAULT_HOST, tls)
    except HavreError as error:
        raise InvalidInput(f"Failed to initialize: unable to resolve docker endpoint: {error}") from error
