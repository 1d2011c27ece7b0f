"""Many submissions at once: every exit code is right, and every command starts exactly once."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from api import Stack
from local_stack import until

# The emulated ECS has no quota. At the rate of the real one, the run would take a minute longer.
QUICK = {"ECS_BRIDGE_LAUNCH_RATE": 500, "ECS_BRIDGE_LAUNCH_BURST": 1000}


def commands(count: int, prefix: str) -> dict[str, tuple[list[str], int]]:
    """Commands and their exit codes, by id."""
    made = {}
    for n in range(count):
        code = n % 256
        made[f"{prefix}-{n}"] = (["true"], 0) if n % 4 == 0 else (["sh", "-c", f"exit {code}"], code)
    return made


def item(submission_id: str, command: Sequence[str]) -> dict[str, Any]:
    return {"submission_id": submission_id, "command": list(command)}


def batches(expected: dict[str, tuple[list[str], int]]) -> list[Sequence[dict[str, Any]]]:
    items = [item(submission_id, command) for submission_id, (command, _) in expected.items()]
    return [items[at : at + 20] for at in range(0, len(items), 20)]


def accept(stack: Stack, batch: Sequence[dict[str, Any]], after: Callable[[], object] = lambda: None) -> int:
    """Sends the same batch until each item is accepted, as a caller does; returns how often it was repeated.

    A call fails as a whole where its process dies, or exceeds its timeout.
    """
    repeats = 0
    while True:
        answer = stack.api.post("/v1/submissions", {"submissions": batch}, timeout=300)
        after()
        if answer.status == 200 and not [one for one in answer.json["submissions"] if "error" in one]:
            return repeats
        assert answer.status in (200, 502), answer
        repeats += 1


def all_ended(stack: Stack, count: int, seconds: float = 600) -> dict[str, dict[str, Any]]:
    """All rows, once `count` are terminal."""
    query = {"KeyConditionExpression": "feed = :feed", "ExpressionAttributeValues": {":feed": "local"}}

    def ended() -> bool:
        page = stack.table.query(IndexName="feed", Select="COUNT", **query)
        seen = page["Count"]
        while "LastEvaluatedKey" in page:
            start = page["LastEvaluatedKey"]
            page = stack.table.query(IndexName="feed", Select="COUNT", ExclusiveStartKey=start, **query)
            seen += page["Count"]
        return bool(seen >= count)

    until(f"{count} submissions have ended", ended, seconds, every=0.5)
    return {row["submission_id"]: row for row in stack.rows()}


def check(stack: Stack, expected: dict[str, tuple[list[str], int]], rows: dict[str, dict[str, Any]]) -> None:
    wrong = {
        submission_id: rows[submission_id]
        for submission_id, (_, code) in expected.items()
        if (rows[submission_id]["state"], rows[submission_id].get("exit_code"))
        != ("succeeded" if code == 0 else "failed", code)
    }
    assert not wrong
    tasks = stack.tasks()
    assert sorted(task["submission_id"] for task in tasks) == sorted(expected)
    assert {task["start_count"] for task in tasks} == {1}
    assert not [row for row in rows.values() if "request" in row or "due" in row]


@pytest.mark.parametrize(
    ("count", "faults"),
    [(200, {}), (1000, {"duplicate": 0.3, "delay-ms": "0..2000"})],
    ids=["no faults", "doubled and late events"],
)
def test_thousand_commands_run_once_each(start: Callable[..., Stack], count: int, faults: dict[str, object]) -> None:
    stack = start(faults, function_env=QUICK)
    expected = commands(count, "run")
    with ThreadPoolExecutor(10) as callers:
        list(callers.map(lambda batch: accept(stack, batch), batches(expected)))
    check(stack, expected, all_ended(stack, count))
    if faults:
        assert stack.faults()["duplicated"] > 500
        assert stack.faults()["delayed"] > 1000


def test_fifty_concurrent_resubmissions_start_one_task(stack: Stack) -> None:
    with ThreadPoolExecutor(50) as callers:
        sent = item("fifty", ["sh", "-c", "exit 5"])
        answers = list(callers.map(lambda _: stack.submit(sent)[0], range(50)))
    assert not [answer for answer in answers if "error" in answer]
    assert stack.until_ended("fifty")["exit_code"] == 5
    assert [task["start_count"] for task in stack.tasks("fifty")] == [1]
    again = stack.submit(sent)[0]
    assert (again["state"], len(stack.tasks("fifty"))) == ("failed", 1)


def test_same_id_with_other_content_conflicts(stack: Stack) -> None:
    stack.submit(item("taken", ["sh", "-c", "exit 6"]))
    stack.until_ended("taken")
    until("its task is torn down", lambda: "stopped_at" in stack.row("taken"))
    before = stack.row("taken")
    for other in (
        item("taken", ["false"]),
        item("taken", ["sh", "-c", "exit 6"]) | {"profile": "sidecar"},
        item("taken", ["sh", "-c", "exit 6"]) | {"overrides": {"tags": [{"key": "a", "value": "b"}]}},
    ):
        answer = stack.submit(other)[0]
        assert (answer["error"]["code"], answer["state"]) == ("conflict", "failed")
    same = item("taken", ["sh", "-c", "exit 6"]) | {"labels": {"try": "2"}, "launch_deadline": 1_000_000_000_000}
    assert "error" not in stack.submit(same)[0]
    assert stack.row("taken") == before
    assert len(stack.tasks("taken")) == 1


def test_killed_functions_lose_no_submission(start: Callable[..., Stack]) -> None:
    # The claims of a killed process are due again after its lease, and Lambda retries after a minute: both shortened.
    flags = {"time-scale": 10, "timer-scale": 10, "reconcile-every": 2, "simulate": True}
    stack = start(flags, function_env=QUICK)
    expected = commands(800, "load")
    choices, choosing = random.Random(7), threading.Lock()
    killed = []

    def kill() -> None:
        """One process after each call, so that a slow machine sees no more deaths than a fast one."""
        with choosing:
            pid = choices.choice([process["pid"] for process in stack.processes()])
            killed.extend([pid] if stack.kill(pid) else [])

    with ThreadPoolExecutor(20) as callers:
        repeats = sum(callers.map(lambda batch: accept(stack, batch, kill), batches(expected)))
    check(stack, expected, all_ended(stack, 800))
    assert len(killed) >= 30, "too few died for this to show anything"
    assert 0 < repeats <= len(killed), "calls are repeated where their process died, and nowhere else"
    until("all events are delivered", lambda: stack.invocations()["task-state"]["events_pending"] == 0)
    # A run of reconcile that died three times is abandoned, as by Lambda; the schedule brings the next.
    counts = stack.invocations()["task-state"]
    assert counts["abandoned"] == 0
    assert counts["invocations"] >= stack.faults()["events_matched"]
