"""Moving images: many layers, pushes, archives, and what the daemons' memory peaks at meanwhile."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from harness import BIG_PACKAGES, NETNS, Bench, Contender, Measure, debian_tree, timed

from support.registry import real_registry

LAYERS = 12
_INSIDE = ("nsenter", f"--net=/run/netns/{NETNS}")
_UNCHECKED = {"podman": ["--tls-verify=false"]}


def layered(bench: Bench) -> None:
    """A pull of the Debian image in twelve layers."""
    name = f"{bench.registry.host}/layered:1"
    with TemporaryDirectory(prefix="havre-bench-") as folder:
        archive = Path(folder) / "layered.tar"
        _layered_archive(debian_tree(BIG_PACKAGES, ()), archive)
        _skopeo("copy", "-q", "--dest-tls-verify=false", f"docker-archive:{archive}", f"docker://{name}")
    pulls = Measure(f"pull of the same in {LAYERS} layers")
    for _ in range(bench.few()):
        for contender in bench.contenders:
            pulls.add(contender.name, 1000 * timed(lambda c=contender: _pull(c, name)))
            contender.do("rmi", name)
    bench.note(pulls)


def push(bench: Bench) -> None:
    """Pushes of it to a registry that has nothing: each layer is compressed and uploaded."""
    name = f"{bench.registry.host}/big:1"
    pushes, peaks = Measure("push to an empty registry"), Measure("peak of the daemon's memory while it pushes", "MB")
    for contender in bench.contenders:
        _pull(contender, name)
    for _ in range(bench.few()):
        for contender in bench.contenders:
            with (
                TemporaryDirectory(prefix="havre-bench-") as folder,
                real_registry(Path(folder), inside=_INSIDE) as empty,
            ):
                target = f"{empty.host}/big:1"
                contender.do("tag", name, target)
                _peak(
                    contender,
                    peaks,
                    lambda c=contender, t=target: pushes.add(
                        c.name, 1000 * timed(lambda: c.do("push", "-q", *_UNCHECKED.get(c.name, []), t))
                    ),
                )
                contender.do("rmi", target)
    for contender in bench.contenders:
        contender.do("rmi", name)
    bench.note(pushes)
    bench.note(peaks)


def archives(bench: Bench) -> None:
    """`save` to a file and `load` of it."""
    name = f"{bench.registry.host}/big:1"
    saves, loads = Measure("`save` of it to a file"), Measure("`load` of that file")
    with TemporaryDirectory(prefix="havre-bench-") as folder:
        for number in range(-1, bench.few()):
            for contender in bench.contenders:
                archive = Path(folder) / f"{contender.name}.tar"
                if number < 0:
                    _pull(contender, name)
                saved = timed(lambda c=contender, a=archive: c.do("save", "-o", str(a), name))
                contender.do("rmi", name)
                loaded = timed(lambda c=contender, a=archive: c.do("load", "-q", "-i", str(a)))
                archive.unlink()
                if number >= 0:
                    saves.add(contender.name, saved * 1000)
                    loads.add(contender.name, loaded * 1000)
    for contender in bench.contenders:
        contender.do("rmi", name)
    bench.note(saves)
    bench.note(loads)


def pulling(bench: Bench) -> None:
    """What the daemons' memory peaks at while they pull."""
    name = f"{bench.registry.host}/big:1"
    peaks = Measure("peak of the daemon's memory while it pulls", "MB")
    for _ in range(bench.few()):
        for contender in bench.contenders:
            _peak(contender, peaks, lambda c=contender: _pull(c, name))
            contender.do("rmi", name)
    bench.note(peaks)


def _pull(contender: Contender, name: str) -> None:
    contender.do("pull", "-q", *_UNCHECKED.get(contender.name, []), name)


def _peak(contender: Contender, measure: Measure, work: Callable[[], object]) -> None:
    """Do `work`, and note the most memory that the daemon's processes had meanwhile; nothing where there is none."""
    pids = contender.daemon_pids()
    for pid in pids:
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak begins anew: proc_pid_clear_refs(5)
    work()
    if pids:
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
        measure.add(contender.name, sum(int(text.partition("VmHWM:")[2].split()[0]) for text in statuses) / 1024)


def _layered_archive(tree: Path, archive: Path) -> None:
    """A docker-archive of the tree's members in `LAYERS` layers of about the same size, in their order."""
    layers = [io.BytesIO() for _ in range(LAYERS)]
    outs = [tarfile.TarFile(fileobj=layer, mode="w", format=tarfile.PAX_FORMAT) for layer in layers]
    share = tree.stat().st_size / LAYERS
    with tarfile.open(tree) as source:
        for member in source:
            if not member.islnk():  # its target may lie in another layer
                data = source.extractfile(member) if member.isreg() else None
                outs[min(int(member.offset / share), LAYERS - 1)].addfile(member, data)
    for out in outs:
        out.close()
    diff_ids = [f"sha256:{hashlib.sha256(layer.getbuffer()).hexdigest()}" for layer in layers]
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    names = [f"{number}/layer.tar" for number in range(LAYERS)]
    manifest = [{"Config": "config.json", "RepoTags": ["layered:1"], "Layers": names}]
    documents = {"config.json": config, "manifest.json": manifest}
    with tarfile.open(archive, "w") as out:
        bodies = [io.BytesIO(json.dumps(document).encode()) for document in documents.values()]
        for path, body in zip([*documents, *names], [*bodies, *layers], strict=True):
            member = tarfile.TarInfo(path)
            member.size = body.seek(0, io.SEEK_END)
            body.seek(0)
            out.addfile(member, body)


def _skopeo(*arguments: str) -> None:
    subprocess.run([*_INSIDE, "skopeo", *arguments], check=True, capture_output=True)


ROWS = {"layered": layered, "push": push, "archives": archives, "pulling": pulling}
