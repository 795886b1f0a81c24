"""Platforms: `os/architecture[/variant]`, as in image indexes.

Source: OCI image specification, "image-index.md"; containerd's platform names.
"""

from __future__ import annotations

import math
import platform as host
import re
from collections.abc import Collection, Sequence

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
# x86-64 psABI, "Micro-Architecture Levels", in the names of /proc/cpuinfo (abm is LZCNT, pni is SSE3).
_AMD64_LEVELS = (
    frozenset({"cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"}),
    frozenset({"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}),
    frozenset({"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}),
)


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    """A platform; the empty variant means the architecture's default."""

    architecture: str = ""
    os: str = ""
    os_version: str = msgspec.field(default="", name="os.version")
    os_features: tuple[str, ...] = msgspec.field(default=(), name="os.features")
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def same_as(self, other: Platform) -> bool:
        """Report whether both are the same platform: `arm64` equals `arm64/v8`, `arm` equals `arm/v7`."""
        return (self.os, self.architecture, self._variant()) == (other.os, other.architecture, other._variant())

    def _variant(self) -> str:
        return self.variant or _IMPLIED_VARIANTS.get(self.architecture, "")


_NARROW = {"amd64": Platform("386", "linux"), "arm64": Platform("arm", "linux", variant="v8")}


def parse_platform(text: str) -> Platform:
    """Parse a platform (`linux/arm64`, `linux/arm/v7`, `arm64`, `linux`). Raises `InvalidInput`.

    An operating system alone means the host's architecture, an architecture alone means Linux.
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
    """The platform of a Linux host, from uname(2)'s machine."""
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform(architecture, "linux", variant=variant)


def platform_of_processor(machine: str, flags: Collection[str]) -> Platform:
    """A Linux host's platform with its variant; that of amd64 is derived from the processor's flags (/proc/cpuinfo)."""
    platform = platform_of_machine(machine)
    if platform.architecture != "amd64":
        return platform
    missed = (level for level, needed in enumerate(_AMD64_LEVELS, 1) if not needed.issubset(flags))
    return Platform("amd64", "linux", variant=f"v{next(missed, len(_AMD64_LEVELS) + 1)}")


def is_native(image: Platform, processor: Platform) -> bool:
    """Report whether a processor runs an image's programs without emulation, including older variants and 32 bits.

    Source: containerd's `platforms.Only`; an image without variant is for all.
    """
    if (image.os, image.architecture) == (processor.os, processor.architecture):
        return not image.variant or _version(image.variant) <= _version(processor.variant)
    narrow = _NARROW.get(processor.architecture)
    return narrow is not None and is_native(image, narrow)


def _version(variant: str) -> tuple[float, ...]:
    """`v8.2` as (8, 2); an invalid version sorts after all others."""
    if re.fullmatch(r"v\d+(\.\d+)?", variant) is None:
        return (math.inf,)
    return tuple(map(int, variant[1:].split(".")))


def runnable_on(wanted: Platform) -> Sequence[Platform]:
    """The platforms that run on `wanted`, best first: ARM processors also run older variants."""
    if wanted.architecture != "arm":
        return (wanted,)
    newest = int(wanted._variant().removeprefix("v") or 7) if wanted._variant()[1:].isdigit() else 7
    older = (Platform("arm", wanted.os, variant=f"v{version}") for version in range(newest - 1, 4, -1))
    return (wanted, *older)
