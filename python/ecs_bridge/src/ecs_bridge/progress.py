"""The timeline and the wait reason of a submission, as `ecs-bridge show` shows them (programs/cli).

A row is a row of the table or a record of the API. Attributes that the reader may not read can be missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ecs_bridge.advice import advice
from ecs_bridge.state import State

if TYPE_CHECKING:
    from collections.abc import Mapping

WAITING = frozenset({State.QUEUED, State.LAUNCHING, State.LAUNCHED})
"""The states of a submission whose container has not started."""


class Step(NamedTuple):
    """A step of a submission."""

    at: int
    """The time in epoch milliseconds."""
    what: str


class Wait(NamedTuple):
    """The reason why a submission has not started."""

    cause: str
    """A few words, such as ``capacity``."""
    detail: str


def timeline(row: Mapping[str, Any]) -> list[Step]:
    """Return the known steps of a submission, in order."""
    steps = (
        ("created_at", "submitted"),
        ("launched_at", "launched" + (f" on {row['runs_on']}" if row.get("runs_on") else "")),
        ("started_at", "started"),
        ("container_exited_at", "exited" + ("" if row.get("exit_code") is None else f" with {row['exit_code']}")),
        ("changed_at", f"recorded as {row['state']}"),
        ("stopped_at", "its task was torn down"),
    )
    # The clocks of ECS and the bridge differ slightly, so the steps are sorted.
    known = (Step(row[name], what) for name, what in steps if row.get(name) is not None)
    return sorted(known, key=lambda step: step.at)


def attempts(row: Mapping[str, Any]) -> list[str]:
    """Return the results of the attempts before the last one, as text. The record keeps only the last results."""
    ends = row.get("attempts") or ()
    first = max(row.get("attempt", 1) - len(ends), 1)
    return [f"attempt {number} ended: {end}" for number, end in enumerate(ends, first)]


def wait_reason(row: Mapping[str, Any], pool: Mapping[str, Any] | None = None) -> Wait | None:
    """Return why a submission has not started, or None if it has.

    :param pool: the row of its pool
    """
    reason = row.get("reason") or ""
    if row.get("state") == State.LAUNCHING:
        return Wait("RunTask", reason or "ECS has not responded to the RunTask call yet")
    if row.get("state") == State.LAUNCHED:
        status = row.get("last_status")
        return Wait(
            "container start", reason or (f"the ECS task is {status}" if status else "ECS has accepted the task")
        )
    if row.get("state") != State.QUEUED:
        return None
    if str(row.get("due", "")).startswith("waiting/"):
        return Wait("capacity", reason or f"ECS has no capacity for profile {row.get('profile')}")
    if row.get("pool"):
        return Wait("pool", _in_pool(row["pool"], pool or {}))
    if row.get("refusals"):
        return Wait(_refusal(reason), reason)
    if row.get("attempt", 1) > 1:
        return Wait("next attempt", reason or "the previous attempt did not start its container")
    if reason:
        return Wait(_refusal(reason), reason)
    if "due" in row:
        return Wait("launch rate", "the deployment's launch rate limits launches")
    return Wait("launch", "the launch rate, or a runner of its pool")


def _in_pool(key: str, pool: Mapping[str, Any]) -> str:
    known = (pool.get("wait_reasons") or {}).get(key, {})
    if known.get("stuck"):
        return f"stuck: {known['reason']}"
    if pool.get("paused"):
        return "the pool is paused"
    if known:
        return str(known["reason"])
    if failure := pool_failure(pool):
        return f"runners fail to start: {failure}"
    return "no runner of the pool is available"


def pool_failure(pool: Mapping[str, Any]) -> str | None:
    """Return why the runners of a pool fail to start, or None if they do not."""
    return (pool.get("failure") or "they end without a poll") if pool.get("failing_since") else None


def _refusal(reason: str) -> str:
    lower = reason.lower()
    if "limit on the number" in lower or "limitexceeded" in lower:
        return "quota"
    if "throttl" in lower or "rate exceeded" in lower:
        return "throttling"
    if "capacity" in lower or "resource:" in lower:
        return "capacity"
    return "refused by ECS"


def advice_of(row: Mapping[str, Any]) -> str | None:
    """Return the remedy for a submission, or None if nothing is wrong. See docs/troubleshooting.md."""
    return advice(
        row["state"],
        reasons=(row.get("reason"), row.get("stopped_reason")),
        hint=row.get("hint"),
        exit_code=row.get("exit_code"),
        stop_code=row.get("stop_code"),
    )


def causes_of(row: Mapping[str, Any]) -> list[str]:
    """Return the known reasons. The reason of ECS is omitted if the reason of the bridge contains it."""
    reason, stopped_reason = row.get("reason") or "", row.get("stopped_reason") or ""
    return [text for text in (reason, "" if stopped_reason in reason else stopped_reason) if text]
