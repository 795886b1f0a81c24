"""The common start of all `havre compose` verbs: the project in the files, and its name."""

from __future__ import annotations

import os
import sys

from havre.cli.main import use_site
from havre.cli.parser import StatusError
from havre.errors import HavreError, InvalidInput, NotFound

use_site()

from havre.compose.find import Wanted, env_files, find, project_name  # noqa: E402 - imports third-party modules
from havre.compose.load import Loader  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from havre.cli.session import Session
    from havre.compose.load import Source
    from havre.compose.project import Project
    from havre.golang.flags import Options

NO_FILE, UNFIT = 14, 15
"""docker compose's exit codes for missing files and for invalid files."""


class Scene:
    """One execution of a command."""

    def __init__(self, session: Session, options: Options) -> None:
        assert session.group is not None
        self.session = session
        self.group = session.group
        self.dry_run = bool(self.group.dry_run or getattr(options, "dry_run", False))
        self.wanted = Wanted(
            files=tuple(self.group.file),
            project=self.group.project_name,
            folder=self.group.project_directory,
            env_files=env_files(self.group.env_file, os.environ),
            profiles=tuple(self.group.profile),
        )

    def source(self) -> Source:
        """The source to load. Raises StatusError."""
        try:
            return find(self.wanted, os.environ)
        except HavreError as error:
            raise _status(error) from error

    def project(self, services: Sequence[str] = (), source: Source | None = None, *, select: bool = True) -> Project:
        """The project, reduced to the named services and their dependencies. Raises StatusError, NotFound."""
        loader = Loader(source or self.source())
        try:
            project = loader.project()
        except HavreError as error:
            raise _status(error) from error
        finally:
            self.tell(loader)
        project = project.enabling(services)._replace(env_files=self.wanted.env_files)
        project = project if self.group.all_resources else project.used_only()
        return project.selecting(services) if select else project

    def tell(self, loader: Loader) -> None:
        """Print a loader's warnings."""
        sys.stdout.flush()
        for text in loader.warnings:
            print(f"warning: {text}", file=sys.stderr)

    def name(self) -> str:
        """The project's name. Raises StatusError."""
        try:
            return project_name(self.wanted, os.environ)
        except HavreError as error:
            raise _status(error) from error

    def project_or_name(self, services: Sequence[str] = ()) -> tuple[Project | None, str]:
        """The project; or None and its name, if that was given and no file exists."""
        if self.wanted.project and not self.wanted.files:
            try:
                source = find(self.wanted, os.environ)
            except HavreError:  # the name is sufficient to find the containers
                return None, self.name()
            return self.project(services, source, select=False), source.name
        project = self.project(services, select=False)
        return project, project.name


def _status(error: HavreError) -> StatusError:
    if isinstance(error, NotFound):
        return StatusError(NO_FILE, str(error))
    return StatusError(UNFIT if isinstance(error, InvalidInput) else error.exit_code, str(error))
