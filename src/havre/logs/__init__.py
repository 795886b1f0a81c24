"""The logs of containers: from the file that conmon writes to what users read, or to a log server.

    options   drivers, their options, tags and attributes       records   conmon's records, lines made whole
    spool     moving records on, safe against every kill         jsonfile  Docker's form on disk
    files     names and rotation                                 gap       what is dropped of a spool
    keeper    one container's log while it runs                  reading   selecting, the last lines, following
    syslog, journald, gelf, fluentd   forwarders                 delivery  their connections

The room touches the files of logs and sockets of log servers; it knows nothing of containers but what it is told.
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
