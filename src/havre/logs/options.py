"""Log drivers and their options: validation and parsing. Pure.

Source: the documentation of Docker's log drivers; error texts are dockerd's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from havre.errors import InvalidInput
from havre.logs.values import START, parse_flag, parse_size

DEFAULT_DRIVER = "json-file"
_ATTRIBUTES = ("labels", "labels-regex", "env", "env-regex", "tag")
_FILES = ("max-size", "max-file", "compress")
_EVERYWHERE = (
    *("mode", "max-buffer-size"),
    *("cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"),
)
_SYSLOG = (
    *("syslog-address", "syslog-facility", "syslog-format"),
    *("syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify"),
)
_GELF = (
    *("gelf-address", "gelf-compression-type", "gelf-compression-level"),
    *("gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay"),
)
_FLUENTD = (
    *("fluentd-address", "fluentd-async", "fluentd-async-connect", "fluentd-async-reconnect-interval"),
    *("fluentd-buffer-limit", "fluentd-max-retries", "fluentd-retry-wait"),
    *("fluentd-request-ack", "fluentd-sub-second-precision"),
)
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "json-file": (*_FILES, *_ATTRIBUTES, *_EVERYWHERE),
    "local": (*_FILES, *_EVERYWHERE),
    "journald": (*_ATTRIBUTES, *_EVERYWHERE),
    "syslog": (*_SYSLOG, *_ATTRIBUTES, *_EVERYWHERE),
    "gelf": (*_GELF, *_ATTRIBUTES, *_EVERYWHERE),
    "fluentd": (*_FLUENTD, *_ATTRIBUTES, *_EVERYWHERE),
    "none": (),
}
REMOTE = ("journald", "syslog", "gelf", "fluentd")


@dataclass(frozen=True, slots=True)
class LogLimits:
    """Limits of a log: `max_size` bytes per file (0: unlimited), `max_files` files, and whether old ones are
    compressed."""

    max_size: int = 0
    max_files: int = 1
    compress: bool = False


_UNLIMITED = LogLimits()
_LOCAL = LogLimits(max_size=20 << 20, max_files=5, compress=True)
_DEFAULTS = {"json-file": _UNLIMITED}
_BUFFER_BYTES = 1_000_000


def check_driver(driver: str, options: Mapping[str, str]) -> None:
    """Reject an unknown driver or option, or an invalid value. InvalidInput in Docker's words."""
    if driver not in OPTIONS:
        known = f"known: {', '.join(OPTIONS)}"
        raise InvalidInput(f'error looking up logging plugin {driver}: plugin "{driver}" not found', known)
    for option in options:
        if option not in OPTIONS[driver]:
            place = f"log driver {driver}" if driver == "local" else f"{driver} log driver"
            raise InvalidInput(f"unknown log opt '{option}' for {place}", f"known: {', '.join(OPTIONS[driver])}")
    _check_mode(options)
    parse_limits(driver, options)
    _check_target(driver, options)


def _check_target(driver: str, options: Mapping[str, str]) -> None:
    # Imported late: only containers with these drivers need them.
    if driver == "syslog":
        from havre.logs.syslog import parse_target

        parse_target(options)
    elif driver == "gelf":
        from havre.logs.gelf import parse_gelf

        parse_gelf(options)
    elif driver == "fluentd":
        from havre.logs.fluentd import parse_fluentd

        parse_fluentd(options)


def _check_mode(options: Mapping[str, str]) -> None:
    if (mode := options.get("mode", "")) not in ("", "blocking", "non-blocking"):
        raise InvalidInput(f"logger: logging mode not supported: {mode}", "expected blocking or non-blocking")
    if (size := options.get("max-buffer-size")) is None:
        return
    if mode != "non-blocking":
        raise InvalidInput("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
    parse_size(size, "error parsing option max-buffer-size: ")


def parse_limits(driver: str, options: Mapping[str, str]) -> LogLimits:
    """The limits of the files written by `driver`. InvalidInput in Docker's words."""
    default = _DEFAULTS.get(driver, _LOCAL)
    prefix = "cache-" if driver in REMOTE else ""
    size = parse_size(options[f"{prefix}max-size"]) if f"{prefix}max-size" in options else default.max_size
    try:
        files = int(options.get(f"{prefix}max-file", default.max_files))
    except ValueError:
        raise InvalidInput(f"{START}: invalid max-file: '{options[f'{prefix}max-file']}'", "a number") from None
    if files < 1:
        raise InvalidInput(f"{START}: max-file cannot be less than 1")
    compress = parse_flag(options, f"{prefix}compress", default.compress)
    if compress and f"{prefix}compress" in options and (files < 2 or size == 0):
        raise InvalidInput(f"{START}: compress cannot be true when max-file is less than 2 or max-size is not set")
    return LogLimits(size, files, compress and files > 1)


def keeps_file(driver: str, options: Mapping[str, str]) -> bool:
    """Report whether the driver writes a file that `logs` can read."""
    if driver == "none":
        return False
    return driver not in REMOTE or not parse_flag(options, "cache-disabled", False)


def parse_buffer(options: Mapping[str, str]) -> int | None:
    """Maximum bytes waiting for a slow log before lines are dropped; None: the container waits instead."""
    if options.get("mode", "") != "non-blocking":
        return None
    return parse_size(options["max-buffer-size"]) if "max-buffer-size" in options else _BUFFER_BYTES
