"""A build's events in the form of BuildKit's `--progress rawjson`, for `POST /build?progress=rawjson`.

    event --> {"aux": {"Build": {"vertexes": [...] | "statuses": [...] | "logs": [...] | "warnings": [...]}}}

Steps that change no file have no vertex, as in BuildKit. Source: moby/buildkit client/graph.go, "SolveStatus".
"""

from __future__ import annotations

import base64
from typing import Any

from havre.builds.progress import BuildEvent, Declared, Finished, Log, Started, Transfer, Vertex, Warned
from havre.images.progress import Progress, ProgressLine
from havre.wire import times


class RawTeller:
    """Renders events one by one."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._started: dict[str, float] = {}
        self._began: dict[tuple[str, str], float] = {}

    def __call__(self, event: BuildEvent) -> None:
        """Process one event."""
        if isinstance(event, Warned):
            told = {"warnings": [{"vertex": "", "level": 1, "short": _base64(event.short.encode()), "url": event.url}]}
        elif not event.vertex.name:
            return
        elif isinstance(event, Log):
            told = {"logs": [self._log(event)]}
        elif isinstance(event, Transfer):
            told = {"statuses": [self._status(event)]}
        else:
            told = {"vertexes": [self._vertex(event.vertex, event)]}
        self._progress(ProgressLine(aux={"Build": told}))

    def _vertex(self, vertex: Vertex, event: Declared | Started | Finished) -> dict[str, Any]:
        told: dict[str, Any] = {"digest": vertex.digest, "name": vertex.name}
        if vertex.inputs:
            told["inputs"] = list(vertex.inputs)
        if not isinstance(event, Declared):
            told["started"] = times.from_seconds(self._started.setdefault(vertex.digest, event.at))
        if isinstance(event, Finished):
            told["completed"] = times.from_seconds(event.at)
            told |= {"cached": True} if event.cached else {}
            told |= {"error": event.error} if event.error else {}
        return told

    def _status(self, event: Transfer) -> dict[str, Any]:
        began = self._began.setdefault((event.vertex.digest, event.id), event.at)
        told: dict[str, Any] = {
            "id": event.id,
            "vertex": event.vertex.digest,
            "total": event.total,
            "current": event.current,
            "timestamp": times.from_seconds(event.at),
            "started": times.from_seconds(began),
        }
        return told | ({"completed": times.from_seconds(event.at)} if event.done else {})

    @staticmethod
    def _log(event: Log) -> dict[str, Any]:
        at = times.from_seconds(event.at)
        return {
            "vertex": event.vertex.digest,
            "stream": event.stream,
            "data": _base64(event.data),
            "timestamp": at,
        }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
