"""What is installed in images: told of those in the store, and attested of what is built, by both command lines."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.aptrepo import apt_base
from support.building import Build, built_by, write_context
from support.engines import Engine
from support.installed import APK
from support.raw import ask
from support.registry import real_registry

pytestmark = pytest.mark.peer

_TEXT = "FROM busybox\nCOPY lib /lib\nCOPY app /app\n"
_SPDX, _PROVENANCE = "https://spdx.dev/Document", "https://slsa.dev/provenance/v0.2"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    files = {
        "lib/apk/db/installed": APK,
        "app/a-1.dist-info/METADATA": "Name: A\nVersion: 1\nLicense: MIT\n",
        "app/node_modules/b/package.json": '{"name": "b", "version": "2"}',
        "app/link.dist-info/METADATA": "-> /../../../../../../../../etc/hostname",
    }
    return write_context(tmp_path / "context", _TEXT, files)


@pytest.fixture(params=["havre", "buildx"])
def build(request: pytest.FixtureRequest, havred: Engine, context: Path) -> Build:
    """Builds the context by one of the command lines with some flags; what it told."""
    return built_by(request.param, havred, context)


def urls(document: dict[str, Any]) -> list[str]:
    return [each["externalRefs"][0]["referenceLocator"] for each in document["packages"][1:]]


BUILT = ["pkg:apk/musl@1.2.4-r2?arch=x86_64", "pkg:apk/ssl_client@1.36.1-r2?arch=x86_64&upstream=busybox",
         "pkg:npm/b@2", "pkg:pypi/a@1"]  # fmt: skip


@pytest.fixture(scope="module")
def debian(_havre: Engine) -> Iterator[str]:
    _havre.docker("import", str(apt_base("nginx-light")[0]), "sbom/debian:1", check=0, timeout_s=300)
    yield "sbom/debian:1"
    _havre.docker("rmi", "-f", "sbom/debian:1")


def test_what_dpkg_tells(havred: Engine, debian: str, tmp_path: Path) -> None:
    file = tmp_path / "list"
    havred.havre("image", "sbom", "--format", "spdx-json", "-o", str(file), debian, check=0)
    document = json.loads(file.read_text())
    assert (document["name"], document["spdxVersion"]) == (debian, "SPDX-2.3")
    form = "pkg:deb/debian/${Package}@${Version}?arch=${Architecture}&distro=debian-13\n"
    told = havred.out("run", "--rm", "--network", "none", debian, "dpkg-query", "-W", "-f", form)
    plain = {url.partition("&upstream=")[0].replace("%2B", "+") for url in urls(document)}
    assert plain == set(told.splitlines())
    licences = {each["name"]: each["licenseDeclared"] for each in document["packages"]}
    assert licences["zlib1g"] == "Zlib"
    table = havred.havre("image", "sbom", debian, check=0).stdout
    assert "\nzlib1g " in table
    assert havred.havre("image", "sbom", "--format", "spdx-json", debian, check=0).stdout == file.read_text()
    other = json.loads(havred.havre("image", "sbom", "--format", "cyclonedx-json", debian, check=0).stdout)
    assert [each["purl"] for each in other["components"]] == urls(document)


def test_an_image_in_which_nothing_is_installed(havred: Engine) -> None:
    answer = ask(havred.socket, "GET", "/images/busybox/sbom")
    assert answer.headers["content-type"] == "application/spdx+json"
    document = json.loads(answer.body)
    (root,) = document["packages"]
    assert root["name"] == "busybox:latest"
    assert document["relationships"][0]["relatedSpdxElement"] == root["SPDXID"]
    assert havred.havre("image", "sbom", "busybox", check=0).stdout.split() == ["NAME", "VERSION", "TYPE", "LICENSE"]


def test_what_cannot_be_shown(havred: Engine) -> None:
    assert "No such image: nothing:latest" in havred.havre("image", "sbom", "nothing", check=1).stderr
    other = havred.havre("image", "sbom", "--platform", "linux/s390x", "busybox", check=1).stderr
    assert "does not match the specified platform" in other
    form = ask(havred.socket, "GET", "/images/busybox/sbom?format=x")
    assert (form.status, "expected spdx-json or cyclonedx-json" in str(form.body)) == (400, True)
    missing = havred.havre("image", "sbom", "-o", "/nowhere/x", "busybox", check=1).stderr
    assert 'directory "/nowhere" does not exist' in missing


def test_what_could_not_be_read_is_told(havred: Engine, tmp_path: Path) -> None:
    text = "FROM scratch\nCOPY Packages /var/lib/rpm/Packages\n"
    context = write_context(tmp_path / "context", text, {"Packages": "bdb"})
    havred.havre("build", "-t", "sbom/gap:1", str(context), check=0)
    told = havred.havre("image", "sbom", "sbom/gap:1", check=0)
    assert told.stderr == "warning: /var/lib/rpm/Packages: rpm databases in Berkeley DB format are not supported\n"
    havred.docker("rmi", "sbom/gap:1", check=0)


def attested(archive: Path) -> list[tuple[str, dict[str, Any]]]:
    """The statements of an archive's only attestation, by the types that their layers are annotated with."""
    with tarfile.open(archive) as tar:

        def read(path: str) -> dict[str, Any]:
            found: dict[str, Any] = json.load(tar.extractfile(path))  # type: ignore[arg-type]
            return found

        def blob(digest: str) -> dict[str, Any]:
            return read(f"blobs/sha256/{digest.removeprefix('sha256:')}")

        (top,) = read("index.json")["manifests"]
        image, attestation = blob(top["digest"])["manifests"]
        assert attestation["annotations"]["vnd.docker.reference.digest"] == image["digest"]
        layers = blob(attestation["digest"])["layers"]
        return [(each["annotations"]["in-toto.io/predicate-type"], blob(each["digest"])) for each in layers]


