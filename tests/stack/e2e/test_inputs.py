"""Published responses and events of ECS, through the whole stack.

Each of tests/fixtures/inputs, as it is and in variants.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from api import Stack
from local_stack import ROOT, until

INPUTS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "tests/fixtures/inputs").glob("*.json"))}
SHAPE = {"name": "ECS_BRIDGE_LOCAL_SHAPE", "value": "no-events"}
SILENT = {"overrides": {"containerOverrides": [{"name": "main", "environment": [SHAPE]}]}}


def cases(kind: str) -> list[Any]:
    """Each input of a kind, and each of its variants: a patch of the detail, or of the error."""
    return [
        pytest.param(of, patch, f"{name}-{n}", id=f"{name}-{n}")
        for name, of in INPUTS.items()
        if kind in of
        for n, patch in enumerate([{}, *of["variants"]])
    ]


@pytest.fixture(scope="module")
def still(start: Callable[..., Stack]) -> Stack:
    """A stack without schedule, in which commands only pretend to run."""
    return start({"reconcile-every": 0, "simulate": True})


def filled(event: Any, values: dict[str, str]) -> Any:
    text = json.dumps(event)
    for name, value in values.items():
        text = text.replace(f"<{name}>", value)
    return json.loads(text)


def ends(row: dict[str, Any], expected: dict[str, Any]) -> None:
    seen = {name: row.get(name) for name in expected}
    if "attempts" in expected:
        seen["attempts"] = len(row.get("attempts", []))
    if "denied" in expected:
        seen["denied"] = "denied_since" in row
    assert seen == expected, row


@pytest.mark.parametrize(("of", "patch", "submission_id"), cases("event"))
def test_published_event_has_its_result(
    still: Stack, of: dict[str, Any], patch: dict[str, Any], submission_id: str
) -> None:
    still.submit({"submission_id": submission_id, "command": ["sleep", "3600"], "overrides": SILENT})
    task_arn = str(until("it is launched", lambda: still.row(submission_id).get("task_arn")))
    now = datetime.now(UTC).isoformat()
    values = {"now": now, "task_arn": task_arn, "deployment": "local", "submission_id": submission_id}
    event = filled(of["event"], values)
    event["detail"] |= patch
    still.put_event(event)
    until("the event is taken", lambda: still.row(submission_id)["state"] == of["ends"]["state"])
    ends(still.row(submission_id), of["ends"])


@pytest.mark.parametrize(("of", "patch", "submission_id"), cases("rule"))
def test_published_refusal_is_retried(
    still: Stack, of: dict[str, Any], patch: dict[str, Any], submission_id: str
) -> None:
    rule = of["rule"]
    still.rule(**rule | {"error": rule["error"] | patch, "submission_id": submission_id})
    assert still.submit({"submission_id": submission_id, "command": ["true"]})[0]["state"] == "queued"
    ends(still.row(submission_id), of["ends"])
    assert still.tasks(submission_id) == []


GIVES_UP = {"operation": "RunTask", "shapes": "capacity-given-up"}


def test_capacity_timeouts_are_relaunched_without_limit(start: Callable[..., Stack]) -> None:
    stack = start({"timer-scale": 100, "reconcile-every": 1})
    stack.rule(**GIVES_UP, submission_id="given-up", times=5)
    stack.submit({"submission_id": "given-up", "command": ["sh", "-c", "exit 3"]})
    row = stack.until_ended("given-up")
    # More attempts than the policy has: none of them counts.
    assert (row["state"], row["exit_code"], row["attempt"]) == ("failed", 3, 6)
    assert row["attempts"] == ["TaskFailedToStart: RESOURCE:GPU"] * 5
    assert [task["start_count"] for task in stack.tasks("given-up")] == [0, 0, 0, 0, 0, 1]


def test_false_host_failure_starts_no_second_container(start: Callable[..., Stack]) -> None:
    """The end that an EC2 host reports too early, after an attempt whose capacity was given up."""
    relaunched = {"relaunch_on": ["InfrastructureHealth"], "container_name": "main"}
    network = {"awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"]}}
    run_task = {"taskDefinition": "demo", "launchType": "EC2", "networkConfiguration": network}
    profile = relaunched | {"run_task": run_task}
    stack = start({"timer-scale": 100, "reconcile-every": 1}, profiles={"default": profile})
    stack.rule(**GIVES_UP, submission_id="errs", times=1)
    stack.rule(operation="RunTask", shapes="seems-lost", submission_id="errs", times=1)
    stack.submit({"submission_id": "errs", "command": ["sh", "-c", "sleep 2; exit 3"]})
    row = stack.until_ended("errs")
    assert "exit_code" in row, row
    assert (row["state"], row["exit_code"], row["attempt"]) == ("failed", 3, 2)
    assert [task["start_count"] for task in stack.tasks("errs")] == [0, 1]
