"""The audit at the end of a run compares the table with the tasks that ran. Each rule is one of the promises."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from plan import Planned

from local_stack import TERMINAL, Record

Task = Mapping[str, Any]
NEVER_STARTED = {"rejected", "expired"}


def audit(
    planned: Mapping[str, Planned],
    rows: list[Record],
    tasks: list[Task],
    first_seen: Mapping[str, Record],
    transitions: Mapping[str, list[tuple[str, str]]],
    alarms: Counter[str],
    told: list[Record],
) -> list[str]:
    """The problems, one per line."""
    problems = [f"alarm: {alarm}" for alarm in alarms if alarm.startswith("a second task")]
    by_id: dict[str, list[Task]] = defaultdict(list)
    for task in tasks:
        by_id[task["submission_id"]].append(task)
    told_by_id: dict[str, list[Record]] = defaultdict(list)
    for one in told:
        told_by_id[one["end"]["submission_id"]].append(one)
    row_by_id = {row["submission_id"]: row for row in rows}
    problems += [f"{id}: was never submitted" for id in (row_by_id.keys() | by_id.keys()) - planned.keys()]
    for id, of_plan in planned.items():
        row, own = row_by_id.get(id), sorted(by_id[id], key=lambda task: task["attempt"])
        if row is None:
            problems.append(f"{id}: has no record")
            continue
        found = [*of_record(of_plan, row), *of_tasks(of_plan, row, own)]
        found += of_ends(of_plan, row, told_by_id[id])
        found += of_history(row, first_seen.get(id), transitions.get(id, []))
        problems += [f"{id} ({of_plan.kind}): {problem}\n    {row}\n    {own}" for problem in found]
    return problems


def of_record(planned: Planned, row: Record) -> Iterator[str]:
    state, code = row["state"], row.get("exit_code")
    if state not in TERMINAL:
        yield f"is still {state}"
    elif state not in planned.states:
        yield f"ended {state}, not {' or '.join(sorted(planned.states))}"
    if (state == "succeeded") != (code == 0):
        yield f"is {state} with exit code {code}"
    if "feed" not in row or "changed_at" not in row:
        yield "has ended and is not on the feed"
    for left in {"request", "due", "check_at", "unanswered_since", "pending_notifications"} & row.keys():
        yield f"has ended and still has {left}"


def of_tasks(planned: Planned, row: Record, tasks: list[Task]) -> Iterator[str]:
    for attempt, number in Counter(task["attempt"] for task in tasks).items():
        if number > 1:
            yield f"attempt {attempt} has {number} tasks"
    for task in tasks:
        if task["start_count"] > 1:
            yield f"attempt {task['attempt']} started {task['start_count']} times"
        if task["last_status"] != "STOPPED":
            yield f"has ended, and attempt {task['attempt']} is {task['last_status']}"
    started = [task for task in tasks if task["start_count"]]
    if len(started) > 1 and not planned.relaunches:
        yield f"{len(started)} attempts started"
    for before, after in itertools.pairwise(tasks):
        if after["created_at"] < (before["exited_at"] or before["stopped_at"] or float("inf")):
            yield f"attempt {after['attempt']} was launched before attempt {before['attempt']} had ended"
    if (
        row["state"] == "lost"
        and planned.kind != "forgotten"
        and any(task["attempt"] == row["attempt"] for task in tasks)
    ):
        yield "is lost, and ECS has its task"
    # A task that ECS launched although it refused may have run before its first event arrives.
    if row["state"] in NEVER_STARTED and any(not task["refused"] for task in started):
        yield f"is {row['state']} though it started"

    last = next((task for task in tasks if task["attempt"] == row["attempt"]), None)
    ran = last is not None and last["start_count"] > 0
    code = None if row.get("exit_code") is None else int(row["exit_code"])
    if code is not None and (last is None or last["exit_code"] != code):
        yield f"exit code {code} is not that of its container"
    if code is None and ran and last["exit_code"] is not None and row["state"] != "lost":
        yield f"is {row['state']} without the exit code {last['exit_code']} that ECS reported"
    if ran and planned.code is not None and last["process_exit_code"] not in (planned.code, None):
        yield f"the container exited with {last['process_exit_code']}, not {planned.code}"
    if "task_arn" in row and last is not None and row["task_arn"].rsplit("/")[-1] != last["task_arn"].rsplit("/")[-1]:
        yield "names another task"


def of_ends(planned: Planned, row: Record, told: list[Record]) -> Iterator[str]:
    to = Counter(one["to"] for one in told)
    wanted = {planned.listener(name) for name in planned.notify}
    if to.keys() != wanted:
        yield f"told {dict(to)} of its end, not {wanted}"
    end = (row["state"], row.get("exit_code"))
    if any((one["end"]["state"], one["end"].get("exit_code")) != end for one in told):
        yield f"told another end: {told}"
    if any(one["end"].keys() & {"request", "command", "overrides"} for one in told):
        yield f"told its command: {told}"


def of_history(row: Record, first_seen: Record | None, transitions: list[tuple[str, str]]) -> Iterator[str]:
    now = {key: row.get(key) for key in ("state", "exit_code", "changed_at")}
    if first_seen is not None and first_seen != now:
        yield f"changed after its end: it was {first_seen}"
    for before, after in transitions:
        if before in TERMINAL:
            yield f"went from {before} to {after}"
    ends = [after for _, after in transitions if after in TERMINAL]
    if len(ends) > 1:
        yield f"ended more than once: {ends}"
