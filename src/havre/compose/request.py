"""Builds the request that creates a container of a service.

Source: the Docker API, "ContainerCreate"; docker compose's requests.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from havre.client.proxies import add_proxies
from havre.compose.labels import container_name
from havre.compose.mounts import build_mounts
from havre.compose.normalize import join
from havre.compose.project import Project, Service, image_of
from havre.errors import InvalidInput

_INTERFACE = "com.docker.network.endpoint.ifname"
_RESTART = {"none": "no", "any": "always"}


def container_request(
    project: Project,
    name: str,
    service: Service,
    number: int,
    labels: dict[str, str],
    image: dict[str, Any],
    *,
    replaced: dict[str, Any] | None = None,
    aliases: bool = True,
    links: list[str] | None = None,
    proxies: dict[str, str] | None = None,
) -> dict[str, Any]:
    """The body of the request. `service` already refers to other services' containers by ID. Raises HavreError."""
    binds, mounts = build_mounts(project, service, image, replaced)
    mode, endpoints = networks_of(project, name, service, number, aliases=aliases, links=links)
    stop = service.get("stop_grace_period")
    variables = sorted(k if v is None else f"{k}={v}" for k, v in service.get("environment", {}).items())
    body: dict[str, Any] = {
        "Hostname": service.get("hostname", ""),
        "Domainname": service.get("domainname", ""),
        "User": service.get("user", ""),
        "ExposedPorts": _exposed(service),
        "Tty": service.get("tty", False),
        "OpenStdin": service.get("stdin_open", False),
        "AttachStdout": True,
        "AttachStderr": True,
        "Cmd": service.get("command"),
        "Entrypoint": service.get("entrypoint"),
        "Image": image_of(service, name, project.name),
        "WorkingDir": service.get("working_dir", ""),
        "Labels": labels,
        "StopSignal": service.get("stop_signal", ""),
        "StopTimeout": None if stop is None else stop // 10**9,
        "Env": add_proxies(variables, proxies or {}),
        "Healthcheck": _healthcheck(service),
        "HostConfig": _host_config(project, service, binds, mounts, mode),
        "NetworkingConfig": {"EndpointsConfig": endpoints},
    }
    if links:
        body["HostConfig"]["Links"] = links
    return {key: value for key, value in body.items() if value not in (None, "", {})}


def _exposed(service: Service) -> dict[str, dict[str, Any]]:
    ports = [str(port) for port in service.get("expose", ())]
    ports += [f"{port['target']}/{port['protocol']}" for port in service.get("ports", ())]
    return {port: {} for port in ports}


def _healthcheck(service: Service) -> dict[str, Any] | None:
    check = service.get("healthcheck")
    if check is None:
        return None
    return {
        "Test": ["NONE"] if check.get("disable") else check.get("test"),
        "Interval": check.get("interval", 0),
        "Timeout": check.get("timeout", 0),
        "StartPeriod": check.get("start_period", 0),
        "StartInterval": check.get("start_interval", 0),
        "Retries": int(check.get("retries", 0)),
    }


def _host_config(
    project: Project, service: Service, binds: list[str], mounts: list[dict[str, Any]], mode: str
) -> dict[str, Any]:
    security, unconfined = _security(project, service)
    config: dict[str, Any] = {
        "Annotations": service.get("annotations"),
        "Binds": binds,
        "Mounts": mounts,
        "NetworkMode": mode,
        "RestartPolicy": _restart(service),
        "PortBindings": port_bindings(service),
        "Tmpfs": {target: options for target, _, options in (t.partition(":") for t in service.get("tmpfs", ()))},
        "ExtraHosts": [f"{host}:{ip}" for host, ips in sorted(service.get("extra_hosts", {}).items()) for ip in ips],
        "SecurityOpt": security,
        **{field: service.get(key) for key, field in _SAME.items()},
        **_resources(service),
    }
    if "logging" in service:
        log = service["logging"]
        config["LogConfig"] = {"Type": log.get("driver", ""), "Config": log.get("options", {})}
    always = ("ExtraHosts", "PortBindings")
    kept = {key: value for key, value in config.items() if key in always or value not in (None, "", [], {}, 0, False)}
    if service.get("init") is False:
        kept["Init"] = False
    if unconfined:
        kept |= {"MaskedPaths": [], "ReadonlyPaths": []}
    return kept


