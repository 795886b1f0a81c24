"""Compose files in git repositories: `-f` and `include` of a URL.

    https://HOST/REPOSITORY.git#REF:FOLDER    also git://, ssh://, git@HOST:..., github.com/...
                      no REF: the default branch; FOLDER may be the file itself

The user's git fetches the one commit into the user's cache, where it stays, as commits are immutable. No hooks run, and
git's remote helpers that start programs are disabled. Source: docker compose, "Remote Git repository".
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from havre.errors import Failed, InvalidInput, NotFound, Unsupported

NAMES = ("compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml")
_GIT = ("git://", "git@", "ssh://", "github.com/")
_REMOTE = ("oci://", "https://", "http://", *_GIT)
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?$")
_SAFE = ("-c", "core.hooksPath=/dev/null", "-c", "protocol.ext.allow=never", "-c", "protocol.fd.allow=never")


class _Address(NamedTuple):
    url: str
    ref: str
    path: str


def local(file: str) -> str:
    """The path of a local file, or of a fetched one. Raises Unsupported, Failed, NotFound."""
    if not file.startswith(_REMOTE):
        return file
    address = _parse(file)
    if address is None:
        raise Unsupported(f"remote Compose file {file} is not supported", "fetch it, and name the copy")
    ref, commit = (address.ref, address.ref) if _COMMIT.match(address.ref) else _find(address)
    root = os.path.join(_cache(), commit)
    if not os.path.isdir(root):
        root = _fetch(address.url, ref)
    found = os.path.realpath(os.path.join(root, address.path))
    if os.path.isdir(found):
        found = next((path for name in NAMES if os.path.isfile(path := os.path.join(found, name))), found)
    if os.path.commonpath((os.path.realpath(found), os.path.realpath(root))) != os.path.realpath(root):
        raise InvalidInput(f"{file}: {os.path.relpath(found, root)} leads out of the repository")
    if not os.path.isfile(found):
        raise NotFound(f"{file}: there is no Compose file in {address.path or 'the root of the repository'}")
    return found


def _parse(text: str) -> _Address | None:
    url, _, rest = text.partition("#")
    ref, _, path = rest.partition(":")
    if not url.endswith(".git") and not url.startswith(_GIT):
        return None
    if ref.startswith("-"):
        raise InvalidInput(f"{text}: {ref} is no reference of git's")
    return _Address(f"https://{url}" if url.startswith("github.com/") else url, ref, path.strip("/"))


def _cache() -> str:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(home, "havre-compose")


def _find(address: _Address) -> tuple[str, str]:
    """The full name of a branch, else of a tag, or of the default branch; and its commit."""
    names = [f"refs/heads/{address.ref}", f"refs/tags/{address.ref}"] if address.ref else ["HEAD"]
    lines = _git("ls-remote", "--", address.url, *names, *(f"{name}^{{}}" for name in names)).splitlines()
    found = {name: commit for commit, _, name in (line.partition("\t") for line in lines)}
    for name in names:
        if commit := found.get(f"{name}^{{}}") or found.get(name):  # the commit of an annotated tag
            return name, commit
    raise NotFound(f"{address.url} has no branch or tag {address.ref or 'HEAD'}")


def _fetch(url: str, ref: str) -> str:
    """Fetch `ref`, a full name or a commit; returns the directory of its files, complete or absent."""
    import tempfile

    os.makedirs(_cache(), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_cache(), prefix="fetch-") as folder:
        work = os.path.join(folder, "work")
        _git("init", "-q", "--template=", "--", work)
        _git("-C", work, "fetch", "-q", "--depth", "1", "--", url, ref)
        _git("-C", work, "checkout", "-q", "--detach", "FETCH_HEAD")
        root = os.path.join(_cache(), _git("-C", work, "rev-parse", "HEAD").strip())
        try:
            os.rename(work, root)
        except OSError:
            if not os.path.isdir(root):  # otherwise another process was faster
                raise
    return root


def _git(*words: str) -> str:
    import subprocess

    try:
        done = subprocess.run(["git", *_SAFE, *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise Unsupported("a Compose file in a git repository needs git", "install it, or name a copy") from None
    if done.returncode:
        raise Failed(f"git {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout
