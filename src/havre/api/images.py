"""Images: pull and import, load and save, list, inspect, tag, push, remove, prune; and havre's `GET /images/NAME/sbom`.

Source: Docker Engine API, "Images".
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress

from aiohttp import web

from havre.api.call import Call
from havre.api.progress_stream import stream_progress
from havre.api.router import Router
from havre.builds import fetching
from havre.errors import InvalidInput, NotFound
from havre.images.progress import Progress, ProgressLine
from havre.registry import Auth
from havre.wire import versions
from havre.wire.decode import decode_header

_TAR = "application/x-tar"


async def _create(call: Call) -> web.StreamResponse:
    if source := call.text("fromSrc"):
        return await _import(call, source)
    name, tag = call.text("fromImage"), call.text("tag")
    if not name:
        raise InvalidInput("invalid reference format: fromImage or fromSrc must be given")
    auth, platform = decode_auth(call), call.text("platform") or None
    images, verify = call.services.images, call.text("verify")
    return await stream_progress(
        call, lambda progress: images.pull(name, tag, auth=auth, platform=platform, verify=verify, progress=progress)
    )


async def _pull_verified(call: Call) -> web.StreamResponse:
    """As `_create`, at a separate path, so that an engine without the feature responds 404 instead of skipping the
    check."""
    if not call.text("verify"):
        raise InvalidInput("a public key must be given as verify")
    return await _create(call)


async def _import(call: Call, source: str) -> web.StreamResponse:
    changes, platform = call.query.getall("changes", []), call.text("platform") or None
    repository, tag, message = call.text("repo"), call.text("tag"), call.text("message")

    async def work(progress: Progress) -> None:
        async with _read(call, source, progress) as chunks:
            image = await call.services.images.import_(
                chunks,
                repository,
                tag,
                message=message or f"Imported from {source}",
                changes=changes,
                platform=platform,
            )
        progress(ProgressLine(image))

    return await stream_progress(call, work)


@asynccontextmanager
async def _read(call: Call, source: str, progress: Progress) -> AsyncIterator[AsyncIterator[bytes]]:
    """The data to import: the request's body for `-`, otherwise a URL's, by HTTP if it has no scheme."""
    if source == "-":
        yield call.upload()
        return
    url = source if "://" in source else f"http://{source}"
    async with fetching.reading(url) as (size, chunks):
        progress(ProgressLine(f"Downloading from {url}"))
        yield _counted(chunks, size, progress)


async def _counted(chunks: AsyncIterator[bytes], size: int, progress: Progress) -> AsyncIterator[bytes]:
    got = 0
    async for chunk in chunks:
        got += len(chunk)
        progress(ProgressLine("Importing", current=got, total=size))
        yield chunk


async def _list(call: Call) -> web.StreamResponse:
    images, filters = call.services.images, call.filters()
    if versions.images_have_one_filter(call.version) and (pattern := call.text("filter")):
        filters.setdefault("reference", []).append(pattern)
    manifests = call.flag("manifests")
    identity = versions.lists_can_tell_identities(call.version) and call.flag("identity")
    if identity and not manifests:
        raise InvalidInput("conflicting options: identity requires manifests=1")
    rows = images.list(filters, all=call.flag("all"), shared_size=call.flag("shared-size"), containers=True)
    found = []
    for row in rows:
        with suppress(NotFound):  # removed meanwhile
            await (images.show_manifests(row, identity=identity) if manifests else images.show_descriptor(row))
            found.append(row)
    return call.json(found)


async def _inspect(call: Call) -> web.StreamResponse:
    images, platform, manifests = call.services.images, call.platform(), call.flag("manifests")
    if manifests and platform is not None:
        raise InvalidInput("conflicting options: manifests and platform options cannot both be set")
    details = images.inspect(call.name, platform)
    if manifests:
        await images.show_manifests(details)
    else:
        await images.show_descriptor(details, of_platform=platform is not None)
    return call.json(details)


async def _sbom(call: Call) -> web.StreamResponse:
    """Havre's own: the SBOM of an image in SPDX or CycloneDX."""
    form = call.text("format") or "spdx-json"
    document = await call.services.images.sbom(call.name, call.platform(), form)
    kind = "application/spdx+json" if form == "spdx-json" else "application/vnd.cyclonedx+json"
    return call.respond(document, kind)


