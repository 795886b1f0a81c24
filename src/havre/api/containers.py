"""Containers except their streams: create, list, inspect, change state, remove; and havre's own: take ports.

Source: Docker Engine API, "Containers".
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec
from aiohttp import web

from havre.api.call import Call
from havre.api.present import Sizes, present_container, present_summary
from havre.api.router import Router
from havre.errors import InvalidInput, NotFound
from havre.wire import versions
from havre.wire.config import Config, CreateRequest, HostConfig
from havre.wire.containers import ContainerCreated, ContainersPruned, TakePortsRequest, TopAnswer
from havre.wire.conversion import lift
from havre.wire.decode import decode_body

_LONGEST = 65535  # ioctl_tty(2), struct winsize
_DEPRECATED_MAC = (
    "The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead."
)


_IGNORED_DRIVER = (
    "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. "
    "Use '--mount type=volume,volume-driver=...' instead"
)
_DISCARDED = "Such bindings will be discarded in a future version."


async def _create(call: Call) -> web.StreamResponse:
    request = lift(_create_request(await call.json_body()), call.version)
    if not versions.mac_address_is_the_containers(call.version):
        request.mac_address = ""
    name, platform = call.text("name") or None, call.text("platform") or None
    recursive = versions.read_only_is_recursive(call.version)
    created = await call.settle(call.services.containers.create(request, name, platform, recursive))
    warnings = [*created.warnings, *_warnings(request, call)]
    return call.json(ContainerCreated(id=created.id, warnings=warnings), 201)


def _warnings(request: CreateRequest, call: Call) -> Iterator[str]:
    """Warnings of what newer API versions read otherwise, in dockerd's words."""
    if request.mac_address and versions.mac_address_is_the_networks(call.version):
        yield _DEPRECATED_MAC
    host = request.host_config or HostConfig()
    volumes = (each.volume_options for each in host.mounts or () if each.type == "volume")
    undriven = any(not (each and each.driver_config and each.driver_config.name) for each in volumes)
    if host.volume_driver and undriven and versions.volume_driver_is_warned_of(call.version):
        yield _IGNORED_DRIVER
    empty = sorted(port for port, bindings in (host.port_bindings or {}).items() if not bindings)
    if empty and versions.empty_bindings_are_warned_of(call.version):
        yield f"Following container port(s) have an empty list of port-bindings: {', '.join(empty)}. {_DISCARDED}"


class _Asked(CreateRequest):
    """Fields that dockerd also reads beside `HostConfig` if that lacks them; docker's Python SDK sends them there."""

    cpu_shares: int = 0
    cpuset_cpus: str = ""
    memory: int = 0
    memory_swap: int = 0
    volume_driver: str = ""


_CONFIG_KEYS = {field.encode_name.lower() for field in msgspec.structs.fields(Config)}


def _create_request(body: bytes) -> CreateRequest:
    """The request; without a `HostConfig`, all of its fields are read from the top level."""
    asked = decode_body(body, _Asked)
    if not (asked.image or {key.lower() for key in decode_body(body, dict[str, Any])} & _CONFIG_KEYS):
        raise InvalidInput("config cannot be empty in order to create a container", "expected an Image")
    if asked.host_config is None:
        asked.host_config = decode_body(body, HostConfig)
        return asked
    for name in _Asked.__struct_fields__[len(CreateRequest.__struct_fields__) :]:
        if not getattr(asked.host_config, name):
            setattr(asked.host_config, name, getattr(asked, name))
    return asked


async def _list(call: Call) -> web.StreamResponse:
    containers = call.services.containers
    wanted = call.flag("all")
    limit = call.integer("limit")
    found = containers.list(all=wanted, limit=limit, size=call.flag("size"), filters=call.filters())
    now = time.time()
    lines, names = [], containers.linked_names()
    shown: dict[tuple[str, str], str] = {}  # many containers share an image
    for container in found:
        try:
            sizes = await _sizes(call, container.id) if call.flag("size") else None
        except NotFound:
            continue  # removed meanwhile
        image = container.spec.config.image, container.spec.image
        if image not in shown:
            shown[image] = containers.shown_image(container)
        others = names.get(container.name.lower(), ())
        lines.append(present_summary(container, now, shown[image], sizes, others))
    return call.json(lines)


async def _inspect(call: Call) -> web.StreamResponse:
    containers = call.services.containers
    container = containers.get(call.name)
    sizes = await _sizes(call, container.id) if call.flag("size") else None
    placement = containers.placement(container.id)
    with_mac = versions.mac_address_is_the_containers(call.version)
    execs = call.services.execs.ids_of(container.id)
    answer = present_container(container, placement, execs, sizes, with_mac=with_mac)
    return call.json(answer)


