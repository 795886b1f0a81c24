"""Decides whether and when an ended container is restarted. Pure.

    exited --policy--> wanted? --no--> exited
                         | yes, after the back-off
                         v
                    restarting --timer--> running

The back-off starts at 100 ms, doubles with each run shorter than ten seconds up to a minute, and is reset by a longer
run. A container that the user stopped stays stopped until the daemon restarts (then "always" applies again,
"unless-stopped" does not). Source: Docker's documentation, "Start containers automatically".
"""

from __future__ import annotations

from dataclasses import dataclass

from havre.wire.config import RestartPolicy

FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 60.0
STABLE_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class Restart:
    """Restart after `delay_s` seconds, which is also the input of the next decision."""

    delay_s: float


def decide_after_exit(
    policy: RestartPolicy, *, exit_code: int, stopped_by_user: bool, restarts: int, ran_s: float, last_delay_s: float
) -> Restart | None:
    """The restart after an exit; None: the container stays exited.

    `restarts` counts restarts so far, `ran_s` is the duration of the run, `last_delay_s` the previous back-off (0:
    none).
    """
    if stopped_by_user or not _wants_restart(policy, exit_code, restarts):
        return None
    if last_delay_s == 0.0 or ran_s >= STABLE_AFTER_S:
        return Restart(FIRST_DELAY_S)
    return Restart(min(2 * last_delay_s, LONGEST_DELAY_S))


def _wants_restart(policy: RestartPolicy, exit_code: int, restarts: int) -> bool:
    if policy.name in ("always", "unless-stopped"):
        return True
    if policy.name == "on-failure" and exit_code != 0:
        return policy.maximum_retry_count == 0 or restarts < policy.maximum_retry_count
    return False


def wants_start_with_daemon(
    policy: RestartPolicy,
    *,
    ever_started: bool,
    exit_code: int,
    stopped_by_user: bool,
    was_running: bool,
    restarts: int,
) -> bool:
    """Report whether a stopped container starts with the daemon.

    `was_running`: it ended unnoticed (the daemon or the host was down), which counts as an exit.
    """
    if not ever_started:
        return False
    if policy.name == "always":
        return True
    if policy.name == "unless-stopped":
        return not stopped_by_user
    return was_running and not stopped_by_user and _wants_restart(policy, exit_code, restarts)
