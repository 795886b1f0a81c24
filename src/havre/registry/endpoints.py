"""Registry endpoints: mirrors, insecure registries, certificates.

Pure, except for `tls_context`, which reads certificate files. Rules as in dockerd:

    docker.io               the mirrors in order, then registry-1.docker.io
    anything else           itself
    insecure (or loopback)  https without verification, else http

    certs_dir/HOST[:PORT]/*.crt            additional CAs
                          *.cert + *.key   a client certificate and its key
"""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from yarl import URL

from havre.errors import InvalidInput
from havre.oci.names import DEFAULT_REGISTRY
from havre.registry.limits import Limits

DOCKER_HUB = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class RegistryConfig:
    """`mirrors` are URLs tried first for Docker Hub; `insecure` are hosts, host:port or networks (CIDR)."""

    mirrors: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()
    certs_dir: Path = Path("/etc/docker/certs.d")
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint. `bases` are the base URLs of `/v2/` to try, best first; a mirror gets no credentials."""

    host: str
    bases: tuple[URL, ...]
    insecure: bool
    mirror: bool = False


def endpoints_for(registry: str, config: RegistryConfig) -> list[Endpoint]:
    """The endpoints for pulls from `registry`, in order; the last is the registry itself."""
    if registry != DEFAULT_REGISTRY:
        return [endpoint_of(registry, config)]
    return [_mirror(text, config) for text in config.mirrors] + [endpoint_of(DOCKER_HUB, config)]


def host_of_address(address: str) -> str:
    """The registry of a login's server address: `https://index.docker.io/v1/` is `docker.io`."""
    host = address.partition("://")[2] or address
    host = host.partition("/")[0]
    return DEFAULT_REGISTRY if host in ("", "index.docker.io", DOCKER_HUB) else host


def tls_context(host: str, certs_dir: Path, *, insecure: bool) -> ssl.SSLContext:
    """The TLS settings for `host`. Blocking. `InvalidInput` for a client certificate without its key."""
    context = ssl.create_default_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # as Go: private CAs often lack the key usage extension
    folder = certs_dir / host
    if folder.is_dir():
        for authority in sorted(folder.glob("*.crt")):
            context.load_verify_locations(cafile=authority)
        for certificate in sorted(folder.glob("*.cert")):
            key = certificate.with_suffix(".key")
            if not key.exists():
                raise InvalidInput(f"missing key {key.name} for client certificate {certificate.name}")
            context.load_cert_chain(certificate, key)
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def parse_url(text: str, *, encoded: bool = False) -> URL:
    """Parse a URL from a user or registry. `InvalidInput`. `encoded`: keep its escapes."""
    try:
        url = URL(text, encoded=encoded)
        url.port  # noqa: B018 - parsed lazily
        return url
    except ValueError as error:
        raise InvalidInput(f"invalid URL {text[:200]!r}: {error}") from error


def is_loopback(host: str) -> bool:
    """Report whether `host` (without port) is loopback."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def endpoint_of(host: str, config: RegistryConfig) -> Endpoint:
    """The endpoint of one host."""
    insecure = _is_insecure(host, config)
    schemes = ("https", "http") if insecure else ("https",)
    return Endpoint(host, tuple(parse_url(f"{scheme}://{host}") for scheme in schemes), insecure)


def _mirror(text: str, config: RegistryConfig) -> Endpoint:
    url = parse_url(text if "://" in text else f"https://{text}")
    if url.scheme not in ("http", "https") or not url.host or url.query or url.user:
        raise InvalidInput(f"invalid mirror {text!r}", "expected http[s]://host[:port][/path]")
    base = url.with_path(url.path.rstrip("/"))
    return Endpoint(url.authority, (base,), _is_insecure(url.authority, config), mirror=True)


def _is_insecure(host: str, config: RegistryConfig) -> bool:
    name = parse_url(f"http://{host}").host or ""
    if is_loopback(name) or host in config.insecure or name in config.insecure:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    return any(address in network for network in map(_network, config.insecure) if network is not None)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None
