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


def test_host_configuration_beside_its_place(client: Any) -> None:
    """`create_container(runtime=...)` writes there, and older clients did."""
    import docker.errors

    with pytest.raises(docker.errors.APIError, match="unknown or invalid runtime name: nosuch"):
        client.api.create_container("busybox", "true", runtime="nosuch")
    beside = {"Image": "busybox", "Memory": 64 << 20, "CpuShares": 7, "Dns": ["192.0.2.1"]}
    shown = []
    for body in (beside, {**beside, "HostConfig": {"CpuShares": 9}}):
        made = client.api.create_container_from_config(body)["Id"]
        host = client.api.inspect_container(made)["HostConfig"]
        shown.append((host["Memory"], host["CpuShares"], host["Dns"]))
        client.api.remove_container(made)
    assert shown[0] == (64 << 20, 7, ["192.0.2.1"])
    assert shown[1][:2] == (64 << 20, 9)
    assert not shown[1][2]


def test_options_of_an_endpoint_that_are_nobodys(client: Any) -> None:
    """Kept and shown, as labels would be."""
    options = {"com.example.setting": "on", "key": "2"}
    endpoint = client.api.create_endpoint_config(driver_opt=options)
    network = client.networks.create("sdk-options")
    container = client.containers.create(
        "busybox", ["sleep", "1000"], network="sdk-options", networking_config={"sdk-options": endpoint}
    )
    try:
        container.start()
        container.reload()
        assert container.attrs["NetworkSettings"]["Networks"]["sdk-options"]["DriverOpts"] == options
    finally:
        container.remove(force=True)
        network.remove()


def test_what_a_build_writes_to_stderr_is_red(client: Any) -> None:
    dockerfile = io.BytesIO(b"FROM busybox\nRUN echo good; echo bad >&2\n")
    told = [each.get("stream", "") for each in client.api.build(fileobj=dockerfile, decode=True, nocache=True, rm=True)]
    assert "good\n" in told
    assert "\x1b[91mbad\n\x1b[0m" in told
    built = next(text.split()[-1] for text in told if text.startswith("Successfully built"))
    client.images.remove(built)
