"""Tokens of our registry: what they open, for how long, and how many are kept."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

from havre.distribution.accounts import Accounts
from havre.distribution.tokens import LIFE_S, TokenGate
from havre.oci.digest import digest_of
from support.ownregistry import play, serving
from support.registry import HTPASSWD, PASSWORD, USER


def test_tokens_open_what_they_name(tmp_path: Path) -> None:
    file = tmp_path / "accounts"
    file.write_text(HTPASSWD)
    basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    now = [0.0]

    async def work() -> None:
        async with serving(tmp_path / "root", gate=TokenGate(Accounts(file), lambda: now[0])) as ask:

            async def token(scope: str) -> str:
                body = (await ask("GET", f"/token?service=havre-registry&scope={scope}", Authorization=basic))[2]
                return "Bearer " + json.loads(body)["token"]

            status, headers, _ = await ask("POST", "/v2/a/b/blobs/uploads/")
            words = f'realm="http://{ask.host}/token",service="havre-registry",scope="repository:a/b:pull,push"'
            assert (status, headers["WWW-Authenticate"]) == (401, f"Bearer {words}")
            assert (await ask("GET", "/token", Authorization="Basic bm86Ym9keQ=="))[0] == 401
            nobody = "Bearer " + json.loads((await ask("GET", "/token?scope=repository:a/b:pull"))[2])["token"]
            assert (await ask("GET", "/token?service=other", Authorization=basic))[0] == 400
            pull, push = await token("repository:a/b:pull"), await token("repository:a/b:pull,push")
            digest = digest_of(b"data")
            upload = f"/v2/a/b/blobs/uploads/?digest={digest}"
            assert (await ask("POST", upload, b"data", Authorization=push))[0] == 201
            assert (await ask("GET", f"/v2/a/b/blobs/{digest}", Authorization=pull))[2] == b"data"
            assert (await ask("GET", "/v2/", Authorization=pull))[0] == 200
            refused = [
                ("POST", upload, pull, "insufficient_scope"),
                ("GET", "/v2/other/tags/list", pull, "insufficient_scope"),
                ("GET", "/v2/_catalog", push, "insufficient_scope"),
                ("DELETE", f"/v2/a/b/blobs/{digest}", push, "insufficient_scope"),
                ("GET", "/v2/", nobody, "insufficient_scope"),
                ("GET", "/v2/a/b/tags/list", nobody, "insufficient_scope"),
                ("GET", "/v2/", pull[:-4] + "AAAA", "invalid_token"),
                ("GET", "/v2/", "Bearer x", "invalid_token"),
            ]
            for method, path, given, error in refused:
                status, headers, _ = await ask(method, path, Authorization=given)
                assert (status, headers["WWW-Authenticate"].endswith(f'error="{error}"')) == (401, True)
            assert (await ask("GET", "/v2/", Authorization=basic))[0] == 401

            mount = f"/v2/c/blobs/uploads/?mount={digest}&from=a/b"
            only = await token("repository:c:pull,push")
            assert (await ask("POST", mount, Authorization=only))[0] == 202
            both = await token("repository:c:pull,push repository:a/b:pull")
            assert (await ask("POST", mount, Authorization=both))[0] == 201
            now[0] = LIFE_S
            assert (await ask("GET", "/v2/", Authorization=both))[0] == 401
            assert (await ask("GET", "/v2/", Authorization=await token("repository:c:pull")))[0] == 200

    play(work)


def test_tokens_are_opaque_and_so_many_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "accounts"
    file.write_text(HTPASSWD)
    basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    async def work() -> None:
        async with serving(tmp_path / "root", gate=TokenGate(Accounts(file), most=2)) as ask:

            async def token(**headers: str) -> str:
                return str(json.loads((await ask("GET", "/token?scope=repository:a:pull", **headers))[2])["token"])

            tokens = [await token(Authorization=basic) for _ in range(3)]
            assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", each) for each in tokens)
            strangers = {await token() for _ in range(3)}
            assert len(strangers) == 1, "a token that opens nothing takes no place"
            found = [(await ask("GET", "/v2/", Authorization=f"Bearer {each}"))[0] for each in tokens]
            assert found == [401, 200, 200]

    play(work)
