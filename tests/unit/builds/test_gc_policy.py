"""Rules of the build cache's garbage collection."""

from __future__ import annotations

from typing import Any

import pytest

from havre.builds.gcpolicy import SMALLEST_DEFAULT, GcPolicy, GcRule, SpaceLimits, parse_gc_policy
from havre.errors import InvalidInput


def test_what_is_kept_where_nothing_is_said() -> None:
    rules = GcPolicy().for_disk(1 << 40)
    assert {rule.limits for rule in rules} == {SpaceLimits((1 << 40) // 10)}
    assert [rule.all for rule in rules] == [False, False, True]
    assert GcPolicy().for_disk(1 << 30)[0].limits.reserved == SMALLEST_DEFAULT
    assert GcPolicy(enabled=False).for_disk(1 << 40) == ()


def test_a_policy_of_the_file() -> None:
    gc = {"defaultKeepStorage": "20GB", "policy": [{"keepStorage": "1.5gb", "filter": ["unused-for=48h"], "all": True}]}
    policy = parse_gc_policy({"gc": gc})
    assert policy.limits == SpaceLimits(20 << 30)
    assert policy.for_disk(0) == (GcRule(SpaceLimits(3 << 29), all=True, filters={"unused-for": ["48h"]}),)
    assert not parse_gc_policy({"gc": {"enabled": False}}).enabled


def test_the_keys_of_newer_engines() -> None:
    spaces = {"reservedSpace": "1gb", "maxUsedSpace": "3gb", "minFreeSpace": "2gb"}
    defaults = {"defaultReservedSpace": "4gb", "defaultMaxUsedSpace": "6gb", "defaultMinFreeSpace": "5gb"}
    policy = parse_gc_policy({"gc": {**defaults, "policy": [spaces]}})
    assert policy.limits == SpaceLimits(4 << 30, 6 << 30, 5 << 30)
    assert policy.for_disk(0) == (GcRule(SpaceLimits(1 << 30, 3 << 30, 2 << 30)),)
    only = parse_gc_policy({"gc": {"defaultMaxUsedSpace": "6gb"}})
    assert {rule.limits for rule in only.for_disk(1 << 40)} == {SpaceLimits(max_used=6 << 30)}


@pytest.mark.parametrize(
    "builder",
    [{"gx": {}}, {"gc": {"keep": 1}}, {"gc": {"policy": ["x"]}}, {"gc": []}, {"gc": {"defaultKeepStorage": "much"}}],
)
def test_what_cannot_be_meant(builder: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="builder"):
        parse_gc_policy(builder)


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        (SpaceLimits(), 0),
        (SpaceLimits(reserved=30), 30),
        (SpaceLimits(max_used=60), 60),
        (SpaceLimits(reserved=70, max_used=60), 70),
        (SpaceLimits(min_free=15), 95),
        (SpaceLimits(min_free=10), 100),
        (SpaceLimits(max_used=60, min_free=15), 60),
        (SpaceLimits(max_used=60, min_free=60), 50),
        (SpaceLimits(reserved=80, min_free=60), 80),
        (SpaceLimits(min_free=500), 0),
    ],
)
def test_how_much_of_100_bytes_is_kept_with_10_free(limits: SpaceLimits, kept: int) -> None:
    assert limits.keep_bytes(used=100, free=10) == kept
