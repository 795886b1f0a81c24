"""The keys of a Compose file, in docker compose's order.

One table yields the validation, the canonical model, the output of `config` and the text that is hashed. Keys that no
engine supports (swarm's) are preserved and printed, as docker does.

Source: the Compose specification's schema; for order and output, docker compose's own output.
"""

from __future__ import annotations

import re
from typing import Any

from havre.compose.composites import Key, ListOf, MapOf, Struct
from havre.compose.kinds import (
    JSON,
    YAML,
    AnyText,
    Anything,
    Boolean,
    Choice,
    Command,
    Count,
    Duration,
    Fraction,
    HealthTest,
    Hosts,
    Integer,
    Kind,
    Loose,
    LooseTexts,
    Number,
    Pairs,
    PullPolicy,
    Repeated,
    Size,
    Strict,
    Switch,
    TextOrTexts,
    Texts,
    Unsaid,
    Unwritten,
)

_NAME = re.compile(r"[a-zA-Z0-9._-]+$")


def _name_problem(name: str) -> str | None:
    return None if _NAME.match(name) else "a name has letters, digits, and . _ - only"


_TEXT, _BOOLEAN, _INTEGER, _SIZE, _TEXTS, _DURATION = Kind(), Boolean(), Integer(), Size(), Texts(), Duration()
_LABELS, _MAPPING, _VARIABLES = Pairs(), Pairs(), Pairs(nothing=None)
_OPTIONS = Pairs(lists=False, values=(str, int, float, type(None)))


class _Ulimit(Struct):
    """One number, or a soft and a hard one."""

    def read(self, value: Any) -> Any:
        return super().read(value) if isinstance(value, dict) else int(value)

    def dump(self, value: Any, form: str) -> Any:
        if isinstance(value, int) and value:
            return value
        value = value or {}
        both = {"soft": value.get("soft", 0), "hard": value.get("hard", 0)}
        return both if form == YAML else {name: number for name, number in both.items() if number}


class _EnvFile(Struct):
    """A file of variables: only its path where it is required."""

    def dump(self, value: Any, form: str) -> Any:
        if value.get("required"):
            return value["path"]
        return super().dump(value, form) if form == JSON else {"path": value["path"], "required": False}


class _SshKeys(Pairs):
    """Agents and keys for a build, as `ID: PATH`."""

    def dump(self, value: Any, form: str) -> Any:
        return [f"{name}: {path}" if path else name for name, path in sorted(value.items())]


class _External(Kind):
    """true, false, or the old form with a name."""

    expected = "true or false"
    takes = (bool, str, dict)

    def read(self, value: Any) -> Any:
        return True if isinstance(value, dict) else Boolean().read(value)

    def absent(self, value: Any, form: str) -> bool:
        return not value


def _keys(names: str, kind: Kind, *, pointer: bool = False) -> list[Key]:
    return [Key(name, kind, pointer=pointer) for name in names.split()]


