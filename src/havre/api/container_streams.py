"""A container's streams: attach (hijacked, or a WebSocket), logs, wait.

Source: Docker Engine API, "ContainerAttach", "ContainerAttachWebsocket", "ContainerLogs", "ContainerWait".
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing

import msgspec
from aiohttp import WSMsgType, web

from havre.api.call import Call
from havre.api.hijack import Taken, render_head, take_over
from havre.api.relay import relay
from havre.api.router import Router
from havre.containers.attach import Attachment, AttachOptions
from havre.errors import HavreError, InvalidInput
from havre.logs import LogChunk, LogOptions
from havre.wire import versions
from havre.wire.detach import parse_keys
from havre.wire.frames import render_frames, render_line_frames
from havre.wire.queries import parse_time

RAW = "application/vnd.docker.raw-stream"
MULTIPLEXED = "application/vnd.docker.multiplexed-stream"


async def _attach(call: Call) -> web.StreamResponse:
    keys = parse_keys(call.text("detachKeys"))
    try:
        attachment = await call.services.containers.attach(call.name, _attach_options(call))
    except HavreError as error:
        return _plain_refusal(error)
    upgrade = call.request.headers.get("Upgrade")
    try:
        await call.announce(101 if upgrade else 200, _stream_type(call, attachment.tty))
        connection = take_over(call.request, render_head(call.headers, _stream_type(call, attachment.tty), upgrade))
        framed, stdin = not attachment.tty, call.flag("stdin")
        if await relay(connection, attachment, framed=framed, stdin=stdin, detach_keys=None if framed else keys):
            call.services.containers.detached(call.name)
    finally:
        attachment.close()
    return Taken()


def _attach_options(call: Call) -> AttachOptions:
    return AttachOptions(
        stdin=call.flag("stdin"),
        stdout=call.flag("stdout"),
        stderr=call.flag("stderr"),
        stream=call.flag("stream"),
        logs=call.flag("logs"),
    )


def _plain_refusal(error: HavreError) -> web.StreamResponse:
    """An error as plain text: dockerd has hijacked the connection by the time it finds these errors."""
    answer = web.Response(status=error.status, body=f"{error.message}\r\n".encode(), headers={"Content-Type": RAW})
    answer.force_close()
    return answer


def _stream_type(call: Call, tty: bool) -> str:
    """Only a response with status 101 has the type multiplexed-stream."""
    upgraded = "Upgrade" in call.request.headers
    return MULTIPLEXED if upgraded and versions.multiplexed(call.version, tty) else RAW


async def _attach_ws(call: Call) -> web.StreamResponse:
    parse_keys(call.text("detachKeys"))
    attachment = await call.services.containers.attach(call.name, _attach_options(call))
    socket = web.WebSocketResponse(autoping=True, max_msg_size=1 << 20)
    try:
        await call.announce(101, "")
        await socket.prepare(call.request)
        delivering = asyncio.ensure_future(_deliver_ws(socket, attachment))
        try:
            await _feed_ws(socket, attachment)
        finally:
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)
    finally:
        attachment.close()
    return socket


async def _deliver_ws(socket: web.WebSocketResponse, attachment: Attachment) -> None:
    async for _, data in attachment.output:
        await socket.send_bytes(data)
    await socket.close()


async def _feed_ws(socket: web.WebSocketResponse, attachment: Attachment) -> None:
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await attachment.write_stdin(message.data.encode())
        elif message.type is WSMsgType.BINARY:
            await attachment.write_stdin(message.data)


async def _logs(call: Call) -> web.StreamResponse:
    stdout, stderr = call.flag("stdout"), call.flag("stderr")
    if not (stdout or stderr):
        raise InvalidInput("Bad parameters: you must choose at least one stream")
    container = call.services.containers.get(call.name)
    tty = container.spec.config.tty
    options = LogOptions(
        stdout=stdout,
        stderr=stderr,
        follow=call.flag("follow"),
        timestamps=call.flag("timestamps"),
        details=call.flag("details"),
        since=_moment(call, "since"),
        until=_moment(call, "until"),
        tail=_tail(call.text("tail", "all")),
    )
    # Clients such as docker's SDK take a frame for a line; havre's own asks for frames with many lines.
    render = _join if tty else render_frames if call.flag("wide") else render_line_frames
    async with aclosing(call.services.containers.logs(container.id, options)) as batches:
        response = await call.stream(MULTIPLEXED if versions.multiplexed(call.version, tty) else RAW)
        async for chunks in batches:
            await response.write(render(chunks))
    return response


def _join(chunks: Sequence[LogChunk]) -> bytes:
    return b"".join([data for _, data in chunks])


def _moment(call: Call, name: str) -> float | None:
    value = call.text(name)
    return parse_time(value, name, time.time()) if value not in ("", "0") else None


def _tail(text: str) -> int | None:
    """The number of lines from the end; None for all. Anything but a number means all, as with dockerd."""
    return int(text) if text.isdecimal() and len(text) < 10 else None


async def _wait(call: Call) -> web.StreamResponse:
    waiting = call.services.containers.wait(call.name, call.text("condition"))
    try:
        response = await call.stream()  # the head is sent at once: `docker run` starts the container only after it
        result = await waiting.result()
        answer: dict[str, object] = {"StatusCode": result.code}
        if result.error:
            answer["Error"] = {"Message": result.error}
        await response.write(msgspec.json.encode(answer) + b"\n")
    finally:
        waiting.cancel()
    return response


def register(router: Router) -> None:
    """Add the routes of streams."""
    router.add("POST", "/containers/{name}/attach", _attach)
    router.add("GET", "/containers/{name}/attach/ws", _attach_ws)
    router.add("GET", "/containers/{name}/logs", _logs)
    router.add("POST", "/containers/{name}/wait", _wait)
