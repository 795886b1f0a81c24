"""The daemon is killed at any moment of a build; the next one starts clean, and builds the same."""

from __future__ import annotations

import json
import random
import signal
import subprocess
from pathlib import Path

from support.building import built, tree_of, write_context
from support.engines import Engine

ROUNDS = 4
DOCKERFILE = """
FROM busybox AS one
RUN echo a > /a; sleep 0.1
COPY many /many
FROM busybox
RUN --mount=type=cache,target=/c echo x > /c/x; sleep 0.1
COPY --from=one /a /many /out/
"""


def test_daemon_killed_in_a_build(havred: Engine, tmp_path: Path) -> None:
    moments = random.Random(3)
    context = write_context(tmp_path, DOCKERFILE, {f"many/{number}": "x" * 1000 for number in range(200)})
    env = {**havred.env, "DOCKER_BUILDKIT": "0"}
    command = ["docker", "build", "-t", "t", "--no-cache", str(context)]
    for _ in range(ROUNDS):
        client = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            client.wait(moments.uniform(0.05, 0.7))
        except subprocess.TimeoutExpired:
            pass
        havred.stop(signal.SIGKILL)
        client.wait(10)
        havred.start()
        data, run = havred.root / "data", havred.root / "run"
        assert not list((data / "build" / "tmp").iterdir())
        assert not list((data / "snapshots").iterdir())
        assert not list((run / "containers").iterdir())
        assert not list(data.glob("layers/tmp-*"))
    image = built(havred, context)
    tree = tree_of(havred, image, ("out",))
    assert len(tree) == 202
    layers = json.loads(havred.out("image", "inspect", "-f", "{{json .RootFS.Layers}}", image))
    assert len(layers) == 3
