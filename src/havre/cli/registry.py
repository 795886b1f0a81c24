"""`havre registry`: become a registry, or what removes the garbage of one."""

from __future__ import annotations

import posix

from havre.cli.parser import StatusError
from havre.client.autostart import interpreter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from havre.cli.parser import Options
    from havre.cli.session import Session


def serve(session: Session, options: Options, arguments: list[str]) -> int:
    """Serve a registry until interrupted; the flags are passed on as they are."""
    names = ("addr", "root", "tlscert", "tlskey", "upstream", "htpasswd", "auth")
    words = [f"--{name}={value}" for name in names if (value := getattr(options, name))]
    if options.read_only:
        words.append("--read-only")
    return _become("havre.distribution.program", words)


def collect(session: Session, options: Options, arguments: list[str]) -> int:
    """Remove what no repository needs."""
    return _become("havre.distribution.collect", [f"--root={options.root}"])


def _become(module: str, words: list[str]) -> int:
    python = interpreter()
    try:
        posix.execv(python, [python, "-I", "-m", module, *words])
    except OSError as error:
        raise StatusError(1, f"cannot run {python}: {error.strerror}") from error
