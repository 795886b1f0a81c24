"""Signals as Docker names them: SIGTERM, term, 15, RTMIN+3. Pure.

Source: github.com/moby/sys/signal, ParseSignal; signal(7).
"""

from __future__ import annotations

import re
import signal

from havre.errors import InvalidInput


def parse_signal(text: str) -> int:
    """The number of a signal given by name (with or without SIG, RTMIN+n) or number. Raises `InvalidInput`."""
    if re.fullmatch(r"-?[0-9]+", text) and not 0 <= int(text) <= 64:
        raise InvalidInput(f"the linux daemon does not support signal {text}", "1 to 64")
    if text.isdecimal() and int(text) > 0:
        return int(text)
    name = text.upper().removeprefix("SIG")
    if (number := getattr(signal, f"SIG{name}", None)) is not None and name.isalnum():
        return int(number)
    if match := re.fullmatch(r"RTM(?:IN\+(\d{1,2})|AX-(\d{1,2}))", name):
        up, down = match.groups()
        number = signal.SIGRTMIN + int(up) if up else signal.SIGRTMAX - int(down)
        if signal.SIGRTMIN <= number <= signal.SIGRTMAX:
            return int(number)
    raise InvalidInput(f"invalid signal: {text}", "expected a name such as SIGTERM, or a number from 1 to 64")