_ULIMITS = MapOf(_Ulimit("a ulimit", _keys("soft hard", _INTEGER), short=Integer(), required=("soft", "hard")))
_FILE_MOUNT = Struct(
    "a mounted file", [*_keys("source target uid gid", _TEXT), Key("mode", Number(), pointer=True)], short=_TEXT
)
_COMMAND, _AS = (
    Key("command", Command(), always=JSON),
    [
        Key("user", _TEXT),
        Key("privileged", _BOOLEAN),
        Key("working_dir", _TEXT),
        Key("environment", _VARIABLES),
    ],
)
_HOOK = Struct("a hook", [_COMMAND, *_AS])
_PRE_START = Struct("a pre_start hook", [_COMMAND, Key("image", _TEXT), *_AS, Key("per_replica", _BOOLEAN)])
_BUILD = Struct(
    "build",
    [
        *_keys("context dockerfile dockerfile_inline", _TEXT),
        Key("entitlements", _TEXTS),
        Key("args", _VARIABLES),
        *_keys("provenance sbom", Switch()),
        Key("ssh", _SshKeys()),
        Key("labels", _LABELS),
        *_keys("cache_from cache_to", _TEXTS),
        Key("no_cache", _BOOLEAN),
        Key("no_cache_filter", TextOrTexts()),
        Key("additional_contexts", _MAPPING),
        Key("pull", _BOOLEAN),
        Key("extra_hosts", Hosts()),
        *_keys("isolation network target", _TEXT),
        Key("secrets", ListOf(_FILE_MOUNT)),
        Key("shm_size", _SIZE),
        Key("tags", _TEXTS),
        Key("ulimits", _ULIMITS),
        Key("platforms", _TEXTS),
        Key("privileged", _BOOLEAN),
    ],
    short=_TEXT,
)
_WATCH = Struct(
    "a watch rule",
    [
        Key("path", _TEXT, always=JSON + YAML),
        Key("action", Choice(("rebuild", "sync", "restart", "sync+restart", "sync+exec")), always=JSON + YAML),
        Key("target", _TEXT),
        Key("exec", _HOOK),
        *_keys("include ignore", _TEXTS),
        Key("initial_sync", _BOOLEAN),
    ],
    required=("path", "action"),
)
_WEIGHT = Struct(
    "a device's weight",
    [
        Key("path", _TEXT, always=JSON + YAML, json_name="Path"),
        Key("weight", _INTEGER, JSON + YAML, json_name="Weight"),
    ],
    extensible=False,
)
_RATE = Struct(
    "a device's rate",
    [Key("path", _TEXT, always=JSON + YAML, json_name="Path"), Key("rate", _SIZE, JSON + YAML, json_name="Rate")],
    extensible=False,
)
_BLKIO = Struct(
    "blkio_config",
    [
        Key("weight", _INTEGER),
        Key("weight_device", ListOf(_WEIGHT)),
        *_keys("device_read_bps device_read_iops device_write_bps device_write_iops", ListOf(_RATE)),
    ],
    extensible=False,
)
_DEVICE_REQUEST = Struct(
    "a device request",
    [Key("capabilities", _TEXTS), Key("driver", _TEXT), Key("count", Count()), Key("device_ids", _TEXTS),
     Key("options", _MAPPING)],
    required=("capabilities",),
)  # fmt: skip
_GPU = Struct("a GPU request", _DEVICE_REQUEST.keys)
_DISCRETE = Struct(
    "discrete_resource_spec", [Key("kind", _TEXT, always=JSON + YAML), Key("value", Number(), always=JSON + YAML)]
)
_LIMITS = Struct("limits", [Key("cpus", Fraction()), Key("memory", Size()), Key("pids", _INTEGER)])
_RESERVATIONS = Struct(
    "reservations",
    [
        Key("cpus", Fraction()),
        Key("memory", Size()),
        Key("devices", ListOf(_DEVICE_REQUEST)),
        Key(
            "generic_resources",
            ListOf(Struct("a generic resource", [Key("discrete_resource_spec", _DISCRETE, pointer=True)])),
        ),
    ],
)
_RESOURCES = Struct(
    "resources", [Key("limits", _LIMITS, pointer=True), Key("reservations", _RESERVATIONS, pointer=True)]
)
_UPDATE = Struct(
    "update_config",
    [
        Key("parallelism", _INTEGER, pointer=True),
        Key("delay", _DURATION),
        Key("failure_action", _TEXT),
        Key("monitor", _DURATION),
        Key("max_failure_ratio", Fraction()),
        Key("order", Choice(("start-first", "stop-first"))),
    ],
)
_DEPLOY = Struct(
    "deploy",
    [
        Key("mode", _TEXT),
        Key("replicas", _INTEGER, pointer=True),
        Key("labels", _LABELS),
        *_keys("update_config rollback_config", _UPDATE, pointer=True),
        Key("resources", _RESOURCES),
        Key(
            "restart_policy",
            Struct(
                "restart_policy",
                [Key("condition", _TEXT), Key("delay", _DURATION, pointer=True),
                 Key("max_attempts", _INTEGER, pointer=True), Key("window", _DURATION, pointer=True)],
            ),
            pointer=True,
        ),
        Key(
            "placement",
            Struct(
                "placement",
                [Key("constraints", _TEXTS), Key("preferences", ListOf(Struct("a preference", [Key("spread", _TEXT)]))),
                 Key("max_replicas_per_node", _INTEGER)],
            ),
        ),
        Key("endpoint_mode", _TEXT),
    ],
    null=True,
)  # fmt: skip
_HEALTHCHECK = Struct(
    "healthcheck",
    [
        Key("test", HealthTest()),
        *_keys("timeout interval", _DURATION, pointer=True),
        Key("retries", Number(), pointer=True),
        *_keys("start_period start_interval", _DURATION, pointer=True),
        Key("disable", _BOOLEAN),
    ],
)
_DEPENDENCY = Struct(
    "a dependency",
    [
        Key("condition", Choice(("service_started", "service_healthy", "service_completed_successfully"))),
        Key("restart", _BOOLEAN),
        Key("required", Strict(), always=JSON + YAML),
    ],
    required=("condition",),
)
_ENDPOINT = Struct(
    "a service's network",
    [
        *_keys("priority gw_priority", Number()),
        Key("aliases", _TEXTS),
        *_keys("ipv4_address ipv6_address", _TEXT),
        Key("link_local_ips", _TEXTS),
        *_keys("mac_address interface_name", _TEXT),
        Key("driver_opts", _OPTIONS),
    ],
    null=True,
)
_PORT = Struct(
    "a port",
    [
        *_keys("name mode host_ip", _TEXT),
        Key("target", _INTEGER),
        Key("published", Loose()),
        *_keys("protocol app_protocol", _TEXT),
    ],
    short=Loose(),
)
_VOLUME_MOUNT = Struct(
    "a mount",
    [
        *_keys("type source target", _TEXT),
        Key("read_only", _BOOLEAN),
        Key("consistency", _TEXT),
        Key(
            "bind",
            Struct(
                "bind",
                [Key("selinux", Choice(("z", "Z"))), Key("propagation", _TEXT), Key("create_host_path", _BOOLEAN),
                 Key("recursive", Choice(("enabled", "disabled", "writable", "readonly")))],
            ),
            pointer=True,
        ),
        Key(
            "volume",
            Struct("volume", [Key("labels", _LABELS), Key("nocopy", _BOOLEAN), Key("subpath", _TEXT)]),
            pointer=True,
        ),
        Key("tmpfs", Struct("tmpfs", [Key("size", _SIZE), Key("mode", Number())]), pointer=True),
        Key("image", Struct("image", [Key("subpath", _TEXT)]), pointer=True),
    ],
    short=_TEXT,
    required=("type",),
)  # fmt: skip
_DEVICE = Struct("a device", _keys("source target permissions", _TEXT), short=_TEXT, required=("source",))
_ENV_FILE = _EnvFile(
    "an env_file",
    [Key("path", _TEXT), Key("required", _BOOLEAN, always=JSON + YAML), Key("format", _TEXT)],
    short=_TEXT,
    required=("path",),
    extensible=False,
)

