"""Parses BuildKit exporters and their attributes. Pure.

    ("moby", {"name": "r/a:1", "push": "true"})  --parse_exporter-->  Export("image", ("r/a:1",), push=Push())

Unknown attributes are refused by name, so that no option is silently ignored. Those in `_WITHOUT_EFFECT` ask for
behaviour that is always or by default the case.

Source: moby/buildkit exporter/containerimage/exptypes/keys.go, exporter/containerimage/opts.go, annotations.go,
exporter/oci, exporter/local; docker/buildx build/opt.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from havre.errors import InvalidInput, Unsupported
from havre.golang.units import parse_bool
from havre.images.layout import LayoutForm, layout_form

# Attributes that may only be false: what they enable is not supported.
_OFF = frozenset(("attestation-inline", "name-canonical", "oci-artifact", "prefer-nondist-layers"))
# `load`, `unpack`: images are always stored and unpacked; the client evaluates `prefer-image-digest` itself; files in
# layers are never newer than SOURCE_DATE_EPOCH.
_WITHOUT_EFFECT = frozenset(("force-compression", "load", "prefer-image-digest", "rewrite-timestamp", "unpack"))
_OF_FORM = frozenset(("compression", "oci-mediatypes"))
_KNOWN = {
    "image": _OFF | _WITHOUT_EFFECT | _OF_FORM | {"name", "push", "push-by-digest", "registry.insecure", "store"},
    "oci": _OFF | _WITHOUT_EFFECT | _OF_FORM | {"name", "tar"},
    "docker": _OFF | _WITHOUT_EFFECT | _OF_FORM | {"name", "tar"},
    "local": frozenset(("platform-split",)),
    "tar": frozenset(("platform-split",)),
}


@dataclass(frozen=True)
class Push:
    """Push the image to the registries of its names, in the given `form` or in the forms already present there.

    `insecure` permits a registry without TLS or with any certificate; `by_digest` pushes without a tag.
    """

    form: LayoutForm | None = None
    insecure: bool = False
    by_digest: bool = False


@dataclass(frozen=True)
class Export:
    """An output: `kind` is image, oci, docker, local or tar. `names` are the image's, `form` the file's.

    `unpacked` is an OCI layout in a client's directory. `split` puts the files of each platform into a directory of
    its own; None does so for several platforms. `push` applies to an image; one that is not `kept` is only pushed.
    """

    kind: str
    names: tuple[str, ...] = ()
    form: LayoutForm = field(default_factory=LayoutForm)
    unpacked: bool = False
    split: bool | None = None
    push: Push | None = None
    kept: bool = True

    @property
    def tags(self) -> tuple[str, ...]:
        """The names that the image gets here."""
        return () if self.push is not None and self.push.by_digest else self.names


def parse_exporter(type: str, attrs: Mapping[str, str]) -> Export:
    """Parse an exporter of the client; `Unsupported` if this daemon does not support it."""
    kind = "image" if type == "moby" else type
    if kind not in _KNOWN:
        raise Unsupported(f"exporter {type!r} could not be found", "use type=image, docker, oci, local or tar")
    _check(kind, attrs)
    names = tuple(name for name in attrs.get("name", "").split(",") if name)
    if kind == "image":
        return _image(names, attrs)
    if kind in ("local", "tar"):
        return Export(kind, split=_switch(attrs, "platform-split") if attrs.get("platform-split") else None)
    if "oci-mediatypes" in attrs and _switch(attrs, "oci-mediatypes") is (kind == "docker"):
        value = attrs["oci-mediatypes"]
        raise Unsupported(f"oci-mediatypes={value} is not supported by the exporter {kind}", "leave it out")
    unpacked = not _switch(attrs, "tar", "true")
    return Export(kind, names, layout_form(attrs, for_docker=kind == "docker"), unpacked)


def _check(kind: str, attrs: Mapping[str, str]) -> None:
    for name, value in attrs.items():
        is_annotation = name.startswith("annotation") and kind in ("image", "oci", "docker")
        if name not in _KNOWN[kind] and not is_annotation:
            raise Unsupported(f"unknown attribute {name} of the exporter {kind}", "leave it out")
        if name in _OFF | _WITHOUT_EFFECT and _switch(attrs, name) and name in _OFF:
            raise Unsupported(f"{name}={value} is not supported by the exporter {kind}", "leave it out")


def _image(names: tuple[str, ...], attrs: Mapping[str, str]) -> Export:
    is_pushed, is_kept = _switch(attrs, "push"), _switch(attrs, "store", "true")
    form = layout_form(attrs)
    is_special = form != LayoutForm(compression="gzip")
    if not is_pushed:
        if is_special:
            name = next(name for name in attrs if name.startswith(("annotation", "compression")))
            raise Unsupported(
                f"the attribute {name} needs push=true: stored images have no annotations and are uncompressed",
                "push the image, or export it with type=oci",
            )
        return Export("image", names, kept=is_kept)
    if not names:
        raise InvalidInput("tag is needed when pushing to registry")
    by_digest = _switch(attrs, "push-by-digest")
    forced = _switch(attrs, "oci-mediatypes") or _switch(attrs, "force-compression")
    wanted = form if is_special or forced or by_digest or not is_kept else None
    if wanted is not None and not _switch(attrs, "oci-mediatypes", "true"):
        raise Unsupported("oci-mediatypes=false is not supported together with the other attributes", "leave it out")
    return Export("image", names, push=Push(wanted, _switch(attrs, "registry.insecure"), by_digest), kept=is_kept)


def _switch(attrs: Mapping[str, str], name: str, default: str = "false") -> bool:
    """A boolean as Go's strconv.ParseBool reads it."""
    text = attrs.get(name) or default
    try:
        return parse_bool(text)
    except ValueError:
        raise InvalidInput(f"non-bool value specified for {name}: {text!r}", "expected true or false") from None
