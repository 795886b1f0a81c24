"""What SBOM generators are run with, and what of their files is taken."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from havre.builds import generator
from havre.builds.generator import plan_generator, read_statements
from havre.builds.request import Attestations, Provenance, Sbom, parse_attestations
from havre.errors import InvalidInput
from havre.oci.attestation import Predicate
from havre.wire.config import Config

STATEMENT = '{"_type": "x", "predicateType": "t", "subject": null, "predicate": {"a":  1}}'


def test_what_is_asked_for() -> None:
    asked = parse_attestations({"sbom": "generator=x/y:1,KEY=value", "provenance": "mode=min"})
    assert asked == Attestations(Provenance(), Sbom("x/y:1", {"KEY": "value"}))
    assert parse_attestations({"sbom": ""}).sbom == Sbom()
    assert parse_attestations({"sbom": "disabled=true"}).sbom is None


def test_the_command() -> None:
    config = Config(entrypoint=["/scan"], cmd=["-v"], env=["A=1"], user="7", working_dir="/w")
    action = plan_generator(config, Sbom("x", {"B": "2"}))
    assert (action.argv, action.user, action.cwd) == (("/scan", "-v"), "7", "/w")
    assert action.env == (
        "A=1",
        "BUILDKIT_SCAN_DESTINATION=/run/out",
        "BUILDKIT_SCAN_SOURCE=/run/src/core/sbom",
        "BUILDKIT_SCAN_B=2",
    )
    assert [(mount.target, mount.read_only) for mount in action.mounts if mount.type == "bind"] == [
        ("/run/src/core/sbom", True)
    ]
    with pytest.raises(InvalidInput, match="no command"):
        plan_generator(Config(), Sbom("x"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    out = tmp_path / "root" / "run" / "out"
    out.mkdir(parents=True)
    return out


def test_statements(out: Path) -> None:
    (out / "b.spdx.json").write_text(STATEMENT)
    (out / "a.spdx.json").write_text(STATEMENT.replace('"t"', '"s"'))
    found = read_statements(out.parents[1], "x")
    assert found == [Predicate("s", b'{"a":  1}'), Predicate("t", b'{"a":  1}')]


@pytest.mark.parametrize("kind", ["nothing", "text", "link", "fifo", "directory", "many", "large"])
def test_what_is_no_statement(out: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = out / "x.json"
    (out.parents[2] / "outside").write_text(STATEMENT)
    if kind == "text":
        file.write_text("[]")
    elif kind == "link":
        file.symlink_to(out.parents[2] / "outside")
    elif kind == "fifo":
        os.mkfifo(file)
    elif kind == "directory":
        file.mkdir()
    elif kind == "many":
        for number in range(101):
            (out / str(number)).write_text(STATEMENT)
    elif kind == "large":
        file.write_text(STATEMENT)
        monkeypatch.setattr(generator, "MAX_ATTESTED", 10)
    with pytest.raises(InvalidInput, match="the SBOM generator x has written"):
        read_statements(out.parents[1], "x")
