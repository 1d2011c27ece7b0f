"""Peculiarities of ECS, emulated by the local stack, and the results of the submissions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from api import Stack
from local_stack import until

EXIT_3 = ["sh", "-c", "exit 3"]
# Shape: command, state, exit code, attempts.
SHAPES: dict[str, tuple[list[str], str, int | None, int]] = {
    "cannot-pull": (EXIT_3, "failed", None, 3),
    "cannot-create": (EXIT_3, "failed", None, 3),
    "resource-init": (EXIT_3, "failed", None, 3),
    "failed-to-start-after-exit": (["true"], "succeeded", 0, 1),
    "spot-notice": (["sleep", "0.5"], "succeeded", 0, 1),
    "termination-notice": (["sleep", "0.5"], "succeeded", 0, 1),
    "spot-interruption": (["sleep", "60"], "failed", 143, 1),
    "infrastructure-health": (["sleep", "60"], "failed", None, 1),
    "no-exit-code": (EXIT_3, "failed", None, 1),
    "null-exit-code": (EXIT_3, "failed", None, 1),
    # Only its last event has no containers; the one before has the exit code.
    "empty-containers": (EXIT_3, "failed", 3, 1),
    "twin": (EXIT_3, "failed", 3, 1),
    "failing-twin": (["true"], "failed", 1, 1),
    "short-arns": (EXIT_3, "failed", 3, 1),
    "foreign-task-arn": (EXIT_3, "failed", 3, 1),
    "no-launch-type": (EXIT_3, "failed", 3, 1),
    "no-attachments": (EXIT_3, "failed", 3, 1),
    "no-platform-version": (EXIT_3, "failed", 3, 1),
    "unknown-members": (EXIT_3, "failed", 3, 1),
    "event-time": (EXIT_3, "failed", 3, 1),
    "skip-states": (EXIT_3, "failed", 3, 1),
    "clock-skew": (EXIT_3, "failed", 3, 1),
    # These have no events: reconcile finds their end.
    "no-started-by": (EXIT_3, "failed", 3, 1),
    "no-events": (EXIT_3, "failed", 3, 1),
    "forgotten": (EXIT_3, "lost", None, 1),
}


def item(submission_id: str, command: list[str], **more: Any) -> dict[str, Any]:
    return {"submission_id": submission_id, "command": command, **more}


def shape_override(shape: str) -> dict[str, Any]:
    variable = {"name": "ECS_BRIDGE_LOCAL_SHAPE", "value": shape}
    return {"overrides": {"containerOverrides": [{"name": "main", "environment": [variable]}]}}


@pytest.fixture(scope="module")
def shaped(start: Callable[..., Stack]) -> Stack:
    """All shapes at once, with the bridge's timers a hundred times faster."""
    stack = start({"timer-scale": 100, "reconcile-every": 1, "teardown-s": 0.2})
    items = []
    for shape, (command, *_) in SHAPES.items():
        items.append(item(shape, command, overrides=shape_override(shape)))
    stack.submit(*items)
    return stack


@pytest.mark.parametrize("shape", SHAPES)
def test_ecs_peculiarity_has_its_result(shaped: Stack, shape: str) -> None:
    _, state, exit_code, attempts = SHAPES[shape]
    row = shaped.until_ended(shape)
    assert (row["state"], row.get("exit_code"), row["attempt"]) == (state, exit_code, attempts), row
    tasks = shaped.tasks(shape)
    assert len(tasks) == attempts
    assert all(task["start_count"] <= 1 for task in tasks)


def test_events_may_precede_the_run_task_response(start: Callable[..., Stack]) -> None:
    # The task ends before the answer of RunTask arrives.
    stack = start({"api-latency-ms": 1000})
    stack.submit(*(item(f"early-{n}", ["sh", "-c", f"exit {n}"]) for n in range(20)))
    for n in range(20):
        row = stack.until_ended(f"early-{n}")
        assert (row["state"], row["exit_code"]) == ("failed" if n else "succeeded", n)
        assert [task["start_count"] for task in stack.tasks(f"early-{n}")] == [1]


def reason_while_queued(stack: Stack, submission_id: str) -> str | None:
    """The reason, or None if it was launched again before this request, after five seconds."""
    record = stack.show(submission_id)
    return record["reason"] if record["state"] == "queued" else None