_SAME = {
    "cap_add": "CapAdd", "cap_drop": "CapDrop", "init": "Init", "ipc": "IpcMode", "cgroup": "CgroupnsMode",
    "read_only": "ReadonlyRootfs", "shm_size": "ShmSize", "sysctls": "Sysctls", "volume_driver": "VolumeDriver",
    "volumes_from": "VolumesFrom", "dns": "Dns", "dns_search": "DnsSearch", "dns_opt": "DnsOptions",
    "storage_opt": "StorageOpt", "userns_mode": "UsernsMode", "uts": "UTSMode", "privileged": "Privileged",
    "pid": "PidMode", "isolation": "Isolation", "runtime": "Runtime", "group_add": "GroupAdd",
    "oom_score_adj": "OomScoreAdj", "cgroup_parent": "CgroupParent", "mem_limit": "Memory",
    "memswap_limit": "MemorySwap", "mem_reservation": "MemoryReservation", "mem_swappiness": "MemorySwappiness",
    "oom_kill_disable": "OomKillDisable", "cpu_count": "CpuCount", "cpu_period": "CpuPeriod", "cpu_quota": "CpuQuota",
    "cpu_rt_period": "CpuRealtimePeriod", "cpu_rt_runtime": "CpuRealtimeRuntime", "cpu_shares": "CpuShares",
    "cpuset": "CpusetCpus", "device_cgroup_rules": "DeviceCgroupRules", "pids_limit": "PidsLimit",
}  # fmt: skip
"""Keys of a service that the API takes unchanged."""

_BLKIO = {"weight_device": "BlkioWeightDevice", "device_read_bps": "BlkioDeviceReadBps",
          "device_read_iops": "BlkioDeviceReadIOps", "device_write_bps": "BlkioDeviceWriteBps",
          "device_write_iops": "BlkioDeviceWriteIOps"}  # fmt: skip


def _resources(service: Service) -> dict[str, Any]:
    deploy = service.get("deploy", {}).get("resources", {})
    limits, reserved = deploy.get("limits", {}), deploy.get("reservations", {})
    result: dict[str, Any] = {
        "NanoCpus": round((limits.get("cpus") or service.get("cpus", 0)) * 1e9),
        "CpuPercent": int(service.get("cpu_percent", 0) * 100),
        "Devices": [_device(device) for device in service.get("devices", ())],
        "Ulimits": [ulimit(name, value) for name, value in sorted(service.get("ulimits", {}).items())],
        "DeviceRequests": [_device_request(d, ()) for d in reserved.get("devices", ())]
        + [_device_request(gpu, ("gpu",)) for gpu in service.get("gpus", ())],
    }
    given = {
        "Memory": limits.get("memory"),
        "PidsLimit": limits.get("pids"),
        "MemoryReservation": reserved.get("memory"),
    }
    result |= {field: value for field, value in given.items() if value}
    blkio = service.get("blkio_config", {})
    result["BlkioWeight"] = blkio.get("weight", 0)
    for key, field in _BLKIO.items():
        result[field] = [{name.capitalize(): value for name, value in entry.items()} for entry in blkio.get(key, ())]
    return result


def _device(device: dict[str, Any]) -> dict[str, Any]:
    source = device["source"]
    return {
        "PathOnHost": source,
        "PathInContainer": device.get("target") or source,
        "CgroupPermissions": device.get("permissions") or "rwm",
    }


def ulimit(name: str, value: Any) -> dict[str, Any]:
    """A ulimit in the API's form; `value` is one number for both, or `soft` and `hard`."""
    soft, hard = (value, value) if isinstance(value, int) else (value.get("soft", 0), value.get("hard", 0))
    return {"Name": name, "Soft": soft, "Hard": hard}


def _device_request(device: dict[str, Any], more: tuple[str, ...]) -> dict[str, Any]:
    return {
        "Capabilities": [[*device.get("capabilities", ()), *more]],
        "Count": device.get("count", 0),
        "DeviceIDs": device.get("device_ids", []),
        "Driver": device.get("driver", ""),
        "Options": device.get("options", {}),
    }


def _restart(service: Service) -> dict[str, Any] | None:
    policy = service.get("deploy", {}).get("restart_policy")
    if policy is not None:
        condition = policy.get("condition", "")
        return {"Name": _RESTART.get(condition, condition), "MaximumRetryCount": policy.get("max_attempts") or 0}
    if not service.get("restart"):
        return None
    condition, _, attempts = service["restart"].partition(":")
    count = int(attempts) if attempts.isdigit() else 0
    return {"Name": _RESTART.get(condition, condition), "MaximumRetryCount": count}


