"""The seccomp filter of a container: Docker's default profile as data, and the rendering of any profile.

A profile is Docker's JSON: rules that may depend on granted capabilities, the architecture and the kernel's version.
`render_seccomp` evaluates those conditions and returns the unconditional `linux.seccomp` object of the OCI runtime
specification.

The default denies by default (EPERM) and lists what is allowed. Calls that need a capability are allowed only with that
capability; new user and mount namespaces (`clone` with the flags below, `unshare`, `mount`) need CAP_SYS_ADMIN.
`clone3`
returns ENOSYS, because a filter cannot read the flags behind its pointer, and libcs fall back to `clone`. io_uring is
not
listed, as it bypasses seccomp.

Source: Docker's documentation, "Seccomp security profiles"; OCI runtime specification, "config-linux.md".
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from havre.errors import InvalidInput
from havre.golang import gojson
from havre.golang.gojson import Unsigned

ENOSYS = 38
AF_VSOCK = 40
NEW_NAMESPACES = 0x7E020000  # CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}
PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)  # Linux, ADDR_NO_RANDOMIZE, UNAME26, both, "query"

_ALWAYS = """
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep
    clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3 epoll_create
    epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2
    execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir
    fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork
    fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex
    futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat getcpu getcwd getdents getdents64
    getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid
    getpgrp getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit
    get_robust_list getrusage getsid getsockname getsockopt get_thread_area gettid gettimeofday getuid getuid32
    getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel ioctl io_destroy
    io_getevents io_pgetevents io_pgetevents_time64 ioprio_get ioprio_set io_setup io_submit ipc kill
    landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat
    listen listxattr llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack
    membarrier memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2
    mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
    mq_timedsend_time64 mq_unlink mremap msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
    name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open pidfd_send_signal
    pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 prlimit64
    process_mrelease pselect6 pselect6_time64 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv
    recv recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr rename renameat renameat2
    restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_getaffinity sched_getattr
    sched_getparam sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield
    seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg
    sendto setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid
    setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit
    set_robust_list setsid setsockopt set_thread_area set_tid_address setuid setuid32 setxattr shmat shmctl
    shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair splice stat
    stat64 statfs statfs64 statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill time
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate
    truncate64 ugetrlimit umask uname unlink unlinkat utime utimensat utimensat_time64 utimes vfork vmsplice
    wait4 waitid waitpid write writev
"""

_BY_CAPABILITY = {
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_SYS_ADMIN": "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr"
    " move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2"
    " unshare",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module init_module finit_module",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace",
    "CAP_SYS_RAWIO": "iopl ioperm",
    "CAP_SYS_TIME": "settimeofday stime clock_settime clock_settime64",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYSLOG": "syslog",
    "CAP_BPF": "bpf",
    "CAP_PERFMON": "perf_event_open",
}

_BY_ARCHITECTURE = {
    "ppc64le": "sync_file_range2 swapcontext",
    "arm": "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    "arm64": "arm_fadvise64_64 arm_sync_file_range sync_file_range2 breakpoint cacheflush set_tls",
    "amd64": "arch_prctl modify_ldt",
    "x32": "arch_prctl modify_ldt",
    "x86": "modify_ldt",
    "s390x": "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr",
    "riscv64": "riscv_flush_icache",
}

_ARCHITECTURES: dict[str, tuple[str, tuple[str, ...]]] = {
    # uname -m: name in profiles, architectures of the filter (the native one first)
    "x86_64": ("amd64", ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")),
    "aarch64": ("arm64", ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM")),
    "armv7l": ("arm", ("SCMP_ARCH_ARM",)),
    "ppc64le": ("ppc64le", ("SCMP_ARCH_PPC64LE",)),
    "s390x": ("s390x", ("SCMP_ARCH_S390X", "SCMP_ARCH_S390")),
    "riscv64": ("riscv64", ("SCMP_ARCH_RISCV64",)),
}


def _allow(names: str, **conditions: Any) -> dict[str, Any]:
    return {"names": names.split(), "action": "SCMP_ACT_ALLOW", **conditions}


def _argument(index: int, value: int, op: str) -> list[dict[str, Any]]:
    return [{"index": index, "value": value, "op": op}]


def _default_profile() -> dict[str, Any]:
    no_admin = {"caps": ["CAP_SYS_ADMIN"]}
    s390 = ["s390", "s390x"]
    rules = [
        _allow(_ALWAYS),
        _allow("process_vm_readv process_vm_writev ptrace", includes={"minKernel": "4.8"}),
        _allow("socket", args=_argument(0, AF_VSOCK, "SCMP_CMP_NE")),
        *(_allow("personality", args=_argument(0, value, "SCMP_CMP_EQ")) for value in PERSONALITIES),
        *(_allow(names, includes={"arches": [arch]}) for arch, names in _BY_ARCHITECTURE.items()),
        *(_allow(names, includes={"caps": [cap]}) for cap, names in _BY_CAPABILITY.items()),
        _allow(
            "clone",
            args=_argument(0, NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ"),
            excludes={**no_admin, "arches": s390},
        ),
        _allow(
            "clone",  # on s390 the flags are the second argument
            args=_argument(1, NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ"),
            includes={"arches": s390},
            excludes=no_admin,
        ),
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS, "excludes": no_admin},
    ]
    return {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": rules}


DEFAULT_PROFILE: Mapping[str, Any] = _default_profile()


_PROBLEM = "invalid seccomp profile"


class _Shape(msgspec.Struct, rename="camel", omit_defaults=True):
    """Base of a profile's parts; ignores unknown keys, as Docker does."""


