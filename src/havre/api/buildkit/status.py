"""A build's progress as BuildKit's Status stream.

    progress(event) --> pending StatusResponse --> messages(): one message with everything pending
                                                   ends after close()

The client may ask before the build begins or after it has ended; events are kept for it. For a client that does not
read, output of RUN is dropped, but never the states of steps.

Source: moby/buildkit api/services/control/control.proto; client/graph.go.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import replace

from havre.api.buildkit.history import CLIPPED, StatusLog, timestamp
from havre.api.buildkit.messages import (
    Position,
    Range,
    SourceInfo,
    StatusResponse,
    VertexLog,
    VertexStatus,
    VertexWarning,
)
from havre.api.buildkit.messages import Vertex as VertexMessage
from havre.builds.progress import BuildEvent, Declared, Finished, Log, Started, Transfer, Vertex, Warned
from havre.oci.digest import digest_of

MAX_UNREAD_LOG = 8 << 20  # bytes of output buffered for a client that does not read
MAX_MESSAGE_LOG = 1 << 20


class Status:
    """One build's events for one reader, and for the history and further readers (`kept`).

    Digests are salted: a client with several builds (bake) would merge steps with equal digests.
    """

    def __init__(self) -> None:
        self.kept = StatusLog()
        self._salt = secrets.token_hex(8)
        self._pending = StatusResponse()
        self._unread_log = 0
        self._started: dict[str, float] = {}
        self._transfers: dict[tuple[str, str], float] = {}
        self._last: Vertex | None = None
        self._closed = False
        self._has_reader = False
        self._changed = asyncio.Event()
        self._news = asyncio.Event()  # for further readers: set and replaced at each change

    def progress(self, event: BuildEvent) -> None:
        """Process a build event."""
        if isinstance(event, Log):
            self._log(event)
        elif isinstance(event, Transfer):
            self._transfer(event)
        elif isinstance(event, Warned):
            self._pending.warnings.append(warning := self._warning(event))
            self.kept.add(StatusResponse(warnings=[warning]))
        elif event.vertex.name:  # otherwise it changes no file, and BuildKit does not report such steps
            self._last = event.vertex
            self._pending.vertexes.append(vertex := self._vertex(event))
            self.kept.add(StatusResponse(vertexes=[vertex]))
        self._wake()

    def close(self) -> None:
        """End the stream."""
        self._closed = True
        self._wake()

    def forget(self) -> None:
        """Free what is kept; readers that have begun still get all of it."""
        self.kept = StatusLog()

    def _wake(self) -> None:
        """Wake the readers."""
        self._changed.set()
        self._news.set()
        self._news = asyncio.Event()

    async def messages(self) -> AsyncIterator[StatusResponse]:
        """All messages until the build ends; for further readers those that the history keeps."""
        if self._has_reader:
            async for message in self._kept_messages():
                yield message
            return
        self._has_reader = True
        while True:
            await self._changed.wait()
            self._changed.clear()
            while (message := self._take()) != StatusResponse():
                yield message
            if self._closed:
                return

    async def _kept_messages(self) -> AsyncIterator[StatusResponse]:
        """The messages of `kept` until the build ends."""
        known, kept = 0, self.kept
        while True:
            news, is_last = self._news, self._closed
            for message in kept.since(known):
                known += 1
                yield message
            if is_last:
                return
            await news.wait()

    def _take(self) -> StatusResponse:
        """The pending events, with at most as much output as a message may carry."""
        taken, self._pending = self._pending, StatusResponse()
        size = 0
        for index, log in enumerate(taken.logs):
            size += len(log.msg)
            if size > MAX_MESSAGE_LOG and index:
                self._pending.logs = taken.logs[index:]
                taken.logs = taken.logs[:index]
                break
        self._unread_log = sum(len(log.msg) for log in self._pending.logs)
        return taken

    def _vertex(self, event: Declared | Started | Finished) -> VertexMessage:
        vertex = event.vertex
        inputs = [self._salted(digest) for digest in vertex.inputs]
        message = VertexMessage(digest=self._salted(vertex.digest), inputs=inputs, name=vertex.name)
        if isinstance(event, Started):
            self._started.setdefault(vertex.digest, event.at)
        if isinstance(event, Finished):
            message.cached = event.cached
            message.error = event.error
            message.completed = timestamp(event.at)
            self._started.setdefault(vertex.digest, event.at)
        if (at := self._started.get(vertex.digest)) is not None:
            message.started = timestamp(at)
        return message

    def _log(self, event: Log) -> None:
        self._last = event.vertex
        told = VertexLog(self._salted(event.vertex.digest), timestamp(event.at), event.stream, event.data)
        self.kept.add(StatusResponse(logs=[told]))
        if self._unread_log >= MAX_UNREAD_LOG:
            return
        self._unread_log += len(event.data)
        if self._unread_log >= MAX_UNREAD_LOG:
            told = replace(told, msg=event.data + CLIPPED)
        self._pending.logs.append(told)

    def _transfer(self, event: Transfer) -> None:
        key = (event.vertex.digest, event.id)
        is_first, began = key not in self._transfers, self._transfers.setdefault(key, event.at)
        told = VertexStatus(
            id=event.id,
            vertex=self._salted(event.vertex.digest),
            current=event.current,
            total=event.total,
            timestamp=timestamp(event.at),
            started=timestamp(began),
            completed=timestamp(event.at) if event.done else None,
        )
        self._pending.statuses.append(told)
        if is_first or event.done:
            self.kept.add(StatusResponse(statuses=[told]))

    def _warning(self, event: Warned) -> VertexWarning:
        file = event.file
        return VertexWarning(
            vertex=self._salted(self._last.digest) if self._last else "",
            level=1,
            short=event.short.encode(),
            detail=[event.description.encode()],
            url=event.url,
            info=SourceInfo(file.name, file.data, "Dockerfile") if file else None,
            ranges=[Range(Position(event.line), Position(event.end))] if event.line else [],
        )

    def _salted(self, digest: str) -> str:
        return digest_of(f"{self._salt} {digest}".encode())
