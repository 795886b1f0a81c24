"""The OCI runtimes of this host: which exist, which is the default and why, and how each is called.

crun is preferred: it creates a container in a third of runc's time. On hosts with the hybrid cgroup layout crun refuses
to create ("cgroups in hybrid mode not supported") because it sees the v2 tree. There, `create` runs behind a prefix
that
hides that tree:

    perl -e CODE crun create ...        new mount namespace, propagation unchanged (rshared binds still reach the host)
                                        a tmpfs over /sys/fs/cgroup/unified, which is made private first; exec crun

Unmounting the tree would work as well, but crun would create the container's group there nevertheless, as plain files
in
the directory underneath: a hidden leak. The tmpfs is freed with the namespace.

crun has a race on a terminal's initial size: `exec` starts the process before it sets the size, so that one quick
`stty size` in fifty reports 0 0 on a busy machine. With real-time priority crun wins the race, as it preempts normal
processes at once (its children have normal priority: reset on fork):

    chrt -R -f 1 crun exec ...          where permitted; 0 of 240 lost, compared with 41 of 240 without

Two operations of crun are done without a process, as each costs as much as running a small container:

    start     one byte into STATE/ID/exec.fifo, which the created process reads; then the FIFO is removed (`release`)
    delete    of an ended container: removes its empty cgroups, and the directory STATE/ID with the bundle (`forget`)

crun is called for containers with OCI hooks (of CDI devices), which only the runtime runs, for a FIFO without a reader,
and for a process that may still run.

crun sets the container's rlimits on itself and then continues: with a cgroup tree for each controller it has up to 30
files open, so that `--ulimit nofile=20` makes it fail. Such containers use runc, which sets limits last.

perl-base is essential on Debian and Ubuntu, needs no compiled helper, and starts in 2 ms where Python needs 12; chrt is
in util-linux, essential too. Probes at start-up create nothing: they check whether crun behind the first prefix detects
v1 (`plan_default`), else runc is the default, and whether real-time priority is permitted.
"""

from __future__ import annotations

import logging
import os
import platform
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from havre.errors import InvalidInput, Unavailable
from havre.linux.cgroups import Layout
from havre.runtime import messages, spawn
from havre.runtime.plan import ContainerPlan

log = logging.getLogger(__name__)

KNOWN = ("crun", "runc")
RUNC_SHIMS = ("io.containerd.runc.v1", "io.containerd.runc.v2")
LEAST_FILES = 64
PERL = "/usr/bin/perl"
FIRST = ("/usr/bin/chrt", "-R", "-f", "1")

_UNIFIED = "/sys/fs/cgroup/unified"
_SYSCALLS = {"x86_64": (272, 165), "aarch64": (97, 40), "riscv64": (97, 40), "ppc64le": (282, 21)}  # unshare, mount
_HIDE_UNIFIED = (
    "my($t,$u)=('tmpfs','/sys/fs/cgroup/unified');"
    "syscall({unshare},0x20000)==0 or die qq(unshare: $!\n);"  # CLONE_NEWNS
    "syscall({mount},$t,$u,0,0x40000,0)==0 or die qq(make private: $!\n);"  # MS_PRIVATE
    "syscall({mount},$t,$u,$t,14,0)==0 or die qq(mount: $!\n);"  # MS_NOSUID | MS_NODEV | MS_NOEXEC
    "exec{{$ARGV[0]}}@ARGV;die qq(exec: $!\n)"
)


@dataclass(frozen=True)
class OciRuntime:
    """One OCI runtime: program, state directory, prefixes of `create` and of `exec` with a tty."""

    name: str
    program: Path
    state: Path
    create_prefix: tuple[str, ...] = ()
    terminal_prefix: tuple[str, ...] = ()

    def command(self, *args: str) -> list[str]:
        """The command line for every verb but `create`."""
        return [str(self.program), *self.options(), *args]

    def options(self) -> list[str]:
        """The options before the verb."""
        return [f"--root={self.state}"]

    def for_create(self) -> list[str]:
        """Program and options, to be followed by `create`."""
        return [*self.create_prefix, *self.command()]

    def for_exec(self, *, tty: bool) -> list[str]:
        """Program and options, to be followed by `exec`."""
        return [*(self.terminal_prefix if tty else ()), *self.command()]

    def release(self, container_id: str) -> bool:
        """Start a created process, as `crun start` does (crun's status.c). False when only the runtime can do it."""
        if self.program.name != "crun":
            return False
        fifo = self.state / container_id / "exec.fifo"
        try:
            writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # ENOENT, ENXIO: let the runtime report the reason
            return False
        try:
            os.write(writer, b"\0")
            # After the byte: if the daemon were killed in between, the container would count as never started.
            fifo.unlink()
        finally:
            os.close(writer)
        return True

    def holds_back(self, container_id: str) -> bool:
        """Report whether a container may not have been started yet: until then crun and runc keep its FIFO."""
        return self.program.name not in KNOWN or (self.state / container_id / "exec.fifo").exists()

    def forget(self, container_id: str, bundle: Path) -> None:
        """Remove the runtime's state of a container whose processes and cgroups are gone, with its bundle."""
        (self.state / container_id).rename(bundle / f"state-{self.name}")


class AbsentRuntime(OciRuntime):
    """A runtime whose program is missing, or was removed from the configuration while a container used it."""

    def command(self, *args: str) -> list[str]:
        """Raise Unavailable."""
        raise Unavailable(f"the OCI runtime {self.name} is not installed", "install or configure it again")


