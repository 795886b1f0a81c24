"""Keys that docker compose 2.26 does not know, as compose 5 reads, prints and orders them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from havre.compose.images import ImageOptions, plan_images
from havre.compose.kinds import JSON
from havre.compose.load import Loader, Source
from havre.compose.project import Project
from havre.compose.schema import SERVICE
from havre.errors import InvalidInput

_KEYS = """
services:
  s:
    image: i
    build:
      {context: /c, provenance: true, sbom: g=x, no_cache_filter: a, no_cache: true, args: {A: 1}, ssh: [default]}
    models: {m: {endpoint_var: URL, model_var: M}, n: }
    mac_address: 02:00:00:00:00:01
    network_mode: none
    ulimits: {nofile: 1}
    use_api_socket: true
    user: u
    volumes: [{type: volume, target: /v, volume: {nocopy: true, labels: [a=b]}}]
    pull_policy: every_1d12h
    pull_refresh_after: 3h
    pre_start: [{image: h, command: a b, user: u, per_replica: true}]
    post_start: [{command: c}]
models:
  m: {model: ai/m, context_size: 10, runtime_flags: [-x]}
  n: {model: ai/n}
"""
_PRINTED = """name: p
services:
  s:
    build:
      context: /c
      dockerfile: Dockerfile
      args:
        A: "1"
      provenance: "true"
      sbom: g=x
      ssh:
        - default
      no_cache: true
      no_cache_filter:
        - a
    image: i
    mac_address: "02:00:00:00:00:01"
    models:
      m:
        endpoint_var: URL
        model_var: M
      "n": null
    network_mode: none
    pull_policy: every_1d12h
    ulimits:
      nofile: 1
    use_api_socket: true
    user: u
    volumes:
      - type: volume
        target: /v
        volume:
          labels:
            a: b
          nocopy: true
    pre_start:
      - command:
          - a
          - b
        image: h
        user: u
        per_replica: true
    post_start:
      - command:
          - c
models:
  m:
    model: ai/m
    context_size: 10
    runtime_flags:
      - -x
  "n":
    model: ai/n
"""


def project(text: str) -> Project:
    return Loader(Source(("-",), "/f", "p", {}, stdin=text)).project()


def test_keys_are_printed_in_compose_5s_order() -> None:
    assert project(_KEYS).to_yaml() == _PRINTED


def test_the_hashed_text_has_compose_5s_order() -> None:
    text = json.dumps(SERVICE.dump(project(_KEYS).services["s"], JSON))
    order = [
        "mac_address",
        "models",
        "network_mode",
        "ulimits",
        "use_api_socket",
        "user",
        "volumes",
        "pre_start",
        "post_start",
    ]
    places = [text.index(f'"{key}"') for key in order]
    assert places == sorted(places)
    assert "pull_refresh_after" not in text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("services: {s: {image: i, models: [m]}}", 'service "s" refers to undefined model m'),
        ("services: {s: {image: i, pull_policy: every_3x}}", "every_DURATION"),
        ("services: {s: {image: i, pull_policy: xdaily}}", "every_DURATION"),
        ("services: {s: {image: i}}\nmodels: {m: {context_size: 1}}", "model"),
    ],
)
def test_what_is_wrong_is_refused(text: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        project(text)


@pytest.mark.parametrize(
    ("policy", "age_s", "pulled"),
    [
        ("daily", 86_000, False),
        ("daily", 87_000, True),
        ("weekly", 600_000, False),
        ("weekly", 610_000, True),
        ("every_1h30m", 5_000, False),
        ("every_1h30m", 5_500, True),
        ("every_2w1d1s", 1_296_000, False),
        ("every_2w1d1s", 1_296_100, True),
        ("refresh", 10_000, False),
        ("refresh", 11_000, True),
        ("missing", 10**9, False),
    ],
)
def test_an_image_is_pulled_again_at_its_age(policy: str, age_s: int, pulled: bool) -> None:
    service = {"image": "i", "pull_policy": policy, "pull_refresh_after": "3h"}
    tagged = time.strftime("%Y-%m-%dT%H:%M:%S.123456789Z", time.gmtime(time.time() - age_s))
    wanted = Project("p", "/f", (), {}, {"s": service})
    image: dict[str, Any] = {"Metadata": {"LastTagTime": tagged}}
    assert bool(plan_images(wanted, {"i": image}, ImageOptions())) is pulled
    assert plan_images(wanted, {}, ImageOptions())
    assert not plan_images(wanted, {"i": image}, ImageOptions(pull="missing"))
