"""`--change`: what instructions do to a configuration."""

from __future__ import annotations

import pytest

from havre.dockerfile.changes import apply_changes
from havre.errors import InvalidInput
from havre.wire.config import Config


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ('CMD ["a", "b c"]', "cmd", ["a", "b c"]),
        ("cmd echo hi", "cmd", ["/bin/sh", "-c", "echo hi"]),
        ('ENTRYPOINT ["/x"]', "entrypoint", ["/x"]),
        ("ENV A=1 B=\"2 3\" C='x\\y'", "env", ["A=1", "B=2 3", "C=x\\y"]),
        ("ENV A some words", "env", ["A=some words"]),
        ("EXPOSE 80 53/udp 90-91", "exposed_ports", {"80/tcp": {}, "53/udp": {}, "90/tcp": {}, "91/tcp": {}}),
        ("LABEL a=b c", None, None),
        ('LABEL a="b c"', "labels", {"a": "b c"}),
        ("USER 1:1", "user", "1:1"),
        ("WORKDIR a/../b", "working_dir", "/b"),
        ('VOLUME ["/a", "/b c"]', "volumes", {"/a": {}, "/b c": {}}),
        ("VOLUME /a /b", "volumes", {"/a": {}, "/b": {}}),
        ("STOPSIGNAL SIGINT", "stop_signal", "SIGINT"),
        ("ONBUILD RUN x", "on_build", ["RUN x"]),
        ("ONBUILD FROM x", None, None),
        ("FROM x", None, None),
        ("BOGUS x", None, None),
        ("CMD", "cmd", []),
        ("# x", None, None),
        ("STOPSIGNAL SIGNO", None, None),
        ("EXPOSE 70000", None, None),
        ("ENV A", None, None),
        ('LABEL a="b', None, None),
    ],
)
def test_changes(change: str, field: str | None, value: object) -> None:
    if field is None:
        with pytest.raises(InvalidInput):
            apply_changes(Config(), [change])
    else:
        assert getattr(apply_changes(Config(), [change]), field) == value


def test_changes_build_on_each_other() -> None:
    config = apply_changes(Config(env=["A=1", "B=2"]), ["ENV A=3\nWORKDIR /x", "WORKDIR y", "# nothing"])
    assert (config.env, config.working_dir) == (["A=3", "B=2"], "/x/y")


def test_health_check() -> None:
    config = apply_changes(Config(), ["HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f x"])
    assert config.healthcheck is not None
    assert config.healthcheck.test == ["CMD-SHELL", "curl -f x"]
    assert (config.healthcheck.interval, config.healthcheck.retries) == (90_000_000_000, 3)
    assert apply_changes(config, ["HEALTHCHECK NONE"]).healthcheck.test == ["NONE"]  # type: ignore[union-attr]
    with pytest.raises(InvalidInput):
        apply_changes(config, ["HEALTHCHECK --retries=x CMD y"])
    with pytest.raises(InvalidInput, match="cannot be less than 1ms"):
        apply_changes(config, ["HEALTHCHECK --interval=0.5ms CMD y"])


def test_protocols_of_ports_have_any_case() -> None:
    assert apply_changes(Config(), ["EXPOSE 80/TCP 53/Udp"]).exposed_ports == {"80/tcp": {}, "53/udp": {}}


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ("ENV PATH=/x:$PATH", "env", ["PATH=/x:/bin", "HOME=/h"]),
        ("ENV PATH /x:${PATH}", "env", ["PATH=/x:/bin", "HOME=/h"]),
        ("ENV HOME='$PATH'", "env", ["PATH=/bin", "HOME=$PATH"]),
        ("LABEL a=${NONE:-b}\\$HOME", "labels", {"a": "b$HOME"}),
        ("WORKDIR $HOME/a", "working_dir", "/h/a"),
        ("USER ${NONE:-u}", "user", "u"),
        ("EXPOSE ${NONE:-80}", "exposed_ports", {"80/tcp": {}}),
        ("VOLUME $HOME '/b c'", "volumes", {"/h": {}, "/b c": {}}),
        ("CMD echo $HOME", "cmd", ["/bin/sh", "-c", "echo $HOME"]),
        ("ENV HOME=/i\nWORKDIR $HOME", "working_dir", "/i"),
    ],
)
def test_changes_know_the_environment(change: str, field: str, value: object) -> None:
    assert getattr(apply_changes(Config(env=["PATH=/bin", "HOME=/h"]), [change]), field) == value


def test_an_entrypoint_drops_the_command_of_before() -> None:
    base = Config(cmd=["old"], shell=["/bin/bash", "-e"])
    assert apply_changes(base, ["ENTRYPOINT run"]).cmd is None
    assert apply_changes(base, ["ENTRYPOINT run"]).entrypoint == ["/bin/bash", "-e", "run"]
    assert apply_changes(base, ["CMD new", "ENTRYPOINT run"]).cmd == ["/bin/bash", "-e", "new"]


@pytest.mark.parametrize("change", ["BOGUS x", "bogus x", "FROM x", 'shell ["x"]'])
def test_refusals_name_the_word(change: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{change.split()[0]} is not a valid change command"):
        apply_changes(Config(), [change])
