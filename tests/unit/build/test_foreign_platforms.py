"""Which platforms' commands can be run, and what is refused before a build begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from havre.build.dockerfile import DockerfileError, parse_dockerfile
from havre.build.foreign import check_runs, runnable_architectures
from havre.build.graph import plan_graph
from havre.build.platforms import split_platforms
from havre.oci.platform import parse_platform

_AARCH64 = "7f454c460201010000000000000000000200b700"
_S390X = "7f454c4602020100000000000000000000020016"


def test_interpreters_of_the_kernel(tmp_path: Path) -> None:
    (tmp_path / "status").write_text("enabled\n")
    (tmp_path / "qemu-aarch64").write_text(
        f"enabled\ninterpreter /usr/bin/qemu\nflags: F\noffset 0\nmagic {_AARCH64}\n"
    )
    (tmp_path / "big").write_text(f"enabled\nmagic {_S390X}\n")
    (tmp_path / "off").write_text(f"disabled\nmagic {_AARCH64[:-4]}f300\n")
    (tmp_path / "python").write_text("enabled\nextension .pyc\n")
    assert runnable_architectures("amd64", tmp_path) == {"amd64", "386", "arm64", "s390x"}
    assert runnable_architectures("riscv64", tmp_path / "nowhere") == {"riscv64"}


def test_each_platform_once() -> None:
    assert split_platforms("linux/arm64, linux/amd64,arm64,linux/arm64/v8") == ["linux/arm64", "linux/amd64"]


def _check(text: str, runnable: set[str], platform: str = "linux/arm64") -> None:
    wanted, own = parse_platform(platform), parse_platform("linux/amd64")
    dockerfile = parse_dockerfile(text.encode())
    check_runs(plan_graph(dockerfile, {}, "", wanted, own), wanted, runnable)


def test_runs_of_another_platform() -> None:
    with pytest.raises(DockerfileError, match="RUN cannot run programs for linux/arm64 here") as raised:
        _check("FROM busybox\nCOPY a /\nRUN true\n", {"amd64"})
    assert raised.value.line == 3
    _check("FROM busybox\nRUN true\n", {"amd64", "arm64"})
    _check("FROM busybox\nCOPY a /\n", {"amd64"})
    _check(
        "FROM --platform=$BUILDPLATFORM go AS b\nRUN make\nFROM b AS c\nRUN x\nFROM scratch\nCOPY --from=c a b\n",
        {"amd64"},
    )
    _check("FROM a AS unused\nRUN make\nFROM b\n", {"amd64"})
