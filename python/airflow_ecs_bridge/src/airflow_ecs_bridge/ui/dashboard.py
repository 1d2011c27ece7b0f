"""The data of the ECS bridge view for one user, without I/O and without a clock.

Counts of submissions include only submissions that the user may see. Counts of runners include all runners of a pool,
as Airflow's list of pools counts all slots.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_ecs_bridge.ui.authorization import described
from ecs_bridge.advice import advice
from ecs_bridge.progress import advice_of, causes_of, pool_failure, wait_reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_ecs_bridge.ui.authorization import Sight
    from airflow_ecs_bridge.ui.queries import Snapshot
    from ecs_bridge.table import Row

IN_FLIGHT = ("queued", "launching", "launched", "running")
FAILED = frozenset({"failed", "rejected", "expired", "lost"})
MOST_FAILURES = 50
MOST_WAITING = 50
"""Maximum number of groups of submissions with the same wait reason."""

MOST_POINTS = 72
WIDTHS_MS = tuple(1_000 * seconds for seconds in (10, 30, 60, 120, 300, 600))
"""The possible widths of a point of a plot."""

NO_PROFILE = "(none)"


def overview(seen: Snapshot, sight: Sight, *, with_pools: bool) -> dict[str, Any]:
    """Return the data of the view."""
    in_flight = [row for row in seen.in_flight if sight.of(row)]
    ended = [row for row in seen.ended if sight.of(row)]
    return {
        "read_at": seen.read_at,
        # From all rows that were read, because earlier ones are missing for every user.
        "since": min((row["changed_at"] for row in seen.ended), default=seen.since)
        if "ended" in seen.cut
        else seen.since,
        "sees_all": sight.others and sight.dag_ids >= sight.all_dag_ids,
        "cut": sorted(seen.cut),
        "in_flight": _in_flight(in_flight),
        "waiting": _waiting(in_flight, seen),
        "capacity": _capacity(seen),
        "ended": dict(Counter(row["state"] for row in ended)),
        "latency": {
            "launch": _latency(seen, [*in_flight, *ended], "created_at", "started_at", by="started_at"),
            "landing": _latency(seen, ended, "container_exited_at", "changed_at", by="changed_at"),
        },
        "pools": _pools(seen, in_flight) if with_pools else None,
        "failures": [_failure(row) for row in islice((row for row in ended if row["state"] in FAILED), MOST_FAILURES)],
    }


def _runners_advice(pool: Row) -> str | None:
    """Return the advice for a pool with failing runners. The reason contains the exit code of the deleted records."""
    failure = pool.get("failure") or ""
    if not pool.get("failing_since") or not failure:
        return None
    code = re.search(r"exited with (\d+)", failure)
    return advice("failed", reasons=(failure,), exit_code=int(code[1]) if code else None)


def _in_flight(rows: list[Row]) -> dict[str, Any]:
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        counts.setdefault(row.get("profile") or NO_PROFILE, Counter())[row["state"]] += 1
    profiles = [
        {"profile": profile, "total": states.total(), **{state: states[state] for state in IN_FLIGHT}}
        for profile, states in sorted(counts.items())
    ]
    states = Counter(row["state"] for row in rows)
    return {"total": len(rows), "states": {state: states[state] for state in IN_FLIGHT}, "profiles": profiles}


def _waiting(rows: list[Row], seen: Snapshot) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if cause := wait_reason(row, seen.pools.get(row.get("profile", ""))):
            groups.setdefault((row.get("profile") or NO_PROFILE, *cause), []).append(row)
    firsts = [(min(members, key=_created_at), key, len(members)) for key, members in groups.items()]
    firsts.sort(key=lambda group: _created_at(group[0]))
    return [
        {
            "profile": profile,
            "cause": cause,
            "detail": detail,
            "advice": advice_of(first) if cause != "pool" else _runners_advice(seen.pools.get(profile, {})),
            "count": count,
            "since": first["created_at"],
            "first": {"submission_id": first["submission_id"], **described(first.get("labels"))},
        }
        for first, (profile, cause, detail), count in firsts[:MOST_WAITING]
    ]


def _created_at(row: Row) -> int:
    at: int = row["created_at"]
    return at


def _capacity(seen: Snapshot) -> list[dict[str, Any]]:
    return [
        {"choice": choice, "refusals": known.get("refusals", 0), "probe_at": known.get("probe_at")}
        for choice, known in sorted(seen.capacity.items())
        # After three consecutive refusals, the option is unused until a probe succeeds (shared/core/src/capacity.rs).
        if known.get("refusals", 0) >= 3
    ]


def _pools(seen: Snapshot, in_flight: list[Row]) -> list[dict[str, Any]]:
    waiting = Counter(row.get("profile") for row in in_flight if row["state"] == "queued" and row.get("pool"))
    return [
        {
            "profile": profile,
            "waiting": waiting[profile],
            **_stuck(profile, row, in_flight),
            **_limits(row),
            **Counter(map(_runner_state, seen.runners[profile])),
            "paused": bool(row.get("paused")),
            "failure": pool_failure(row),
            "advice": _runners_advice(row),
        }
        for profile, row in sorted(seen.pools.items())
    ]


def _stuck(profile: str, pool: Row, in_flight: list[Row]) -> dict[str, Any]:
    """Return the number of submissions that no runner serves, and the reasons."""
    reasons = pool.get("wait_reasons") or {}
    stuck = {key: known["reason"] for key, known in reasons.items() if known.get("stuck")}
    count = sum(row.get("pool") in stuck for row in in_flight if row.get("profile") == profile)
    return {"stuck": count, "stuck_reasons": sorted(set(stuck.values()))}


def _limits(pool: Row) -> dict[str, int | None]:
    """Return the effective limits, which an operator or the profile sets."""
    spec = (pool.get("specs") or {}).get(pool.get("current"), {}).get("pool", {})
    return {"max": pool.get("max", spec.get("max")), "min_idle": pool.get("min_idle", spec.get("min_idle", 0))}


def _runner_state(row: Row) -> str:
    runner = row.get("runner") or {}
    if runner.get("closing"):
        return "closing"
    if runner.get("serves"):
        return "busy"
    return "idle" if runner.get("incarnation") else "starting"


def _failure(row: Row) -> dict[str, Any]:
    return {
        "submission_id": row["submission_id"],
        "state": row["state"],
        "profile": row.get("profile") or NO_PROFILE,
        "ended_at": row["changed_at"],
        "exit_code": row.get("exit_code"),
        "reason": "; ".join(causes_of(row)) or None,
        "advice": advice_of(row),
        "task": described(row.get("labels")),
    }


def _latency(seen: Snapshot, rows: Iterable[Row], begin: str, end: str, *, by: str) -> dict[str, Any]:
    """Return percentiles of the duration between two times in seconds, as a series and in total."""
    # The clocks of AWS services differ slightly.
    spans = sorted((row[by], max(row[end] - row[begin], 0) / 1000) for row in rows if begin in row and end in row)
    spans = [span for span in spans if span[0] >= seen.since]
    if not spans:
        return {"count": 0, "at": [], "p50": [], "p95": []}
    length = seen.read_at - spans[0][0]
    width = next((width for width in WIDTHS_MS if length <= width * MOST_POINTS), WIDTHS_MS[-1])
    points: dict[int, list[float]] = {}
    for at, seconds in spans:
        points.setdefault(at - at % width, []).append(seconds)
    at = range(min(points), max(points) + 1, width)

    def line(share: float) -> list[float | None]:
        return [percentile(points[each], share) if each in points else None for each in at]

    everything = [seconds for _, seconds in spans]
    return {
        "count": len(spans),
        "width": width,
        "at": list(at),
        "p50": line(0.5),
        "p95": line(0.95),
        "counts": [len(points.get(each, ())) for each in at],
        "median": percentile(everything, 0.5),
        "most": percentile(everything, 0.95),
        "longest": max(everything),
    }


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that is at least as large as this share of the values."""
    ordered = sorted(values)
    return ordered[max(-int(-len(ordered) * share // 1) - 1, 0)]
