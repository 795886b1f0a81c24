"""`havre login` and `havre logout`."""

from __future__ import annotations

import posix
import sys

from havre.cli.parser import StatusError
from havre.client.auth import erase_auth, find_auth, store_auth
from havre.errors import HavreError
from havre.oci.names import AUTH_KEY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from havre.cli.session import Session
    from havre.golang.flags import Options

_INSECURE = "WARNING! Using --password via the CLI is insecure. Use --password-stdin."
_HUB = ("", "docker.io", "index.docker.io", "registry-1.docker.io")


def _server(arguments: list[str]) -> str:
    """The key of a registry's credentials in the config file."""
    name = arguments[0] if arguments else ""
    if name in _HUB:
        return AUTH_KEY
    return name.removeprefix("https://").removeprefix("http://").partition("/")[0]


def login(session: Session, options: Options, arguments: list[str]) -> int:
    """Verify credentials with a registry and store them."""
    server = _server(arguments)
    if options.password:
        session.warn(_INSECURE)
        if options.password_stdin:
            raise StatusError(1, "--password and --password-stdin are mutually exclusive")
    password = options.password
    if options.password_stdin:
        if not options.username:
            raise StatusError(1, "Must provide --username with --password-stdin")
        password = sys.stdin.read().rstrip("\n").rstrip("\r")
    known = {} if options.username or password else find_auth(session.config, server)
    if known.get("username") or known.get("identitytoken"):
        print("Authenticating with existing credentials...", flush=True)
        try:
            return _authenticate(session, server, known)
        except HavreError as error:
            session.warn(f"Login did not succeed, error: {error.message}")
    username, password = _ask(options.username or known.get("username", ""), password)
    return _authenticate(session, server, {"username": username, "password": password})


def _ask(username: str, password: str) -> tuple[str, str]:
    if username and password:
        return username, password
    if not posix.isatty(0):
        raise StatusError(1, "Error: Cannot perform an interactive login from a non TTY device")
    if not username:
        print("Username: ", end="", flush=True)
        username = sys.stdin.readline().strip()
    if not username:
        raise StatusError(1, "Error: Non-null Username Required")
    if not password:
        from getpass import getpass

        password = getpass("Password: ")
    if not password:
        raise StatusError(1, "Error: Password Required")
    return username, password


def _authenticate(session: Session, server: str, auth: dict[str, str]) -> int:
    answer = session.client.post("/auth", body={**auth, "serveraddress": server}) or {}
    if answer.get("IdentityToken"):
        auth = {**auth, "password": "", "identitytoken": answer["IdentityToken"]}
    store_auth(session.config, server, auth)
    if not (session.config.text("credsStore") or session.config.values.get("credHelpers", {}).get(server)):
        session.warn(f"WARNING! Your password will be stored unencrypted in {session.config.path}.\n"
                     "Configure a credential helper to remove this warning. See\n"
                     "https://docs.docker.com/engine/reference/commandline/login/#credentials-store\n")  # fmt: skip
    print(answer.get("Status") or "Login Succeeded")
    return 0


def logout(session: Session, options: Options, arguments: list[str]) -> int:
    """Remove the credentials of a registry."""
    server = _server(arguments)
    if erase_auth(session.config, server):
        print(f"Removing login credentials for {server}")
    else:
        print(f"Not logged in to {server}")
    return 0
