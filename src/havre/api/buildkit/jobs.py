"""The calls of a build by BuildKit's clients, which arrive in any order and are joined by the build's reference.

    buildx                               daemon
    Control.Status(ref)             -->  Job.status, streamed until the job ends
    Control.Solve(ref, exporters)   -->  Job.solving -- waits for Return, then exports, then returns ----------.
    LLBBridge.Solve(buildid = ref)  -->  waits for Job.request, builds, returns the result's name                |
    LLBBridge.Return(result|error)  -->  Job.finish ----------------------------------------------------------> '

buildx is the frontend itself; a client that names the frontend in Control.Solve needs no bridge. When Control.Solve
ends for any reason, the job's tasks are cancelled.

Source: moby/buildkit control/control.go, control/gateway; client/build.go.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from itertools import islice

from havre.api.buildkit.messages import SolveRequest
from havre.api.buildkit.sources import SourceFiles
from havre.api.buildkit.status import Status
from havre.builds.request import BuildResult
from havre.errors import Conflict, NotFound

WAIT_S = 5.0  # for Control.Solve, which the client sends first
REMEMBERED = 64  # ended jobs kept for a late Status


class Job:
    """One build: its request, progress and result. `resources` are closed when Control.Solve ends.

    `attributes` are the frontend's options that the client named last.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.status = Status()
        self._begun: asyncio.Future[SolveRequest] = loop.create_future()
        self._returned: asyncio.Future[BuildResult | None] = loop.create_future()
        self._results: dict[str, BuildResult] = {}
        self._builds: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._sources: dict[str, SourceFiles] = {}
        self.resources = AsyncExitStack()
        self.attributes: dict[str, str] = {}
        self.result: BuildResult | None = None

    @contextmanager
    def solving(self, request: SolveRequest) -> Iterator[None]:
        """Run a block as the job of `request`."""
        if self._begun.done():
            raise Conflict(f"the build {request.ref} exists already")
        self._begun.set_result(request)
        try:
            yield
        finally:
            for task in self._builds:
                task.cancel()
            if not self._returned.cancel() and not self._returned.cancelled():
                self._returned.exception()  # mark as retrieved: the call that would raise it has ended
            self.status.close()
            self._ended.set()

    async def request(self) -> SolveRequest:
        """The request of Control.Solve; `NotFound` if it does not arrive."""
        try:
            return await asyncio.wait_for(asyncio.shield(self._begun), WAIT_S)
        except TimeoutError:
            raise NotFound("no such job") from None

    @contextmanager
    def building(self) -> Iterator[None]:
        """Run the current task for the job, which cancels it when it ends; `NotFound` for an ended job."""
        if self._ended.is_set():
            raise NotFound("no such job")
        task = asyncio.current_task()
        assert task is not None
        self._builds.add(task)
        try:
            yield
        finally:
            self._builds.discard(task)

    def add_result(self, result: BuildResult) -> str:
        """Store a result. Returns the name by which the client returns it."""
        name = secrets.token_hex(12)
        self._results[name] = result
        return name

    def add_source(self, files: SourceFiles) -> str:
        """Store the files of a source. Returns the name by which the client reads them."""
        name = secrets.token_hex(12)
        self._sources[name] = files
        return name

    def source(self, name: str) -> SourceFiles:
        """The files with this name; `NotFound` if none: results of builds cannot be read."""
        if (found := self._sources.get(name)) is None:
            raise NotFound(f"no such ref: {name}")
        return found

    async def idle(self) -> None:
        """Wait until no task works for the job."""
        while self._builds:
            await asyncio.wait(list(self._builds))

    def finish(self, name: str) -> None:
        """The client's frontend has ended with this result, or with none."""
        if not self._returned.done():
            self._returned.set_result(self._results.get(name))

    async def fail(self, error: Exception) -> None:
        """The client's frontend has ended with an error. Returns after Control.Solve has failed with the same.

        The client shows the error that it receives first, and its message for that of Control.Solve is the clearer
        one.
        """
        if not self._returned.done():
            self._returned.set_exception(error)
        if self._begun.done():
            await self._ended.wait()

    async def returned(self) -> BuildResult | None:
        """Wait for the result of the client's frontend."""
        return await self._returned


class Jobs:
    """All jobs by reference."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._users: Counter[str] = Counter()

    @contextmanager
    def using(self, ref: str) -> Iterator[Job]:
        """The job with this reference during a call; the first call creates it."""
        job = self._jobs.setdefault(ref, Job())
        self._jobs.move_to_end(ref)
        self._users[ref] += 1
        try:
            yield job
        finally:
            self._users -= Counter((ref,))
            for old in list(islice(self._jobs, max(0, len(self._jobs) - REMEMBERED))):
                if old not in self._users:
                    del self._jobs[old]
