"""The verbs on containers by name: stop, kill, rm, pause, rename, wait, top, port, update ..."""

from __future__ import annotations

import sys

from havre.cli.attach import read_exit_code
from havre.cli.format.table import align
from havre.cli.parser import StatusError
from havre.errors import HavreError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from havre.cli.session import Session
    from havre.client.api import Query
    from havre.golang.flags import Options


def _stop_query(options: Options) -> Query:
    query: Query = {}
    if options.signal:
        query["signal"] = options.signal
    if {"time", "timeout"} <= options.given:
        raise StatusError(1, "conflicting options: cannot specify both --timeout and --time")
    for name in ("time", "timeout"):
        if name in options.given:
            query["t"] = str(getattr(options, name))
    return query


def stop(session: Session, options: Options, arguments: list[str]) -> int:
    """Stop containers."""
    query = _stop_query(options)
    return session.each(arguments, lambda name: session.client.post(f"/containers/{name}/stop", query))


def restart(session: Session, options: Options, arguments: list[str]) -> int:
    """Restart containers."""
    query = _stop_query(options)
    return session.each(arguments, lambda name: session.client.post(f"/containers/{name}/restart", query))


def kill(session: Session, options: Options, arguments: list[str]) -> int:
    """Send a signal to containers."""
    query: Query = {"signal": options.signal} if options.signal else {}
    return session.each(arguments, lambda name: session.client.post(f"/containers/{name}/kill", query))


def pause(session: Session, options: Options, arguments: list[str]) -> int:
    """Freeze containers."""
    return session.each(arguments, lambda name: session.client.post(f"/containers/{name}/pause"))


def unpause(session: Session, options: Options, arguments: list[str]) -> int:
    """Thaw containers."""
    return session.each(arguments, lambda name: session.client.post(f"/containers/{name}/unpause"))


def rename(session: Session, options: Options, arguments: list[str]) -> int:
    """Rename a container."""
    old, new = (argument.strip() for argument in arguments)
    if not old or not new:
        raise StatusError(1, "Error: Neither old nor new names may be empty")
    try:
        session.client.post(f"/containers/{old}/rename", {"name": new})
    except HavreError as error:
        raise StatusError(1, f"{error.message}\nError: failed to rename container named {old}") from error
    return 0


def rm(session: Session, options: Options, arguments: list[str]) -> int:
    """Remove containers; with --force, a missing one is reported but is not an error."""
    switches = (("v", options.volumes), ("link", options.link), ("force", options.force))
    query: Query = {name: "1" for name, wanted in switches if wanted}
    told, failed = [], False
    for name in arguments:
        try:
            session.client.delete(f"/containers/{name.strip('/')}", query)
        except HavreError as error:
            told.append(str(error))
            failed = failed or not (options.force and isinstance(error, NotFound))
        else:
            print(name)
    session.tell(told)
    return 1 if failed else 0


def wait(session: Session, options: Options, arguments: list[str]) -> int:
    """Wait for containers to stop and print their exit codes."""
    failures = []
    for name in arguments:
        try:
            print(read_exit_code(session.client.call("POST", f"/containers/{name}/wait")), flush=True)
        except NotFound as error:
            failures.append(str(error))
    return session.tell(failures)


def top(session: Session, options: Options, arguments: list[str]) -> int:
    """Show the processes of a container."""
    name, *ps = arguments
    query: Query = {"ps_args": " ".join(ps)} if ps else {}
    answer = session.client.get(f"/containers/{name}/top", query)
    sys.stdout.write(align([answer["Titles"], *answer["Processes"]], least=20))
    return 0


def port(session: Session, options: Options, arguments: list[str]) -> int:
    """Show the published ports of a container, or where one of its ports is published."""
    name, *wanted = arguments
    ports: dict[str, list[dict[str, str]] | None] = session.client.get(f"/containers/{name}/json")["NetworkSettings"][
        "Ports"
    ]
    if not wanted:
        lines = [f"{inner} -> {_host_port(b)}" for inner, bindings in (ports or {}).items() for b in bindings or []]
        sys.stdout.write("".join(line + "\n" for line in sorted(lines, key=_port_key)))
        return 0
    number, _, kind = wanted[0].partition("/")
    bindings = (ports or {}).get(f"{number}/{kind or 'tcp'}")
    if not bindings:
        raise StatusError(1, f"Error: No public port '{wanted[0]}' published for {name}")
    for binding in bindings:
        print(_host_port(binding))
    return 0


def _host_port(binding: dict[str, str]) -> str:
    ip = binding["HostIp"]
    return f"[{ip}]:{binding['HostPort']}" if ":" in ip else f"{ip}:{binding['HostPort']}"


def _port_key(line: str) -> tuple[int, str]:
    number = line.partition("/")[0]
    return int(number), line


def update(session: Session, options: Options, arguments: list[str]) -> int:
    """Change limits and the restart policy of containers."""
    from havre.cli.run_config import limits, restart_policy

    if not options.given:
        raise StatusError(1, "you must provide one or more flags when using this command")
    try:
        body: dict[str, Any] = limits(options)
        if options.restart:
            body["RestartPolicy"] = restart_policy(options.restart)
    except ValueError as error:
        raise StatusError(1, str(error)) from error
    if "pids_limit" not in options.given:
        del body["PidsLimit"]
    warnings: list[str] = []

    def change(name: str) -> None:
        answer = session.client.post(f"/containers/{name}/update", body=body)
        warnings.extend(answer.get("Warnings") or [])

    code = session.each(arguments, change)
    if warnings:
        sys.stdout.write("\n".join(warnings))
    return code
