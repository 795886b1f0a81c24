"""`havre build`: sends a context to the daemon, shows the build's steps, and delivers the result.

havre's daemon    the context by `buildsend`'s list, secrets and named contexts; steps live (`buildview`)
dockerd           the whole context as a tar to the classic endpoint, whose output is shown as it is
"""

from __future__ import annotations

import os
import posix
import sys
from binascii import a2b_base64
from contextlib import nullcontext

from havre.cli.buildview import Steps, choose_view, render_failure
from havre.cli.parser import StatusError
from havre.cli.progress import Failure, show
from havre.cli.prune import check_builder
from havre.cli.pull import check_name
from havre.cli.screen import paint
from havre.cli.tty import RED, has_colours
from havre.client.buildcache import Caches
from havre.client.buildcontext import DirectoryContext, TextContext
from havre.client.buildsend import is_remote, read_secret, registry_config, send_list, send_tar, takes_lists
from havre.errors import HavreError
from havre.golang.jsontext import decode, encode
from havre.oci.names import DEFAULT_REGISTRY, has_tag, split_registry
from havre.visible import Drawn, visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager
    from typing import Any

    from havre.cli.session import Session
    from havre.client.api import Query
    from havre.client.buildsend import Source
    from havre.golang.flags import Options

    Messages = Iterator[dict[str, Any]]

_CHUNK = 256 << 10


def build(session: Session, options: Options, arguments: list[str]) -> int:
    """Build an image from a context: a directory, `-` or a URL. Raises StatusError, with the code of a failed RUN."""
    check_builder(options.builder)
    outputs = []
    if options.output or options.annotation:
        from havre.cli.buildoutput import annotate, deliver, parse_outputs

        outputs = parse_outputs(options.output)
        annotate(options.annotation, outputs, pushed=options.push)
    tags = [*options.tag, *(output.name for output in outputs if output.name and not output.dest)]
    for tag in tags + [output.name for output in outputs if output.name]:
        check_name(tag)
    kept = not outputs or options.load or options.push or any(not output.dest for output in outputs)
    query = build_query(options, session.client.proxies) | {"t": tags if kept else []}
    source = _source(arguments[0], options, query)
    credentials = registry_config(session.config)
    if options.check:
        return report_checks(
            session.client.messages(send_tar(session.client, "/build/check", query, source, credentials))
        )
    _write_id(options.iidfile, "")
    steps = Steps()
    if takes_lists(session.client):
        query["progress"] = "rawjson"
        secrets = dict(map(_read_secret, options.secret))
        named = dict(context.partition("=")[::2] for context in options.build_context)
        caches = _caches(options, query)
        with _agents(session, options, query):
            sent = send_list(session.client, query, source, named, secrets, credentials, caches.directories)
            built = _watch(sent, options, steps)
        for directory, asked in caches.exports(built.get("Caches") or {}):
            from havre.cli.buildoutput import unpack_layout

            unpack_layout(session.client.call("POST", "/build/export", body=asked).chunks(), directory)
    else:
        _refuse_elsewhere(options)
        messages = session.client.messages(send_tar(session.client, "/build", query, source, credentials))
        built = {"ID": _watch_classic(messages, quiet=options.quiet)}
    image = built["ID"]
    digest = deliver(session.client, built, outputs, tags) if outputs else ""
    _conclude(options, image, tags, steps)
    if options.push or any(output.push for output in outputs):
        digest = _push(session, tags, quiet=options.quiet)
    if options.metadata_file:
        _write_metadata(options.metadata_file, built, digest, tags)
    return 0


def _agents(session: Session, options: Options, query: Query) -> AbstractContextManager[object]:
    """Serve the build's SSH agents for the duration of a block, and add them to the query."""
    if not options.ssh:
        return nullcontext()
    from havre.client.buildagents import Agents

    agents = Agents(options.ssh)
    query |= {"ssh": agents.ids, "buildid": os.urandom(16).hex()}
    agents.offer(session.new_client, str(query["buildid"]))
    return agents


def _caches(options: Options, query: Query) -> Caches:
    """The caches of the build, added to its query; warns about directories that do not exist."""
    caches = Caches(options.cache_from, options.cache_to)
    query |= caches.query()
    for directory in caches.missing:
        sys.stderr.write(f"warning: there is no cache in {directory}\n")
    return caches


def _source(context: str, options: Options, query: Query) -> Source:
    """The context to send; None for a URL, which the daemon fetches."""
    if is_remote(context):
        query["remote"] = context
        query["dockerfile"] = options.file
        return None
    if context == "-":
        query["dockerfile"] = options.file
        found = _from_stdin(options)
        if isinstance(found, TextContext):
            query["dockerfile"] = found.dockerfile
        return found
    directory = DirectoryContext(context, _read_stdin() if options.file == "-" else options.file)
    query["dockerfile"] = directory.dockerfile
    return directory