@dataclass(frozen=True)
class Runtimes:
    """All runtimes by name, the default's name, and the reason why it is the default."""

    all: Mapping[str, OciRuntime]
    default: str
    reason: str

    def get(self, name: str) -> OciRuntime:
        """The runtime of that name, the default for "". InvalidInput when there is none."""
        return self.all[known_name(name, self.all) or self.default]

    def fitting(self, plan: ContainerPlan) -> OciRuntime:
        """The runtime that the plan names; runc where crun's open files exceed the rlimit (see above). InvalidInput."""
        runtime = self.get(plan.runtime)
        if isinstance(runtime, AbsentRuntime):
            raise messages.create_failed(runtime.name, f"exec {runtime.program}: no such file or directory")
        few = [limit for limit in plan.rlimits if limit.name == "nofile" and 0 <= limit.soft < LEAST_FILES]
        if not few or runtime.program.name != "crun":
            return runtime
        if "runc" not in self.all:
            asked = f"nofile={few[0].soft}:{few[0].hard}"
            raise InvalidInput(
                f"ulimit {asked}: crun needs {LEAST_FILES} open files to set a container up",
                "allow more, or install the package runc, which needs fewer",
            )
        return self.all["runc"]


def known_name(name: str, known: Collection[str]) -> str:
    """The runtime among `known` that a request names; "" is the default. InvalidInput for any other.

    dockerd also accepts the names of containerd's shims for runc; other shims are not OCI runtimes.
    """
    meant = "runc" if name in RUNC_SHIMS else name
    if meant and meant not in known:
        possible = ", ".join(sorted(known))
        if name.startswith("io.containerd."):
            raise InvalidInput(
                f"unknown or invalid runtime name: {name}: containerd's shims are not supported, OCI runtimes are; "
                f"possible are {possible}, and any other configured as in --add-runtime kata=/usr/bin/kata-runtime"
            )
        raise InvalidInput(f"unknown or invalid runtime name: {name}", f"known are {possible}")
    return meant


async def find_runtimes(run_root: Path, binaries: Mapping[str, str], default: str | None, layout: Layout) -> Runtimes:
    """The runtimes on PATH and those configured (`binaries`, name to program); Unavailable when there is none."""
    found: dict[str, OciRuntime] = {}
    for name, program in {**{name: name for name in KNOWN}, **binaries}.items():
        path = shutil.which(program, path=spawn.ENVIRONMENT["PATH"])
        if path:
            found[name] = OciRuntime(name, Path(path), run_root / "oci" / name)
        elif name in binaries:
            log.warning("the program of runtime %s is missing: %s; its containers cannot start", name, program)
            found[name] = AbsentRuntime(name, Path(program), run_root / "oci" / name)
    hindrance = ""
    if layout == "hybrid" and "crun" in found:
        prefix = hybrid_prefix(platform.machine())
        hindrance = await _try_prefix(prefix)
        if not hindrance:
            found["crun"] = replace(found["crun"], create_prefix=prefix)
    if "crun" in found and await _may_be_first():
        found["crun"] = replace(found["crun"], terminal_prefix=FIRST)
    present = [name for name, runtime in found.items() if not isinstance(runtime, AbsentRuntime)]
    name, reason = plan_default(present, default, layout, hindrance)
    return Runtimes(found, name, reason)


def plan_default(found: list[str], wanted: str | None, layout: Layout, hindrance: str) -> tuple[str, str]:
    """The default runtime and why; `hindrance` says why crun cannot create on a hybrid host ("" when it can)."""
    if wanted:
        if wanted not in found:
            raise InvalidInput(f"the default runtime {wanted} is not installed", f"found: {', '.join(found) or 'none'}")
        return wanted, f"{wanted}, as configured"
    if "crun" in found and not hindrance:
        how = "; the v2 tree is hidden from it, as cgroups are hybrid" if layout == "hybrid" else ""
        return "crun", f"crun, the fastest that is installed{how}"
    if "runc" in found:
        why = f"crun cannot create on hybrid cgroups: {hindrance}" if "crun" in found else "crun is not installed"
        return "runc", f"runc, as {why}"
    if found and not hindrance:
        return found[0], f"{found[0]}, the only one"
    raise Unavailable("no OCI runtime is installed", "install the package crun or runc")


def hybrid_prefix(machine: str) -> tuple[str, ...]:
    """The command prefix that hides the v2 tree; () for an architecture whose system call numbers are unknown."""
    if machine not in _SYSCALLS:
        return ()
    unshare, mount = _SYSCALLS[machine]
    return PERL, "-e", _HIDE_UNIFIED.format(unshare=unshare, mount=mount)


async def _try_prefix(prefix: tuple[str, ...]) -> str:
    """Why the prefix does not work here; "" when it does."""
    if not prefix or not Path(PERL).exists():
        return f"{PERL} is needed to hide the v2 tree"
    result = await spawn.run([*prefix, "/bin/ls", _UNIFIED])
    if result.code != 0:
        return result.stderr.strip() or f"status {result.code}"
    return "" if not result.stdout.strip() else "the v2 tree cannot be hidden"


async def _may_be_first() -> bool:
    """Report whether real-time priority is permitted: not with RT group scheduling outside the root group
    (sched(7))."""
    return Path(FIRST[0]).exists() and (await spawn.run([*FIRST, "/bin/true"])).code == 0
