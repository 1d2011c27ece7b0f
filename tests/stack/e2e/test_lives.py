"""Each life of tests/fixtures/lives.json, a record and its events, through the real task-state function.

Its requests to DynamoDB and ECS are counted at the wire.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from api import Stack
from local_stack import ROOT, FunctionError, until
from wire import Wire

LIVES = json.loads((ROOT / "tests" / "fixtures" / "lives.json").read_text())
SECRET = "hunter2-hunter2"


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def event(submission_id: str, step: dict[str, Any]) -> dict[str, Any]:
    ours = {"detail": {"startedBy": f"local/{submission_id}/{step.get('attempt', 1)}"}}
    return dict(merged(merged(LIVES["event"], ours), step["event"]))


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with Wire() as wire:
        yield wire


@pytest.fixture(scope="module")
def stack(start: Callable[..., Stack], wire: Wire) -> Stack:
    """One without reconcile, so that all requests are task-state's."""
    stack = start({"reconcile-every": 0, "processes": 1}, function_env=wire.environment())
    wire.connect(stack.ready)
    # The requests of a start are complete with the first answer.
    stack.invoke("task-state", {})
    return stack


@pytest.mark.parametrize("life", LIVES["lives"], ids=lambda life: life["id"])
def test_lifecycle_ends_as_described(stack: Stack, wire: Wire, life: dict[str, Any]) -> None:
    row = merged(LIVES["record"], {"submission_id": life["id"], **life.get("record", {})})
    stack.table.put_item(Item=row)
    for step in life["steps"]:
        wire.calls.clear()
        stack.invoke("task-state", event(life["id"], step))
        seen = [call.operation for call in wire.calls]
        assert seen.count("GetItem") == step.get("reads", 1), life["shows"]
        assert seen.count("UpdateItem") == step.get("writes", 1), life["shows"]
        stops = [call.body["task"] for call in wire.calls if call.operation == "StopTask"]
        assert set(stops) == set(step.get("stops", [])), life["shows"]
        assert set(seen) <= {"GetItem", "UpdateItem", "StopTask"}, life["shows"]
    row = stack.row(life["id"])
    assert {name: row.get(name) for name in life["ends"]} == life["ends"], life["shows"]


def test_other_payload_is_ignored_without_a_request(stack: Stack, wire: Wire) -> None:
    wire.calls.clear()
    for payload in (7, "event", [], {"detail": None}, {"detail": []}, {"detail": {"startedBy": "local/x/1"}}):
        stack.invoke("task-state", payload)
    assert wire.calls == []


def test_event_of_an_unknown_submission_creates_no_record(stack: Stack, wire: Wire) -> None:
    wire.calls.clear()
    stack.invoke("task-state", event("never-submitted", {"event": {"detail": {"version": 9}}}))
    assert [call.operation for call in wire.calls] == ["GetItem"]
    assert "Item" not in stack.table.get_item(Key={"submission_id": "never-submitted"})


def test_invalid_event_is_logged_without_its_command(stack: Stack) -> None:
    stack.invoke("task-state", event("poison", {"event": {"id": "marked-event", "detail": {"lastStatus": 9}}}))
    until("it is logged", lambda: [path for path in stack.logs() if "marked-event" in path.read_text()])
    assert not [path for path in stack.logs() if SECRET in path.read_text()]


def test_event_of_an_unreadable_row_is_not_acknowledged(stack: Stack) -> None:
    stack.table.put_item(Item={"submission_id": "unreadable", "state": "resting"})
    with pytest.raises(FunctionError) as failed:
        stack.invoke("task-state", event("unreadable", {"event": {}}))
    message = "the row of unreadable is no record of a submission"
    assert json.loads(str(failed.value)) == {"errorType": "BridgeError", "errorMessage": message}
