"""Translates the flags of `run` and `create` into the body of `POST /containers/create`.

Pure, except for reading the files of `--env-file`, `--label-file` and `seccomp=`. Errors are ValueError in docker's
words.
"""

from __future__ import annotations

from havre.cli.mounts import absolute_bind
from havre.cli.ports import parse_expose, parse_publish
from havre.cli.values import check_env
from havre.client.config import read_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from havre.golang.flags import Options

    Json = dict[str, Any]


def create_body(options: Options, image: str, command: list[str]) -> Json:
    """The request for a container of `image` that runs `command` (empty: the image's own)."""
    bindings = parse_publish(options.publish)
    exposed = dict.fromkeys([*bindings, *parse_expose(options.expose)])
    binds = [absolute_bind(volume) for volume in options.volume if ":" in volume]
    attach = _attached(options)
    body: Json = {
        "Hostname": options.hostname,
        "Domainname": options.domainname,
        "User": options.user,
        "AttachStdin": "stdin" in attach,
        "AttachStdout": "stdout" in attach,
        "AttachStderr": "stderr" in attach,
        "ExposedPorts": {port: {} for port in exposed} or None,
        "Tty": options.tty,
        "OpenStdin": options.interactive,
        "StdinOnce": options.interactive and "stdin" in attach,
        "Env": read_lines(options.env_file, check_env) + options.env,
        "Cmd": command or None,
        "Image": image,
        "Volumes": {volume: {} for volume in options.volume if ":" not in volume},
        "WorkingDir": options.workdir,
        "Entrypoint": _entrypoint(options),
        "Labels": to_map(read_lines(options.label_file, str) + options.label),
        "HostConfig": _host_config(options, bindings, binds),
        "NetworkingConfig": {"EndpointsConfig": _endpoints(options)},
    }
    if options.stop_signal:
        body["StopSignal"] = options.stop_signal
    if "stop_timeout" in options.given:
        body["StopTimeout"] = options.stop_timeout
    if (health := _healthcheck(options)) is not None:
        body["Healthcheck"] = health
    return body


def _attached(options: Options) -> list[str]:
    """The streams to attach: those given, else output and error (and input with -i), none with -d."""
    if getattr(options, "detach", False):
        return []
    if options.attach:
        return [*options.attach, "stdin"] if options.interactive and options.tty else list(options.attach)
    return ["stdout", "stderr", *(["stdin"] if options.interactive else [])]


def _entrypoint(options: Options) -> list[str] | None:
    if "entrypoint" not in options.given:
        return None
    return [options.entrypoint]  # [""] resets the image's


def read_lines(paths: list[str], check: Any) -> list[str]:
    """The lines of environment or label files, without comments and empty ones. Raises ValueError."""
    lines: list[str] = []
    for path in paths:
        try:
            text = read_file(path).decode("utf-8-sig")
        except OSError as error:
            raise ValueError(f"open {path}: {(error.strerror or str(error)).lower()}") from None
        except UnicodeDecodeError:
            raise ValueError(f"env file {path} contains invalid utf8 bytes") from None
        for line in text.splitlines():
            line = line.lstrip()
            if not line or line.startswith("#"):
                continue
            name = line.partition("=")[0]
            if not name:
                raise ValueError(f"poorly formatted environment: no variable name on line '{line}'")
            if " " in name or name != name.strip():
                raise ValueError(f"poorly formatted environment: variable '{name}' contains whitespaces")
            checked = check(line)
            if "=" in checked:
                lines.append(checked)
    return lines


def to_map(pairs: list[str]) -> dict[str, str]:
    """Parse `key=value` texts; a later one overrides, a missing value is empty."""
    return {key: value for key, _, value in (pair.partition("=") for pair in pairs)}


def _healthcheck(options: Options) -> Json | None:
    timing = {"health_interval", "health_timeout", "health_start_period", "health_start_interval", "health_retries"}
    if options.no_healthcheck:
        if options.given & (timing | {"health_cmd"}):
            raise ValueError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if not options.given & (timing | {"health_cmd"}):
        return None
    for name in ("interval", "timeout", "start_period", "start_interval"):
        if getattr(options, "health_" + name) < 0:
            raise ValueError(f"--health-{name.replace('_', '-')} cannot be negative")
    if options.health_retries < 0:
        raise ValueError("--health-retries cannot be negative")
    return {
        "Test": ["CMD-SHELL", options.health_cmd] if options.health_cmd else None,
        "Interval": options.health_interval,
        "Timeout": options.health_timeout,
        "StartPeriod": options.health_start_period,
        "StartInterval": options.health_start_interval,
        "Retries": options.health_retries,
    }


