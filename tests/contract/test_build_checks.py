"""Build checks through every door: warnings beside a build, a failing policy, and checking alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.building import docker_build, write_context
from support.engines import Engine
from support.imagery import archive

_BAD = 'FROM busybox as base\nCOPY a$missing /x\nCMD ["true"]\n'
_CASING = "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)"
_VARIABLE = "UndefinedVar: Usage of undefined variable '$missing' (line 2)"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write_context(tmp_path, _BAD, {"a": "x"})


def test_warnings_of_a_build(havred: Engine, context: Path) -> None:
    told = havred.docker("build", "--progress=plain", str(context), check=0).stderr
    assert "2 warnings found" in told
    assert _CASING in told
    assert _VARIABLE in told
    expanded = havred.docker("--debug", "buildx", "build", "--progress=plain", str(context), check=0).stderr
    assert "https://docs.docker.com/go/dockerfile/rule/from-as-casing/" in expanded
    assert ">>> FROM busybox as base" in expanded
    classic = docker_build(havred, context).stdout
    assert f"[Warning] {_CASING}\n[Warning] {_VARIABLE}\nSuccessfully built" in classic


def test_a_base_of_another_platform(havred: Engine, context: Path) -> None:
    foreign = b'{"architecture":"arm64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}'
    item = b'[{"Config":"c.json","RepoTags":["foreign:1"],"Layers":[]}]'
    havred.docker("load", stdin=archive({"c.json": foreign, "manifest.json": item}), check=0)
    (context / "Dockerfile").write_text("FROM foreign:1\nCOPY a /a\n")
    found = 'Base image foreign:1 was pulled with platform "linux/arm64", expected "linux/amd64" for current build'
    assert f"[Warning] InvalidBaseImagePlatform: {found} (line 1)" in docker_build(havred, context).stdout
    checked = havred.havre("build", "--check", str(context), check=1).stdout
    assert "WARNING: InvalidBaseImagePlatform - https://" in checked
    assert found in checked
    (context / "Dockerfile").write_text("FROM --platform=linux/arm64 foreign:1\nCOPY a /a\n")
    assert "InvalidBaseImagePlatform" not in docker_build(havred, context).stdout
    havred.docker("rmi", "-f", "foreign:1", check=0)


def test_a_policy_that_fails_does_nothing_first(havred: Engine, context: Path) -> None:
    text = "# check=error=true\nFROM busybox\nRUN touch /ran\nCOPY a$missing /x\n"
    (context / "Dockerfile").write_text(text)
    failed = havred.docker("build", "--progress=plain", str(context), check=1).stderr
    assert "lint violation found for rules: UndefinedVar" in failed
    assert "RUN touch" not in failed
    allowed = ("--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=UndefinedVar;error=true")
    havred.docker("build", *allowed, str(context), check=0)
    wrong = havred.docker("build", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=bogus", str(context), check=1).stderr
    assert 'invalid check option "bogus"' in wrong


def test_checking_alone(havred: Engine, context: Path) -> None:
    before = havred.out("images", "-aq")
    env, havred.env = havred.env, {**havred.env, "BUILDX_EXPERIMENTAL": "1"}
    try:
        told = havred.docker("buildx", "build", "--print=lint", str(context), check=0)
    finally:
        havred.env = env
    assert "WARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/\n" in told.stdout
    assert "   2 | >>> COPY a$missing /x\n" in told.stdout
    ours = havred.havre("build", "--check", str(context), check=1).stdout
    assert ours.startswith("Check complete, 2 warnings have been found!\n\nWARNING: FromAsCasing - https://")
    (context / "Dockerfile").write_text("FROM busybox\nRUN exit 1\n")
    assert havred.havre("build", "--check", str(context), check=0).stdout == "Check complete, no warnings found.\n"
    (context / "Dockerfile").write_text("FROM busybox\nRUM true\n")
    assert (
        "unknown instruction: RUM (did you mean RUN?)" in havred.havre("build", "--check", str(context), check=1).stderr
    )
    assert havred.out("images", "-aq") == before
