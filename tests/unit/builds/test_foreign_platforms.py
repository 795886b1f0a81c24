"""Which platforms' commands can be run, and what is refused before a build begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from havre.builds.emulation import check_runs, find_interpreters, require_interpreter
from havre.builds.platforms import split_platforms
from havre.dockerfile.graph import plan_graph
from havre.dockerfile.syntax import DockerfileError, parse_dockerfile
from havre.errors import Unsupported
from havre.oci.platform import parse_platform

_AARCH64 = "7f454c460201010000000000000000000200b700"
_S390X = "7f454c4602020100000000000000000000020016"
_RISCV64 = "7f454c460201010000000000000000000200f300"


def _rule(magic: str, flags: str = "", *, state: str = "enabled", offset: int = 0, mask: str = "") -> str:
    mask = f"mask {mask}\n" if mask else ""
    return f"{state}\ninterpreter /usr/bin/qemu\nflags: {flags}\noffset {offset}\nmagic {magic}\n{mask}"


def test_interpreters_of_the_kernel(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("enabled\n")
    rules = {
        "qemu-aarch64": _rule(_AARCH64, "POCF"),
        "older": _rule(_AARCH64),  # what images need nothing for is preferred
        "big": _rule(_S390X, mask="fffffffffffffffffffffffffffffffffffeffff"),
        "off": _rule(_RISCV64, "F", state="disabled"),
        "any": _rule(_RISCV64, "F", mask="f" * 36 + "0000"),
        "inside": _rule(_RISCV64, "F", offset=2),
        "python": "enabled\ninterpreter /bin/python\nflags: \nextension .pyc\n",
        "short": _rule("7f454c46"),
    }
    for name, rule in rules.items():
        (tmp_path / name).write_text(rule)
    native = {"amd64": "", "386": ""}
    assert find_interpreters("amd64", tmp_path) == {**native, "arm64": "", "s390x": "/usr/bin/qemu"}
    status.write_text("disabled\n")
    assert find_interpreters("amd64", tmp_path) == native
    status.unlink()  # as where it is not mounted
    assert find_interpreters("riscv64", tmp_path) == {"riscv64": ""}


def test_an_interpreter_in_the_image(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "qemu").symlink_to("/bin/real")
    with pytest.raises(Unsupported, match="RUN needs /bin/qemu in the image"):
        require_interpreter(tmp_path, "/bin/qemu")
    (tmp_path / "bin" / "real").touch()
    require_interpreter(tmp_path, "/bin/qemu")


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