def _host_config(options: Options, bindings: Json, binds: list[str]) -> Json:
    if not -1 <= options.memory_swappiness <= 100:
        raise ValueError(f"invalid value: {options.memory_swappiness}. Valid memory swappiness range is 0-100")
    if options.rm and options.restart not in ("", "no"):
        raise ValueError("Conflicting options: --restart and --rm")
    networks = options.network + options.net
    return {
        "Binds": binds or None,
        "ContainerIDFile": options.cidfile,
        "LogConfig": {"Type": options.log_driver, "Config": _log_options(options)},
        "NetworkMode": networks[0]["name"] if networks else "default",
        "PortBindings": bindings,
        "RestartPolicy": restart_policy(options.restart),
        "AutoRemove": options.rm,
        "VolumeDriver": options.volume_driver,
        "VolumesFrom": options.volumes_from or None,
        "Mounts": options.mount or None,
        "Annotations": to_map(options.annotation) or None,
        "CapAdd": options.cap_add or None,
        "CapDrop": options.cap_drop or None,
        "CgroupnsMode": _one_of("cgroupns", "CGROUP", options.cgroupns, ("", "host", "private")),
        "Dns": options.dns,
        "DnsOptions": options.dns_option + options.dns_opt,
        "DnsSearch": options.dns_search,
        "ExtraHosts": options.add_host or None,
        "GroupAdd": options.group_add or None,
        "IpcMode": options.ipc,
        "Links": options.link or None,
        "OomScoreAdj": options.oom_score_adj,
        "PidMode": options.pid,
        "Privileged": options.privileged,
        "PublishAllPorts": options.publish_all,
        "ReadonlyRootfs": options.read_only,
        **_security(options),
        "StorageOpt": _storage_options(options),
        "Tmpfs": _tmpfs(options.tmpfs),
        "UTSMode": _one_of("uts", "UTS", options.uts, ("", "host")),
        "UsernsMode": _one_of("userns", "USER", options.userns, ("", "host", "auto")),
        "ShmSize": options.shm_size,
        "Sysctls": to_map(options.sysctl) or None,
        "Runtime": options.runtime,
        "Isolation": options.isolation,
        "ConsoleSize": [0, 0],
        "Init": options.init,
        **limits(options),
        "CgroupParent": options.cgroup_parent,
        "BlkioWeightDevice": options.blkio_weight_device,
        "BlkioDeviceReadBps": options.device_read_bps,
        "BlkioDeviceWriteBps": options.device_write_bps,
        "BlkioDeviceReadIOps": options.device_read_iops,
        "BlkioDeviceWriteIOps": options.device_write_iops,
        **_devices(options),
        "MemorySwappiness": options.memory_swappiness,
        "OomKillDisable": options.oom_kill_disable,
        "Ulimits": options.ulimit,
        "CpuCount": options.cpu_count,
        "CpuPercent": options.cpu_percent,
        "IOMaximumIOps": options.io_maxiops,
        "IOMaximumBandwidth": options.io_maxbandwidth,
    }


def limits(options: Options) -> Json:
    """The resource limits shared by `run` and `update`."""
    if options.cpus and options.given & {"cpu_period", "cpu_quota"}:
        raise ValueError("Conflicting options: Nano CPUs and CPU Period cannot both be set."
                         if "cpu_period" in options.given
                         else "Conflicting options: Nano CPUs and CPU Quota cannot both be set.")  # fmt: skip
    return {
        "BlkioWeight": options.blkio_weight,
        "CpuShares": options.cpu_shares,
        "NanoCpus": options.cpus,
        "CpuPeriod": options.cpu_period,
        "CpuQuota": options.cpu_quota,
        "CpuRealtimePeriod": options.cpu_rt_period,
        "CpuRealtimeRuntime": options.cpu_rt_runtime,
        "CpusetCpus": options.cpuset_cpus,
        "CpusetMems": options.cpuset_mems,
        "Memory": options.memory,
        "MemoryReservation": options.memory_reservation,
        "MemorySwap": options.memory_swap,
        "PidsLimit": options.pids_limit,
    }


