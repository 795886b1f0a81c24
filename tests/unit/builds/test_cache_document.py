"""What an image may say of the build cache."""

from __future__ import annotations

import msgspec
import pytest

from havre.builds.cachedocument import StepRecord, read_records, with_records
from havre.errors import InvalidInput
from havre.oci.digest import Digest

_OWN, _OTHER = Digest(f"sha256:{'a' * 64}"), Digest(f"sha256:{'b' * 64}")


def test_records_there_and_back() -> None:
    records = [StepRecord("1" * 64, _OWN, 1.5), StepRecord("2" * 64, "", 2.0)]
    document = with_records(b'{"os":"linux"}', records)
    assert msgspec.json.decode(document)["os"] == "linux"
    assert read_records(document, {_OWN}) == records
    assert read_records(b"{}", {_OWN}) == []


def test_layers_of_others_and_keys_and_times_that_are_none() -> None:
    records = [StepRecord("1" * 64, _OTHER, 0), StepRecord("../x", _OWN, 0)]
    records += [StepRecord("3" * 64, _OWN, time) for time in (-1, 1e300)]
    assert read_records(with_records(b"{}", records), {_OWN}) == []
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_records(b'{"havre.cache.v0": [1]}', ())
