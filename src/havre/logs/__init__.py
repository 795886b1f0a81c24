"""Containers' logs: from the file that conmon writes to the readers of `logs`, or to a log server.

    options  drivers, their options, tags and attributes        records   conmon's records, lines reassembled
    spool    moves records, safe against any kill               jsonfile  Docker's format on disk
    files    names and rotation                                 gap       the part of a spool that is dropped
    keeper   one container's log while it runs                  reading   selection, tail, follow
    syslog, journald, gelf, fluentd   forwarders                delivery  their connections

The room uses log files and sockets of log servers; facts about containers are passed to it.
"""

from havre.logs.keeper import Keeper
from havre.logs.options import DEFAULT_DRIVER, check_driver
from havre.logs.plan import form_of, log_path, plan_log
from havre.logs.reading import LogOptions
from havre.logs.records import LogChunk
from havre.logs.subject import Subject

__all__ = [
    "DEFAULT_DRIVER",
    "Keeper",
    "LogChunk",
    "LogOptions",
    "Subject",
    "check_driver",
    "form_of",
    "log_path",
    "plan_log",
]
