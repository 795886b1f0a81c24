#!/usr/bin/python3
"""Run scripts that arrive on a virtio serial port: the emulated host's side of `Machine`.

Stands alone in the guest. Both directions carry lines of JSON. The first one of a boot is `{"ready": BOOT_ID}`; then
for each `{"script": str, "timeout_s": float}` one `{"code": int, "out": base64, "err": base64}`, with code -1 for a
script that took too long, which is killed.
"""

import base64
import json
import os
import signal
import subprocess
import tempfile
from pathlib import Path

PORT = Path("/dev/virtio-ports/havre.agent")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def run(script: str, timeout_s: float) -> dict[str, object]:
    """Run `script` by bash in a session of its own. Daemons that it leaves do not hold the answer up."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        program = subprocess.Popen(
            ["/bin/bash", "-c", script], stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
        )
        try:
            code = program.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            program.wait()
            code = -1
        return {"code": code, "out": _text(out), "err": _text(err)}


def _text(file) -> str:
    file.seek(0)
    return base64.b64encode(file.read()).decode()


def main() -> None:
    """Serve the port until the machine ends."""
    with PORT.open("r+b", buffering=0) as port:
        # The line break ends what an earlier boot may have left half written.
        port.write(b"\n" + json.dumps({"ready": BOOT_ID.read_text().strip()}).encode() + b"\n")
        waiting = b""
        while True:
            received = port.read(65536)
            if not received:  # the host's side is closed
                raise SystemExit(1)
            *lines, waiting = (waiting + received).split(b"\n")
            for line in lines:
                request = json.loads(line)
                answer = json.dumps(run(request["script"], request["timeout_s"])).encode() + b"\n"
                while answer:
                    answer = answer[port.write(answer) :]


if __name__ == "__main__":
    os.environ.update(HOME="/root", LANG="C.UTF-8", PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    main()