async def _sizes(call: Call, id: str) -> Sizes:
    writable, root = await call.services.containers.size(id)
    return Sizes(writable, root)


async def _start(call: Call) -> web.StreamResponse:
    length = call.request.content_length
    if call.request.body_exists and (length is None or length > len('{"a":1}')):
        raise InvalidInput(
            "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24"
        )
    if checkpoint := call.text("checkpoint"):
        await call.settle(call.services.checkpoints.start(call.name, checkpoint, call.text("checkpoint-dir")))
        return call.nothing()
    await call.settle(call.services.containers.start(call.name, detach_keys=call.text("detachKeys") or None))
    return call.nothing()


async def _stop(call: Call) -> web.StreamResponse:
    timeout, signal = call.integer("t"), call.text("signal") or None
    drain = call.integer("drain")  # havre's own parameter, which dockerd ignores
    await call.settle(call.services.containers.stop(call.name, timeout_s=timeout, signal=signal, drain_s=drain))
    return call.nothing()


async def _take_ports(call: Call) -> web.StreamResponse:
    request = await call.body(TakePortsRequest)
    await call.settle(call.services.membership.take_ports(call.name, request.port_bindings, request.givers))
    return call.nothing()


async def _restart(call: Call) -> web.StreamResponse:
    timeout, signal = call.integer("t"), call.text("signal") or None
    await call.settle(call.services.containers.restart(call.name, timeout_s=timeout, signal=signal))
    return call.nothing()


async def _kill(call: Call) -> web.StreamResponse:
    await call.settle(call.services.containers.kill(call.name, call.text("signal") or None))
    return call.nothing()


async def _pause(call: Call) -> web.StreamResponse:
    await call.settle(call.services.containers.pause(call.name))
    return call.nothing()


async def _unpause(call: Call) -> web.StreamResponse:
    await call.settle(call.services.containers.unpause(call.name))
    return call.nothing()


async def _rename(call: Call) -> web.StreamResponse:
    await call.settle(call.services.containers.rename(call.name, call.text("name")))
    return call.nothing()


async def _remove(call: Call) -> web.StreamResponse:
    work = call.services.containers.remove(
        call.name, force=call.flag("force"), volumes=call.flag("v"), link=call.flag("link")
    )
    await call.settle(work)
    return call.nothing()


async def _resize(call: Call) -> web.StreamResponse:
    rows, columns = terminal_size(call)
    await call.services.containers.resize(call.name, rows, columns)
    return call.nothing(200)


def terminal_size(call: Call) -> tuple[int, int]:
    """Rows and columns of a terminal. InvalidInput, in dockerd 29's words."""
    return _terminal_length(call.text("h"), "height"), _terminal_length(call.text("w"), "width")


def _terminal_length(text: str, side: str) -> int:
    number = text.removeprefix("-")
    if not (number.isascii() and number.isdigit()):
        raise InvalidInput(f'invalid resize {side} "{text}": invalid syntax', "expected a number of rows or columns")
    if number != text or len(number) > 10 or int(number) > _LONGEST:
        raise InvalidInput(f'invalid resize {side} "{text}": value out of range', f"at most {_LONGEST}")
    return int(number)


async def _top(call: Call) -> web.StreamResponse:
    top = await call.services.containers.top(call.name, call.text("ps_args"))
    return call.json(TopAnswer(processes=top.processes, titles=top.titles))


async def _prune(call: Call) -> web.StreamResponse:
    pruned = await call.settle(call.services.containers.prune(call.prune_filters()))
    return call.json(ContainersPruned(containers_deleted=pruned.deleted or None, space_reclaimed=pruned.reclaimed))


def register(router: Router) -> None:
    """Add the routes of containers."""
    router.add("GET", "/containers/json", _list)
    router.add("POST", "/containers/create", _create)
    router.add("POST", "/containers/prune", _prune)
    router.add("GET", "/containers/{name}/json", _inspect)
    router.add("GET", "/containers/{name}/top", _top)
    router.add("POST", "/containers/{name}/ports", _take_ports)
    for action, handler in (
        ("start", _start),
        ("stop", _stop),
        ("restart", _restart),
        ("kill", _kill),
        ("pause", _pause),
        ("unpause", _unpause),
        ("rename", _rename),
        ("resize", _resize),
    ):
        router.add("POST", f"/containers/{{name}}/{action}", handler)
    router.add("DELETE", "/containers/{name}", _remove)