def test_retryable_refusal_is_queued_and_retried(stack: Stack) -> None:
    stack.rule(submission_id="refused-now", failure="RESOURCE:MEMORY", times=1)
    answer = stack.submit(item("refused-now", ["true"]))[0]
    assert answer["state"] == "queued"
    assert "error" not in answer
    assert reason_while_queued(stack, "refused-now") in ("RESOURCE:MEMORY", None)
    row = stack.until_ended("refused-now")
    assert (row["state"], row["attempt"]) == ("succeeded", 1)


def test_permanent_refusal_is_rejected_with_the_ecs_message(stack: Stack) -> None:
    error = {"code": "InvalidParameterException", "message": "No Fargate configuration exists for given values."}
    stack.rule(submission_id="refused-for-good", error=error, times=5)
    answer = stack.submit(item("refused-for-good", ["true"]))[0]
    assert answer["state"] == "rejected"
    assert "error" not in answer
    assert "No Fargate configuration" in stack.show("refused-for-good")["reason"]
    assert not stack.tasks("refused-for-good")


def test_denied_access_is_retried(stack: Stack) -> None:
    error = {"code": "AccessDeniedException", "message": "not authorized to perform: iam:PassRole on resource: x"}
    stack.rule(submission_id="denied", error=error, times=1)
    answer = stack.submit(item("denied", ["true"]))[0]
    assert answer["state"] == "queued"
    assert "error" not in answer
    reason = reason_while_queued(stack, "denied")
    assert reason is None or "iam:PassRole" in reason
    assert stack.until_ended("denied")["state"] == "succeeded"


@pytest.mark.parametrize("answer", ["server_error", "none"])
def test_unanswered_launch_is_repeated_and_found(start: Callable[..., Stack], answer: str) -> None:
    stack = start({"timer-scale": 100, "reconcile-every": 1})
    stack.rule(submission_id="unanswered", answer=answer, times=1)
    # No event answers it, so that nothing but a repeat does.
    assert stack.submit(item("unanswered", EXIT_3, overrides=shape_override("no-events")))[0]["state"] == "launching"
    assert stack.until_ended("unanswered")["exit_code"] == 3
    assert [task["start_count"] for task in stack.tasks("unanswered")] == [1]
    assert stack.calls()["RunTask"] >= 2


def test_unreadable_row_delays_no_other(stack: Stack) -> None:
    stack.table.put_item(
        Item={"submission_id": "broken", "state": "resting", "due": "queued", "check_at": 1_700_000_000_000}
    )
    try:
        stack.rule(submission_id="behind-it", failure="AGENT", times=1)
        stack.submit(item("behind-it", ["true"]))
        assert stack.until_ended("behind-it")["state"] == "succeeded"
        assert stack.submit(item("broken", ["true"]))[0]["error"]["code"] == "unavailable"
        assert stack.api.send("GET", "/v1/submissions/broken").status == 503
    finally:
        stack.table.delete_item(Key={"submission_id": "broken"})


def test_submission_past_its_deadline_never_launches(stack: Stack) -> None:
    answer = stack.submit(item("too-late", ["true"], launch_deadline=1_700_000_000_000))[0]
    assert answer["state"] == "expired"
    assert not stack.tasks("too-late")


def test_stopped_command_is_cancelled_and_in_the_feed(stack: Stack) -> None:
    stack.submit(item("stopped", ["sleep", "60"]))
    stack.until_state("stopped", "running")
    stack.stop("stopped", reason="cleared")
    row = stack.until_ended("stopped")
    assert (row["state"], row["exit_code"], row["reason"]) == ("cancelled", 143, "cleared")

    def on_feed() -> list[dict[str, Any]]:
        condition = {"KeyConditionExpression": "feed = :feed", "ExpressionAttributeValues": {":feed": "local"}}
        items = stack.table.query(IndexName="feed", **condition)["Items"]
        return [one for one in items if one["submission_id"] == "stopped"]

    (fed,) = until("it is on the feed", on_feed)
    assert fed["state"] == "cancelled"
    assert fed["exit_code"] == 143
    assert set(fed) == {"submission_id", "feed", "changed_at", "state", "exit_code", "reason"}