_MODEL_USE = Struct("a service's model", _keys("endpoint_var model_var", _TEXT), null=True)

_PROVIDER = Struct("provider", [Key("type", _TEXT), Key("options", MapOf(Repeated()))], required=("type",))

SERVICE = Struct(
    "a service",
    [
        Key("profiles", _TEXTS),
        Key("annotations", _MAPPING),
        Key("attach", _BOOLEAN, pointer=True),
        Key("build", _BUILD, pointer=True),
        Key("develop", Struct("develop", [Key("watch", ListOf(_WATCH))], null=True), pointer=True),
        Key("blkio_config", _BLKIO, pointer=True),
        *_keys("cap_add cap_drop", _TEXTS),
        Key("cgroup_parent", _TEXT),
        Key("cgroup", Choice(("host", "private"))),
        Key("cpu_count", _INTEGER),
        Key("cpu_percent", Fraction()),
        *_keys("cpu_period cpu_quota cpu_rt_period cpu_rt_runtime", Number()),
        Key("cpus", Fraction()),
        Key("cpuset", _TEXT),
        Key("cpu_shares", Number()),
        Key("command", Command(), always=JSON),
        Key("configs", ListOf(_FILE_MOUNT)),
        Key("container_name", _TEXT),
        Key(
            "credential_spec", Struct("credential_spec", _keys("config file registry", _TEXT)), pointer=True
        ),
        Key("depends_on", MapOf(_DEPENDENCY, _name_problem, short=_TEXTS)),
        Key("deploy", _DEPLOY, pointer=True),
        Key("device_cgroup_rules", _TEXTS),
        Key("devices", ListOf(_DEVICE)),
        Key("dns", TextOrTexts()),
        Key("dns_opt", _TEXTS),
        Key("dns_search", TextOrTexts()),
        Key("domainname", _TEXT),
        Key("entrypoint", Command(), always=JSON),
        Key("provider", _PROVIDER, pointer=True),
        Key("environment", _VARIABLES),
        Key("env_file", ListOf(_ENV_FILE, short=_TEXT)),
        Key("expose", LooseTexts()),
        Key("extends", Struct("extends", _keys("file service", _TEXT), short=_TEXT, required=("service",),
                              extensible=False), pointer=True),
        Key("external_links", _TEXTS),
        Key("extra_hosts", Hosts()),
        Key("group_add", LooseTexts()),
        Key("gpus", ListOf(_GPU, short=Choice(("all",)))),
        Key("hostname", _TEXT),
        Key("healthcheck", _HEALTHCHECK, pointer=True),
        Key("image", _TEXT),
        Key("init", _BOOLEAN, pointer=True),
        *_keys("ipc isolation", _TEXT),
        Key("labels", _LABELS),
        Key("label_file", TextOrTexts()),
        Key("links", _TEXTS),
        Key("logging", Struct("logging", [Key("driver", _TEXT), Key("options", _OPTIONS)]), pointer=True),
        *_keys("mem_limit mem_reservation memswap_limit mem_swappiness", _SIZE),
        Key("mac_address", _TEXT),
        Key("models", MapOf(_MODEL_USE, _name_problem, short=_TEXTS, keep_null=True)),
        Key("network_mode", _TEXT),
        Key("networks", MapOf(_ENDPOINT, _name_problem, short=_TEXTS, keep_null=True)),
        Key("oom_kill_disable", _BOOLEAN),
        Key("oom_score_adj", _INTEGER),
        Key("pid", AnyText()),
        Key("pids_limit", Number()),
        Key("platform", _TEXT),
        Key("ports", ListOf(_PORT)),
        Key("privileged", _BOOLEAN),
        Key("pull_policy", PullPolicy()),
        Key("pull_refresh_after", Unsaid()),
        Key("read_only", _BOOLEAN),
        *_keys("restart runtime", _TEXT),
        Key("scale", _INTEGER, pointer=True),
        Key("secrets", ListOf(_FILE_MOUNT)),
        Key("security_opt", _TEXTS),
        Key("shm_size", _SIZE),
        Key("stdin_open", _BOOLEAN),
        Key("stop_grace_period", _DURATION, pointer=True),
        Key("stop_signal", _TEXT),
        Key("storage_opt", Pairs(lists=False)),
        Key("sysctls", _MAPPING),
        Key("tmpfs", TextOrTexts()),
        Key("tty", _BOOLEAN),
        Key("ulimits", _ULIMITS),
        Key("use_api_socket", _BOOLEAN),
        *_keys("user userns_mode uts", _TEXT),
        Key("volumes", ListOf(_VOLUME_MOUNT)),
        Key("volumes_from", _TEXTS),
        Key("working_dir", _TEXT),
        Key("pre_start", ListOf(_PRE_START)),
        *_keys("post_start pre_stop", ListOf(_HOOK)),
    ],
)  # fmt: skip

