"""The proxies of config.json, which a user writes by hand."""

from __future__ import annotations

from typing import Any

import pytest

from havre.client.proxies import proxy_variables

HOST = "tcp://192.0.2.1:2376"


def test_the_entry_of_the_daemon_wins() -> None:
    proxies = {"default": {"httpProxy": "http://a"}, HOST: {"noProxy": "b"}}
    assert proxy_variables({"proxies": proxies}, HOST) == {"NO_PROXY": "b", "no_proxy": "b"}
    assert proxy_variables({"proxies": proxies}, "x") == {"HTTP_PROXY": "http://a", "http_proxy": "http://a"}


@pytest.mark.parametrize("proxies", [None, "http://a", [], {"default": "http://a"}, {HOST: ["http://a"]}])
def test_what_has_another_shape_is_no_proxy(proxies: Any) -> None:
    assert proxy_variables({"proxies": proxies}, HOST) == {}
