"""Engines with a plugin directory of the test."""

from __future__ import annotations

from pathlib import Path

from support.engines import Dockerd, Havred

_OWN_RUN = (
    'mount -t tmpfs tmpfs /run/docker && mkdir /run/docker/plugins && mount --bind "$0" /run/docker/plugins; exec "$@"'
)


class PluggedDockerd(Dockerd):
    """dockerd, with a directory of the test as /run/docker/plugins."""

    @property
    def inside(self) -> list[str]:
        Path("/run/docker").mkdir(exist_ok=True)  # where Docker is installed but has never run
        return [*super().inside, "unshare", "--mount", "sh", "-c", _OWN_RUN, str(self.plugins)]

    @property
    def plugins(self) -> Path:
        """Its directory of plugins."""
        return self.root / "plugins"


class PluggedHavred(Havred):
    """havre, which looks below its run root first."""

    @property
    def plugins(self) -> Path:
        """Its directory of plugins."""
        return self.root / "run" / "plugins"
