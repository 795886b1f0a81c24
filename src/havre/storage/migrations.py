"""The numbered changes that turn the rows of an older havre into today's. Pure; `migrate` carries them out.

A migration is a number, the reason, and for each table that it concerns a function from a row's key and old document
to the new document, None if the row goes. Documents are plain JSON, for the structs that wrote them are gone.

To change the meaning of a row: append a migration here, add its test to tests/unit/storage/test_migrations.py, and its
line to docs/schema.md. A field that is merely added needs none: its default is read from older rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Document: TypeAlias = dict[str, Any]
Change: TypeAlias = Callable[[str, Document], Document | None]


@dataclass(frozen=True)
class Migration:
    """What makes a database of version `to` - 1 one of version `to`."""

    to: int
    why: str
    tables: Mapping[str, Change]


def _name_with_index(_: str, row: Document) -> Document:
    """A name stood for one image; now also for the index with its other platforms, "" if there is none."""
    return {"index": "", **row}


def _state_without_flags(_: str, row: Document) -> Document:
    """A state said by four flags what its status says; a row without them is one of a stopped container to 0.1.0."""
    state = {key: value for key, value in row["State"].items() if key not in _FLAGS}
    return {**row, "State": state}


def _in_three_values(_: str, row: Document) -> Document:
    """What was asked, the state, and the facts of the run, which lay side by side."""
    spec = {key: row[key] for key in _SPEC if key in row}
    spec |= {"Networks": row["AskedNetworks"]} if "AskedNetworks" in row else {}
    rest: Document = {key: row[key] for key in ("Name", "State", "RestartCount", "ManuallyStopped") if key in row}
    return {**rest, "Spec": spec, "Run": {key: row[key] for key in _RUN if key in row}}


_SPEC = ("Id", "Created", "Image", "Path", "Args", "Config", "HostConfig", "Mounts", "MountOptions", "Platform")
_RUN = ("Networks", "Ports", "Ids", "LinkIds", "ApparmorProfile")
_FLAGS = frozenset({"Running", "Paused", "Restarting", "Dead"})

MIGRATIONS = (
    Migration(2, "a name stands for several platforms (record 280)", {"image_names": _name_with_index}),
    Migration(3, "what a container is doing is its status alone", {"containers": _state_without_flags}),
    Migration(4, "a container's row has three values: asked, state, run", {"containers": _in_three_values}),
)
"""In order; a database without rows begins at the version of the last."""