def test_attested(build: Build, havred: Engine, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    build("-t", "sbom/built:1", "--sbom", "true", "--provenance", "true", "-o", f"type=oci,dest={archive}")
    (first, statement), (second, _) = attested(archive)
    assert (first, second) == (_SPDX, _PROVENANCE)
    assert statement["predicateType"] == _SPDX
    assert statement["subject"][0]["name"] == "pkg:docker/sbom/built@1?platform=linux%2Famd64"
    assert (statement["predicate"]["name"], urls(statement["predicate"])) == ("sbom", BUILT)


def test_the_same_build_attests_the_same(build: Build, tmp_path: Path) -> None:
    found = []
    for number in range(2):
        archive = tmp_path / f"{number}.tar"
        flags = ("--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", "-o", f"type=oci,dest={archive}")
        build("--attest", "type=sbom", *flags)
        found += attested(archive)
    (_, first), (_, second) = found
    assert first == second
    assert first["predicate"]["creationInfo"]["created"] == "2023-11-14T22:13:20Z"


_GENERATOR = """\
FROM busybox
COPY --chmod=755 <<'EOF' /generate
#!/bin/sh
cd "$BUILDKIT_SCAN_SOURCE" && touch written 2>/dev/null && exit 3
test -z "$BUILDKIT_SCAN_FAIL" || exit 1
echo "looks at $(ls app | wc -l) files" >&2
found=$(echo $(ls app))
printf '{"predicateType": "https://spdx.dev/Document", "subject": null, "predicate": {"name": "%s", "found": "%s"}}' \\
  "$(basename $PWD)" "$found" > $BUILDKIT_SCAN_DESTINATION/sbom.spdx.json
EOF
ENTRYPOINT ["/generate"]
"""


@pytest.fixture
def generator(havred: Engine, tmp_path: Path) -> str:
    context = write_context(tmp_path / "generator", _GENERATOR)
    havred.havre("build", "-t", "sbom/generator:1", str(context), check=0)
    return "sbom/generator:1"


def test_a_generator_of_the_users_choice(build: Build, generator: str, tmp_path: Path) -> None:
    archive = tmp_path / "image.tar"
    told = build("--sbom", f"generator={generator}", "-o", f"type=oci,dest={archive}")
    assert f"generating sbom using {generator}" in told
    ((kind, statement),) = attested(archive)
    assert kind == _SPDX
    assert statement["predicate"] == {"name": "sbom", "found": "a-1.dist-info link.dist-info node_modules"}
    assert len(statement["subject"]) == 1


def test_generators_that_fail(build: Build, havred: Engine, generator: str) -> None:
    told = build("--attest", f"type=sbom,generator={generator},FAIL=yes", check=1)
    assert "did not complete successfully: exit code: 1" in told
    silent = build("--sbom", "generator=busybox", check=1)
    assert "the SBOM generator busybox has written 0 files to /run/out" in silent
    build("--sbom", "false")


def test_several_platforms_in_a_registry(havred: Engine, tmp_path: Path) -> None:
    """Each platform's own list, as buildx reads it from there."""
    text = "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /app\n"
    files = {f"{arch}/{arch}.dist-info/METADATA": f"Name: {arch}\nVersion: 1\n" for arch in ("amd64", "arm64")}
    context = write_context(tmp_path / "context", text, files)
    with real_registry(tmp_path / "registry", inside=havred.inside) as registry:
        name = f"{registry.host}/lists:1"
        flags = ("--platform", "linux/amd64,linux/arm64", "--sbom", "true", "--push")
        havred.havre("build", "-t", name, *flags, str(context), check=0)
        command = ["docker", "buildx", "imagetools", "inspect", name, "--format", "{{json .SBOM}}"]
        told = subprocess.run([*havred.inside, *command], capture_output=True, text=True, check=True)
        found = {platform: urls(each["SPDX"]) for platform, each in json.loads(told.stdout).items()}
        assert found == {"linux/amd64": ["pkg:pypi/amd64@1"], "linux/arm64": ["pkg:pypi/arm64@1"]}
        other = havred.havre("image", "sbom", "--platform", "linux/arm64", "--format", "{{.Name}}", name, check=0)
        assert other.stdout == "arm64\n"
        havred.docker("rmi", "-f", name, check=0)
