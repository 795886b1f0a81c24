"""ADD of a URL: fetches one file by HTTP into a directory and verifies its digest. `docker import` streams from a URL.

fetch --> the file, and a Download --remember--> Downloads
next build: unchanged(url)? --If-None-Match, If-Modified-Since--> 304: not fetched again
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp

from havre.aio import in_thread
from havre.builds.gitsource import parse_git_address
from havre.errors import Failed, InvalidInput, NotFound
from havre.oci.digest import parse_digest

KNOWN = 1024
_PIECE = 1 << 20
_QUIET_S = 60
_REDIRECTS = 10


def is_url(source: str) -> bool:
    """Report whether a source of ADD is fetched by HTTP."""
    return source.startswith(("http://", "https://")) and parse_git_address(source) is None


def name_of(url: str) -> str:
    """The name of the file in a target directory. Raises `InvalidInput` if the URL has none."""
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise InvalidInput(f"cannot determine a file name from {url}", "give the target as a file's path")
    return name


@dataclass(frozen=True)
class Download:
    """The result of a download: the digest, the time, and the validators of its response."""

    digest: str
    modified: str = ""
    etag: str = ""

    @property
    def conditions(self) -> dict[str, str]:
        """The headers of a conditional request (RFC 9110, 13.1); none if the server sent no validator."""
        if self.etag:
            return {"If-None-Match": self.etag}
        return {"If-Modified-Since": self.modified} if self.modified else {}


class Downloads:
    """The last `KNOWN` downloads of this daemon."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Download] = OrderedDict()

    def remember(self, url: str, download: Download) -> None:
        """Add a download, replacing an earlier one of the URL."""
        self._known[url] = download
        self._known.move_to_end(url)
        while len(self._known) > KNOWN:
            self._known.popitem(last=False)

    def known(self, url: str) -> Download | None:
        """The last download of the URL, or None."""
        return self._known.get(url)

    async def unchanged(self, url: str) -> Download | None:
        """The last download of the URL, if its server confirms that it has not changed."""
        known = self._known.get(url)
        if known is None or not known.conditions:
            return None
        async with _answer(url, known.conditions) as answer:
            return known if answer.status == 304 else None


@asynccontextmanager
async def _answer(url: str, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
    timeout = aiohttp.ClientTimeout(sock_connect=_QUIET_S, sock_read=_QUIET_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=True, auto_decompress=False) as session,
            session.get(url, max_redirects=_REDIRECTS, headers={"Accept-Encoding": "identity", **headers}) as answer,
        ):
            yield answer
    except (TimeoutError, aiohttp.ClientError) as error:
        raise Failed(f"failed to fetch {url}: {error or 'timed out'}") from error


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[tuple[int, AsyncIterator[bytes]]]:
    """The size of the response in bytes (0 if unknown) and its body in pieces. NotFound for a 404, otherwise Failed."""
    async with _answer(url, {}) as answer:
        _require_content(url, answer)
        yield answer.content_length or 0, answer.content.iter_chunked(_PIECE)


def _require_content(url: str, answer: aiohttp.ClientResponse) -> None:
    if answer.status != 200:
        error = NotFound if answer.status == 404 else Failed
        raise error(f"failed to fetch {url}: the server answered {answer.status} {answer.reason}")


async def fetch(url: str, directory: Path, name: str, checksum: str) -> Download:
    """Fetch `url` to `directory`/`name`, with mode 0600 and the server's time; `checksum` is a digest or "".

    Raises `NotFound` for a 404, `Failed` for network errors and if the digest differs.
    """
    wanted = parse_digest(checksum) if checksum else None
    path = directory / name
    found = hashlib.sha256()
    async with _answer(url, {}) as answer:
        _require_content(url, answer)
        modified, etag = answer.headers.get("Last-Modified", ""), answer.headers.get("ETag", "")
        with await in_thread(path.open, "xb") as file:
            async for piece in answer.content.iter_chunked(_PIECE):
                found.update(piece)
                await in_thread(file.write, piece)
    if wanted is not None and wanted != f"sha256:{found.hexdigest()}":
        raise Failed(f"digest mismatch sha256:{found.hexdigest()}: {wanted} was expected of {url}")
    path.chmod(0o600)
    os.utime(path, (_seconds(modified), _seconds(modified)))
    return Download(f"sha256:{found.hexdigest()}", modified, etag)


def _seconds(text: str) -> float:
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp())
    except (TypeError, ValueError):
        return 0.0
