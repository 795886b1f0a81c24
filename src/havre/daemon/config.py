"""The daemon's configuration, from the command line and `daemon.json`.

A directive may be given as a flag or in the file, not in both, as with dockerd; lists of registries are no
exception. `directives` lists them all. Those of dockerd without use here are accepted with a warning in the log.
Unknown ones are refused, as are those that would leave containers or the API less protected than requested
(`configrefusals`).

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
from havre.builds.history import HistoryLimits, parse_history_limits
from havre.containers.life.control import DEFAULT_TIMEOUT_S
from havre.daemon.configrefusals import REFUSED, check_refused
from havre.daemon.directives import BY_FLAG, BY_KEY, DEFAULT_FILE, FLAGS, Directive, Kind
from havre.errors import InvalidInput
from havre.golang import gojson
from havre.golang.flags import Flag, UsageError, convert, parse
from havre.golang.ulimits import parse_ulimit
from havre.golang.units import parse_bool, parse_size
from havre.registry.limits import Limits, parse_limits

DEFAULT_HOST = "unix:///run/havre.sock"


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
    build_history: HistoryLimits = field(default_factory=HistoryLimits)
    bip: str = ""
    bip6: str = ""
    bridge: str = ""
    default_gateway: str = ""
    default_gateway_v6: str = ""
    default_network_opts: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    host_gateway_ips: tuple[str, ...] = ()
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
    default_stop_timeout: int = DEFAULT_TIMEOUT_S
    min_api_version: str = ""
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
    given = {directive: getattr(options, name) for name, directive in BY_FLAG.items() if name in options.given}
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
    unknown = sorted(decoded.keys() - BY_KEY.keys())
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
        directive = BY_KEY[key]
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
    values = _renamed(values)
    fields: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if not BY_KEY[key].used or name in _WITHOUT_FIELD:
            continue
        convert = _CONVERT.get(name) or _CONVERT_KIND.get(BY_KEY[key].kind)
        fields[name] = convert(value) if convert else value
    if "builder" in values:
        fields["build_entitlements"] = parse_entitlements(values["builder"])
        fields["build_history"] = parse_history_limits(values["builder"])
    ignored = tuple(sorted(key for key in values if not BY_KEY[key].used and key not in REFUSED))
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


def _renamed(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Values by today's keys: `host-gateway-ip` of the file, one address, became `host-gateway-ips`."""
    if "host-gateway-ip" not in values:
        return values
    if "host-gateway-ips" in values:
        raise InvalidInput("host-gateway-ip and host-gateway-ips are one directive", "give host-gateway-ips alone")
    one = values["host-gateway-ip"]
    return {**values, "host-gateway-ips": [one] if one else []}


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
    try:
        _, soft, hard = parse_ulimit(f"{name}={entry}")
    except ValueError as error:
        raise InvalidInput(f"invalid ulimit {name}={entry}: {error}", "expected NAME=SOFT[:HARD]") from None
    return UlimitDefault(name=name, soft=soft, hard=hard)


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


_WITHOUT_FIELD = ("live_restore", "config_file", "userland_proxy_path", "host_gateway_ip", "firewall_backend")
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
