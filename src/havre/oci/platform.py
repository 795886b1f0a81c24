"""Platforms: `os/architecture[/variant]`, as image indexes name them.

Source: OCI image specification, "image-index.md"; containerd's platform names.
"""

from __future__ import annotations

import platform as host
import re
from collections.abc import Sequence

import msgspec

from havre.errors import InvalidInput

_PART = re.compile(r"[A-Za-z0-9_.-]+")
_MACHINES = {
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "i686": ("386", ""),
    "i386": ("386", ""),
    "loongarch64": ("loong64", ""),
}
_ALIASES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "i386": ("386", ""),
}
# fmt: off
_SYSTEMS = frozenset({
    "aix", "android", "darwin", "dragonfly", "freebsd", "hurd", "illumos", "ios", "js", "linux", "netbsd", "openbsd",
    "plan9", "solaris", "windows", "zos",
})
_ARCHITECTURES = frozenset({
    "386", "amd64", "arm", "arm64", "arm64be", "armbe", "loong64", "mips", "mips64", "mips64le", "mipsle", "ppc",
    "ppc64", "ppc64le", "riscv", "riscv64", "s390", "s390x", "sparc", "sparc64", "wasm",
})
# fmt: on
_IMPLIED_VARIANTS = {"arm64": "v8", "arm": "v7"}


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an image runs on; the empty variant means the architecture's usual one."""

    architecture: str = ""
    os: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: tuple[str, ...] = msgspec.field(default=(), name="os.features")
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def same_as(self, other: Platform) -> bool:
        """Whether both name one platform, `arm64` being `arm64/v8` and `arm` being `arm/v7`."""
        return (self.os, self.architecture, self._variant()) == (other.os, other.architecture, other._variant())

    def _variant(self) -> str:
        return self.variant or _IMPLIED_VARIANTS.get(self.architecture, "")


def parse_platform(text: str) -> Platform:
    """The platform in `text` (`linux/arm64`, `linux/arm/v7`, `arm64`, `linux`); raises `InvalidInput`.

    A system alone is that of this host's processor, a processor alone runs Linux.
    """
    parts = text.split("/")
    if not 1 <= len(parts) <= 3 or any(_PART.fullmatch(part) is None for part in parts):
        raise InvalidInput(f"invalid platform {text!r}", "expected os/architecture[/variant], such as linux/arm64")
    if len(parts) == 1:
        parts = _complete(parts[0].lower())
    architecture, variant = _ALIASES.get(parts[1].lower(), (parts[1].lower(), ""))
    return Platform(architecture, parts[0].lower(), variant=parts[2].lower() if len(parts) == 3 else variant)


def _complete(word: str) -> list[str]:
    word = "darwin" if word == "macos" else word
    if word in _SYSTEMS:
        return [word, platform_of_machine(host.machine()).architecture]
    if word not in _ARCHITECTURES and word not in _ALIASES:
        raise InvalidInput(f'"{word}": unknown operating system or architecture: invalid argument', "as in linux/arm64")
    return ["linux", word]


def platform_of_machine(machine: str) -> Platform:
    """The platform of a Linux host, by the machine name of uname(2)."""
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform(architecture, "linux", variant=variant)


def runnable_on(wanted: Platform) -> Sequence[Platform]:
    """What runs where `wanted` does, best first: an ARM processor also runs the older variants."""
    if wanted.architecture != "arm":
        return (wanted,)
    newest = int(wanted._variant().removeprefix("v") or 7) if wanted._variant()[1:].isdigit() else 7
    older = (Platform("arm", wanted.os, variant=f"v{version}") for version in range(newest - 1, 4, -1))
    return (wanted, *older)