def port_bindings(service: Service) -> dict[str, list[dict[str, str]]]:
    """The service's published ports, by `80/tcp`."""
    bindings: dict[str, list[dict[str, str]]] = {}
    for port in service.get("ports", ()):
        binding = {"HostIp": port.get("host_ip", ""), "HostPort": port.get("published", "")}
        bindings.setdefault(f"{port['target']}/{port['protocol']}", []).append(binding)
    return bindings


def _security(project: Project, service: Service) -> tuple[list[str], bool]:
    options, unconfined = [], False
    for option in service.get("security_opt", ()):
        key, separator, value = option.partition("=")
        if not separator:
            key, separator, value = option.partition(":")
        if option == "systempaths=unconfined":
            unconfined = True
            continue
        if not separator and key not in ("no-new-privileges", "writable-cgroups"):
            raise InvalidInput(f'Invalid security-opt: "{option}"')
        if key == "seccomp" and value not in ("unconfined", "builtin"):
            option = f"seccomp={_profile(join(project.folder, value))}"
        options.append(option)
    return options, unconfined


def _profile(path: str) -> str:
    try:
        return json.dumps(json.loads(Path(path).read_text()), separators=(",", ":"))
    except OSError as error:
        raise InvalidInput(f"opening seccomp profile ({path}) failed: {error.strerror}") from error
    except ValueError as error:
        raise InvalidInput(f"seccomp profile ({path}) is not JSON: {error}") from error


def by_priority(service: Service) -> list[str]:
    """The keys of a service's networks, the one with the default route first."""
    networks = service.get("networks") or {}
    return sorted(networks, key=lambda key: (-int((networks[key] or {}).get("priority", 0)), key))


def networks_of(
    project: Project, name: str, service: Service, number: int, *, aliases: bool = True, links: list[str] | None = None
) -> tuple[str, dict[str, dict[str, Any]]]:
    """A container's network mode, and its endpoints by the network's name, the one with the default route first."""
    if service.get("network_mode"):
        return service["network_mode"], {}
    keys = by_priority(service)
    if not keys:
        return "none", {}
    endpoints = {}
    for index, key in enumerate(keys):
        own = service["networks"][key]
        names = [container_name(project.name, name, service, number)]
        if aliases:
            names += [name, *(own or {}).get("aliases", ())]
        endpoint: dict[str, Any] = {"Aliases": names} | ({"Links": links} if links else {})
        if own is not None:
            addresses = {"IPv4Address": own.get("ipv4_address"), "IPv6Address": own.get("ipv6_address"),
                         "LinkLocalIPs": own.get("link_local_ips")}  # fmt: skip
            endpoint["IPAMConfig"] = {field: value for field, value in addresses.items() if value}
        mac = (own or {}).get("mac_address") or (service.get("mac_address") if index == 0 else None)
        if mac:
            endpoint["MacAddress"] = mac
        if named := (own or {}).get("interface_name"):
            endpoint["DriverOpts"] = {_INTERFACE: named}
        if (own or {}).get("driver_opts"):
            endpoint["DriverOpts"] = {**endpoint.get("DriverOpts", {}), **own["driver_opts"]}
        if (own or {}).get("gw_priority"):
            endpoint["GwPriority"] = own["gw_priority"]
        endpoints[project.networks[key]["name"]] = endpoint
    return project.networks[keys[0]]["name"], endpoints


def network_request(network: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    """The body that creates a network."""
    body: dict[str, Any] = {"Name": network["name"], "CheckDuplicate": True, "Labels": labels}
    body["Driver"] = network.get("driver", "")
    if network.get("driver_opts"):
        body["Options"] = network["driver_opts"]
    for key, field in (("internal", "Internal"), ("attachable", "Attachable")):
        if network.get(key):
            body[field] = True
    for key, field in (("enable_ipv6", "EnableIPv6"), ("enable_ipv4", "EnableIPv4")):
        if key in network:
            body[field] = network[key]
    ipam = network.get("ipam", {})
    if ipam.get("driver") or ipam.get("config"):
        pools = [{"Subnet": pool.get("subnet", ""), "IPRange": pool.get("ip_range", ""),
                  "Gateway": pool.get("gateway", ""), "AuxiliaryAddresses": pool.get("aux_addresses", {})}
                 for pool in ipam.get("config", ())]  # fmt: skip
        body["IPAM"] = {"Driver": ipam.get("driver", ""), "Config": [{k: v for k, v in p.items() if v} for p in pools]}
    return body


def volume_request(volume: dict[str, Any], labels: dict[str, str]) -> dict[str, Any]:
    """The body that creates a volume."""
    return {
        "Name": volume["name"],
        "Driver": volume.get("driver", ""),
        "DriverOpts": volume.get("driver_opts"),
        "Labels": labels,
    }
