"""`havre stats`: resource usage, live or once.

CPU is the container's share of the host's time since the last reading, in percent of one CPU; memory excludes page
cache
that the kernel could drop, as docker computes both. On a terminal, containers close to their memory or PID limit, or
throttled, are highlighted. Templates and JSON also have `PIDsLimit` and `CPUThrottled`, the share of the scheduler's
periods in which it was throttled.
"""

from __future__ import annotations

import posix
import select
import sys
import time

from havre.cli.format.table import Listing
from havre.cli.screen import Screen, paint
from havre.cli.tty import DIM, YELLOW, has_colours
from havre.errors import HavreError
from havre.golang.texts import binary_size, human_size, short_id
from havre.visible import Drawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from havre.cli.format.table import Fields
    from havre.cli.session import Session
    from havre.client.api import Query
    from havre.client.http import Response
    from havre.golang.flags import Options

    Json = dict[str, Any]

_REFRESH_S = 0.5
_CLOSE = 0.8
"""Fraction of a limit from which a container is highlighted."""


def stats(session: Session, options: Options, arguments: list[str]) -> int:
    """Show resource usage."""
    form = options.format or session.config.text("statsFormat")
    listing = _listing(truncate=not options.no_trunc)
    if options.no_stream:
        for name in arguments:
            session.client.get(f"/containers/{name}/json")
        names = arguments or _names(session, options)
        rows = _read_once(session, names)
        table = listing.render(rows, form)
        if form in ("", "table") and has_colours(1):
            table = Drawn("".join(paint(text, colour) + "\n" for text, colour in coloured(table, rows)))
        sys.stdout.write(table)
        return 0
    return _watch(session, options, arguments, listing, form)


def _read_once(session: Session, names: list[str]) -> list[Json]:
    """One reading of each, in parallel: the engine samples twice with a pause in between."""
    from concurrent.futures import ThreadPoolExecutor

    def read(name: str) -> Json:
        try:
            reading: Json = session.new_client().get(f"/containers/{name}/stats", {"stream": "0"})
        except HavreError:  # removed meanwhile
            return {}
        return figures(reading) | {"Container": name}

    with ThreadPoolExecutor(max(1, len(names))) as pool:
        return [row for row in pool.map(read, names) if row]


def _names(session: Session, options: Options) -> list[str]:
    query: Query = {"all": "1"} if options.all else {}
    return [container["Id"] for container in session.client.get("/containers/json", query)]


def _watch(session: Session, options: Options, arguments: list[str], listing: Listing, form: str) -> int:
    streams: dict[str, _Stream] = {}
    plain = form not in ("", "table")
    screen = Screen(1, top=True) if posix.isatty(1) else None
    while True:
        for name in arguments or _names(session, options):
            if name not in streams:
                streams[name] = _Stream(session, name)
        _collect(streams, time.monotonic() + _REFRESH_S)
        if arguments and not streams:
            return 0
        rows = [stream.row() for stream in streams.values() if stream.reading]
        table = listing.render(rows, form)
        if screen is not None:
            screen.draw([(line, "") for line in table.splitlines()] if plain else coloured(table, rows))
        else:
            sys.stdout.write(table)
            sys.stdout.flush()


def coloured(table: str, rows: list[Json]) -> list[tuple[str, str]]:
    """A table's lines and their colours: a dim header; rows close to a limit, or throttled, in a warning colour."""
    header, *lines = table.splitlines()
    return [(header, DIM), *((line, YELLOW if _is_close(row) else "") for line, row in zip(lines, rows, strict=True))]


def _is_close(row: Json) -> bool:
    return row["throttled"] > 0 or any(
        limit and used > _CLOSE * limit
        for used, limit in ((row["used"], row["limit"]), (row["pids"], row["pids_limit"]))
    )


def _collect(streams: dict[str, _Stream], until: float) -> None:
    """Read from the streams until a deadline; removes ended ones."""
    while (left := until - time.monotonic()) > 0:
        poll = select.poll()
        by_descriptor = {}
        for name, stream in streams.items():
            by_descriptor[stream.fileno()] = name
            poll.register(stream.fileno(), select.POLLIN)
        for descriptor, _ in poll.poll(left * 1000):
            name = by_descriptor[descriptor]
            if not streams[name].read():
                del streams[name]