def _read_secret(text: str) -> tuple[str, bytes]:
    """The ID and value of `id=x,src=FILE` or `id=x,env=NAME`; a bare ID is looked up as a variable, then as a file."""
    fields = dict(field.partition("=")[::2] for field in text.split(","))
    id = fields.get("id", "") or fields.get("src", "") or fields.get("source", "")
    path = fields.get("src") or fields.get("source") or ""
    name = fields.get("env") or (id if not path and id in os.environ else "")
    if not id or set(fields) - {"id", "src", "source", "env", "type"}:
        raise StatusError(1, f"invalid secret {text!r}: id=NAME with src=FILE or env=VARIABLE is expected")
    if name:
        return id, os.environ.get(name, "").encode("utf-8", "surrogateescape")
    return id, read_secret(id, path or id)


def _refuse_elsewhere(options: Options) -> None:
    """Reject options that another daemon's classic endpoint does not support."""
    asked = {
        "allow": options.allow,
        "secret": options.secret,
        "ssh": options.ssh,
        "attest": options.attest or options.provenance or options.sbom,
        "cache-to": options.cache_to,
        "build-context": options.build_context,
        "no-cache-filter": options.no_cache_filter,
        "platform": "," in options.platform,
    }
    for name, given in asked.items():
        if given:
            raise StatusError(1, f"--{name} needs havre's daemon; with this one, use docker buildx build")


def _watch(messages: Messages, options: Options, steps: Steps) -> dict[str, Any]:
    """Show the steps; returns the daemon's message with the result. Raises StatusError."""
    view = choose_view(options.progress, steps, quiet=options.quiet)
    built: dict[str, Any] = {"ID": ""}
    try:
        for message in messages:
            if error := message.get("errorDetail"):
                raise StatusError(error.get("code") or 1, _render_problem(error.get("message", "")))
            told = message.get("aux") or {}
            if "Build" in told:
                view.update(told["Build"])
            else:
                built |= told
    except HavreError:
        view.end()
        sys.stderr.write(render_failure(steps))
        raise
    view.end()
    return built


def _render_problem(message: str) -> str:
    """An error with the Dockerfile's lines that it refers to, as docker's clients show it; red on a terminal."""
    problem, *rest = message.split("\n")
    at = next((n for n, line in enumerate(rest) if line.startswith("-" * 20)), 0)
    problem = "\n".join([problem, *rest[: max(at - 1, 0)]]) if at else message
    shown = "\n".join(rest[at - 1 :]) + "\n" if at else ""
    told = paint(visible(f"ERROR: failed to solve: {problem}"), RED if has_colours(2) else "")
    return Drawn(visible(shown) + told)


def _push(session: Session, tags: list[str], *, quiet: bool) -> str:
    """Push every name; returns the digest pushed last."""
    if not tags:
        raise StatusError(1, "tag is needed when pushing to registry")
    from havre.cli.pull import push_image

    return [push_image(session, tag, quiet=quiet) for tag in tags][-1]


def _conclude(options: Options, image: str, tags: list[str], steps: Steps) -> None:
    """Report the result on the terminal and in the files asked for."""
    if options.quiet:
        print(image)
    elif options.progress != "rawjson":
        named = "".join(f"naming to {tag}\n" for tag in tags)
        warned = "".join(f"warning: {text}\n" for text in steps.warnings)
        sys.stderr.write(f"{warned}writing image {image}\n{named}" if image else warned)
    _write_id(options.iidfile, image)
    if options.graph:
        from havre.cli.buildgraph import render_svg

        with open(options.graph, "w") as file:
            file.write(render_svg(steps))


def _write_metadata(path: str, built: dict[str, Any], digest: str, tags: list[str]) -> None:
    """Write the metadata file, with buildx's keys; `digest` is that of a manifest pushed or written to an archive."""
    image = built["ID"]
    names = {"image.name": ",".join(map(_canonical, tags))} if tags else {}
    digests = {"containerimage.config.digest": image, "containerimage.digest": digest or image}
    with open(path, "w") as file:
        file.write(encode(_provenances(built) | digests | names, indent="  ") + "\n")


def _provenances(built: dict[str, Any]) -> dict[str, Any]:
    """The provenance of the result, or of each platform's, if requested."""
    results = {f"/{text}": each for text, each in (built.get("Platforms") or {}).items()} or {"": built}
    return {
        f"buildx.build.provenance{suffix}": decode(a2b_base64(predicate["Document"]))
        for suffix, each in results.items()
        for predicate in each.get("Predicates") or ()
        if predicate["Type"].startswith("https://slsa.dev/provenance/")
    }


def _canonical(name: str) -> str:
    registry, rest = split_registry(name)
    path = rest if "/" in rest or registry != DEFAULT_REGISTRY else f"library/{rest}"
    return f"{registry}/{path}" + ("" if has_tag(name) else ":latest")


