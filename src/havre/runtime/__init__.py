"""One container's processes: the OCI specification, conmon, the OCI runtime, exec."""

from havre.runtime.devices import read_devices
from havre.runtime.exec import ExecProcess
from havre.runtime.fanout import Fanout, Subscription
from havre.runtime.monitor import Runtime
from havre.runtime.plan import ContainerPlan, ExecPlan, Exit
from havre.runtime.process import Process
from havre.runtime.users import check_accounts, resolve_user
from havre.runtime.versions import Release

__all__ = [
    "ContainerPlan",
    "ExecPlan",
    "ExecProcess",
    "Exit",
    "Fanout",
    "Process",
    "Release",
    "Runtime",
    "Subscription",
    "check_accounts",
    "read_devices",
    "resolve_user",
]
