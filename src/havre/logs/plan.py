"""Plans where a container's log goes, from its driver and options. Pure, except for the forwarders' constructors.

json-file        SPOOL --> ID-json.log, Docker's format
local            SPOOL --> container.log, conmon's format, lines reassembled
none             nothing: conmon writes no file
all others       SPOOL --> container-cached.log (unless cache-disabled), and the server
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from havre.logs.jsonfile import JSON, json_renderer
from havre.logs.options import REMOTE, keeps_file, parse_buffer, parse_limits
from havre.logs.records import PLAIN, PLAIN_RENDERER, Form
from havre.logs.spool import Forwarder, LogPlan
from havre.logs.subject import DEFAULT_TAG, Subject, plan_attrs, render_tag

SPOOL = "ctr.log"


def log_path(driver: str, options: Mapping[str, str], directory: Path, container_id: str) -> Path | None:
    """The file read by `logs`; None without one."""
    if not keeps_file(driver, options):
        return None
    names = {"json-file": f"{container_id}-json.log", "local": "container.log"}
    return directory / names.get(driver, "container-cached.log")


def form_of(driver: str) -> Form:
    """The format of that file."""
    return JSON if driver == "json-file" else PLAIN


def plan_log(driver: str, options: Mapping[str, str], directory: Path, subject: Subject) -> LogPlan:
    """The plan of a log, for any driver but `none`. InvalidInput for an invalid tag or pattern."""
    attrs = plan_attrs(options, subject)
    log = log_path(driver, options, directory, subject.id)
    renderer = PLAIN_RENDERER
    forwarder: Callable[[], Forwarder] | None = None
    if driver == "json-file":
        if options.get("tag"):
            attrs["tag"] = render_tag(options["tag"], subject, options, str(log))
        renderer = json_renderer(attrs)
    elif driver in REMOTE:
        tag = render_tag(options.get("tag") or DEFAULT_TAG, subject, options)
        forwarder = partial(_open_forwarder, driver, options, subject, tag, attrs)
    return LogPlan(
        spool=directory / SPOOL,
        log=log,
        limits=parse_limits(driver, options),
        render=renderer.render,
        forwarder=forwarder,
        buffer=parse_buffer(options),
    )


def _open_forwarder(
    driver: str, options: Mapping[str, str], subject: Subject, tag: str, attrs: Mapping[str, str]
) -> Forwarder:
    # Imported late: only containers with these drivers need them.
    if driver == "syslog":
        from havre.logs.syslog import Syslog, parse_target

        return Syslog(parse_target(options), tag)
    if driver == "gelf":
        from havre.logs.gelf import Gelf, parse_gelf

        return Gelf(parse_gelf(options), subject, tag, attrs)
    if driver == "fluentd":
        from havre.logs.fluentd import Fluentd, parse_fluentd

        return Fluentd(parse_fluentd(options), subject, tag, attrs)
    from havre.logs.journald import Journald

    return Journald(subject, tag, attrs)
