"""Exec: create, start (hijacked or detached), inspect, resize.

A failure to start is reported in the stream once the connection is hijacked, and as a status if detached.

Source: Docker Engine API, "Exec".
"""

from __future__ import annotations

from aiohttp import web
from msgspec import UNSET

from havre.api.call import Call
from havre.api.container_streams import MULTIPLEXED, RAW
from havre.api.containers import terminal_size
from havre.api.hijack import Taken, render_head, take_over
from havre.api.relay import relay
from havre.api.router import Router
from havre.containers.streams.exec import ExecSpec
from havre.errors import HavreError, InvalidInput
from havre.wire import versions
from havre.wire.containers import ExecCreated, ExecDetails, ExecProcess, ExecStart
from havre.wire.detach import parse_keys
from havre.wire.frames import STDOUT, render_header


async def _create(call: Call) -> web.StreamResponse:
    spec = await call.body(ExecSpec)
    parse_keys(spec.detach_keys)
    return call.json(ExecCreated(id=call.services.execs.create(call.name, spec).id), 201)


async def _start(call: Call) -> web.StreamResponse:
    execs = call.services.execs
    request = await call.optional_body(ExecStart)
    exec = execs.get(call.name)
    size = _console_size(request)
    if request.detach:
        await call.settle(execs.start_detached(call.name))
        return call.nothing(200)
    upgrade = call.request.headers.get("Upgrade")
    multiplexed = upgrade is not None and versions.multiplexed(call.version, request.tty)
    kind = MULTIPLEXED if multiplexed else RAW
    await call.announce(101 if upgrade else 200, kind)
    connection = take_over(call.request, render_head(call.headers, kind, upgrade))
    try:
        # An attachment without a reader would block the process once its buffer is full.
        attachment = await call.settle(execs.start(call.name, size), abandon=lambda unread: unread.close())
    except HavreError as error:
        text = f"{error.message}\r\n".encode()
        await connection.write(text if request.tty else render_header(STDOUT, len(text)) + text)
        return Taken()
    keys = parse_keys(exec.spec.detach_keys) if exec.spec.tty else None
    framed, stdin = not request.tty, exec.spec.attach_stdin
    if await relay(connection, attachment, framed=framed, stdin=stdin, detach_keys=keys):
        execs.detached(exec.id)
    return Taken()


def _console_size(request: ExecStart) -> tuple[int, int] | None:
    size = request.console_size
    if not size:
        return None
    if len(size) != 2:
        raise InvalidInput("ConsoleSize: expected [rows, columns]")
    return size[0], size[1]


async def _inspect(call: Call) -> web.StreamResponse:
    exec = call.services.execs.get(call.name)
    entrypoint, *arguments = exec.command
    process = ExecProcess(
        tty=exec.spec.tty,
        entrypoint=entrypoint,
        arguments=arguments,
        privileged=exec.spec.privileged,
        user=exec.spec.user or UNSET,
    )
    return call.json(
        ExecDetails(
            id=exec.id,
            running=exec.running,
            exit_code=exec.exit_code,
            process_config=process,
            open_stdin=exec.spec.attach_stdin,
            open_stderr=exec.spec.attach_stderr,
            open_stdout=exec.spec.attach_stdout,
            container_id=exec.container_id,
            detach_keys=exec.spec.detach_keys,
            pid=exec.pid,
        )
    )


async def _resize(call: Call) -> web.StreamResponse:
    rows, columns = terminal_size(call)
    await call.services.execs.resize(call.name, rows, columns)
    return call.nothing(200)


def register(router: Router) -> None:
    """Add the routes of exec."""
    router.add("POST", "/containers/{name}/exec", _create)
    router.add("POST", "/exec/{name}/start", _start)
    router.add("POST", "/exec/{name}/resize", _resize)
    router.add("GET", "/exec/{name}/json", _inspect)
