"""TLS connections that can be half-closed, and the contexts for `--tls*`.

`asyncio.sslproto` answers the peer's close_notify by closing the whole connection. A docker client without (more)
stdin sends close_notify, and would then miss its container's output. `HalfCloseTLS` passes the end of input on to
the protocol above, and keeps the other direction open if that protocol's `eof_received` returned True. A TCP FIN
after close_notify still means that the peer has disconnected.

Uses private names of `asyncio.sslproto` (`_do_read`, `_start_shutdown`, `_call_eof_received`), unchanged from Python
3.11 to 3.14.
"""

from __future__ import annotations

import asyncio
import ssl
from asyncio import sslproto
from collections.abc import Callable
from pathlib import Path
from typing import Any

from havre.errors import InvalidInput

_HANDSHAKE_S = 10.0  # asyncio's default of 60 s lets silent clients hold descriptors too long

# The base class is private to asyncio and only partially typed.
_Base: Any = sslproto.SSLProtocol


class HalfCloseTLS(_Base):  # type: ignore[misc]
    """A server-side TLS protocol that stays open for output after the client's close_notify."""

    _app_state: Any
    _half_closed = False
    _reading = False

    def _call_eof_received(self, context: Any = None) -> None:
        if self._app_state is sslproto.AppProtocolState.STATE_CON_MADE:
            self._app_state = sslproto.AppProtocolState.STATE_EOF
            self._half_closed = bool(self._app_protocol.eof_received())

    def _do_read(self) -> None:
        if self._half_closed:
            return
        self._reading = True
        try:
            super()._do_read()
        finally:
            self._reading = False

    def _start_shutdown(self, *args: Any) -> None:
        # During a read this is the response to close_notify; otherwise a request to close.
        if not (self._reading and self._half_closed):
            super()._start_shutdown(*args)


def protocol_factory(make: Callable[[], Any], context: ssl.SSLContext) -> Callable[[], Any]:
    """A factory for `loop.connect_accepted_socket` (without its `ssl=`) that adds TLS below the protocol of `make`."""
    loop = asyncio.get_running_loop()
    return lambda: HalfCloseTLS(loop, make(), context, None, server_side=True, ssl_handshake_timeout=_HANDSHAKE_S)


def server_context(certificate: Path, key: Path, client_ca: Path | None) -> ssl.SSLContext:
    """TLS 1.2 or newer; with `client_ca`, clients need a certificate signed by it (`--tlsverify`)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(f"cannot use the TLS files {certificate}, {key}, {client_ca or '-'}: {error}") from error
    return context
