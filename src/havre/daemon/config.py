"""The daemon's configuration: dockerd's command line and `daemon.json`, one table for both.

A directive may be given as a flag or in the file, not in both, as with dockerd; lists of registries are no
exception. Directives of dockerd without use here are accepted with a warning in the log. Unknown ones are refused,
as are those that would leave containers or the API less protected than requested (`configrefusals`).

Source: dockerd(8), "Daemon configuration file".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from havre.builds.entitlements import DEFAULT, parse_entitlements
from havre.builds.gcpolicy import GcPolicy, parse_gc_policy
from havre.daemon.configrefusals import REFUSED, check_refused
from havre.errors import InvalidInput
from havre.golang import gojson
from havre.golang.flaghelp import render_flags
from havre.golang.flags import Flag, UsageError, convert, parse
from havre.golang.units import parse_bool, parse_size
from havre.registry.limits import Limits, parse_limits

Kind = Literal["flag", "text", "number", "list", "map", "maps"]

DEFAULT_HOST = "unix:///run/havre.sock"
DEFAULT_FILE = Path("/etc/havre/daemon.json")


@dataclass(frozen=True, slots=True)
class Directive:
    """One directive: its flag, its key in the file, its kind. `used` is False if it has no effect here.

    One without a flag is for the file only.
    """

    flag: str
    key: str
    kind: Kind
    help: str
    short: str = ""
    used: bool = True


def _d(flag: str, kind: Kind, help: str, key: str = "", short: str = "", used: bool = True) -> Directive:
    return Directive(flag, key or flag, kind, help, short, used)


DIRECTIVES = (
    _d("add-runtime", "map", "Register an additional OCI runtime, NAME=PATH", "runtimes"),
    _d("allowed-host", "list", "Host names accepted in requests by TCP, besides the daemon's own", "allowed-hosts"),
    _d("authorization-plugin", "list", "Plugins that authorize every request and response", "authorization-plugins"),
    _d("bip", "text", "Address of the default bridge, with its prefix length"),
    _d("bip6", "text", "IPv6 address of the default bridge, with its prefix length"),
    _d("bridge", "text", "Existing bridge for the default network, or none to disable it", short="b"),
    Directive("", "builder", "map", "Limits of the build cache, and entitlements that builds may request"),
    _d("cdi-spec-dir", "list", "Directories of CDI device specifications", "cdi-spec-dirs"),
    _d("cgroup-parent", "text", "Parent cgroup of all containers"),
    _d("config-file", "text", "Configuration file"),
    _d("data-root", "text", "Root directory of persistent state"),
    _d("debug", "flag", "Enable debug mode", short="D"),
    _d("default-address-pool", "list", "Pool of new networks, base=SUBNET,size=LENGTH", "default-address-pools"),
    _d("default-cgroupns-mode", "text", "Default cgroup namespace of containers, host or private"),
    _d("default-gateway", "text", "Default gateway of containers on the default bridge"),
    _d("default-gateway-v6", "text", "IPv6 default gateway of containers on the default bridge"),
    _d("default-ipc-mode", "text", "Default IPC namespace of containers, private or shareable"),
    _d("default-network-opt", "maps", "Options of new networks, DRIVER=KEY=VALUE", "default-network-opts"),
    _d("default-runtime", "text", "Default OCI runtime"),
    _d("default-shm-size", "text", "Default size of /dev/shm"),
    _d("default-ulimit", "map", "Default ulimits of containers, NAME=SOFT[:HARD]", "default-ulimits"),
    _d("dns", "list", "DNS servers"),
    _d("dns-opt", "list", "DNS options", "dns-opts"),
    _d("dns-search", "list", "DNS search domains"),
    _d("exec-root", "text", "Root directory of run state"),
    _d("experimental", "flag", "Enable experimental features: checkpoints"),
    _d("feature", "map", "Features, NAME=true or false: buildkit and cdi, both on by default", "features"),
    _d("fixed-cidr", "text", "Range of addresses for containers on the default bridge"),
    _d("fixed-cidr-v6", "text", "IPv6 range of addresses for containers on the default bridge"),
    _d("group", "text", "Group of the unix socket", short="G"),
    _d("host", "list", "Sockets to listen on: unix://PATH, tcp://HOST:PORT, fd://", "hosts", "H"),
    _d("host-gateway-ip", "text", "Address for the name host-gateway"),
    _d("http-proxy", "text", "Proxy of the daemon's own HTTP requests, instead of HTTP_PROXY"),
    _d("https-proxy", "text", "Proxy of the daemon's own HTTPS requests, instead of HTTPS_PROXY"),
    _d("icc", "flag", "Allow traffic between containers on the default bridge (--icc=false: by links only)"),
    _d("init", "flag", "Run an init process in containers"),
    _d("init-path", "text", "Program that --init runs"),
    _d("insecure-registry", "list", "Registries reached without TLS or with any certificate", "insecure-registries"),
    _d("ip", "text", "Host address of ports published from the default bridge"),
    _d("ip-forward", "flag", "Enable net.ipv4.ip_forward; --ip-forward=false leaves it unchanged"),
    _d("ip-masq", "flag", "Masquerade traffic of the default bridge with the host's address"),
    _d("ip6tables", "flag", "Use nftables rules for IPv6; otherwise relays serve published ports"),
    _d("iptables", "flag", "Use nftables rules; otherwise relays serve published ports, without NAT"),
    _d("ipv6", "flag", "Enable IPv6 on the default bridge"),
    _d("label", "list", "Labels of the daemon", "labels"),
    _d("live-restore", "flag", "Keep containers running while the daemon is down (always so)"),
    _d("log-driver", "text", "Default log driver"),
    _d("log-level", "text", "debug, info, warn, error, fatal", short="l"),
    _d("log-opt", "map", "Default log options", "log-opts"),
    _d("max-concurrent-downloads", "number", "Layers pulled at once, 3 by default"),
    _d("max-concurrent-uploads", "number", "Layers pushed at once, 2 by default"),
    _d("max-download-attempts", "number", "Attempts of a download that makes no progress, 5 by default"),
    _d("mtu", "number", "MTU of the default bridge"),
    _d("no-proxy", "text", "Hosts, domains and networks reached without a proxy, instead of NO_PROXY"),
    _d("no-new-privileges", "flag", "Prevent processes in containers from gaining privileges, such as by setuid"),
    _d("pidfile", "text", "File for the daemon's PID", short="p"),
    Directive("", "proxies", "map", "http-proxy, https-proxy and no-proxy, in the file"),
    _d("publish-policy", "text", "host: published ports heed the host's firewall; docker: they override it"),
    Directive("", "registry-limits", "map", "Time limits for registries, and size limits of layers"),
    _d("registry-mirror", "list", "Mirrors of Docker Hub", "registry-mirrors"),
    _d("seccomp-profile", "text", "File of the seccomp profile of containers and builds, builtin or unconfined"),
    _d("signature-key", "map", "Public key required to have signed images, NAME=FILE (* for all)", "signature-keys"),
    _d("shutdown-timeout", "number", "Seconds to wait for requests under way when stopping"),
    _d("storage-driver", "text", "erofs, erofs-loop, overlay or copy", short="s"),
    _d("tls", "flag", "Use TLS on TCP sockets; --tls=false allows plain TCP without authentication"),
    _d("tlscacert", "text", "Trust clients with certificates signed by this CA"),
    _d("tlscert", "text", "TLS certificate"),
    _d("tlskey", "text", "TLS key"),
    _d("tlsverify", "flag", "Use TLS and require client certificates"),
    _d("validate", "flag", "Check the configuration and exit"),
    _d("userns-remap", "text", "Run containers in a user namespace: default, USER[:GROUP] or UID[:GID]"),
    _d("userland-proxy-path", "text", "Accepted; the daemon serves published ports itself"),
    _d("userland-proxy", "flag", "Serve published ports by userland sockets where rules cannot"),
    *(_d(name, "flag", "No effect here", used=False) for name in ("ip-forward-no-drop", "raw-logs")),
    *(
        _d(name, "text", "No effect here", used=False)
        for name in (
            "containerd", "containerd-namespace", "containerd-plugins-namespace", "metrics-addr",
            "network-control-plane-mtu", "swarm-default-advertise-addr",
        )
    ),
    *(
        _d(name, "list", "No effect here", key, used=False)
        for name, key in (
            ("allow-nondistributable-artifacts", ""), ("node-generic-resource", "node-generic-resources"),
        )
    ),
    # Known to dockerd and refused here by `configrefusals`: ignoring them would mislead.
    *(_d(name, "flag", "Refused unless false", used=False) for name in ("rootless", "selinux-enabled")),
    *(_d(name, "text", "Refused", used=False) for name in ("api-cors-header", "cpu-rt-period", "cpu-rt-runtime")),
    _d("exec-opt", "list", "Refused but for native.cgroupdriver=cgroupfs", "exec-opts", used=False),
    _d("storage-opt", "list", "Refused", "storage-opts", used=False),
)  # fmt: skip
_BY_KEY = {directive.key: directive for directive in DIRECTIVES}
_BY_FLAG = {directive.flag.replace("-", "_"): directive for directive in DIRECTIVES if directive.flag}
_PFLAG = {"flag": "", "text": "string", "number": "int", "list": "list", "map": "map", "maps": "maps"}
FLAGS = (
    *(Flag(d.flag, d.short, _PFLAG[d.kind], d.help, hidden=not d.used) for d in _BY_FLAG.values()),
    Flag("version", "v", "", "Print the version and quit"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UlimitDefault:
    """A default limit; -1 is unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonConfig:
    """The daemon's settings with their defaults. `tls` None: not given."""

    hosts: tuple[str, ...] = (DEFAULT_HOST,)
    allowed_hosts: tuple[str, ...] = ()
    authorization_plugins: tuple[str, ...] = ()
    tls: bool | None = None
    tlsverify: bool = False
    tlscacert: Path = Path("/etc/havre/ca.pem")
    tlscert: Path = Path("/etc/havre/server-cert.pem")
    tlskey: Path = Path("/etc/havre/server-key.pem")
    data_root: Path = Path("/var/lib/havre")
    exec_root: Path = Path("/run/havre")
    pidfile: Path | None = None
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    group: str = ""
    builder: GcPolicy = field(default_factory=GcPolicy)
    build_entitlements: frozenset[str] = DEFAULT
    bip: str = ""
    bip6: str = ""
    bridge: str = ""
    default_gateway: str = ""
    default_gateway_v6: str = ""
    default_network_opts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    host_gateway_ip: str = ""
    icc: bool = True
    ip: str = ""
    ip_forward: bool = True
    ip_masq: bool = True
    ip6tables: bool = True
    iptables: bool = True
    ipv6: bool = False
    publish_policy: str = "host"
    userland_proxy: bool = True
    userns_remap: str = ""
    mtu: int = 1500
    default_address_pools: tuple[tuple[str, int], ...] = ()
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_opts: tuple[str, ...] = ()
    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    max_concurrent_downloads: int = 0
    max_concurrent_uploads: int = 0
    max_download_attempts: int = 0
    registry_limits: Limits = field(default_factory=Limits)
    default_runtime: str = ""
    runtimes: Mapping[str, str] = field(default_factory=dict)
    storage_driver: str = ""
    log_level: str = "info"
    debug: bool = False
    experimental: bool = False
    default_ulimits: tuple[UlimitDefault, ...] = ()
    default_shm_size: int | None = None  # bytes
    default_ipc_mode: str = ""
    default_cgroupns_mode: str = ""
    no_new_privileges: bool = False
    seccomp_profile: str = ""
    init: bool = False
    init_path: str = ""
    cgroup_parent: str = ""
    log_driver: str = "json-file"
    log_opts: Mapping[str, str] = field(default_factory=dict)
    labels: tuple[str, ...] = ()
    cdi_spec_dirs: tuple[str, ...] = ("/etc/cdi", "/var/run/cdi")
    features: Mapping[str, bool] = field(default_factory=dict)
    signature_keys: Mapping[str, str] = field(default_factory=dict)
    shutdown_timeout: int = 5
    validate: bool = False
    ignored: tuple[str, ...] = ()

    @property
    def pid_path(self) -> Path:
        """The path of the PID file."""
        return self.pidfile or self.exec_root / "havred.pid"


