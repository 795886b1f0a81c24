"""Errors that a caller can handle.

One root with few subclasses, named by cause. Each has the HTTP status that `api` returns and the exit code of `cli`; no
other module maps errors. The message says what was attempted on what, the hint what to do next. Any other exception
that
reaches `api` is a bug: status 500, logged with its traceback.
"""

from __future__ import annotations

# The command line runs under `python -I -S`, where importing typing would cost more than its whole run.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar


class HavreError(Exception):
    """An error with a message for the user; `status` is HTTP's, `exit_code` the command line's."""

    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class NotModified(HavreError):
    """The object is already in the requested state (starting a running container, stopping a stopped one)."""

    status = 304


class InvalidInput(HavreError):
    """The request is malformed; the message names the field and what was expected."""

    status = 400


class Unauthorized(HavreError):
    """Credentials are missing or wrong."""

    status = 401


class Forbidden(HavreError):
    """Understood, and denied whatever the credentials."""

    status = 403


class NotFound(HavreError):
    """No object of that name or ID."""

    status = 404


class Conflict(HavreError):
    """The state of this or another object does not permit the operation."""

    status = 409


class Failed(HavreError):
    """The kernel, a runtime or a peer failed a valid operation."""

    status = 500


class Unsupported(HavreError):
    """This version or this kernel does not support it."""

    status = 501


class Unavailable(HavreError):
    """Temporarily impossible: the daemon is starting, stopping, or out of a resource."""

    status = 503
