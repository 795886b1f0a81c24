"""`havre compose watch`: files that change here change in the containers, or build them anew."""

from __future__ import annotations

import time

from havre.cli.compose.stage import Stage
from havre.cli.compose.up import converge
from havre.cli.parser import StatusError
from havre.compose.down import plan_simple
from havre.compose.images import ImageOptions, build_steps
from havre.compose.plan import FORCE, UpOptions
from havre.compose.state import observe
from havre.compose.steps import Execute, Step
from havre.compose.watch import changes, inside, pack, rules_of
from havre.errors import HavreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from havre.cli.parser import Options
    from havre.cli.session import Session
    from havre.compose.project import Project
    from havre.compose.state import Container
    from havre.compose.watch import Rule, Seen

_PAUSE_S = 0.5


def watch(session: Session, options: Options, arguments: list[str]) -> int:
    """Follow the files that services' `develop.watch` names until interrupted."""
    stage = Stage(session, options)
    project = stage.project(arguments)
    rules = watched(project)
    if stage.dry_run:
        print("".join(f"watch {rule.path}: {rule.action} {rule.service}\n" for rule in rules), end="")
        return 0
    seen = [rule.look() for rule in rules]
    if not options.no_up:
        converge(stage, project, UpOptions(separator=stage.separator), ImageOptions(build=True), quiet=options.quiet)
    follow(stage, project, rules, seen)
    return 0


def watched(project: Project) -> list[Rule]:
    """The rules of a project that has some. Raises StatusError."""
    if rules := rules_of(project):
        return rules
    raise StatusError(1, "none of the selected services is configured for watch, consider setting a 'develop' section")


def follow(stage: Stage, project: Project, rules: list[Rule], seen: list[Seen]) -> None:
    """Do for ever what the rules say about what has changed since it was `seen`."""
    stage.session.warn("Watch enabled")
    while True:
        time.sleep(_PAUSE_S)
        for index, rule in enumerate(rules):
            now = rule.look()
            changed, removed = changes(seen[index], now)
            seen[index] = now
            if changed or removed:
                try:
                    _act(stage, project, rule, changed, removed)
                except HavreError as error:
                    stage.session.warn(f"{rule.service}: {error}")


def _act(stage: Stage, project: Project, rule: Rule, changed: list[str], removed: list[str]) -> None:
    """Do what the rule says about changes. Raises HavreError."""
    if rule.action == "rebuild":
        stage.session.warn(f"Rebuilding service {rule.service} after changes were detected...")
        stage.carry_out(list(build_steps(project, [rule.service]).values()))
        wanted = UpOptions(recreate=FORCE, targets=(rule.service,), separator=stage.separator)
        converge(stage, project.selecting([rule.service]), wanted, ImageOptions(no_build=True))
        stage.session.warn(f"service {rule.service} successfully built")
        return
    state = observe(stage.client, project)
    if rule.action.startswith("sync"):
        stage.session.warn(f"Syncing service {rule.service} after {len(changed) + len(removed)} changes were detected")
        for container in state.of(rule.service):
            if container.state == "running":
                _sync(stage, rule, container, changed, removed)
    if rule.action.endswith("restart"):
        words, states = ("Restarting", "Started"), ("running", "exited")
        stage.carry_out(plan_simple(project, state, [rule.service], "restart", words, {}, states))
    if rule.action == "sync+exec":
        stage.carry_out(
            [
                Step(f"exec {c.id}", f"Container {c.name}", "Hook", "Synced", Execute(c.id, rule.hook))
                for c in state.of(rule.service)
            ]
        )


def _sync(stage: Stage, rule: Rule, container: Container, changed: list[str], removed: list[str]) -> None:
    if changed:
        path = f"/containers/{container.id}/archive"
        stage.client.call("PUT", path, {"path": "/"}, raw_body=[pack(rule, changed)]).read()
    if removed:
        command = ["rm", "-rf", *(inside(rule, path) for path in removed)]
        subject = f"Container {container.name}"
        stage.carry_out([Step("rm", subject, "", "", Execute(container.id, {"command": command, "user": "root"}))])
