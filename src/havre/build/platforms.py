"""One Dockerfile for several platforms: a build for each, one after the other, told as one.

    --platform linux/amd64,linux/arm64     [linux/amd64 2/2] COPY ...     step 1 to n
                                           [linux/arm64 2/2] COPY ...     step n+1 to 2n

One after the other, so that what is the same for all (stages FROM --platform=$BUILDPLATFORM) comes from the cache.
"""

from __future__ import annotations

from dataclasses import replace

from havre.build.progress import BuildEvent, BuildProgress, Vertex, Warned
from havre.errors import InvalidInput
from havre.oci.digest import digest_of
from havre.oci.platform import Platform, parse_platform

MAX_PLATFORMS = 32


def split_platforms(text: str) -> list[str]:
    """The platforms of a request, each once, as written in full; `InvalidInput` for one that is none."""
    found: list[Platform] = []
    for each in text.split(",") if text else ():
        platform = parse_platform(each.strip())
        if any(platform.same_as(other) for other in found):
            continue
        if len(found) == MAX_PLATFORMS:
            raise InvalidInput("a build for too many platforms", f"at most {MAX_PLATFORMS} can be built at once")
        found.append(platform)
    return [str(each) for each in found]


class PlatformsProgress:
    """Tells the builds for several platforms as one; what the checks find in their Dockerfile is told once."""

    def __init__(self, tell: BuildProgress, count: int) -> None:
        self._tell = tell
        self._count = count
        self._warned: set[tuple[str, str, int]] = set()

    def of(self, platform: str, number: int) -> BuildProgress:
        """The progress of one of them; `number` counts from 0."""

        def tell(event: BuildEvent) -> None:
            if isinstance(event, Warned):
                warning = (event.rule, event.message, event.line)
                if warning in self._warned:
                    return
                self._warned.add(warning)
                self._tell(event)
            else:
                self._tell(replace(event, vertex=self._place(event.vertex, platform, number)))

        return tell

    def _place(self, vertex: Vertex, platform: str, number: int) -> Vertex:
        name = vertex.name.replace("[", f"[{platform} ", 1) if vertex.name.startswith("[") else vertex.name
        return replace(
            vertex,
            digest=_digest(platform, vertex.digest),
            name=name,
            inputs=tuple(_digest(platform, digest) for digest in vertex.inputs),
            step=vertex.step + number * vertex.steps if vertex.step else 0,
            steps=vertex.steps * self._count,
        )


def _digest(platform: str, digest: str) -> str:
    return digest_of(f"{platform} {digest}".encode())