@dataclass(frozen=True, slots=True)
class Invocation:
    """A parsed command line: values by directive key; `wants` is "help" or "version" if requested."""

    values: Mapping[str, Any]
    wants: Literal["", "help", "version"] = ""


def parse_arguments(arguments: Sequence[str]) -> Invocation:
    """The directives of a command line. Unknown flags raise with dockerd's message."""
    try:
        options, words = parse(FLAGS, list(arguments), stop=False, read=_read_flag)
    except UsageError as error:
        raise InvalidInput(str(error), "see havred --help") from None
    if words and not options.given & {"help", "version"}:
        raise InvalidInput(f"unexpected argument: {words[0]}", "havred takes flags alone; see havred --help")
    given = {directive: getattr(options, name) for name, directive in _BY_FLAG.items() if name in options.given}
    values = {directive.key: _gathered(directive, value) for directive, value in given.items()}
    return Invocation(values, "help" if "help" in options.given else "version" if "version" in options.given else "")


def _read_flag(flag: Flag, text: str) -> Any:
    """The value of a flag's text; for a map, a list of the keys and then the value."""
    if flag.kind not in ("map", "maps"):
        return convert(flag, text)
    parts = text.split("=", 1 if flag.kind == "map" else 2)
    if len(parts) != (2 if flag.kind == "map" else 3):
        raise ValueError("expected NAME=VALUE" if flag.kind == "map" else "expected NAME=KEY=VALUE")
    return parts


