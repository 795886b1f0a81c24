"""`havre registry`: executes the registry, or its garbage collector."""

from __future__ import annotations

import posix

from havre.cli.parser import StatusError
from havre.client.autostart import interpreter
from havre.golang.jsontext import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from havre.cli.session import Session
    from havre.golang.flags import Options


def serve(session: Session, options: Options, arguments: list[str]) -> int:
    """Serve a registry until interrupted."""
    names = ("addr", "root", "read_only", "upstream", "tlscert", "tlskey", "htpasswd", "auth")
    return _become("havre.distribution.program", encode({name: getattr(options, name) for name in names}))


def collect(session: Session, options: Options, arguments: list[str]) -> int:
    """Delete blobs that no manifest refers to."""
    return _become("havre.distribution.collect", options.root)


def _become(module: str, argument: str) -> int:
    python = interpreter()
    try:
        posix.execv(python, [python, "-I", "-m", module, argument])
    except OSError as error:
        raise StatusError(1, f"cannot run {python}: {error.strerror}") from error