async def _attestations(call: Call) -> web.StreamResponse:
    call.need((1, 55), "/images/{name:.*}/attestations")
    if len(call.query.getall("platform", [])) > 1:
        raise InvalidInput("only one platform value is currently supported")
    types = {text.strip() for text in call.query.getall("type", [])} - {""}
    work = call.services.images.attestations(call.name, call.platform(), types, whole=call.flag("statement"))
    return call.json(await work)


async def _history(call: Call) -> web.StreamResponse:
    return call.json(call.services.images.history(call.name, call.platform()))


async def _tag(call: Call) -> web.StreamResponse:
    repository, tag = call.text("repo"), call.text("tag")
    if not repository:  # dockerd has no new name and returns 200 without doing anything
        return call.nothing(200)
    await call.settle(call.services.images.tag(call.name, repository, tag))
    return call.nothing(201)


async def _push(call: Call) -> web.StreamResponse:
    auth, tag, platform = await _push_auth(call), call.text("tag"), call.platform()
    images = call.services.images

    async def work(progress: Progress) -> None:
        await images.push(call.name, tag, auth=auth, platform=platform, progress=progress)

    return await stream_progress(call, work, at_once=True)


async def _remove(call: Call) -> web.StreamResponse:
    force, prune, platforms = call.flag("force"), not call.flag("noprune"), call.platforms("platforms")
    work = call.services.images.remove(call.name, force=force, prune=prune, platforms=platforms)
    return call.json(await call.settle(work))


async def _prune(call: Call) -> web.StreamResponse:
    return call.json(await call.settle(call.services.images.prune(call.filters())))


async def _load(call: Call) -> web.StreamResponse:
    """Load what was received even if the client disconnects, as Go's clients do after the head."""
    images, platforms = call.services.images, call.platforms()

    async def work(progress: Progress) -> None:
        await call.settle(images.load(call.upload(), progress, platforms))

    return await stream_progress(call, work, errors_in_stream=True)


async def _save_one(call: Call) -> web.StreamResponse:
    return await _save(call, [call.name])


async def _save_many(call: Call) -> web.StreamResponse:
    return await _save(call, call.query.getall("names", []))


async def _save(call: Call, names: list[str]) -> web.StreamResponse:
    async with aclosing(call.services.images.save(names, call.platforms())) as tar:
        response = await call.stream(_TAR)
        async for chunk in tar:
            await response.write(chunk)
    return response


async def _search(call: Call) -> web.StreamResponse:
    auth, limit = decode_auth(call), call.integer("limit")
    return call.json(await call.services.images.search(call.text("term"), limit, call.filters(), auth))


async def _distribution(call: Call) -> web.StreamResponse:
    return call.json(await call.services.images.describe_remote(call.name, decode_auth(call)))


async def _push_auth(call: Call) -> Auth | None:
    """Credentials for a push, from the header or (older clients, SDKs) the body."""
    if "X-Registry-Auth" in call.request.headers:
        return decode_auth(call)
    if not call.request.can_read_body:
        raise InvalidInput("bad parameters and missing X-Registry-Auth: invalid X-Registry-Auth header: EOF")
    return await call.body(Auth)


def decode_auth(call: Call) -> Auth | None:
    """The credentials in `X-Registry-Auth`."""
    return decode_header(call.request.headers.get("X-Registry-Auth", ""), Auth)


def register(router: Router) -> None:
    """Add the routes of images."""
    router.add("GET", "/images/json", _list)
    router.add("GET", "/images/search", _search)
    router.add("GET", "/images/get", _save_many)
    router.add("POST", "/images/create", _create)
    router.add("POST", "/images/pull-verified", _pull_verified)
    router.add("POST", "/images/load", _load)
    router.add("POST", "/images/prune", _prune)
    router.add("GET", "/distribution/{name}/json", _distribution)
    router.add("GET", "/images/{name}/get", _save_one)
    router.add("GET", "/images/{name}/json", _inspect)
    router.add("GET", "/images/{name}/attestations", _attestations)
    router.add("GET", "/images/{name}/history", _history)
    router.add("GET", "/images/{name}/sbom", _sbom)
    router.add("POST", "/images/{name}/push", _push)
    router.add("POST", "/images/{name}/tag", _tag)
    router.add("DELETE", "/images/{name}", _remove)
