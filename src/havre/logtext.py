"""The daemon's log: one line of key=value per record on stderr, as Docker's daemon writes it.

time="2026-11-24T13:00:04.303359690Z" level=info msg="API listen on /run/havre.sock" room=havre.api

What strangers can make the daemon say is limited: each place in the code may say so many lines at once, and one more a
second; what is left out is counted. Lines for debugging are left out where containers cause them.
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
    """Renders a record; tracebacks follow on lines of their own."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, quoted so that it stays one line."""
        fraction = f"{record.created % 1:.9f}"[1:]
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + fraction + "Z"
        level = _LEVELS.get(record.levelname, record.levelname.lower())
        text = json.dumps(record.getMessage(), ensure_ascii=False)
        line = f'time="{moment}" level={level} msg={text} room={record.name}'
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class RateLimit(logging.Filter):
    """Lets each place that logs say `burst` lines at once and one more a second (a token bucket for each place)."""

    def __init__(self, burst: int = 100, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._burst = burst
        self._clock = clock
        self._places: dict[tuple[str, int], _Place] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is told; the first one after a gap says how many were not."""
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
            record.msg = f"{record.getMessage()} ({place.left_out} lines like this one were left out)"
            record.args, place.left_out = (), 0
        return True


def configure_logging(level: str) -> None:
    """Log to stderr from `level` (debug, info, warn, error, fatal) on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    handler.addFilter(RateLimit())
    logging.getLogger().handlers[:] = [handler]
    set_level(level)


def set_level(level: str) -> None:
    """Change what is logged; libraries stay at warnings unless debugging."""
    number = _BY_NAME.get(level) or logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger("havre").setLevel(number)
    logging.getLogger().setLevel(max(number, logging.WARNING) if level != "debug" else logging.INFO)
