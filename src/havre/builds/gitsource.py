"""Git repositories as build contexts and as sources of ADD: the files of one commit, fetched by the `git` program.

    https://host/repo.git#REF:DIR   git@host:repo.git   ssh://  git://     --parse_git_address-->  GitAddress
    https://host/repo.git?branch=B&subdir=DIR&checksum=COMMIT
    GitAddress --clone--> fetch one commit (all if the server does not serve single commits)
                          check its size, check it out, with submodules as docker does --> the directory DIR of it

The repository is hostile. Git runs without the host's and root's configuration, templates, hooks and prompts;
GIT_ALLOW_PROTOCOL keeps the repository and its submodules from using local paths or external helpers; objects are
verified on receipt; time, files and bytes are bounded. SSH uses the known hosts of this host and the keys of the
client's agent.

Source: the Docker documentation, "Git repositories"; git(1), git-fetch(1), git-config(1).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl

from havre.aio import in_thread
from havre.builds.trees import DirectoryTree
from havre.errors import Failed, InvalidInput, Unavailable
from havre.linux import trees

TOKEN, HEADER = "GIT_AUTH_TOKEN", "GIT_AUTH_HEADER"  # IDs of the client's secrets, as in BuildKit
PROTOCOLS = "https:http:git:ssh"
MAX_SECONDS = 900
MAX_FILES = 1_000_000
MAX_BYTES = 16 << 30
_MAX_ERRORS = 8 << 10  # bytes of git's output in an error message
_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+@-]*")
_PREFIXES = {"ref": "", "branch": "refs/heads/", "tag": "refs/tags/"}
_SETTINGS = (
    "core.hooksPath=/dev/null", "core.protectHFS=true", "core.protectNTFS=true", "core.fsmonitor=false",
    "transfer.fsckObjects=true", "advice.detachedHead=false", "init.defaultBranch=main", "submodule.fetchJobs=1",
    "gc.auto=0", "maintenance.auto=false", "credential.helper=",
)  # fmt: skip


@dataclass(frozen=True)
class GitAddress:
    """A repository, a ref in it ("": its default branch), and a directory ("": all).

    `checksum` is a prefix of the commit's ID.
    """

    remote: str
    ref: str = ""
    directory: str = ""
    checksum: str = ""

    @property
    def shown(self) -> str:
        """The repository's address without credentials."""
        return shown_address(self.remote)


@dataclass(frozen=True)
class GitAccess:
    """Credentials of a client for fetching: the HTTP header `Authorization`, and the socket of its SSH agent."""

    authorization: str = ""
    agent: Path | None = None


class Lender(Protocol):
    """The part of a build's client that provides credentials for fetching."""

    async def secret(self, id: str) -> bytes | None:
        """A secret of the client."""

    async def ssh(self, id: str) -> Path | None:
        """The socket of an SSH agent."""


def authorization_of(token: bytes | None, header: bytes | None) -> str:
    """The header `Authorization` from the secrets GIT_AUTH_TOKEN and GIT_AUTH_HEADER (a complete value)."""
    if header:
        return header.decode(errors="replace").strip()
    if not token:
        return ""
    return "basic " + base64.b64encode(b"x-access-token:" + token.strip()).decode()


async def git_access(address: GitAddress, client: Lender) -> GitAccess:
    """The client's credentials for a repository."""
    if address.remote.startswith("https://"):
        return GitAccess(authorization_of(await client.secret(TOKEN), await client.secret(HEADER)))
    is_ssh = address.remote.startswith(("ssh://", "git@"))
    return GitAccess(agent=await client.ssh("default") if is_ssh else None)


def shown_address(url: str) -> str:
    """A URL without user and password."""
    return re.sub(r"(?<=://)[^/@]*@", "", url)


def parse_git_address(text: str) -> GitAddress | None:
    """The address if `text` refers to a git repository. Raises `InvalidInput` for an invalid fragment or query."""
    text, _, fragment = text.partition("#")
    remote, _, query = text.partition("?")
    is_http = remote.startswith(("http://", "https://"))
    if remote.startswith("github.com/"):
        remote = f"https://{remote}"
    elif not remote.startswith(("git://", "git@", "ssh://")) and not (is_http and remote.endswith(".git")):
        return None
    ref, _, directory = fragment.partition(":")
    checksum = ""
    if query:
        if fragment:
            raise InvalidInput(f"the git repository {shown_address(remote)} has both a fragment and a query")
        ref, directory, checksum = _read_query(query)
    if ref and not _REF.fullmatch(ref):
        raise InvalidInput(f"invalid git reference: {ref[:200]!r}", "expected a branch, a tag or a commit")
    if any(char.isspace() or ord(char) < 32 for char in remote):
        raise InvalidInput(f"invalid git repository: {remote[:200]!r}")
    return GitAddress(remote, ref, directory, checksum)


def _read_query(query: str) -> tuple[str, str, str]:
    """Ref, directory and checksum of a query in BuildKit's syntax."""
    fields = dict(parse_qsl(query, keep_blank_values=True))
    refs = [f"{_PREFIXES[name]}{fields.pop(name)}" for name in _PREFIXES if name in fields]
    checksum = fields.pop("checksum", "") or fields.pop("commit", "")
    directory = fields.pop("subdir", "")
    if fields or len(refs) > 1:
        name = next(iter(fields), "ref, branch and tag at once")
        raise InvalidInput(
            f"unexpected query of a git repository: {name}", "there are ref, branch, tag, checksum, subdir"
        )
    if checksum and not re.fullmatch(r"[0-9a-f]{7,64}", checksum):
        raise InvalidInput(f"invalid checksum of a git repository: {checksum[:80]!r}", "expected a commit's ID")
    return (*refs, checksum)[0], directory, checksum