def _gathered(directive: Directive, value: Any) -> Any:
    """A directive's value from its flag's values; a map is given as a list of entries."""
    if directive.kind == "map":
        return dict(value)
    if directive.kind == "maps":
        maps: dict[str, dict[str, str]] = {}
        for name, key, entry in value:
            maps.setdefault(name, {})[key] = entry
        return maps
    return value


def decode_file(text: str, name: str) -> dict[str, Any]:
    """The values of a configuration file, validated by the table."""
    problem = f"unable to configure the daemon with file {name}"
    decoded = gojson.decode_plain(text, problem) if text.strip() else {}
    decoded = {} if decoded is None else decoded
    if not isinstance(decoded, dict):
        raise InvalidInput(f"{problem}: a JSON object is expected")
    unknown = sorted(decoded.keys() - _BY_KEY.keys())
    if unknown:
        raise InvalidInput(
            f"{problem}: the following directives don't match any configuration option: {', '.join(unknown)}"
        )
    expected: dict[Kind, type | tuple[type, ...]] = {
        "flag": bool,
        "number": int,
        "list": list,
        "map": dict,
        "maps": dict,
        "text": str,
    }
    said = {key: value for key, value in decoded.items() if value is not None}  # null means the default
    for key, value in said.items():
        directive = _BY_KEY[key]
        if not directive.used:
            continue
        is_number = directive.kind != "number" or not isinstance(value, bool)
        if not isinstance(value, expected[directive.kind]) or not is_number:
            raise InvalidInput(f"{problem}: {key}: expected a {directive.kind}, got {json.dumps(value)}")
        of = dict | str if key == "default-address-pools" else str
        if isinstance(value, list) and not all(isinstance(entry, of) for entry in value):
            raise InvalidInput(f"{problem}: {key}: expected a list of strings, got {json.dumps(value)}")
    proxies = _proxies(said.pop("proxies", {}), problem)
    return said | proxies


