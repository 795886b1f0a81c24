"""Calls to plugins: JSON over HTTP, each on a connection of its own.

    POST /Plugin.Activate          once per address: what does it implement?
    POST /VolumeDriver.Mount  {"Name": "v", "ID": "..."}  -->  {"Mountpoint": "/x", "Err": ""}

A plugin may be started after the daemon, be restarted, hang or die: a refused connection is retried for a while, since
no request has been sent; answers have a timeout; requests are never repeated.

Source: Docker's plugin API, "API design".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from havre.aio import in_thread
from havre.errors import Failed, InvalidInput, NotFound, Unavailable
from havre.golang import gojson
from havre.plugins import discovery
from havre.plugins.discovery import Address, Directories

_MEDIA_TYPE = "application/vnd.docker.plugins.v1.2+json"
_ANSWER_MAX_BYTES = 16 << 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """Timeouts of a plugin, in seconds: to accept a connection, to answer, and to answer optional queries (`passing`,
    such
    as a list of volumes). After a timeout of such a query, the next ones wait only `silent_s`, for a while.
    """

    connect_s: float = 5.0
    answer_s: float = 60.0
    passing_s: float = 5.0
    silent_s: float = 0.2
    while_s: float = 30.0


class _Refusal(msgspec.Struct, rename="pascal"):
    """The error field that any answer may have."""

    err: str = ""


class _Activation(msgspec.Struct, rename="pascal"):
    """The answer to Plugin.Activate."""

    implements: list[str] = []


class Plugin:
    """One plugin; `kinds` are the interfaces that it implements, known after its activation."""

    def __init__(self, name: str, address: Address, patience: Patience) -> None:
        self.name = name
        self.address = address
        self.kinds: frozenset[str] | None = None
        self._patience = patience
        self._silent_until = 0.0

    async def call(
        self, method: str, asked: Mapping[str, Any], *, passing: bool = False, retry: bool = True
    ) -> dict[str, Any]:
        """The answer as decoded JSON (`gojson.convert` types it); `null` counts as empty, as in dockerd.

        Failed with the plugin's own message; Unavailable without an answer in time. `passing` uses the shorter timeout
        and does
        not retry the connection, nor does `retry=False`.
        """
        patience = self._patience
        is_silent = time.monotonic() < self._silent_until
        passing_s = patience.silent_s if is_silent else patience.passing_s
        try:
            async with asyncio.timeout(passing_s if passing else patience.answer_s):
                status, body = await self._post(method, asked, patience.connect_s if retry and not passing else 0.0)
            self._silent_until = 0.0
        except TimeoutError as error:
            if not is_silent:
                self._silent_until = time.monotonic() + patience.while_s
            raise self._gone(method, "no answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._gone(method, str(error) or type(error).__name__) from error
        return _read(method, status, body)

    async def _post(self, method: str, asked: Mapping[str, Any], connect_s: float) -> tuple[int, bytes]:
        deadline, pause_s = time.monotonic() + connect_s, _FIRST_PAUSE_S
        while True:
            try:
                return await self._post_once(method, asked)
            except aiohttp.ClientConnectorError:
                if time.monotonic() + pause_s > deadline:
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _post_once(self, method: str, asked: Mapping[str, Any]) -> tuple[int, bytes]:
        address = self.address
        if address.socket is not None:
            connector: aiohttp.BaseConnector = aiohttp.UnixConnector(str(address.socket), force_close=True)
        else:
            context = await in_thread(discovery.tls_context, address.tls) if address.tls else None
            connector = aiohttp.TCPConnector(force_close=True, ssl=context or True)
        url = f"{address.scheme}://{address.host or 'plugin'}/{method}"
        headers = {"Accept": _MEDIA_TYPE, "Content-Type": _MEDIA_TYPE}
        async with (
            aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session,
            session.post(url, data=msgspec.json.encode(asked), headers=headers, allow_redirects=False) as response,
        ):
            body = bytearray()
            async for chunk in response.content.iter_chunked(1 << 16):
                body += chunk
                if len(body) > _ANSWER_MAX_BYTES:
                    raise Failed(f"{method}: plugin {self.name} sends an endless answer")
            return response.status, bytes(body)

    def _gone(self, method: str, why: str) -> Unavailable:
        hint = f"it should listen at {self.address}"
        return Unavailable(f"plugin {self.name} does not answer {method}: {why}", hint)


class Plugins:
    """All plugins found in `directories`."""

    def __init__(self, directories: Directories, patience: Patience | None = None) -> None:
        self._directories = directories
        self._patience = patience or Patience()
        self._known: dict[str, Plugin] = {}

    async def names(self) -> list[str]:
        """The names of all plugins found, whatever they implement and whether or not they answer."""
        return await in_thread(discovery.names, self._directories)

    def implementing(self, kind: str) -> list[str]:
        """The plugins that have been called as a `kind` (such as VolumeDriver)."""
        return sorted(name for name, plugin in self._known.items() if kind in (plugin.kinds or ()))

    async def get(self, name: str, kind: str, *, passing: bool = False) -> Plugin:
        """The plugin, activated. NotFound where none implements `kind`; Unavailable if it does not answer."""
        address = await in_thread(discovery.find, self._directories, name)
        if address is None:
            raise NotFound(f'plugin "{name}" not found', "is it installed, and running?")
        plugin = self._known.get(name)
        if plugin is None or plugin.address != address:
            plugin = self._known[name] = Plugin(name, address, self._patience)
        if plugin.kinds is None:
            answer = await plugin.call("Plugin.Activate", {}, passing=passing)
            plugin.kinds = frozenset(gojson.convert(answer, _Activation, "Plugin.Activate").implements)
        if kind not in plugin.kinds:
            raise NotFound(f'plugin "{name}" not found', f"there is one, but it is no {kind}")
        return plugin


def _read(method: str, status: int, body: bytes) -> dict[str, Any]:
    """Decode an answer; a plugin reports failures by the status, in `Err`, or both."""
    try:
        answer = gojson.decode(body, dict[str, Any], "the answer is no JSON object") if body.strip() else {}
        refusal = gojson.convert(answer, _Refusal, "the answer is none").err
    except InvalidInput as error:
        if status == 200:
            raise Failed(f"{method}: {error.message}") from error
        answer, refusal = {}, body.decode(errors="replace").strip()
    if status == 404 and not refusal:
        raise NotFound(f"{method}: not implemented by the plugin")
    if problem := refusal or ("" if status == 200 else f"status {status}"):
        raise Failed(f"{method}: {problem}")
    return answer
