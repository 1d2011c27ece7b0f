"""`notify`: a state machine and an event bus receive results."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from api import Stack
from local_stack import until

ids = (f"on-end-{number}" for number in itertools.count())


def submit(stack: Stack, command: str = "exit 0", **more: Any) -> str:
    id = next(ids)
    [answer] = stack.submit({"submission_id": id, "command": ["sh", "-c", command], **more})
    assert "error" not in answer, answer
    return id


def listeners(token: str) -> dict[str, str]:
    return {"task_token": token, "event_bus": "default"}


@pytest.mark.parametrize(
    ("command", "operation", "error"),
    [("exit 0", "SendTaskSuccess", None), ("exit 7", "SendTaskFailure", "EcsBridge.Failed")],
)
def test_both_targets_are_notified_once(stack: Stack, command: str, operation: str, error: str | None) -> None:
    token = f"token-of-{operation}"
    id = submit(stack, command, notify=listeners(token), labels={"team": "a"})
    row = stack.until_notified(id)
    by_operation = {one["operation"]: one for one in stack.notifications(id)}
    assert len(stack.notifications(id)) == 2
    assert by_operation.keys() == {operation, "PutEvents"}
    answered = by_operation[operation]
    assert (answered["to"], answered["error"]) == (token, error)
    for one in by_operation.values():
        end = one["end"]
        assert (end["state"], end["exit_code"], end["labels"]) == (row["state"], row["exit_code"], {"team": "a"})
        assert not end.keys() & {"command", "overrides", "request", "pending_notifications"}
        assert token not in str(end)
    assert stack.show(id)["notified"].keys() == {"event_bus_at", "task_token_at", "task_token"}
    assert token not in str(row) + str(stack.show(id))
    assert all(token not in path.read_text() for path in stack.logs())


def test_event_matches_a_rule(stack: Stack) -> None:
    id = submit(stack, notify={"event_bus": "default"})
    stack.until_notified(id)
    [event] = [event for event in stack.events() if event["detail"].get("submission_id") == id]
    assert (event["source"], event["detail-type"]) == ("ecs-bridge", "Submission State Change")
    assert event["detail"]["deployment"] == stack.ready["deployment"]
    assert event["resources"] == [stack.row(id)["task_arn"]]


def test_submission_that_never_ran_is_notified(stack: Stack) -> None:
    rejected, stopped = next(ids), next(ids)
    stack.rule(submission_id=rejected, error={"code": "InvalidParameterException", "message": "no"})
    stack.submit({"submission_id": rejected, "command": ["true"], "notify": listeners("of-the-rejected")})
    # The stop comes first.
    stack.stop(stopped)
    stack.submit({"submission_id": stopped, "command": ["true"], "notify": listeners("of-the-stopped")})
    for id, error in ((rejected, "EcsBridge.Rejected"), (stopped, "EcsBridge.Cancelled")):
        stack.until_notified(id)
        assert {one["error"] for one in stack.notifications(id)} == {error, None}


def test_resubmission_with_another_token_notifies_that_token(stack: Stack) -> None:
    id = next(ids)
    for token in ("first", "second"):
        stack.submit({"submission_id": id, "command": ["sleep", "100000"], "notify": {"task_token": f"{id}-{token}"}})
    stack.stop(id)
    stack.until_notified(id)
    assert [one["to"] for one in stack.notifications(id)] == [f"{id}-second"]
    # A third execution finds the end.
    stack.submit({"submission_id": id, "command": ["sleep", "100000"], "notify": {"task_token": f"{id}-third"}})
    until("the third is told", lambda: [one for one in stack.notifications(id) if one["to"] == f"{id}-third"])
    assert len(stack.tasks(id)) == 1


def test_refused_notification_is_recorded_and_retried(start: Callable[..., Stack]) -> None:
    stack = start({"timer-scale": 60})
    stack.rule(operation="PutEvents", times=2, error={"code": "AccessDeniedException", "message": "no"})
    id = submit(stack, notify={"event_bus": "default"})
    until(
        "the refusal is recorded",
        lambda: stack.show(id).get("pending_notifications", {}).get("error") == "AccessDeniedException",
    )
    stack.until_notified(id)
    assert len(stack.notifications(id)) == 1
    assert "pending_notifications" not in stack.show(id)


def test_notification_of_an_unknown_token_is_dropped(stack: Stack) -> None:
    stack.rule(operation="SendTaskSuccess", error={"code": "TaskDoesNotExist", "message": "no"})
    id = submit(stack, notify={"task_token": "of-nobody"})
    stack.until_notified(id)
    assert stack.notifications(id) == []
    assert stack.calls()["SendTaskSuccess"] >= 1


@pytest.mark.parametrize(
    ("notify", "words"),
    [
        ({"event_bus": "another"}, "known: default"),
        ({"task_token": ""}, "a token of Step Functions"),
        ({"task_token": "a b"}, "a token of Step Functions"),
        ({"lambda": "x"}, "task_token or event_bus"),
        ("default", "task_token or event_bus"),
    ],
)
def test_invalid_notification_target_is_rejected(stack: Stack, notify: object, words: str) -> None:
    [answer] = stack.submit({"submission_id": next(ids), "command": ["true"], "notify": notify})
    assert answer["error"]["code"] == "invalid"
    assert words in answer["error"]["message"]


def test_profiles_event_bus_receives_every_result(start: Callable[..., Stack]) -> None:
    run_task = {
        "taskDefinition": "demo",
        "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"]}},
    }
    profiles = {"default": {"container_name": "main", "run_task": run_task, "notify": {"event_bus": "default"}}}
    stack = start(profiles=profiles)
    id = submit(stack, notify={"task_token": "of-a-profile"})
    stack.until_notified(id)
    assert {one["to"] for one in stack.notifications(id)} == {"default", "of-a-profile"}