_POOL = Struct("an address pool", [*_keys("subnet gateway ip_range", _TEXT), Key("aux_addresses", Pairs(lists=False))])
_IPAM = Struct("ipam", [Key("driver", _TEXT), Key("config", ListOf(_POOL)), Key("options", Unwritten())])
_NETWORK = Struct(
    "a network",
    [
        *_keys("name driver", _TEXT),
        Key("driver_opts", _OPTIONS),
        Key("ipam", _IPAM),
        Key("external", _External()),
        *_keys("internal attachable", _BOOLEAN),
        Key("labels", _LABELS),
        *_keys("enable_ipv4 enable_ipv6", _BOOLEAN, pointer=True),
    ],
    null=True,
)
_VOLUME = Struct(
    "a volume",
    [*_keys("name driver", _TEXT), Key("driver_opts", _OPTIONS), Key("external", _External()), Key("labels", _LABELS)],
    null=True,
)


def _file_object(noun: str) -> Struct:
    keys = [*_keys("name file environment", _TEXT), *([Key("content", _TEXT)] if noun == "a config" else [])]
    drivers = [Key("driver", _TEXT), Key("driver_opts", _OPTIONS)] if noun == "a secret" else []
    rest = [Key("external", _External()), Key("labels", _LABELS), *drivers, Key("template_driver", _TEXT)]
    return Struct(noun, keys + rest)


_MODEL = Struct(
    "a model",
    [*_keys("name model", _TEXT), Key("context_size", _INTEGER), Key("runtime_flags", _TEXTS)],
    required=("model",),
)
_INCLUDE = Struct(
    "an include",
    [Key("path", TextOrTexts()), Key("env_file", TextOrTexts()), Key("project_directory", _TEXT)],
    short=_TEXT,
    extensible=False,
)

PROJECT = Struct(
    "a Compose file",
    [
        Key("name", _TEXT),
        Key("services", MapOf(SERVICE, _name_problem), always=JSON + YAML),
        Key("networks", MapOf(_NETWORK, _name_problem)),
        Key("volumes", MapOf(_VOLUME, _name_problem)),
        Key("secrets", MapOf(_file_object("a secret"), _name_problem)),
        Key("configs", MapOf(_file_object("a config"), _name_problem)),
        Key("models", MapOf(_MODEL, _name_problem)),
        Key("include", ListOf(_INCLUDE)),
        Key("version", Anything()),
    ],
)
