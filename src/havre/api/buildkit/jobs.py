"""Builds as BuildKit's clients drive them: four calls, in any order, that meet by the build's reference.

    buildx                               daemon
    Control.Status(ref)             -->  Job.status, told until the job ends
    Control.Solve(ref, exporters)   -->  Job.begin --- waits for Return, then exports, then answers -----------.
    LLBBridge.Solve(buildid = ref)  -->  waits for begin, builds, answers with the result's name                |
    LLBBridge.Return(result|error)  -->  Job.finish ----------------------------------------------------------> '

buildx plays the frontend itself; a client that names the frontend in Control.Solve needs no bridge. When Control.Solve
ends, in whatever way, so does what the job is still doing.

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

WAIT_S = 5.0  # for Control.Solve, which the client has sent already
REMEMBERED = 64  # jobs that have ended, for a Status that comes late


class Job:
    """One build: what it was asked, how it goes, what came of it. `resources` are closed when Control.Solve ends."""

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

    @contextmanager
    def solving(self, request: SolveRequest) -> Iterator[None]:
        """The job is what `request` says, for the length of a block."""
        if self._begun.done():
            raise Conflict(f"the build {request.ref} exists already")
        self._begun.set_result(request)
        try:
            yield
        finally:
            for task in self._builds:
                task.cancel()
            if not self._returned.cancel() and not self._returned.cancelled():
                self._returned.exception()  # told to nobody: the call that would have waits no more
            self.status.close()
            self._ended.set()

    async def request(self) -> SolveRequest:
        """What Control.Solve asks; `NotFound` if it does not come."""
        try:
            return await asyncio.wait_for(asyncio.shield(self._begun), WAIT_S)
        except TimeoutError:
            raise NotFound("no such job") from None

    @contextmanager
    def building(self) -> Iterator[None]:
        """The current task works for the job, and ends with it; `NotFound` for one that has ended."""
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
        """Keep a result under a name, by which the client will return it."""
        name = secrets.token_hex(12)
        self._results[name] = result
        return name

    def add_source(self, files: SourceFiles) -> str:
        """Keep the files of a source under a name, by which the client will read them."""
        name = secrets.token_hex(12)
        self._sources[name] = files
        return name

    def source(self, name: str) -> SourceFiles:
        """The files of that name; `NotFound` without any: what a build made cannot be read."""
        if (found := self._sources.get(name)) is None:
            raise NotFound(f"no such ref: {name}")
        return found

    async def idle(self) -> None:
        """Returns when nothing works for the job any more."""
        while self._builds:
            await asyncio.wait(list(self._builds))

    def finish(self, name: str) -> None:
        """The client's frontend has ended with this result, or with none."""
        if not self._returned.done():
            self._returned.set_result(self._results.get(name))

    async def fail(self, error: Exception) -> None:
        """The client's frontend has ended with an error; returns when Control.Solve has, too, with the same.

        The client shows the error that it hears of first, and that of Control.Solve is the one it words well.
        """
        if not self._returned.done():
            self._returned.set_exception(error)
        if self._begun.done():
            await self._ended.wait()

    async def returned(self) -> BuildResult | None:
        """What the client's frontend ends with."""
        return await self._returned


class Jobs:
    """All jobs by reference."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._users: Counter[str] = Counter()

    @contextmanager
    def using(self, ref: str) -> Iterator[Job]:
        """The job of this reference, for the length of a call; whoever asks first makes it."""
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
