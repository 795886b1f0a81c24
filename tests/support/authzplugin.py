"""An authorization plugin in a thread of the test: its verdicts are functions, and it records its requests.

Source: Docker's documentation, "Access authorization plugin".
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.jsonserver import PluginServer

Asked = dict[str, Any]
Verdict = Callable[[Asked], Any]

ALLOWED = {"Allow": True}


def allow(asked: Asked) -> Any:
    """The verdict that allows everything."""
    return ALLOWED


class AuthzPlugin:
    """Listens at `socket` until closed. A verdict of type bytes is sent unchanged; an `Err` with status 500."""

    def __init__(self, socket: Path) -> None:
        self.on_request: Verdict = allow
        self.on_answer: Verdict = allow
        self.asked: list[tuple[str, Asked]] = []
        socket.parent.mkdir(parents=True, exist_ok=True)
        socket.unlink(missing_ok=True)
        self._server = PluginServer(socket, self.answer)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def answer(self, call: str, asked: Asked) -> Any:
        """The response to a call."""
        if call == "Plugin.Activate":
            return {"Implements": ["authz"]}
        self.asked.append((call, asked))
        return self.on_request(asked) if call == "AuthZPlugin.AuthZReq" else self.on_answer(asked)

    def of(self, call: str, path: str) -> Asked:
        """The last request by `call` (AuthZReq, AuthZRes) whose URI contains `path`."""
        found = [asked for name, asked in self.asked if name == f"AuthZPlugin.{call}" and path in asked["RequestUri"]]
        return found[-1]

    def reset(self) -> None:
        """Allow everything and clear the recorded requests."""
        self.on_request = self.on_answer = allow
        self.asked.clear()

    def close(self) -> None:
        """Stop listening; the socket file stays, as after a crash."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def body_of(asked: Asked, key: str = "RequestBody") -> bytes:
    """A body shown to the plugin."""
    return base64.b64decode(asked.get(key) or "")
