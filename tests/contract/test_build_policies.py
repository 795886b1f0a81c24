"""Source policies: a build that is to be checked by one is refused, never run unchecked."""

from __future__ import annotations

import asyncio
import json
import secrets
from pathlib import Path

import pytest
from grpclib.exceptions import GRPCError

from havre.api.buildkit import messages as m
from support.building import write_context
from support.buildkit import CONTROL, calling
from support.engines import Engine


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return write_context(tmp_path / "context", "FROM busybox\nRUN echo ran-$((6 * 7))\n")


@pytest.mark.peer
def test_a_policy_that_denies(engine: Engine, context: Path, tmp_path: Path) -> None:
    policy, known = tmp_path / "policy.json", engine.out("images", "-aq")
    denied = {"action": "DENY", "selector": {"identifier": "docker-image://docker.io/library/busybox:*"}}
    policy.write_text(json.dumps({"rules": [denied]}))
    env, engine.env = engine.env, {**engine.env, "EXPERIMENTAL_BUILDKIT_SOURCE_POLICY": str(policy)}
    try:
        told = engine.docker("buildx", "build", "--progress=plain", "--no-cache", str(context), check=1).stderr
    finally:
        engine.env = env
    assert "polic" in told.splitlines()[-1]
    assert "ran-42" not in told
    assert engine.out("images", "-aq") == known


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (m.SolveRequest(source_policy_session="s"), "such as a Dockerfile.rego"),
        (m.SolveRequest(proxy_network=True), "network proxy"),
    ],
    ids=["session", "proxy"],
)
def test_policies_of_newer_clients(havred: Engine, asked: m.SolveRequest, told: str) -> None:
    async def ask() -> None:
        async with asyncio.timeout(30), calling(havred.socket) as caller:
            asked.ref, asked.frontend = secrets.token_hex(12), "dockerfile.v0"
            await caller.ask(f"{CONTROL}Solve", asked, m.SolveResponse)

    with pytest.raises(GRPCError, match=told):
        asyncio.run(ask())