def report_checks(messages: Iterator[dict[str, Any]]) -> int:
    """Print the warnings of the build checks; 1 if there are any. dockerd's classic endpoint does not support them."""
    text = ""
    found: dict[str, Any] = {}
    for message in _checked(messages):
        text += message.get("stream", "")
        found = message.get("aux", found)
    count, error = found.get("Warnings", 0), found.get("Error", "")
    told = {0: "no warnings found.", 1: "1 warning has been found!"}.get(count, f"{count} warnings have been found!")
    print(f"Check complete, {told}\n{text}", end="")
    if error:
        raise StatusError(1, error)
    return 1 if count else 0


def attestations(texts: Iterable[str], provenance: str, sbom: str) -> dict[str, str]:
    """The attestations by kind with their settings, in BuildKit's form, of `--attest` and its two short forms."""
    given = [f"type={kind},{text}" for kind, text in (("provenance", provenance), ("sbom", sbom)) if text]
    wanted = {}
    for text in (*texts, *given):
        fields = [field for field in text.split(",") if field]
        kinds = [field.removeprefix("type=") for field in fields if field.startswith("type=")]
        if len(kinds) != 1:
            raise StatusError(1, f"invalid attestation {text!r}: type=provenance or type=sbom is expected")
        switches = {"true": "", "false": "disabled=true"}
        settings = [switches.get(field, field) for field in fields if not field.startswith("type=")]
        wanted[kinds[0]] = ",".join(filter(None, settings))
    return wanted


def build_query(options: Options, proxies: dict[str, str] | None = None) -> Query:
    """The query of POST /build, without what depends on the context."""
    query: Query = {"t": options.tag, "rm": "1", "version": "1"}
    texts = {
        "target": options.target,
        "platform": options.platform,
        "networkmode": options.network,
        "cpusetcpus": options.cpuset_cpus,
        "cpusetmems": options.cpuset_mems,
        "cgroupparent": options.cgroup_parent,
    }
    numbers = {
        "shmsize": options.shm_size,
        "memory": options.memory,
        "memswap": options.memory_swap,
        "cpushares": options.cpu_shares,
        "cpuquota": options.cpu_quota,
        "cpuperiod": options.cpu_period,
    }
    filtered = [stage for text in options.no_cache_filter for stage in text.split(",") if stage]
    switches = {"nocache": options.no_cache, "pull": options.pull, "q": options.quiet, "squash": options.squash}
    arguments = {name: value for name, value in map(_build_arg, options.build_arg) if value is not None}
    documents: dict[str, Any] = {
        "buildargs": {**(proxies or {}), **arguments},
        "labels": dict(label.partition("=")[::2] for label in options.label),
        "cachefrom": options.cache_from,
        "ulimits": options.ulimit,
        "nocachefilter": filtered,
        "attestations": attestations(options.attest, options.provenance, options.sbom),
    }
    query |= {name: text for name, text in texts.items() if text}
    query |= {name: str(number) for name, number in numbers.items() if number}
    query |= {name: "1" for name, on in switches.items() if on}
    query |= {name: encode(value) for name, value in documents.items() if value}
    if options.allow:
        query["allow"] = options.allow
    if options.add_host:
        query["extrahosts"] = options.add_host
    return query


def _build_arg(text: str) -> tuple[str, str | None]:
    """A bare name takes its value from the environment."""
    name, equals, value = text.partition("=")
    return name, value if equals else os.environ.get(name)


def _from_stdin(options: Options) -> TextContext | Iterator[bytes]:
    """A tar on standard input unchanged; anything else is a Dockerfile."""
    from havre.client.buildtar import is_tar

    if options.file == "-":
        raise StatusError(1, "invalid argument: can't use stdin for both build context and dockerfile")
    head = posix.read(0, _CHUNK)
    while len(head) < 512 and (more := posix.read(0, _CHUNK)):
        head += more
    if not is_tar(head):
        return TextContext(head + _read_stdin())
    return _rest_of_stdin(head)


def _rest_of_stdin(head: bytes) -> Iterator[bytes]:
    yield head
    while data := posix.read(0, _CHUNK):
        yield data


def _read_stdin() -> bytes:
    return sys.stdin.buffer.read()


def _watch_classic(messages: Messages, *, quiet: bool) -> str:
    """Show the build's output; returns the image's ID. Raises StatusError."""
    found: list[str] = []

    def note(message: dict[str, Any]) -> dict[str, Any]:
        if isinstance(message.get("aux"), dict) and "ID" in message["aux"]:
            found.append(message["aux"]["ID"])
        return message

    try:
        if not quiet:
            show(map(note, messages), 1)
            return found[-1] if found else ""
        text = "".join(str(note(message).get("stream", "")) for message in _checked(messages))
    except Failure as failure:
        raise StatusError(failure.code or 1, failure.message) from failure
    return text.strip()


def _checked(messages: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for message in messages:
        if "errorDetail" in message:
            show([message], 2)
        yield message


def _write_id(path: str, image: str) -> None:
    """Write the ID for `--iidfile`; the file of an earlier build is removed before the build begins."""
    if not path:
        return
    if image:
        with open(path, "w") as file:
            file.write(image)
    elif os.path.exists(path):
        os.unlink(path)
