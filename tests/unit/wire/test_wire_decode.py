"""Bodies into structs: what Go forgives is forgiven, what Docker refuses is refused."""

from __future__ import annotations

import pytest

from havre.errors import InvalidInput
from havre.wire.config import CreateRequest, HostConfig, PortBinding
from havre.wire.decode import check_content_type, decode_body


def test_keys_in_any_case() -> None:
    request = decode_body(b'{"IMAGE":"a","hostconfig":{"MEMORY":5,"nanocpus":7}}', CreateRequest)
    assert request.image == "a"
    assert request.host_config == HostConfig(memory=5, nano_cpus=7)


def test_nulls_are_defaults_and_unknown_fields_are_ignored() -> None:
    request = decode_body(b'{"Image":"a","Tty":null,"HostConfig":{"LogConfig":null},"Bogus":{"x":[1]}}', CreateRequest)
    assert request.tty is False
    assert request.host_config == HostConfig()


def test_keys_of_maps_are_data() -> None:
    body = (
        b'{"Labels":{"Image":"x","NULL":"y"},"HostConfig":{"PortBindings":{"80/TCP":[{"hostport":"1"}],"81/tcp":null}}}'
    )
    request = decode_body(body, CreateRequest)
    assert request.labels == {"Image": "x", "NULL": "y"}
    assert request.host_config is not None
    assert request.host_config.port_bindings == {"80/TCP": [PortBinding(host_port="1")], "81/tcp": None}


def test_null_is_an_empty_object() -> None:
    assert decode_body(b"null", CreateRequest) == CreateRequest()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "invalid JSON: got EOF while reading request body"),
        (b"  \n", "invalid JSON: got EOF while reading request body"),
        (b'{"Image":', "invalid JSON: unexpected EOF"),
        (b"{invalid", "invalid JSON: invalid character 'i' looking for beginning of object key string (byte 1)"),
        (b'{"Tty":true "Image":"x"}', "invalid JSON: invalid character '\"' after object key:value pair (byte 12)"),
        (b'{"Tty":tru}', "invalid JSON: JSON is malformed: invalid character"),
        (b"{} {}", "unexpected content after JSON"),
        (b'{"HostConfig":{"Binds":["a",5]}}', "invalid JSON: HostConfig.Binds[1]: expected str, got int"),
        (b'{"HostConfig":{"Ulimits":[{"Soft":1}]}}', "missing required field"),
        (b'{"HostConfig":{"Memory":9223372036854775808}}', "HostConfig.Memory: 9223372036854775808 does not fit"),
        (b'{"HostConfig":{"Memory":1e400}}', "invalid JSON: "),
        (b'{"Tty":"yes"}', "invalid JSON: Tty: expected bool, got str"),
        (b"[" * 100000, "invalid JSON: "),
        (b'"x"', "invalid JSON: expected object, got str"),
        (b'{"Image":"\xff"}', "invalid JSON: "),
    ],
)
def test_refusals_name_the_field(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_body(body, CreateRequest)
    assert reason in caught.value.message


@pytest.mark.parametrize("value", ["application/json", "Application/JSON; charset=utf-8"])
def test_content_types_that_pass(value: str) -> None:
    check_content_type(value)


@pytest.mark.parametrize("value", ["", "text/plain", "application/jsonx", "application/x-tar"])
def test_content_types_that_do_not(value: str) -> None:
    with pytest.raises(InvalidInput, match="Content-Type"):
        check_content_type(value)


@pytest.mark.parametrize("depth", [199, 900, 5000])
def test_a_nul_character_is_looked_for_no_deeper_than_values_may_be(depth: int) -> None:
    body = '{"Bogus":' + "[" * depth + '"\\u0000"' + "]" * depth + "}"
    with pytest.raises(InvalidInput, match="it contains a NUL character" if depth < 200 else "nested too deeply"):
        decode_body(body.encode(), CreateRequest)
