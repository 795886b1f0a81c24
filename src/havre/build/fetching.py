"""ADD of a URL: one file fetched by HTTP into a directory of ours, its digest checked while it comes in."""

from __future__ import annotations

import hashlib
import os
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp

from havre.aio import in_thread
from havre.build.gitsource import parse_git_address
from havre.errors import Failed, InvalidInput
from havre.oci.digest import parse_digest

_PIECE = 1 << 20
_QUIET_S = 60
_REDIRECTS = 10


def is_url(source: str) -> bool:
    """Whether a source of ADD is fetched by HTTP."""
    return source.startswith(("http://", "https://")) and parse_git_address(source) is None


def name_of(url: str) -> str:
    """What the file is called in a target directory; raises `InvalidInput` when the URL does not say."""
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise InvalidInput(f"cannot determine a file name from {url}", "give the target as a file's path")
    return name


async def fetch(url: str, directory: Path, name: str, checksum: str) -> Path:
    """Fetch `url` to `directory`/`name`, mode 0600, with the server's time; `checksum` is a digest or ""."""
    wanted = parse_digest(checksum) if checksum else None
    path = directory / name
    timeout = aiohttp.ClientTimeout(sock_connect=_QUIET_S, sock_read=_QUIET_S)
    found = hashlib.sha256()
    modified = 0.0
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True, auto_decompress=False) as session,
            session.get(url, max_redirects=_REDIRECTS, headers={"Accept-Encoding": "identity"}) as answer,
        ):
            if answer.status != 200:
                raise Failed(f"failed to fetch {url}: the server answered {answer.status} {answer.reason}")
            modified = _modified(answer.headers.get("Last-Modified", ""))
            with await in_thread(path.open, "xb") as file:
                async for piece in answer.content.iter_chunked(_PIECE):
                    found.update(piece)
                    await in_thread(file.write, piece)
    except (TimeoutError, aiohttp.ClientError) as error:
        raise Failed(f"failed to fetch {url}: {error or 'timed out'}") from error
    if wanted is not None and wanted != f"sha256:{found.hexdigest()}":
        raise Failed(f"digest mismatch sha256:{found.hexdigest()}: {wanted} was expected of {url}")
    path.chmod(0o600)
    os.utime(path, (modified, modified))
    return path


def _modified(text: str) -> float:
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp())
    except (TypeError, ValueError):
        return 0.0
