"""Values of daemon.json that no run could use are refused by key."""

from __future__ import annotations

from typing import Any

import pytest

from havre.daemon.config import configure
from havre.daemon.configvalues import check_values
from havre.errors import InvalidInput


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"log-driver": "odd"}, 'log-driver: error looking up logging plugin odd: plugin "odd" not found'),
        ({"log-opts": {"odd": "1"}}, "log-opts: unknown log opt 'odd' for json-file log driver"),
        ({"log-opts": {"max-size": "odd"}}, "log-opts: .*invalid size: 'odd'"),
        ({"dns": ["8.8.8.8", "odd"]}, "dns: odd is not an ip address"),
        ({"registry-mirrors": ["mirror.example"]}, 'registry-mirrors: invalid mirror: "mirror.example"'),
        ({"registry-mirrors": ["ftp://mirror.example"]}, "registry-mirrors: invalid mirror"),
        ({"registry-mirrors": ["https://u@mirror.example?x=1"]}, "no query, fragment or user"),
        ({"insecure-registries": ["http://host"]}, "insecure-registries: insecure registry http://host is not valid"),
        ({"labels": ["odd"]}, "labels: bad attribute format: odd"),
        ({"shutdown-timeout": -2}, "shutdown-timeout"),
        ({"mtu": 10}, "mtu: 10"),
        ({"default-stop-timeout": -1}, "invalid default stop timeout: -1"),
        ({"min-api-version": "v1.40"}, 'invalid min-api-version: API version must be provided without "v" prefix'),
        ({"min-api-version": "1.23"}, "invalid min-api-version: minimum supported API version is 1.24: 1.23"),
        ({"min-api-version": "1.99"}, "invalid min-api-version: maximum supported API version is"),
        ({"min-api-version": "new"}, "invalid min-api-version: new is not an API version"),
        ({"host-gateway-ips": ["10.0.0.1", "10.0.0.2"]}, "host-gateway-ips: only one IPv4 host gateway IP address"),
        ({"host-gateway-ips": ["fd00::1", "fd00::2"]}, "host-gateway-ips: only one IPv6 host gateway IP address"),
        ({"host-gateway-ip": "odd"}, "host-gateway-ips: odd is not an ip address"),
        ({"host-gateway-ip": "10.0.0.1", "host-gateway-ips": []}, "host-gateway-ip and host-gateway-ips are one"),
        ({"firewall-backend": "iptables"}, "firewall-backend: iptables is not supported: rules are those of nftables"),
        ({"nri-opts": {"enable": True}}, "nri-opts: enable is not supported: there is no Node Resource Interface"),
        ({"nri-opts": {"enable": "true"}}, "nri-opts: enable is not supported"),
        ({"max-download-attempts": -1}, "invalid max download attempts: -1"),
        ({"registry-limits": {"odd": 1}}, "invalid registry-limits: unknown key 'odd'"),
        ({"registry-limits": {"layer-bytes": 0}}, "invalid layer-bytes of registry-limits: 0"),
        ({"registry-limits": {"layer-bytes": "1g"}}, 'invalid layer-bytes of registry-limits: "1g"'),
    ],
)
def test_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInput, match=f"unable to configure the daemon: {words}|{words}"):
        check_values(configure(values))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"log-driver": "syslog", "log-opts": {"syslog-address": "udp://127.0.0.1:514"}},
        {"dns": ["8.8.8.8", "::1"], "registry-mirrors": ["https://m.example/", "http://127.0.0.1:5000"]},
        {"insecure-registries": ["10.0.0.0/8", "host", "host:5000", "::1/128", "[::1]:5000"], "labels": ["a=b=c"]},
        {"shutdown-timeout": -1, "max-download-attempts": 9, "default-stop-timeout": 0, "min-api-version": "1.40"},
        {"host-gateway-ips": ["10.0.0.1", "fd00::1"], "firewall-backend": "nftables", "nri-opts": {"enable": "false"}},
        {"host-gateway-ip": "10.0.0.1", "firewall-backend": "", "nri-opts": {}},
        {"registry-limits": {"upload-seconds": 5, "wait-seconds": 5, "redirects": 1}},
        {"registry-limits": {"answer-seconds": 5, "patience-seconds": 5, "bytes-per-second": 100, "layer-bytes": 1000}},
    ],
)
def test_accepted(values: dict[str, Any]) -> None:
    check_values(configure(values))
