"""Registry credentials in the user's config file: `auths`, credential helpers, and the header that carries them.

Source: docker's config.json: `auths.SERVER.auth` is base64 of `user:password`; `credHelpers.SERVER` and `credsStore`
name programs `docker-credential-NAME` that are asked over stdin.
"""

from __future__ import annotations

from havre.errors import Failed
from havre.golang.jsontext import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from havre.client.config import Config


def base64(data: bytes, *, url_safe: bool = False) -> str:
    """Base64 text; `url_safe` with - and _."""
    from binascii import b2a_base64

    text = b2a_base64(data, newline=False).decode()
    return text.replace("+", "-").replace("/", "_") if url_safe else text


def auth_header(auth: dict[str, str]) -> str:
    """The value of X-Registry-Auth."""
    return base64(encode(auth).encode(), url_safe=True)


def find_auth(config: Config, server: str) -> dict[str, str]:
    """The credentials of a registry (`docker.io` by its historical key); empty when there are none."""
    helper = config.values.get("credHelpers", {}).get(server) or config.text("credsStore")
    if helper:
        return _from_helper(helper, server)
    auths: dict[str, Any] = config.values.get("auths") or {}
    entry = auths.get(server) or next((auths[key] for key in auths if _host_of(key) == _host_of(server)), None)
    return _decode_entry(entry, server) if entry else {}


def known_auths(config: Config) -> dict[str, dict[str, str]]:
    """The credentials of all registries, those of credential helpers included; without empty ones."""
    servers = {**(config.values.get("auths") or {}), **(config.values.get("credHelpers") or {})}
    if store := config.text("credsStore"):
        servers |= decode(run_helper(store, "list", "")) or {}
    found = {server: find_auth(config, server) for server in servers}
    return {server: auth for server, auth in found.items() if auth}


def _host_of(key: str) -> str:
    return key.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _decode_entry(entry: dict[str, Any], server: str) -> dict[str, str]:
    from binascii import Error, a2b_base64

    auth = {"serveraddress": server}
    if entry.get("auth"):
        try:
            user, _, password = a2b_base64(entry["auth"]).decode().partition(":")
        except (Error, UnicodeDecodeError) as error:
            raise Failed(f"the credentials of {server} in config.json cannot be decoded", "log in again") from error
        auth |= {"username": user, "password": password.strip("\0")}
    for name in ("identitytoken", "registrytoken", "username", "password"):
        if entry.get(name):
            auth[name] = entry[name]
    return auth


def store_auth(config: Config, server: str, auth: dict[str, str]) -> None:
    """Store credentials, in the helper if one is configured, else in the config file."""
    helper = config.values.get("credHelpers", {}).get(server) or config.text("credsStore")
    if helper:
        secret = auth.get("identitytoken") or auth.get("password", "")
        user = "<token>" if auth.get("identitytoken") else auth.get("username", "")
        run_helper(helper, "store", encode({"ServerURL": server, "Username": user, "Secret": secret}))
        config.values.setdefault("auths", {})[server] = {}
    else:
        entry = {"auth": base64(f"{auth.get('username', '')}:{auth.get('password', '')}".encode())}
        if auth.get("identitytoken"):
            entry = {"auth": base64(f"{auth.get('username', '')}:".encode()), "identitytoken": auth["identitytoken"]}
        config.values.setdefault("auths", {})[server] = entry
    config.save()


def erase_auth(config: Config, server: str) -> bool:
    """Delete credentials; returns whether there were any."""
    helper = config.values.get("credHelpers", {}).get(server) or config.text("credsStore")
    known = config.values.get("auths", {}).pop(server, None) is not None
    if helper:
        run_helper(helper, "erase", server)
    if known:
        config.save()
    return known or bool(helper)


def _from_helper(helper: str, server: str) -> dict[str, str]:
    try:
        answer = decode(run_helper(helper, "get", server))
    except Failed as error:
        if "credentials not found" in error.message:
            return {}
        raise
    auth = {"serveraddress": server}
    if answer.get("Username") == "<token>":
        return {**auth, "identitytoken": answer["Secret"]}
    return {**auth, "username": answer.get("Username", ""), "password": answer.get("Secret", "")}


def run_helper(helper: str, action: str, text: str) -> str:
    """Run a credential helper. Raises Failed with its output."""
    import subprocess

    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, action], input=text, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Failed(f"the credential helper {program} is not installed") from error
    if done.returncode:
        raise Failed(f"{program} {action}: {(done.stdout or done.stderr).strip()}")
    return done.stdout
