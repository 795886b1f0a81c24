"""ADD of a URL: fetched once, then only asked for again."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from support.building import docker_build, write_context
from support.engines import Engine
from support.waiting import until

_SERVER = """
import http.server, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, form, *args):
        print(form % args, flush=True)
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_a_url_is_fetched_once(havred: Engine, tmp_path: Path) -> None:
    served, log = tmp_path / "served", tmp_path / "log"
    served.mkdir()
    (served / "file").write_text("one")
    with log.open("w") as output:
        command = [*havred.inside, sys.executable, "-c", _SERVER]
        server = subprocess.Popen(command, cwd=served, stdout=output)
    try:
        until(lambda: log.read_text().strip(), "the server")
        url = f"http://127.0.0.1:{log.read_text().strip()}/file"
        context = write_context(tmp_path / "context", f"FROM scratch\nADD {url} /\n")
        docker_build(havred, context)
        assert "Using cache" in docker_build(havred, context).stdout
        assert re.findall(r'HTTP/1.1" (\d+)', log.read_text()) == ["200", "304"]
        (served / "file").write_text("two, at another time")
        stamp = (served / "file").stat().st_mtime + 100
        subprocess.run(["touch", "-d", f"@{stamp}", str(served / "file")], check=True)
        assert "Using cache" not in docker_build(havred, context).stdout
        assert "Using cache" in docker_build(havred, context).stdout
        assert re.findall(r'HTTP/1.1" (\d+)', log.read_text())[-1] == "304"
        docker_build(havred, context, "--no-cache")
        assert re.findall(r'HTTP/1.1" (\d+)', log.read_text())[-1] == "200"
    finally:
        server.kill()
        server.wait()
        havred.docker("image", "prune", "-f", check=0)
        havred.docker("builder", "prune", "-af", check=0)
