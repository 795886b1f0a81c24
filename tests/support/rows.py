"""Rows of containers for tests that need no daemon."""

from __future__ import annotations

from typing import Any

from havre.containers.container import Container, Run, Spec, State
from havre.wire.config import Config, HostConfig


def container_row(name: str = "n", *, state: State | None = None, run: Run | None = None, **spec: Any) -> Container:
    """A container, created and never started unless told otherwise; `spec` are fields of what was asked."""
    asked: dict[str, Any] = {
        "id": "c0ffee", "created": "2026-01-01T00:00:00Z", "image": "sha256:1", "path": "x", "args": [],
        "config": Config(), "host_config": HostConfig(),
    }  # fmt: skip
    return Container(name=name, spec=Spec(**(asked | spec)), state=state or State(), run=run or Run())
