"""Parses and validates flags' values, with the errors of docker's own command line.

`read_X` parses a text of kind X, `check_X` validates a text and returns it, completed; all raise ValueError.
"""

from __future__ import annotations

from havre.client.config import environment
from havre.golang.csvtext import split_csv
from havre.golang.ports import is_ip
from havre.golang.ulimits import parse_ulimit
from havre.golang.units import parse_duration, parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def read_bytes(text: str) -> int:
    """A size such as 512, 1.5g, 64KiB, in powers of 1024."""
    return parse_size(text)


def read_swap(text: str) -> int:
    """A size, or -1 for unlimited."""
    return -1 if text == "-1" else read_bytes(text)


def read_decimal(text: str) -> int:
    """A number of CPUs in billionths."""
    whole, slash, divisor = text.partition("/")
    try:
        value = float(whole) / (float(divisor) if slash else 1.0)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"failed to parse {text} as a rational number") from None
    nano = round(value * 1e9)
    if len(whole.partition(".")[2].rstrip("0")) > 9:
        raise ValueError("value is too precise")
    return nano


def read_duration(text: str) -> int:
    """A span of time such as 1h30m or 1.5s, in nanoseconds."""
    return parse_duration(text)


def read_ulimit(text: str) -> dict[str, Any]:
    """`name=soft[:hard]`."""
    name, soft, hard = parse_ulimit(text)
    return {"Name": name, "Soft": soft, "Hard": hard}


def read_mount(text: str) -> dict[str, Any]:
    """One `--mount`."""
    from havre.cli.mounts import parse_mount

    return parse_mount(text)


def read_network(text: str) -> dict[str, Any]:
    """A network's name, or `name=NAME,alias=A,ip=IP,driver-opt=K=V ...`."""
    network: dict[str, Any] = {"name": "", "aliases": [], "driver_opts": {}, "ip": "", "ip6": "", "mac": "",
                               "link_local": []}  # fmt: skip
    if "=" not in text:
        return {**network, "name": text}
    for field in split_csv(text):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        value = value.strip()
        if not equals:
            raise ValueError(f"invalid field {field}")
        if key in ("name", "ip", "ip6"):
            network[key] = value
        elif key == "alias":
            network["aliases"].append(value)
        elif key == "mac-address":
            network["mac"] = value
        elif key == "link-local-ip":
            network["link_local"].append(value)
        elif key == "gw-priority":
            if not value.lstrip("-").isdecimal():
                raise ValueError(f"invalid gw-priority ({value})")
            network["gw_priority"] = int(value)
        elif key == "driver-opt":
            name, equals, setting = value.partition("=")
            if not equals:
                raise ValueError("invalid key value pair format in driver options")
            network["driver_opts"][name.lower()] = setting
        else:
            raise ValueError(f"invalid field key {key}")
    if not network["name"]:
        raise ValueError("network name/id is not specified")
    return network


def read_gpu_request(text: str) -> dict[str, Any]:
    """`all`, a count, or `device=...,capabilities=...,driver=...,count=...` with CSV quoting."""
    request: dict[str, Any] = {"Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": [], "Options": {}}
    capabilities = ["gpu"]
    counted = False
    for field in split_csv(text):
        key, equals, value = field.partition("=")
        if not equals:
            key, value = "count", field
        if key == "driver":
            request["Driver"] = value
        elif key == "count":
            if value != "all" and not value.lstrip("-").isdecimal():
                reason = f'strconv.Atoi: parsing "{value}": invalid syntax'
                raise ValueError(f"count must be an integer: {reason}")
            request["Count"] = -1 if value == "all" else int(value)
            counted = True
        elif key == "device":
            request["DeviceIDs"] = value.split(",")
        elif key == "capabilities":
            capabilities = [*value.split(","), "gpu"]
        elif key == "options":
            request["Options"] = dict(option.partition("=")[::2] for option in split_csv(value))
        else:
            raise ValueError(f"unexpected key '{key}' in '{field}'")
    if not counted and request["DeviceIDs"] is None:
        request["Count"] = 1
    request["Capabilities"] = [list(dict.fromkeys(capabilities))]
    return request


