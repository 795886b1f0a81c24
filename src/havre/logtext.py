"""The daemon's log: one line of key=value per record on stderr, as Docker's daemon writes it.

time="2026-11-24T13:00:04.303359690Z" level=info msg="API listen on /run/havre.sock" room=havre.api
"""

from __future__ import annotations

import json
import logging
import sys
import time

_LEVELS = {"WARNING": "warning", "CRITICAL": "fatal"}
_BY_NAME = {"warn": logging.WARNING, "fatal": logging.CRITICAL}


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


def configure_logging(level: str) -> None:
    """Log to stderr from `level` (debug, info, warn, error, fatal) on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(KeyValueFormatter())
    logging.getLogger().handlers[:] = [handler]
    set_level(level)


def set_level(level: str) -> None:
    """Change what is logged; libraries stay at warnings unless debugging."""
    number = _BY_NAME.get(level) or logging.getLevelNamesMapping()[level.upper()]
    logging.getLogger("havre").setLevel(number)
    logging.getLogger().setLevel(max(number, logging.WARNING) if level != "debug" else logging.INFO)
