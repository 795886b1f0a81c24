"""The daemon's log: one line of key=value per record on stderr, as dockerd writes it.

    time="2026-11-24T13:00:04.303359690Z" level=info msg="API listen on /run/havre.sock" room=havre.api

Lines that clients can cause are rate-limited: each place in the code may log a burst of lines, then one a second;
the number of suppressed lines is logged. Debug lines caused by containers are omitted.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

_LEVELS = {"WARNING": "warning", "CRITICAL": "fatal"}
_BY_NAME = {"warn": logging.WARNING, "fatal": logging.CRITICAL}


_OF_CONTAINERS = ("havre.dataplane", "havre.listening")


@dataclass(slots=True)
class _Place:
    tokens: float
    at: float
    left_out: int = 0


class KeyValueFormatter(logging.Formatter):
    """Formats a record; tracebacks follow on their own lines."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, quoted so that it stays one line."""
        fraction = f"{record.created % 1:.9f}"[1:]
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + fraction + "Z"
        level = _LEVELS.get(record.levelname, record.levelname.lower())
        text = json.dumps(record.getMessage(), ensure_ascii=False)
        line = f'time="{moment}" level={level} msg={text} room={record.name}'
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class RateLimit(logging.Filter):
    """Lets each place in the code log `burst` lines at once and then one a second (a token bucket each)."""

    def __init__(self, burst: int = 100, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._burst = burst
        self._clock = clock
        self._places: dict[tuple[str, int], _Place] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Report whether to log the record. The first one after a gap says how many were suppressed."""
        if record.levelno <= logging.DEBUG and not record.name.startswith(_OF_CONTAINERS):
            return True
        now = self._clock()
        place = self._places.setdefault((record.pathname, record.lineno), _Place(float(self._burst), now))
        place.tokens = min(float(self._burst), place.tokens + now - place.at)
        place.at = now
        if place.tokens < 1:
            place.left_out += 1
            return False
        place.tokens -= 1
        if place.left_out:
            record.msg = f"{record.getMessage()} ({place.left_out} similar lines were suppressed)"
            record.args, place.left_out = (), 0
        return True


def configure_logging(level: str) -> None:
    """Log to stderr at `level` (debug, info, warn, error, fatal) and above."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    handler.addFilter(RateLimit())
    logging.getLogger().handlers[:] = [handler]
    set_level(level)


def set_level(level: str) -> None:
    """Set the log level; libraries log warnings only unless it is debug."""
    number = _BY_NAME.get(level) or logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger("havre").setLevel(number)
    logging.getLogger().setLevel(max(number, logging.WARNING) if level != "debug" else logging.INFO)
