"""The logs of all containers: file, driver, and the log keepers of running ones.

open (before a start) --> watch (it runs, or was taken over) --> end (it has ended; everything is in the log)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path

from havre.aio import in_thread
from havre.containers.container import Container
from havre.errors import Failed, Unsupported
from havre.logs import Keeper, LogChunk, LogOptions, Subject, form_of, log_path, plan_log
from havre.logs.plan import SPOOL
from havre.logs.spool import LogPlan
from havre.runtime import Process


class Logbook:
    """Logs by container, each in a directory below `directory`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._keepers: dict[str, Keeper] = {}

    def path(self, container: Container) -> Path | None:
        """The file that `logs` reads; None if the driver keeps none."""
        driver, options = _driver(container)
        return log_path(driver, options, self._directory / container.id, container.id)

    async def open(self, container: Container) -> Path | None:
        """Before a start: the file that conmon will write. Raises `Failed` if the driver cannot be initialised."""
        if _driver(container)[0] == "none":
            return None
        keeper = await self._planned(container)
        try:
            await keeper.open()
        except OSError as error:
            raise Failed(
                f"failed to create task for container: failed to initialize logging driver: {error}"
            ) from error
        self._keepers[container.id] = keeper
        return self._directory / container.id / SPOOL

    def watch(self, container: Container, process: Process) -> None:
        """Keep the log of a container that now runs."""
        if _driver(container)[0] != "none":
            if container.id not in self._keepers:
                self._keepers[container.id] = _keeper(container, self._plan(container))
            self._keepers[container.id].watch(process)

    async def end(self, container: Container) -> None:
        """After its end or a failed start: complete its log. Idempotent."""
        if _driver(container)[0] != "none":
            keeper = self._keepers.get(container.id) or await self._planned(container)
            try:
                await keeper.end()  # who reads meanwhile has this keeper still, and waits for it
            finally:
                self._keepers.pop(container.id, None)

    def read(self, container: Container, options: LogOptions) -> AsyncGenerator[Sequence[LogChunk], None]:
        """Its log; with `follow`, until it ends. Raises `Unsupported` if the driver keeps none."""
        if self.path(container) is None:
            raise Unsupported("configured logging driver does not support reading")
        return self._read(container, options)

    async def _read(self, container: Container, options: LogOptions) -> AsyncGenerator[Sequence[LogChunk], None]:
        keeper = self._keepers.get(container.id) or await self._planned(container)
        async with aclosing(keeper.read(options)) as chunks:
            async for each in chunks:
                yield each

    async def _planned(self, container: Container) -> Keeper:
        """A new keeper, planned in a thread: users' tags and patterns may take long to evaluate."""
        return _keeper(container, await in_thread(self._plan, container))

    def _plan(self, container: Container) -> LogPlan:
        driver, options = _driver(container)
        return plan_log(driver, options, self._directory / container.id, _subject(container))


def _keeper(container: Container, plan: LogPlan) -> Keeper:
    return Keeper(plan, form_of(_driver(container)[0]), blocking=plan.buffer is None)


def _driver(container: Container) -> tuple[str, Mapping[str, str]]:
    config = container.spec.host_config.log_config
    return config.type, config.config or {}


def _subject(container: Container) -> Subject:
    config = container.spec.config
    variables = (variable.partition("=") for variable in config.env or ())
    return Subject(
        id=container.id,
        name=container.name.removeprefix("/"),
        image_id=container.spec.image,
        image_name=config.image,
        entrypoint=container.spec.path,
        args=tuple(container.spec.args),
        created=container.spec.created,
        labels=config.labels or {},
        env={name: value for name, _, value in variables},
    )
