"""Progress of a build as values; the API renders them (the classic JSON stream, BuildKit's status stream).

    Declared* --> Started --> Log* Transfer* --> Finished(cached? error?)          each vertex, several at a time

A vertex is one step of the Dockerfile, or work before it (reading the Dockerfile, receiving the context, pulling a
base). Times are seconds since the epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from havre.builds.request import MAIN_CONTEXT, DockerfileBytes
from havre.errors import HavreError
from havre.oci.digest import digest_of


@dataclass(frozen=True)
class Vertex:
    """A step. `digest` identifies it in this build ("sha256:HEX"), `inputs` are digests of the steps it needs.

    `name` is as BuildKit shows it (`[build 2/3] RUN make`), `text` the instruction after substitution, as the classic
    builder shows it. `step` counts from 1 to `steps` instructions; 0 for work that is not an instruction. A `trigger`
    is an ONBUILD instruction of the base; it precedes `step`.
    """

    digest: str
    name: str
    inputs: tuple[str, ...] = ()
    text: str = ""
    step: int = 0
    steps: int = 0
    trigger: bool = False


@dataclass(frozen=True)
class Declared:
    """The vertex will be worked on unless something fails before."""

    vertex: Vertex


@dataclass(frozen=True)
class Started:
    """Work on the vertex began; a second event has the `container` ID of a RUN."""

    vertex: Vertex
    at: float
    container: str = ""


@dataclass(frozen=True)
class Log:
    """Output of RUN: `stream` is 1 for stdout, 2 for stderr; `data` may begin and end anywhere, not at line breaks."""

    vertex: Vertex
    stream: int
    data: bytes
    at: float


@dataclass(frozen=True)
class Transfer:
    """Bytes received for a vertex: `id` distinguishes concurrent transfers, `total` is 0 if unknown."""

    vertex: Vertex
    id: str
    current: int
    total: int
    at: float
    done: bool = False


@dataclass(frozen=True)
class Finished:
    """The vertex ended: cached, done, or with an error. `image` is the ID of the image up to here."""

    vertex: Vertex
    at: float
    cached: bool = False
    error: str = ""
    image: str = ""


@dataclass(frozen=True)
class Warned:
    """A finding of a build check in the lines `line` to `end`, from 1, of `file`. `rule` is Docker's name."""

    rule: str
    message: str
    line: int = 0
    end: int = 0
    description: str = ""
    url: str = ""
    file: DockerfileBytes | None = None

    @property
    def short(self) -> str:
        """The finding in one line."""
        return f"{self.rule}: {self.message}" + (f" (line {self.line})" if self.line else "")


def vertex_of_context(name: str) -> Vertex:
    """The vertex of receiving a context with this name; its bytes may be reported as `Transfer`."""
    label = "build context" if name == MAIN_CONTEXT else f"context {name}"
    return Vertex(digest_of(f"context {name}".encode()), f"[internal] load {label}")


BuildEvent = Declared | Started | Log | Transfer | Finished | Warned
BuildProgress = Callable[[BuildEvent], None]


def unreported(event: BuildEvent) -> None:
    """Ignore progress."""


@contextmanager
def shown(title: str, progress: BuildProgress) -> Iterator[Vertex]:
    """Report the block as a step that is not in the Dockerfile; errors of the block are reported and raised."""
    vertex = Vertex(digest_of(title.encode()), title)
    progress(Started(vertex, time.time()))
    try:
        yield vertex
    except HavreError as error:
        progress(Finished(vertex, time.time(), error=error.message))
        raise
    progress(Finished(vertex, time.time()))