def check_env(text: str) -> str:
    """`NAME=value`, or `NAME` completed from the environment if set there."""
    name, equals, _ = text.partition("=")
    if not name:
        raise ValueError(f"invalid environment variable: {text}")
    if equals:
        return text
    from posix import environ

    return f"{name}={environment(name)}" if name.encode() in environ else text


def check_stream(text: str) -> str:
    """A name of a standard stream, in lower case."""
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return text.lower()


def check_label(text: str) -> str:
    """`key[=value]` with a key."""
    if not text.partition("=")[0].strip():
        raise ValueError(f"invalid label '{text}': empty name")
    return text


def check_ip(text: str) -> str:
    """An IP address."""
    if not is_ip(text.strip()):
        raise ValueError(f"IP address is not correctly formatted: {text}")
    return text.strip()


def check_domain(text: str) -> str:
    """A search domain; "." clears the list."""
    domain = text.strip()
    if domain != "." and not domain.replace("-", "").replace(".", "").replace("_", "").isalnum():
        raise ValueError(f"{text} is not a valid domain")
    return domain


def check_host(text: str) -> str:
    """`host:ip` or `host=ip` as the API takes it; the IP may be host-gateway."""
    separator = "=" if "=" in text else ":"
    host, found, ip = text.partition(separator)
    if not found or not host:
        raise ValueError(f'bad format for add-host: "{text}"')
    if ip != "host-gateway":
        ip = ip.strip("[]") if ip.startswith("[") else ip
        if not is_ip(ip):
            raise ValueError(f'invalid IP address in add-host: "{ip}"')
    return f"{host}:{ip}"


def check_link(text: str) -> str:
    """`container[:alias]`."""
    parts = text.split(":")
    if not text or len(parts) > 2:
        raise ValueError(f"bad format for links: {text}" if text else "empty string specified for links")
    return text


def check_device(text: str) -> str:
    """`/host[:/container][:rwm]`, or the qualified name of a CDI device."""
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise ValueError(f"bad format for path: {text}")
    if parts[0].startswith("/") and len(parts) > 1 and not parts[1].startswith("/") and not _is_mode(parts[1]):
        raise ValueError(f"{parts[1]} is not an absolute path")
    return text


def _is_mode(text: str) -> bool:
    return bool(text) and len(set(text)) == len(text) and set(text) <= set("rwm")


def check_weight(text: str) -> dict[str, Any]:
    """`path:weight` of a block device."""
    path, value = _device_value(text)
    if not value.isdecimal() or (int(value) and not 10 <= int(value) <= 1000):
        raise ValueError(f"invalid weight for device: {text}")
    return {"Path": path, "Weight": int(value)}


def check_rate(text: str) -> dict[str, Any]:
    """`path:bytes-per-second` of a block device."""
    path, value = _device_value(text)
    try:
        rate = read_bytes(value)
    except ValueError:
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>[<unit>]. Number must be a "
            "positive integer. Unit is optional and can be kb, mb, or gb"
        ) from None
    return {"Path": path, "Rate": rate}


def check_iops(text: str) -> dict[str, Any]:
    """`path:operations-per-second` of a block device."""
    path, value = _device_value(text)
    if not value.isdecimal():
        raise ValueError(
            f"invalid rate for device: {text}. The correct format is <device-path>:<number>. Number must be a positive "
            "integer"
        )
    return {"Path": path, "Rate": int(value)}


def _device_value(text: str) -> tuple[str, str]:
    path, colon, value = text.partition(":")
    if not colon:
        raise ValueError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise ValueError(f"bad format for device path: {text}")
    return path, value


def check_cgroup_rule(text: str) -> str:
    """`type major:minor mode` of a device cgroup."""
    parts = text.split(" ")
    good = len(parts) == 3 and parts[0] in ("a", "b", "c") and _is_mode(parts[2])
    numbers = parts[1].split(":") if good else []
    if len(numbers) != 2 or not all(number == "*" or number.isdecimal() for number in numbers):
        raise ValueError(f"invalid device cgroup format '{text}'")
    return text
