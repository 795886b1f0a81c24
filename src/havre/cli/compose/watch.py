"""`havre compose watch`: synchronises changed files into containers, or rebuilds images.

    inotify --> changes by service --> a thread for each service, which handles all pending changes at once

So a build of one service does not delay others, and a hundred saved files become one tar.
"""

from __future__ import annotations

from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread

from havre.cli.compose.converge import converge
from havre.cli.compose.stage import Stage
from havre.cli.compose.supply import supplied
from havre.cli.parser import StatusError
from havre.compose import labels as label
from havre.compose.down import plan_simple
from havre.compose.images import ImageOptions, build_steps
from havre.compose.plan import FORCE, UpOptions
from havre.compose.state import observe
from havre.compose.steps import Execute, Step
from havre.compose.watch import Changes, Tree, inside, pack, rules_of
from havre.compose.watched import Folders
from havre.errors import HavreError
from havre.golang.jsontext import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from havre.cli.session import Session
    from havre.client.api import Query
    from havre.compose.project import Project
    from havre.compose.state import Container
    from havre.compose.watch import Rule
    from havre.golang.flags import Options


def watch(session: Session, options: Options, arguments: list[str]) -> int:
    """Watch the files in services' `develop.watch` until interrupted."""
    stage = Stage(session, options)
    project = stage.project(arguments)
    rules = watched(project)
    if stage.dry_run:
        print("".join(f"watch {rule.path}: {rule.action} {rule.service}\n" for rule in rules), end="")
        return 0
    project = supplied(stage, project)
    watcher = Watcher(stage, project, rules, prune=options.prune)
    if not options.no_up:
        converge(stage, project, UpOptions(separator=stage.separator), ImageOptions(build=True), quiet=options.quiet)
    watcher.follow()
    return 0


def watched(project: Project) -> list[Rule]:
    """The project's rules. Raises StatusError if there are none."""
    if rules := rules_of(project):
        return rules
    raise StatusError(1, "none of the selected services is configured for watch, consider setting a 'develop' section")


class Watcher:
    """Watches the files from its creation on; `follow` applies the rules to changes."""

    def __init__(self, stage: Stage, project: Project, rules: list[Rule], *, prune: bool = True) -> None:
        self._stage = stage
        self._prune = prune
        self._project = project
        self._folders = Folders()
        self._trees = [Tree(rule, self._folders) for rule in rules]

    def follow(self) -> None:
        """Runs forever."""
        self._stage.share_terminal("log")  # several services may write at once
        queues: dict[str, SimpleQueue[Changes]] = {tree.rule.service: SimpleQueue() for tree in self._trees}
        for service, queue in queues.items():
            Thread(target=self._serve, args=(service, queue), daemon=True).start()
        for tree in self._trees:
            if tree.rule.initial_sync:
                queues[tree.rule.service].put(tree.everything())
        self._stage.session.warn("Watch enabled")
        while True:
            folders = self._folders.wait()
            for tree in self._trees:
                try:
                    changes = tree.update(folders)
                except HavreError as error:
                    self._stage.session.warn(f"{tree.rule.service}: {error}")
                    continue
                if changes.changed or changes.removed:
                    queues[tree.rule.service].put(changes)

    def _serve(self, service: str, queue: SimpleQueue[Changes]) -> None:
        while True:
            batch = [queue.get()]
            try:
                while True:
                    batch.append(queue.get_nowait())
            except Empty:
                pass
            try:
                _act(self._stage, self._project, service, batch, prune=self._prune)
            except (HavreError, OSError) as error:
                self._stage.session.warn(f"{service}: {error}")


def _act(stage: Stage, project: Project, service: str, batch: list[Changes], *, prune: bool) -> None:
    """Apply a service's rules to changes; with `prune` a rebuild removes the images replaced. Raises HavreError."""
    if any(changes.rule.action == "rebuild" for changes in batch):  # the new image includes everything else
        stage.session.warn(f"Rebuilding service {service} after changes were detected...")
        stage.carry_out(list(build_steps(project, [service]).values()))
        wanted = UpOptions(recreate=FORCE, targets=(service,), separator=stage.separator)
        converge(stage, project.selecting([service]), wanted, ImageOptions(no_build=True))
        if prune:
            _remove_replaced(stage, project, service)
        stage.session.warn(f"service {service} successfully built")
        return
    state = observe(stage.client, project)
    running = [container for container in state.of(service) if container.state == "running"]
    if synced := [changes for changes in batch if changes.rule.action.startswith("sync")]:
        count = sum(len(changes.changed) + len(changes.removed) for changes in synced)
        stage.session.warn(f"Syncing service {service} after {count} changes were detected")
        for container in running:
            _sync(stage, container, synced)
    if any(changes.rule.action.endswith("restart") for changes in batch):
        words, states = ("Restarting", "Started"), ("running", "exited")
        stage.carry_out(plan_simple(project, state, [service], "restart", words, {}, states))
    for number, hook in enumerate(_hooks(batch)):
        stage.carry_out(
            [
                Step(f"exec {number} {c.id}", f"Container {c.name}", "Hook", "Synced", Execute(c.id, hook))
                for c in running
            ]
        )


def _remove_replaced(stage: Stage, project: Project, service: str) -> None:
    """Remove images of the service that have no name any more; those still in use stay."""
    labels = [f"{label.PROJECT}={project.name}", f"{label.SERVICE}={service}"]
    query: Query = {"filters": encode({"dangling": ["true"], "label": labels})}
    for row in stage.client.get("/images/json", query):
        with suppress(HavreError):
            stage.client.json("DELETE", f"/images/{row['Id']}")


def _hooks(batch: list[Changes]) -> list[dict[str, object]]:
    """The commands to run, without duplicates."""
    hooks = [dict(changes.rule.hook) for changes in batch if changes.rule.action == "sync+exec"]
    return [hook for index, hook in enumerate(hooks) if hook not in hooks[:index]]


def _sync(stage: Stage, container: Container, batch: list[Changes]) -> None:
    """Copy all changes into a container. Removals first: a file may have been recreated."""
    removed = [inside(changes.rule, path) for changes in batch for path in changes.removed]
    if removed:
        command = ["rm", "-rf", *dict.fromkeys(removed)]
        subject = f"Container {container.name}"
        stage.carry_out([Step("rm", subject, "", "", Execute(container.id, {"command": command, "user": "root"}))])
    if any(changes.changed for changes in batch):
        path = f"/containers/{container.id}/archive"
        stage.client.call("PUT", path, {"path": "/"}, raw_body=[pack(batch)]).read()
