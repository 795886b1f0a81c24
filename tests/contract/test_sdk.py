"""Docker's Python SDK, unmodified."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from support.engines import Engine


@pytest.fixture
def client(engine: Engine) -> Iterator[Any]:
    sdk = engine.sdk()
    yield sdk
    sdk.close()


def test_version_and_info(client: Any) -> None:
    assert client.ping() is True
    assert client.version()["Os"] == "linux"
    assert client.info()["OSType"] == "linux"


def test_run_and_failures(client: Any) -> None:
    import docker.errors

    assert client.containers.run("busybox", ["echo", "hello"], remove=True) == b"hello\n"
    with pytest.raises(docker.errors.ContainerError) as failed:
        client.containers.run("busybox", ["sh", "-c", "exit 3"], remove=True)
    assert failed.value.exit_status == 3
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("nobody")


def test_life_of_a_container(client: Any) -> None:
    container = client.containers.run("busybox", ["sleep", "1000"], detach=True, name="sdk", labels={"a": "b"})
    try:
        assert container.status in {"created", "running"}
        container.reload()
        assert container.status == "running"
        assert [found.id for found in client.containers.list(filters={"label": "a=b"})] == [container.id]
        code, output = container.exec_run(["sh", "-c", "echo $0; exit 4", "x"])
        assert (code, output) == (4, b"x\n")
        code, (out, err) = container.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True)
        assert (code, out, err) == (0, b"o\n", b"e\n")
        assert container.top()["Processes"][0][-1] == "sleep 1000"
        container.pause()
        container.unpause()
        container.rename("renamed")
        container.stop(timeout=0)
        assert container.wait()["StatusCode"] == 137
    finally:
        container.remove(force=True)


def test_streams(client: Any) -> None:
    container = client.containers.create("busybox", ["sh", "-c", "read x; echo $x; echo e >&2"], stdin_open=True)
    try:
        attached = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        container.start()
        attached._sock.sendall(b"line\n")
        assert container.wait()["StatusCode"] == 0
        attached._response.close()
        attached.close()
        # The two streams reach the log by two pipes.
        assert sorted(container.logs().splitlines()) == [b"e", b"line"]
        assert container.logs(stdout=True, stderr=False) == b"line\n"
        assert list(container.logs(stream=True, stdout=False)) == [b"e\n"]
    finally:
        container.remove(force=True)


def test_images(client: Any) -> None:
    import docker.errors

    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        entry = tarfile.TarInfo("hello")
        entry.size = 5
        tar.addfile(entry, io.BytesIO(b"world"))
    client.api.import_image_from_data(layer.getvalue(), repository="made", tag="1")
    image = client.images.get("made:1")
    assert image.tags == ["made:1"]
    assert image.tag("made", "2")
    assert set(client.images.get("made:2").tags) == {"made:1", "made:2"}
    saved = b"".join(image.save(named=True))
    client.images.remove("made:1")
    client.images.remove("made:2")
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("made:1")
    (loaded,) = client.images.load(saved)
    assert loaded.id == image.id
    client.images.remove(loaded.id, force=True)


def test_volumes_and_networks(client: Any) -> None:
    volume = client.volumes.create("sdk-volume", labels={"k": "v"})
    assert volume.attrs["Labels"] == {"k": "v"}
    assert [found.name for found in client.volumes.list(filters={"name": "sdk-vol"})] == ["sdk-volume"]
    volume.remove()
    network = client.networks.create("sdk-network", driver="bridge")
    assert [found.name for found in client.networks.list(names=["sdk-network"])] == ["sdk-network"]
    network.remove()
    assert {"bridge", "host", "none"} <= {found.name for found in client.networks.list()}


def test_events(client: Any) -> None:
    with_events = client.events(decode=True, filters={"type": "container", "event": ["create", "destroy"]})
    container = client.containers.create("busybox", "true")
    assert next(with_events)["Action"] == "create"
    container.remove()
    assert next(with_events)["Actor"]["ID"] == container.id
    with_events.close()
