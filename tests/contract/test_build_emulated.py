"""RUN and run of programs for another processor, through the kernel's binfmt_misc and qemu."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.building import CLIENTS, built, write_context
from support.emulation import QEMU, Emulating, program
from support.engines import Engine

pytestmark = pytest.mark.peer

_TEXT = 'FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /program\nRUN ["/program"]\nCMD ["/program"]\n'
_STAGE = """\
FROM --platform=linux/arm64 scratch AS foreign
COPY arm64 /program
RUN ["/program"]
FROM scratch
COPY --from=foreign /made /
"""
_NEEDING = f'FROM scratch\nCOPY arm64 /program\nCOPY qemu {QEMU}\nRUN ["/program"]\n'


@pytest.fixture
def havred(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """With the flags of the kernel's rule."""
    engine = Emulating(request.param)
    try:
        engine.open()
        yield engine
    finally:
        engine.close()


@pytest.fixture
def context(tmp_path: Path) -> Path:
    context = write_context(tmp_path / "context", _TEXT, {each: program(each) for each in ("amd64", "arm64")})
    for each in ("amd64", "arm64"):
        (context / each).chmod(0o755)
    return context


def _made(engine: Engine, image: str, directory: Path) -> str:
    id = engine.out("create", image, "none")
    engine.docker("cp", f"{id}:/made", str(directory / "made"), check=0)
    engine.docker("rm", id, check=0)
    return (directory / "made").read_text()


@pytest.mark.parametrize("havred", ["F"], indirect=True)
def test_commands_of_another_platform(havred: Engine, context: Path, tmp_path: Path) -> None:
    for client in CLIENTS:
        image = built(havred, context, "--platform", "linux/arm64", "--no-cache", client=client)
        assert _made(havred, image, tmp_path) == "made on arm64\n"
        ran = havred.havre("run", "--rm", "--platform", "linux/arm64", image, check=0)
        assert ran.stdout == "made on arm64\n"
    (context / "Dockerfile.stage").write_text(_STAGE)
    flags = ("-q", "-f", str(context / "Dockerfile.stage"), str(context))
    assert _made(havred, havred.havre("build", *flags, check=0).stdout.strip(), tmp_path) == "made on arm64\n"
    havred.havre("build", "-q", "--platform", "linux/amd64,linux/arm64", "-t", "both:1", str(context), check=0)
    for each in ("amd64", "arm64"):
        ran = havred.havre("run", "--rm", "--platform", f"linux/{each}", "both:1", check=0)
        assert ran.stdout == f"made on {each}\n"


@pytest.mark.parametrize("havred", [""], indirect=True)
def test_an_interpreter_that_images_need(havred: Engine, context: Path, tmp_path: Path) -> None:
    """Without the flag F the kernel looks for it in the container."""
    flags = ("--platform", "linux/arm64", str(context))
    refused = havred.havre("build", *flags, check=1).stderr
    assert f"RUN needs {QEMU} in the image (No such file or directory)" in refused
    assert "Dockerfile:4" in refused
    (context / "Dockerfile").write_text(_NEEDING)
    shutil.copy(QEMU, context / "qemu")
    image = havred.havre("build", "-q", *flags, check=0).stdout.strip()
    assert _made(havred, image, tmp_path) == "made on arm64\n"
