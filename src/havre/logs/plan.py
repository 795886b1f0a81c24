"""From a log driver and its options to where a container's log goes. Pure, but for what the forwarders do when called.

json-file        SPOOL --> ID-json.log, Docker's form
local            SPOOL --> container.log, conmon's form, lines made whole
journald, syslog SPOOL --> container-cached.log (unless cache-disabled), and the server
none             nothing: conmon writes no file
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from havre.logs.journald import Journald
from havre.logs.jsonfile import JSON, json_renderer
from havre.logs.options import Subject, keeps_file, parse_buffer, parse_limits, plan_attrs, render_tag
from havre.logs.records import PLAIN, PLAIN_RENDERER, Form
from havre.logs.spool import Forwarder, LogPlan

SPOOL = "ctr.log"
_DEFAULT_TAG = "{{.ID}}"


def log_path(driver: str, options: Mapping[str, str], directory: Path, container_id: str) -> Path | None:
    """The file that `logs` reads; None where there is none."""
    if not keeps_file(driver, options):
        return None
    names = {"json-file": f"{container_id}-json.log", "local": "container.log"}
    return directory / names.get(driver, "container-cached.log")


def form_of(driver: str) -> Form:
    """How that file's records look."""
    return JSON if driver == "json-file" else PLAIN


def plan_log(driver: str, options: Mapping[str, str], directory: Path, subject: Subject) -> LogPlan:
    """Everything about a log, for any driver but `none`. InvalidInput for a bad tag or pattern."""
    attrs = plan_attrs(options, subject)
    renderer = PLAIN_RENDERER
    forwarder: Callable[[], Forwarder] | None = None
    if driver == "json-file":
        if options.get("tag"):
            attrs["tag"] = render_tag(options["tag"], subject)
        renderer = json_renderer(attrs)
    elif driver == "syslog":
        tag = render_tag(options.get("tag") or _DEFAULT_TAG, subject)
        forwarder = partial(_open_syslog, options, tag)
    elif driver == "journald":
        tag = render_tag(options.get("tag") or _DEFAULT_TAG, subject)
        forwarder = partial(Journald, subject, tag, attrs)
    return LogPlan(
        spool=directory / SPOOL,
        log=log_path(driver, options, directory, subject.id),
        limits=parse_limits(driver, options),
        render=renderer.render,
        forwarder=forwarder,
        buffer=parse_buffer(options),
    )


def _open_syslog(options: Mapping[str, str], tag: str) -> Forwarder:
    from havre.logs.syslog import Syslog, parse_target  # only who uses it pays for it

    return Syslog(parse_target(options), tag)
