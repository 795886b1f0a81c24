"""`havre run` and `havre create`.

    create --404, policy missing--> pull, create again
    attach, wait, start, resize, copy, exit code       (-d: start, print the ID)

Exit codes: the container's; 125 when it could not be started, 126 when its command cannot be run, 127 when that does
not
exist. They are determined by the texts of the daemon's error, as in docker's command line.
"""

from __future__ import annotations

from havre.cli.attach import (
    Conversation,
    check_tty,
    detach_keys,
    hijack_query,
    killer,
)
from havre.cli.parser import StatusError
from havre.cli.run_config import create_body
from havre.cli.stream import DETACHED
from havre.cli.tty import size
from havre.client.config import environment, exists
from havre.errors import HavreError, NotFound
from havre.oci.names import familiar
from havre.wire.startfailures import exit_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from havre.cli.session import Session
    from havre.golang.flags import Options


def run(session: Session, options: Options, arguments: list[str]) -> int:
    """Create and start a container; attach to it unless -d."""
    body = _body(session, options, arguments)
    if options.detach and options.attach:
        raise StatusError(1, "Conflicting options: -a and -d")
    check_tty(body["AttachStdin"] and not options.detach, options.tty)
    keys = detach_keys(session, options)
    try:
        container = _create(session, options, body)
    except HavreError as error:
        raise _failure(str(error), 125, "run") from error
    if options.detach:
        _start_or_fail(session, container)
        print(container)
        return 0
    if not (body["AttachStdin"] or body["AttachStdout"] or body["AttachStderr"]):
        print(container, flush=True)
    return _stay(session, options, body, container, keys)


def create(session: Session, options: Options, arguments: list[str]) -> int:
    """Create a container and print its ID."""
    print(_create(session, options, _body(session, options, arguments)))
    return 0


def _body(session: Session, options: Options, arguments: list[str]) -> dict[str, Any]:
    if options.pull not in ("always", "missing", "never", ""):
        text = f'invalid pull option: \'{options.pull}\': must be one of "always", "missing" or "never"'
        raise _failure(text, 125, session.path)
    if options.disable_content_trust is False or environment("DOCKER_CONTENT_TRUST"):
        from havre.cli.pull import check_trust

        check_trust(options, 125)
    try:
        body = create_body(options, arguments[0], arguments[1:])
        if options.tty:
            body["HostConfig"]["ConsoleSize"] = list(size())
        if proxies := session.client.proxies:
            from havre.client.proxies import add_proxies

            body["Env"] = add_proxies(body["Env"], proxies)
        return body
    except ValueError as error:
        raise _failure(str(error), 125, session.path) from error


def _failure(text: str, code: int, help_path: str | None) -> StatusError:
    stop = "" if text.endswith((".", "?", ")")) else "."
    return StatusError(code, f"havre: {text}{stop}", help_path)


def _create(session: Session, options: Options, body: dict[str, Any]) -> str:
    """Create the container, pulling its image by the pull policy; returns its ID."""
    give = None
    if options.use_api_socket:
        from havre.cli.apisocket import mount_socket

        give = mount_socket(session, body)
    if options.cidfile and exists(options.cidfile):
        raise StatusError(
            125, "havre: container ID file found, make sure the other container isn't running or delete "
            f"{options.cidfile}.", session.path
        )  # fmt: skip
    image = familiar(body["Image"])
    if options.pull == "always":
        _pull(session, options, image)
    query: dict[str, str | list[str]] = {}
    if options.name:
        query["name"] = options.name
    if options.platform:
        query["platform"] = options.platform
    try:
        answer = session.client.post("/containers/create", query, body)
    except NotFound as error:
        if options.pull not in ("missing", "") or "o such image" not in error.message:
            raise
        if not options.quiet:
            session.warn(f"Unable to find image '{image}' locally")
        _pull_or_make(session, options, image)
        answer = session.client.post("/containers/create", query, body)
    for warning in [*(answer.get("Warnings") or []), *(give(answer["Id"]) if give else ())]:
        session.warn(f"WARNING: {warning}")
    container: str = answer["Id"]
    if options.cidfile:
        _write_id(options.cidfile, container)
    return container


def _pull_or_make(session: Session, options: Options, image: str) -> None:
    try:
        _pull(session, options, image)
    except HavreError:
        from havre.cli.embedded import make_embedded

        if options.platform or not make_embedded(session, image):
            raise


def _pull(session: Session, options: Options, image: str) -> None:
    from havre.cli.pull import pull_image

    pull_image(session, image, platform=options.platform, quiet=options.quiet, output=2)


def _write_id(path: str, container: str) -> None:
    try:
        with open(path, "x", encoding="ascii") as file:
            file.write(container)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise _failure(f"failed to create the container ID file: open {path}: {reason}", 125, None) from error


def _stay(session: Session, options: Options, body: dict[str, Any], container: str, keys: str) -> int:
    stdin, stdout, stderr = body["AttachStdin"], body["AttachStdout"], body["AttachStderr"]
    talk = Conversation(
        session,
        tty=options.tty,
        stdin=stdin,
        keys=keys,
        resize_path=f"/containers/{container}/resize",
        kill=killer(session, container) if options.sig_proxy else None,
    )
    attached = None
    if stdin or stdout or stderr:
        query = hijack_query(stdin=stdin, stdout=stdout, stderr=stderr, keys=keys)
        attached = session.new_client().hijack(f"/containers/{container}/attach", query)
    condition = "removed" if options.rm else "next-exit"
    waiting = session.new_client().call("POST", f"/containers/{container}/wait", {"condition": condition})
    try:
        session.client.post(f"/containers/{container}/start")
    except HavreError as error:
        if options.rm:
            waiting.read()  # returns when the daemon has removed it
        raise _start_failure(str(error)) from error
    talk.set_first_size()
    if attached is None:
        return 0
    if talk.copy(*attached) == DETACHED:
        return 0
    return talk.exit_code(waiting)


def _start_or_fail(session: Session, container: str) -> None:
    try:
        session.client.post(f"/containers/{container}/start")
    except HavreError as error:
        raise _start_failure(str(error)) from error


def _start_failure(message: str) -> StatusError:
    return _failure(message, exit_code(message), None)