class _Condition(_Shape):
    caps: list[str] | None = None
    arches: list[str] | None = None
    min_kernel: str | None = None


class _Argument(_Shape):
    index: int
    value: Unsigned
    op: str
    value_two: Unsigned = 0


class _Rule(_Shape):
    action: str
    names: list[str] | None = None
    name: str | None = None
    errno_ret: int | None = None
    args: list[_Argument] | None = None
    includes: _Condition | None = None
    excludes: _Condition | None = None


class _ArchMap(_Shape):
    architecture: str
    sub_architectures: list[str] | None = None


class _Profile(_Shape):
    default_action: str
    default_errno_ret: int | None = None
    architectures: list[str] | None = None
    arch_map: list[_ArchMap] | None = None
    flags: list[str] | None = None
    listener_path: str | None = None
    listener_metadata: str | None = None
    syscalls: list[_Rule] | None = None


def render_seccomp(
    profile: Mapping[str, Any], *, capabilities: Collection[str], machine: str, kernel: tuple[int, int]
) -> dict[str, Any]:
    """The `linux.seccomp` object for a process with `capabilities` on `machine` (`uname -m`).

    `profile` is Docker's JSON, decoded. Raises InvalidInput, naming the field, when it is malformed.
    """
    parsed = _read(profile)
    arch, native = _ARCHITECTURES.get(machine, (machine, ()))
    granted = frozenset(capabilities)
    rendered: dict[str, Any] = {
        "defaultAction": parsed.default_action,
        "defaultErrnoRet": parsed.default_errno_ret,
        "architectures": _architectures(parsed, native),
        "flags": parsed.flags,
        "listenerPath": parsed.listener_path,
        "listenerMetadata": parsed.listener_metadata,
    }
    rendered = {key: value for key, value in rendered.items() if value}
    rules = (rule for rule in parsed.syscalls or () if _applies(rule, granted, arch, kernel))
    rendered["syscalls"] = [_render_rule(rule) for rule in rules if rule.names or rule.name]
    return rendered


def parse_profile(text: str | bytes) -> Mapping[str, Any]:
    """Decode Docker's JSON. InvalidInput for a profile that `render_seccomp` would reject."""
    profile: Mapping[str, Any] = gojson.decode_plain(text, "Decoding seccomp profile failed")
    _read(profile)
    return profile


def _read(profile: Any) -> _Profile:
    """The typed profile; contradictions are rejected as in moby's profiles/seccomp. InvalidInput."""
    if not isinstance(profile, Mapping):
        raise InvalidInput(f"{_PROBLEM}: an object is expected")
    parsed = gojson.convert(profile, _Profile, _PROBLEM)
    if parsed.architectures and parsed.arch_map:
        raise _both("architectures", "archMap")
    for rule in parsed.syscalls or ():
        if rule.name and rule.names:
            raise _both("name", "names")
        for condition in (rule.includes, rule.excludes):
            if condition is not None and condition.min_kernel is not None:
                _version(condition.min_kernel)
    return parsed


def _both(one: str, other: str) -> InvalidInput:
    return InvalidInput(
        f"both '{one}' and '{other}' are specified in the seccomp profile, use either '{one}' or '{other}'"
    )


def _architectures(profile: _Profile, native: tuple[str, ...]) -> list[str]:
    if profile.architectures is not None:
        return profile.architectures
    if profile.arch_map is None:
        return list(native)
    for entry in profile.arch_map:
        if native and entry.architecture == native[0]:
            return [entry.architecture, *(entry.sub_architectures or [])]
    return []


def _applies(rule: _Rule, granted: frozenset[str], arch: str, kernel: tuple[int, int]) -> bool:
    includes, excludes = rule.includes or _Condition(), rule.excludes or _Condition()
    return (
        granted.issuperset(includes.caps or ())
        and granted.isdisjoint(excludes.caps or ())
        and (not includes.arches or arch in includes.arches)
        and arch not in (excludes.arches or ())
        and (includes.min_kernel is None or kernel >= _version(includes.min_kernel))
        and (excludes.min_kernel is None or kernel < _version(excludes.min_kernel))
    )


def _version(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d{1,4})\.(\d{1,4})", text, re.ASCII)
    if match is None:
        raise InvalidInput(f"{_PROBLEM}: minKernel {text!r} is not of the form 4.8")
    return int(match[1]), int(match[2])


def _render_rule(rule: _Rule) -> dict[str, Any]:
    rendered: dict[str, Any] = {"names": rule.names or [rule.name], "action": rule.action}
    if rule.errno_ret is not None:
        rendered["errnoRet"] = rule.errno_ret
    if rule.args:
        rendered["args"] = [msgspec.to_builtins(argument) for argument in rule.args]
    return rendered