class _Stream:
    """The readings of one container."""

    def __init__(self, session: Session, name: str) -> None:
        self._response: Response = session.new_client().call("GET", f"/containers/{name}/stats", {"stream": "1"})
        self._lines: Iterator[Json] = session.client.messages(self._response)
        self.name = name
        self.reading: Json = {}

    def fileno(self) -> int:
        return self._response.fileno()

    def read(self) -> bool:
        """Take the next reading; False at the end."""
        try:
            self.reading = next(self._lines, {})
        except HavreError:
            self.reading = {}
        return bool(self.reading)

    def row(self) -> Json:
        """The figures to show."""
        return figures(self.reading) | {"Container": self.name}


def figures(reading: Json) -> Json:
    """The values of a reading: percentages, bytes and counts."""
    cpu, before = reading["cpu_stats"], reading["precpu_stats"]
    spent = cpu["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    passed = cpu.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    online = cpu.get("online_cpus") or len(cpu["cpu_usage"].get("percpu_usage") or [])
    memory = reading.get("memory_stats") or {}
    detail = memory.get("stats") or {}
    cache = detail.get("total_inactive_file", detail.get("inactive_file", 0))
    used = memory.get("usage", 0)
    used = used - cache if cache < used else used
    limit = memory.get("limit", 0)
    networks = (reading.get("networks") or {}).values()
    pids = reading.get("pids_stats") or {}
    periods, throttled = (_since(cpu, before, name) for name in ("periods", "throttled_periods"))
    blocks = (reading.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []
    return {
        "id": reading.get("id", ""),
        "name": reading.get("name", "").removeprefix("/"),
        "cpu": spent / passed * online * 100 if spent > 0 and passed > 0 else 0.0,
        "throttled": throttled / periods * 100 if periods > 0 else 0.0,
        "used": used,
        "limit": limit,
        "memory": used / limit * 100 if limit else 0.0,
        "received": sum(network["rx_bytes"] for network in networks),
        "sent": sum(network["tx_bytes"] for network in networks),
        "read": sum(block["value"] for block in blocks if block["op"][:1] in "rR"),
        "written": sum(block["value"] for block in blocks if block["op"][:1] in "wW"),
        "pids": pids.get("current", 0),
        "pids_limit": pids.get("limit", 0),
    }


def _since(cpu: Json, before: Json, name: str) -> int:
    """The increase of a throttling counter."""
    now, then = cpu.get("throttling_data") or {}, before.get("throttling_data") or {}
    return int(now.get(name, 0) - then.get(name, 0))


def _listing(*, truncate: bool) -> Listing:
    fields: Fields = {
        "Container": ("CONTAINER", lambda r: r["Container"]),
        "ID": ("CONTAINER ID", lambda r: short_id(r["id"]) if truncate else r["id"]),
        "Name": ("NAME", lambda r: r["name"] or "--"),
        "CPUPerc": ("CPU %", lambda r: f"{r['cpu']:.2f}%"),
        "MemUsage": ("MEM USAGE / LIMIT", lambda r: f"{binary_size(r['used'])} / {binary_size(r['limit'])}"),
        "MemPerc": ("MEM %", lambda r: f"{r['memory']:.2f}%"),
        "NetIO": ("NET I/O", lambda r: f"{human_size(r['received'], 3)} / {human_size(r['sent'], 3)}"),
        "BlockIO": ("BLOCK I/O", lambda r: f"{human_size(r['read'], 3)} / {human_size(r['written'], 3)}"),
        "PIDs": ("PIDS", lambda r: str(r["pids"])),
        "PIDsLimit": ("PIDS LIMIT", lambda r: str(r["pids_limit"] or "--")),
        "CPUThrottled": ("CPU THROTTLED", lambda r: f"{r['throttled']:.2f}%"),
    }
    columns = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"]
    return Listing("*container.statsContext", fields, columns)
