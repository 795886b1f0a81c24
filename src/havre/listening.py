"""Listening sockets whose clients cannot exhaust the process's file descriptors.

    Budget    how many connections clients may open: in total, and each holder (a container, an address)
    Acceptor  accepts on one socket while the budget has room; otherwise clients wait in the kernel's backlog

A holder may have at most as many connections as are still free, so that with n greedy holders a share of 1/(n+1) is
left for the next one: dynamic thresholds, Choudhury and Hahne, IEEE/ACM Transactions on Networking 6 (1998). A
connection counts until its socket is closed, even after a hijack.

asyncio's own servers have no limit and, out of descriptors, log a traceback for each attempt.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
from collections import Counter
from collections.abc import Callable, Coroutine
from ipaddress import IPv6Address, IPv6Network
from typing import Any

from havre.aio import spawn

log = logging.getLogger(__name__)

Serve = Callable[[socket.socket], Coroutine[Any, Any, None]]
"""Takes ownership of an accepted, non-blocking socket."""

_BATCH = 16
_RETRY_S = 1.0
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def descriptors(share: int) -> int:
    """1/`share` of the process's limit of descriptors (RLIMIT_NOFILE, getrlimit(2)); at least 16."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, min(soft, 1 << 20) // share)


def share_of(address: str) -> str:
    """The holder that a client at `address` counts for: its address, or for IPv6 its /64 network, as a host can usually
    use all addresses of one (RFC 4291, section 2.5.4; RFC 8981).
    """
    if ":" not in address:
        return address
    parsed = IPv6Address(address)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((parsed.packed[:8] + bytes(8), 64)))


class Budget:
    """Limits of connections: `total` of all holders, `each` of one. Not thread-safe: for one event loop."""

    def __init__(self, total: int, each: int | None = None) -> None:
        self._total = total
        self._each = total if each is None else each
        self._held: Counter[object] = Counter()
        self._used = 0
        self._waiting: dict[Acceptor, None] = {}
        self._waking = False

    @property
    def used(self) -> int:
        """The number of connections counted."""
        return self._used

    @property
    def is_full(self) -> bool:
        """Report whether the total is used up."""
        return self._used >= self._total

    def has_room(self, holder: object) -> bool:
        """Report whether `holder` may open one more."""
        return self._held[holder] < min(self._each, self._total - self._used)

    def take(self, holder: object) -> bool:
        """Count one more; False if there is no room."""
        if not self.has_room(holder):
            return False
        self._held[holder] += 1
        self._used += 1
        return True

    def give(self, holder: object) -> None:
        """Release one, and wake waiting acceptors."""
        self._used -= 1
        self._held[holder] -= 1
        if not self._held[holder]:
            del self._held[holder]
        if self._waiting and not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_soon(self._wake)

    def wait(self, acceptor: Acceptor) -> None:
        """Resume `acceptor` once it may accept, in order of arrival."""
        self._waiting[acceptor] = None

    def forget(self, acceptor: Acceptor) -> None:
        """Stop waiting. Idempotent."""
        self._waiting.pop(acceptor, None)

    def _wake(self) -> None:
        self._waking = False
        for acceptor in list(self._waiting):
            if acceptor.may_accept:
                del self._waiting[acceptor]
                acceptor.resume()


class Acceptor:
    """Accepts on a listening socket until `close`, which closes it, or `stop`, which leaves it open.

    `holder` is the holder that all clients count for; without one each client counts for its address (`share_of`),
    and clients above its limit are disconnected. Without a budget only the process's own limit applies.
    """

    def __init__(
        self, listening: socket.socket, serve: Serve, budget: Budget | None = None, holder: object = None
    ) -> None:
        self._listening = listening
        self._serve = serve
        self._budget = budget
        self._holder = holder
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        listening.setblocking(False)
        self._loop.add_reader(listening, self._readable)

    def close(self) -> None:
        """Stop accepting, and close the listening socket. Idempotent."""
        self.stop()
        self._listening.close()

    def stop(self) -> None:
        """Stop accepting; the listening socket stays open, for another acceptor. Clients being served continue, those
        accepted but not yet served are disconnected. Idempotent.
        """
        if self._stopped:
            return
        self._stopped = True
        self._pause()
        if self._budget is not None:
            self._budget.forget(self)
        if self._timer is not None:
            self._timer.cancel()

    @property
    def may_accept(self) -> bool:
        """Report whether the budget has room for another client."""
        if self._budget is None:
            return True
        return not self._budget.is_full if self._holder is None else self._budget.has_room(self._holder)

    def resume(self) -> None:
        """Resume after a pause."""
        self._timer = None
        self._loop.add_reader(self._listening, self._readable)
        self._accept()

    def _pause(self) -> None:
        self._loop.remove_reader(self._listening)

    def _readable(self) -> None:
        for _ in range(_BATCH):
            if not self._accept():
                return

    def _accept(self) -> bool:
        """Accept one client if there is one and room for it. Returns whether one was accepted."""
        if self._budget is not None and not self.may_accept:
            self._pause()
            self._budget.wait(self)
            return False
        try:
            accepted, address = self._listening.accept()
        except BlockingIOError:
            return False
        except OSError as error:
            # accept(2): pending network errors of the new connection are reported here, too.
            if error.errno in _EXHAUSTED:
                log.error("cannot accept connections: %s; trying again in %g s", error.strerror, _RETRY_S)
                self._pause()
                self._timer = self._loop.call_later(_RETRY_S, self.resume)
            return False
        self._admit(accepted, address)
        return True

    def _admit(self, accepted: socket.socket, address: Any) -> None:
        holder = share_of(address[0]) if self._holder is None and isinstance(address, tuple) else self._holder
        budget = self._budget
        if budget is not None and not budget.take(holder):
            accepted.close()
            log.warning("closed a connection from %s: too many open connections from this address", holder)
            return
        counted = _Counted(fileno=accepted.detach())
        counted.setblocking(False)
        if budget is not None:
            counted.on_close = lambda: budget.give(holder)
        spawn(self._run(counted), "client")

    async def _run(self, accepted: socket.socket) -> None:
        if self._stopped:  # meanwhile: the owner will not close this client
            accepted.close()
            return
        try:
            await self._serve(accepted)
        except BaseException:
            accepted.close()
            raise


class _Counted(socket.socket):
    """A socket that calls `on_close` when closed; duplicates do not."""

    on_close: Callable[[], None] | None = None

    def close(self) -> None:
        super().close()
        if (told := self.on_close) is not None:
            self.on_close = None
            told()
