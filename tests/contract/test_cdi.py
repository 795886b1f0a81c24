"""`--device vendor/class=name` with a description of the test's own."""

from __future__ import annotations

import json
from pathlib import Path

from support.engines import Engine


def test_a_device_by_cdi_name(havred: Engine, tmp_path: Path) -> None:
    (tmp_path / "vendor.json").write_text(
        json.dumps(
            {
                "cdiVersion": "0.6.0",
                "kind": "vendor.example/dev",
                "containerEdits": {"env": ["VENDOR=here"]},
                "devices": [
                    {
                        "name": "z",
                        "containerEdits": {"deviceNodes": [{"path": "/dev/my-zero", "hostPath": "/dev/zero"}]},
                    }
                ],
            }
        )
    )
    havred.stop()
    havred.extra += ["--cdi-spec-dir", str(tmp_path)]
    havred.start()
    try:
        options = ("run", "--rm", "--network", "none")
        script = "head -c 3 /dev/my-zero | od -An -tx1; echo $VENDOR"
        seen = havred.out(*options, "--device", "vendor.example/dev=z", "busybox", "sh", "-c", script)
        assert seen.split() == ["00", "00", "00", "here"]
        done = havred.docker(*options, "--device", "vendor.example/dev=none", "busybox", "true", check=125)
        assert "unresolvable CDI devices vendor.example/dev=none" in done.stderr
        assert havred.out("info", "-f", "{{json .CDISpecDirs}}") == json.dumps([str(tmp_path)])
    finally:
        havred.stop()
        del havred.extra[-2:]
        havred.start()
