"""Every failure that a caller can act on.

One root, few subclasses named by cause. Each carries the HTTP status that `api` answers with and the exit code that
`cli` ends with; nothing else maps errors. The message says what was attempted on what, the hint what to do next.
Anything that is not a `HavreError` by the time it reaches `api` is a bug: status 500, logged with its traceback.
"""

from __future__ import annotations

# The command line starts under `python -I -S`, where importing typing alone would cost more than its whole run.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar


class HavreError(Exception):
    """A failure with a message for the user; `status` is HTTP's, `exit_code` the command line's."""

    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class NotModified(HavreError):
    """The object is in the wanted state already (starting what runs, stopping what does not)."""

    status = 304


class InvalidInput(HavreError):
    """The request is malformed; the message names the field and what was expected."""

    status = 400


class Unauthorized(HavreError):
    """Credentials are missing or wrong."""

    status = 401


class Forbidden(HavreError):
    """Understood and refused, whatever the credentials."""

    status = 403


class NotFound(HavreError):
    """No object of that name or ID."""

    status = 404


class Conflict(HavreError):
    """The object's present state, or another object, stands in the way."""

    status = 409


class Failed(HavreError):
    """The kernel, a runtime or a peer refused an operation that was asked for correctly."""

    status = 500


class Unsupported(HavreError):
    """Neither this build nor this kernel can do it."""

    status = 501


class Unavailable(HavreError):
    """Not now: the daemon is starting, stopping, or out of a resource that may come back."""

    status = 503
