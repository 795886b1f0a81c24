"""`havre exec`: run a command in a running container."""

from __future__ import annotations

from havre.cli.attach import Conversation, check_tty, detach_keys
from havre.cli.parser import StatusError
from havre.cli.run_config import read_lines
from havre.cli.stream import DETACHED
from havre.cli.tty import size
from havre.cli.values import check_env

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from havre.cli.session import Session
    from havre.golang.flags import Options


def exec_(session: Session, options: Options, arguments: list[str]) -> int:
    """Run a command in a container; returns its exit code, or 0 at once with -d."""
    container, *command = arguments
    client = session.client
    if not options.detach:
        try:
            check_tty(options.interactive, options.tty)
        except StatusError:
            client.get(f"/containers/{container}/json")  # a missing container is reported first, as in docker
            raise
    try:
        environment = read_lines(options.env_file, check_env) + options.env
    except ValueError as error:
        raise StatusError(1, str(error)) from error
    keys = detach_keys(session, options)
    attached = not options.detach
    body: dict[str, Any] = {
        "User": options.user,
        "Privileged": options.privileged,
        "Tty": options.tty,
        "AttachStdin": attached and options.interactive,
        "AttachStdout": attached,
        "AttachStderr": attached,
        "Detach": options.detach,
        "DetachKeys": keys,
        "Env": environment or None,
        "WorkingDir": options.workdir,
        "Cmd": command,
    }
    identifier = client.post(f"/containers/{container}/exec", body=body)["Id"]
    if options.tty:
        body["ConsoleSize"] = list(size())
    if options.detach:
        client.post(f"/exec/{identifier}/start", body={"Detach": True, "Tty": options.tty})
        return 0
    return _converse(session, options, identifier, keys)


def _converse(session: Session, options: Options, identifier: str, keys: str) -> int:
    talk = Conversation(
        session,
        tty=options.tty,
        stdin=options.interactive,
        keys=keys,
        resize_path=f"/exec/{identifier}/resize",
        kill=None,
    )
    console = list(size()) if options.tty else None
    stream, early = session.new_client().hijack(
        f"/exec/{identifier}/start", body={"Detach": False, "Tty": options.tty, "ConsoleSize": console}
    )
    talk.set_first_size()
    if talk.copy(stream, early) == DETACHED:
        raise StatusError(1, "read escape sequence")
    return int(session.client.get(f"/exec/{identifier}/json")["ExitCode"])
