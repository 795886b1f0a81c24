"""The context of every command: the daemon's client, the user's config file, messages and confirmation."""

from __future__ import annotations

import sys

from havre.client.api import Client
from havre.client.config import Config, current_context, environment, environment_host, exists, resolve
from havre.client.endpoint import DEFAULT_SOCKET, TlsFiles
from havre.errors import HavreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from havre.client.endpoint import Endpoint
    from havre.golang.flags import Options


class Session:
    """One run of one command; `path` is the command as typed, `group` the group's own flags."""

    def __init__(self, options: Options, path: str, group: Options | None = None) -> None:
        self.options = options
        self.group = group
        self.path = path
        self.config = Config(options.config)
        self.context = current_context(self.config, options.context, options.host)
        self._client: Client | None = None

    def endpoint(self) -> Endpoint:
        """The daemon's address. Raises InvalidInput."""
        return resolve(self.config, self.context, self.options.host, self._tls())

    @property
    def client(self) -> Client:
        """The client, made on first use."""
        if self._client is None:
            self._client = self.new_client()
        return self._client

    def new_client(self, *, autostart: bool = True) -> Client:
        """Another client, for a request beside one that is still being read."""
        endpoint = self.endpoint()
        is_default = endpoint.scheme == "unix" and endpoint.address == DEFAULT_SOCKET
        explicit = self.options.host or self.context != "default" or environment_host()
        headers = self.config.values.get("HttpHeaders")
        start = _start_daemon if autostart and is_default and not explicit else None
        client = Client(endpoint, headers, start, self._proxies(endpoint.host))
        if self._client is not None:
            client.adopt_version(self._client)
        return client

    def _proxies(self, host: str) -> dict[str, str]:
        if "proxies" not in self.config.values:
            return {}
        from havre.client.proxies import proxy_variables

        return proxy_variables(self.config.values, host)

    def _tls(self) -> TlsFiles | None:
        options = self.options
        verify = options.tlsverify or (bool(environment("DOCKER_TLS_VERIFY")) and "tlsverify" not in options.given)
        if not (options.tls or verify or {"tlscacert", "tlscert", "tlskey"} & options.given):
            return None
        directory = environment("DOCKER_CERT_PATH") or self.config.directory

        def file(name: str, given: str) -> str:
            path = given or f"{directory}/{name}.pem"
            return path if given or exists(path) else ""

        ca, cert, key = file("ca", options.tlscacert), file("cert", options.tlscert), file("key", options.tlskey)
        return TlsFiles(ca, cert, key, verify)

    def each(self, names: list[str], act: Callable[[str], object]) -> int:
        """Apply `act` to every name and print it; failures are printed last, with exit code 1."""
        failures = []
        for name in names:
            try:
                act(name)
            except HavreError as error:
                failures.append(str(error))
                continue
            print(name)
        return self.tell(failures)

    def tell(self, failures: list[str]) -> int:
        """Print failures to stderr; returns the exit code."""
        sys.stdout.flush()
        if failures:
            print("\n".join(failures), file=sys.stderr)
        return 1 if failures else 0

    def warn(self, text: str) -> None:
        """Print a line to stderr."""
        sys.stdout.flush()
        print(text, file=sys.stderr, flush=True)

    def confirm(self, question: str) -> bool:
        """Ask on the terminal; only y or yes confirms."""
        print(question + " [y/N] ", end="", flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")


def _start_daemon() -> None:
    from havre.client.autostart import start_daemon

    start_daemon()