async def clone(address: GitAddress, directory: Path, access: GitAccess, *, keep_git: bool = False) -> tuple[Path, str]:
    """Fetch into the empty `directory`. Returns the path of the requested files in it, and the commit (`sha1:ID`).

    Raises `Failed` with git's output. On cancellation, kills git. `keep_git` keeps the directory `.git`.
    """
    program = shutil.which("git")
    if program is None:
        raise Unavailable(f"git is needed to fetch {address.shown}", "install the package git")
    git = _Git(program, directory, address, access)
    try:
        async with asyncio.timeout(MAX_SECONDS):
            commit = await _fetch(git, address)
            if not commit.startswith(address.checksum):
                raise Failed(f"{address.shown} is at commit {commit}: {address.checksum} was expected")
            await _check_size(git, commit, address)
            await git.run("checkout", "-q", "--force", "--detach", commit)
            if (directory / ".gitmodules").is_file():
                await _update_submodules(git)
    except TimeoutError:
        raise Failed(f"fetching {address.shown} took longer than {MAX_SECONDS} seconds") from None
    if not keep_git:
        await in_thread(_remove_git, directory)
    kind = "sha1" if len(commit) == 40 else "sha256"
    return await in_thread(_inside, directory, address), f"{kind}:{commit}"


class _Git:
    """Runs git on one repository."""

    def __init__(self, program: str, directory: Path, address: GitAddress, access: GitAccess) -> None:
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        self._command = [program, *settings, "-C", str(directory)]
        self._address = address
        self._env = _environment(address, access)

    async def run(self, *arguments: str) -> str:
        """Run a command and return its output. Raises `Failed` with its error output."""
        child = await asyncio.create_subprocess_exec(
            *self._command,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._env,
            start_new_session=True,
            umask=0o022,
        )
        try:
            output, errors = await child.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # including the programs that it started
            await child.wait()
        if child.returncode:
            words = errors[-_MAX_ERRORS:].decode(errors="replace").replace(self._address.remote, self._address.shown)
            raise Failed(f"failed to fetch {self._address.shown}: {words.strip() or f'git ended {child.returncode}'}")
        return output.decode(errors="replace").strip()


def _environment(address: GitAddress, access: GitAccess) -> Mapping[str, str]:
    known = "-o GlobalKnownHostsFile=/etc/ssh/ssh_known_hosts -o UserKnownHostsFile=/root/.ssh/known_hosts"
    env = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "LC_ALL": "C",
        "HOME": "/nonexistent",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_ALLOW_PROTOCOL": PROTOCOLS,
        "GIT_PROTOCOL_FROM_USER": "0",
        "GIT_TEMPLATE_DIR": "",
        "GIT_SSH_COMMAND": f"ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=yes {known}",
    }
    proxies = ("http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY")
    env |= {name: os.environ[name] for name in proxies if name in os.environ}
    if access.agent is not None:
        env["SSH_AUTH_SOCK"] = str(access.agent)
    if access.authorization and address.remote.startswith("https://"):
        env |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"http.{address.remote}.extraHeader"}
        env["GIT_CONFIG_VALUE_0"] = f"Authorization: {access.authorization}"
    return env


async def _fetch(git: _Git, address: GitAddress) -> str:
    """Fetch the requested ref and return the ID of its commit."""
    await git.run("init", "-q", ".")
    await git.run("remote", "add", "origin", address.remote)
    try:
        await git.run(
            "fetch", "-q", "--depth=1", "--no-tags", "--no-recurse-submodules", "origin", address.ref or "HEAD"
        )
        return await git.run("rev-parse", "--verify", "FETCH_HEAD^{commit}")
    except Failed as failure:  # the server supports no shallow clones, or serves no single commits
        wanted = address.ref
        branches = ("+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*")
        head = () if wanted else ("+HEAD:refs/remotes/origin/HEAD",)
        await git.run("fetch", "-q", "--no-recurse-submodules", "origin", *branches, *head)
        for name in (f"refs/remotes/origin/{wanted or 'HEAD'}", f"refs/tags/{wanted}", wanted):
            with contextlib.suppress(Failed):
                return await git.run("rev-parse", "--verify", "-q", "--end-of-options", f"{name}^{{commit}}")
        raise failure from None


async def _check_size(git: _Git, commit: str, address: GitAddress) -> None:
    listing = await git.run("ls-tree", "-r", "--format=%(objectsize)", commit)
    sizes = [int(size) for size in listing.split() if size.isdecimal()]
    if len(sizes) > MAX_FILES or sum(sizes) > MAX_BYTES:
        raise InvalidInput(
            f"{address.shown} has {len(sizes)} files of {sum(sizes)} bytes",
            f"at most {MAX_FILES} files of {MAX_BYTES} bytes are checked out",
        )


async def _update_submodules(git: _Git) -> None:
    update = ("submodule", "--quiet", "update", "--init", "--recursive")
    try:
        await git.run(*update, "--depth=1")
    except Failed:  # not every server supports --depth
        await git.run(*update)


def _remove_git(directory: Path) -> None:
    trees.remove_tree(directory / ".git")
    for path in directory.rglob(".git"):  # gitsubmodules(7): a submodule's is a file that refers to the directory above
        if path.is_file() or path.is_symlink():
            path.unlink()


def _inside(directory: Path, address: GitAddress) -> Path:
    """The requested directory, links resolved inside the repository."""
    found = DirectoryTree(directory).locate(address.directory.strip("/") or ".")
    if found is None or not found[1]:
        raise InvalidInput(f"{address.shown} has no directory {address.directory!r}")
    return directory / found[0]