def _proxies(value: Mapping[str, Any], problem: str) -> dict[str, str]:
    """The object `proxies` of the file, as flag names and values."""
    for key, text in value.items():
        if key not in ("http-proxy", "https-proxy", "no-proxy") or not isinstance(text, str | None):
            raise InvalidInput(f"{problem}: proxies: {key}: expected strings http-proxy, https-proxy, no-proxy")
    return {key: text for key, text in value.items() if text is not None}


def merge(flags: Mapping[str, Any], file: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Combine both; a directive in both raises with dockerd's message."""
    if twice := sorted(flags.keys() & file.keys()):
        shown = ", ".join(f"{key}: (from flag: {flags[key]}, from file: {file[key]})" for key in twice)
        raise InvalidInput(
            f"unable to configure the daemon with file {name}: "
            f"the following directives are specified both as a flag and in the configuration file: {shown}"
        )
    return {**file, **flags}


def load(flags: Mapping[str, Any]) -> DaemonConfig:
    """The configuration of a start or reload. A file named by a flag must exist; the default one need not."""
    named = flags.get("config-file")
    path = Path(named) if named else DEFAULT_FILE
    problem = f"unable to configure the daemon with file {path}"
    try:
        file = decode_file(path.read_text(), str(path))
    except FileNotFoundError:
        if named:
            raise InvalidInput(f"{problem}: no such file") from None
        file = {}
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{problem}: it is not UTF-8") from error
    except OSError as error:
        raise InvalidInput(f"{problem}: {error.strerror}") from error
    given = {key: value for key, value in flags.items() if key != "config-file"}
    return configure(merge(given, file, str(path)))


def configure(values: Mapping[str, Any]) -> DaemonConfig:
    """The configuration from values by key."""
    check_refused(values)
    fields: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if not _BY_KEY[key].used or name in ("live_restore", "config_file", "userland_proxy_path"):
            continue
        convert = _CONVERT.get(name) or _CONVERT_KIND.get(_BY_KEY[key].kind)
        fields[name] = convert(value) if convert else value
    if "builder" in values:
        fields["build_entitlements"] = parse_entitlements(values["builder"])
    ignored = tuple(sorted(key for key in values if not _BY_KEY[key].used and key not in REFUSED))
    config = DaemonConfig(**fields, ignored=ignored)
    if config.log_level not in ("debug", "info", "warn", "error", "fatal"):
        raise InvalidInput(f"invalid logging level: {config.log_level}", "one of debug, info, warn, error, fatal")
    if config.publish_policy not in ("host", "docker"):
        raise InvalidInput(f"invalid publish-policy: {config.publish_policy}", "one of host, docker")
    if not (config.iptables or config.icc):
        raise InvalidInput(
            "You specified --iptables=false with --icc=false. ICC=false uses iptables to function. Please set --icc or "
            "--iptables to true"
        )
    # Only an empty path disables CDI, as the feature flag does.
    if config.cdi_spec_dirs == ("",) or not config.features.get("cdi", True):
        config = replace(config, cdi_spec_dirs=())
    return replace(config, tls=True) if config.tlsverify else config


def _runtimes(value: Mapping[str, Any]) -> dict[str, str]:
    return {name: _runtime_path(name, entry) for name, entry in value.items()}


class _Runtime(msgspec.Struct):
    """An entry of `runtimes`; dockerd also refers to runc by its containerd shim."""

    path: str = ""
    runtime_type: str = msgspec.field(name="runtimeType", default="")
    options: dict[str, Any] = {}


def _runtime_path(name: str, entry: Any) -> str:
    if isinstance(entry, str):  # from the command line
        return entry
    runtime = gojson.convert(entry, _Runtime, f"invalid runtime {name}")
    return runtime.path or str(runtime.options.get("BinaryName") or ("runc" if runtime.runtime_type else name))


def _ulimits(value: Mapping[str, Any]) -> tuple[UlimitDefault, ...]:
    return tuple(_ulimit(name, entry) for name, entry in value.items())


class _Ulimit(msgspec.Struct, rename="pascal"):
    """An entry of `default-ulimits`."""

    soft: int = 0
    hard: int = 0


def _ulimit(name: str, entry: Any) -> UlimitDefault:
    if not isinstance(entry, str):
        limit = gojson.convert(entry, _Ulimit, f"invalid ulimit {name}")
        return UlimitDefault(name=name, soft=limit.soft, hard=limit.hard or limit.soft)
    soft, _, hard = entry.partition(":")
    try:
        return UlimitDefault(name=name, soft=int(soft), hard=int(hard or soft))
    except ValueError:
        raise InvalidInput(f"invalid ulimit {name}={entry}", "expected NAME=SOFT[:HARD]") from None


class _Pool(msgspec.Struct):
    """An entry of `default-address-pools`."""

    base: str = ""
    size: int = 0


def _address_pools(value: Sequence[Any]) -> tuple[tuple[str, int], ...]:
    """Base and size of each pool: `base=10.10.0.0/16,size=24` on the command line, an object in the file."""
    pools = []
    for entry in value:
        problem = f"invalid default address pool: {entry}"
        if isinstance(entry, str):
            entry = dict(part.partition("=")[::2] for part in entry.split(","))
            entry["size"] = int(entry["size"]) if entry.get("size", "").isdecimal() else 0
        pool = gojson.convert(entry, _Pool, problem)
        if not pool.base or pool.size < 1:
            raise InvalidInput(problem, "expected base=SUBNET,size=PREFIX-LENGTH")
        pools.append((pool.base, pool.size))
    return tuple(pools)


def _network_options(value: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    for driver, options in value.items():
        if not isinstance(options, dict | None):
            raise InvalidInput(f"invalid default-network-opts of {driver}: {json.dumps(options)}", "expected an object")
    return {driver: _texts(options or {}) for driver, options in value.items()}


def _features(value: Mapping[str, Any]) -> dict[str, bool]:
    features = {}
    for name, on in value.items():
        try:
            features[name] = on is not None and parse_bool(str(on))
        except ValueError:
            raise InvalidInput(f"invalid feature {name}: {json.dumps(on)}", "expected true or false") from None
    return features


def _texts(value: Mapping[str, Any]) -> dict[str, str]:
    return {name: "" if entry is None else str(entry) for name, entry in value.items()}


def _absolute(path: Any) -> Path:
    """An absolute path, independent of the working directory of other processes."""
    return Path(path).absolute()


def _shm_size(text: str) -> int | None:
    try:
        return parse_size(text) if text else None
    except ValueError as error:
        raise InvalidInput(
            f"unable to configure the daemon: default-shm-size: {error}", "such as 64m or 1.5g"
        ) from None


_CONVERT_KIND: dict[Kind, Callable[[Any], Any]] = {"list": tuple}
_CONVERT: dict[str, Callable[[Any], Any]] = {
    "builder": parse_gc_policy,
    "default_shm_size": _shm_size,
    "registry_limits": parse_limits,
    "features": _features,
    "runtimes": _runtimes,
    "default_address_pools": _address_pools,
    "default_ulimits": _ulimits,
    "default_network_opts": _network_options,
    "log_opts": _texts,
    **dict.fromkeys(("tlscacert", "tlscert", "tlskey", "data_root", "exec_root", "pidfile"), _absolute),
}


def usage(columns: int) -> str:
    """The text of `--help`, for a terminal of `columns`."""
    head = "Usage:  havred [OPTIONS]\n\nA container engine that any Docker client can drive.\n\nOptions:\n"
    return head + render_flags(FLAGS, columns)


def man_page() -> str:
    """havred(8) in roff: the flags, and each one's key in the file."""

    def escaped(text: str) -> str:
        return text.replace("\\", "\\e").replace("-", "\\-")

    lines = [
        '.TH "HAVRED" 8 "" havre "havre manual"',
        ".SH NAME",
        "havred \\- a container engine that any Docker client can drive",
        ".SH SYNOPSIS",
        ".B havred",
        "[OPTIONS]",
        ".SH DESCRIPTION",
        f"A directive is given as a flag or in the JSON file {DEFAULT_FILE}, not in both.",
        "SIGHUP reads the file again. After SIGTERM and SIGINT containers run on; with the host (or after SIGPWR) they",
        "are stopped first.",
        ".SH DIRECTIVES",
    ]
    for directive in sorted(DIRECTIVES, key=lambda each: each.flag or each.key):
        if directive.used:
            head = f"--{directive.flag}" if directive.flag else directive.key
            short = f"-{directive.short}, " if directive.short else ""
            kind = f" \\fI{kind}\\fR" if (kind := _PFLAG[directive.kind]) else ""
            key = f" (in the file: {directive.key})" if directive.flag and directive.key != directive.flag else ""
            lines += [".TP", f"\\fB{escaped(short + head)}\\fR{kind}", escaped(directive.help + key)]
    return "\n".join(lines) + "\n"
