"""The verbs that take a file system out of a service's running container: commit, export."""

from __future__ import annotations

import posix

from havre.cli.archive import commit as commit_container
from havre.cli.archive import export as export_container
from havre.cli.compose.stage import Stage
from havre.cli.parser import StatusError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from havre.cli.session import Session
    from havre.golang.flags import Options


def commit(session: Session, options: Options, arguments: list[str]) -> int:
    """Create an image from a service's container; prints its ID."""
    service, *names = arguments
    stage = Stage(session, options)
    container = stage.container(service, options.index, one_off=True)
    if stage.dry_run:
        print(f"commit {container.name}")
        return 0
    return commit_container(session, options, [container.id, *names])


def export(session: Session, options: Options, arguments: list[str]) -> int:
    """Write the file system of a service's container as a tar archive."""
    stage = Stage(session, options)
    container = stage.container(arguments[0], options.index, one_off=True)
    if stage.dry_run:
        print(f"export {container.name}")
        return 0
    if not options.output and posix.isatty(1):
        raise StatusError(1, "output option is required when exporting to terminal")
    return export_container(session, options, [container.id])