def _one_of(name: str, mode: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise ValueError(f"--{name}: invalid {mode} mode")
    return value


def restart_policy(text: str) -> Json:
    """`NAME[:RETRIES]`."""
    name, colon, count = text.partition(":")
    if colon and not count.lstrip("-").isdecimal():
        raise ValueError("invalid restart policy format: maximum retry count must be an integer")
    if colon and not name:
        raise ValueError("invalid restart policy format: no policy provided before colon")
    return {"Name": name, "MaximumRetryCount": int(count) if colon else 0}


def _log_options(options: Options) -> dict[str, str]:
    if options.log_driver == "none" and options.log_opt:
        raise ValueError(f"invalid logging opts for driver {options.log_driver}")
    return to_map(options.log_opt)


def _storage_options(options: Options) -> dict[str, str] | None:
    if any("=" not in option for option in options.storage_opt):
        raise ValueError("invalid storage option")
    return to_map(options.storage_opt) or None


def _tmpfs(specs: list[str]) -> dict[str, str] | None:
    return {path: rest for path, _, rest in (spec.partition(":") for spec in specs)} or None


def _security(options: Options) -> Json:
    """Security options, with a seccomp profile's file replaced by its content and systempaths by paths."""
    kept: list[str] = []
    paths: Json = {}
    for option in options.security_opt:
        key, equals, value = option.partition("=")
        if not equals:
            key, equals, value = option.partition(":")
        if option == "systempaths=unconfined":
            paths = {"MaskedPaths": [], "ReadonlyPaths": []}
        elif not equals and option not in ("no-new-privileges", "writable-cgroups"):
            raise ValueError(f"Invalid --security-opt: {option!r}".replace("'", '"'))
        elif key == "seccomp" and value not in ("unconfined", "builtin"):
            kept.append("seccomp=" + _profile(value))
        else:
            kept.append(option)
    return {"SecurityOpt": kept or None, **paths}


def _profile(path: str) -> str:
    from havre.golang.jsontext import decode, encode

    try:
        return encode(decode(read_file(path)))
    except OSError as error:
        raise ValueError(
            f"opening seccomp profile ({path}) failed: open {path}: {(error.strerror or '').lower()}"
        ) from None
    except ValueError as error:
        raise ValueError(f"compacting json for seccomp profile ({path}) failed: {error}") from None


def _devices(options: Options) -> Json:
    named = [text for text in options.device if "=" in text and not text.startswith("/")]  # vendor/class=name
    plain = [_device(text) for text in options.device if text not in named]
    requests = list(options.gpus)
    if named:
        requests.append({"Driver": "cdi", "DeviceIDs": named})
    return {
        "Devices": plain,
        "DeviceCgroupRules": options.device_cgroup_rule or None,
        "DeviceRequests": requests or None,
    }


def _device(text: str) -> Json:
    source, *rest = text.split(":")
    mode = rest.pop() if rest and not rest[-1].startswith("/") else "rwm"
    if not mode or not set(mode) <= set("rwm"):
        raise ValueError(f"bad mode specified: {mode}")
    return {"PathOnHost": source, "PathInContainer": rest[0] if rest else source, "CgroupPermissions": mode}


def _endpoints(options: Options) -> Json:
    """The settings of each network; --ip, --network-alias and similar flags apply to the first."""
    networks = options.network + options.net
    aliases = options.network_alias + options.net_alias
    first: Json = {"aliases": aliases, "ip": options.ip, "ip6": options.ip6, "link_local": options.link_local_ip,
                   "mac": options.mac_address}  # fmt: skip
    if not networks:
        networks = [{"name": "default", "aliases": [], "ip": "", "ip6": "", "mac": "", "link_local": [],
                     "driver_opts": {}}]  # fmt: skip
    endpoints: Json = {}
    for index, network in enumerate(networks):
        given = dict(network)
        if not index:
            for key, value in first.items():
                if value and given[key]:
                    raise ValueError(f"conflicting options: cannot specify both --{key} and per-network {key}")
                given[key] = value or given[key]
        if given["name"] in endpoints:
            raise ValueError(f'network "{given["name"]}" is specified multiple times')
        if len(networks) > 1 and given["name"] in ("host", "none"):
            raise ValueError("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
        endpoints[given["name"]] = endpoint_settings(given, options.link if not index else [])
    return endpoints


def endpoint_settings(given: Json, links: list[str]) -> Json:
    """The API's `EndpointSettings` of one network."""
    ipam = {"IPv4Address": given["ip"], "IPv6Address": given["ip6"], "LinkLocalIPs": given["link_local"]}
    return {
        "IPAMConfig": ipam if any(ipam.values()) else None,
        "Links": links or None,
        "Aliases": given["aliases"] or None,
        "MacAddress": given.get("mac", ""),
        "DriverOpts": given["driver_opts"] or None,
        **({"GwPriority": given["gw_priority"]} if given.get("gw_priority") else {}),
    }
