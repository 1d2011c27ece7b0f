"""The timeline and the wait reason of a submission, held against those of the program."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ecs_bridge.progress import attempts, causes_of, timeline, wait_reason

# `ecs-bridge show` writes it, by tests/stack/local/test_progress.py.
SHOWN = json.loads((Path(__file__).parents[2] / "fixtures/progress.json").read_text())
REFUSED = {"state": "queued", "due": "repeat", "refusals": 1}


@pytest.mark.parametrize("case", SHOWN["timelines"], ids=lambda case: case["row"]["state"])
def test_timeline_is_that_of_the_program(case: dict[str, Any]):
    assert [step._asdict() for step in timeline(case["row"])] == case["timeline"]
    assert attempts(case["row"]) == case["attempts"]


@pytest.mark.parametrize("case", SHOWN["pools"], ids=lambda case: case["detail"])
def test_wait_reason_in_a_pool_is_that_of_the_program(case: dict[str, Any]):
    expected = case["detail"] or "no runner of the pool is available"
    assert wait_reason(case["row"], case["pool"]) == ("pool", expected)


@pytest.mark.parametrize(
    ("row", "cause"),
    [
        ({"state": "launching", "due": "repeat"}, "RunTask"),
        ({"state": "launched", "last_status": "PENDING"}, "container start"),
        ({"state": "queued", "due": "waiting/p"}, "capacity"),
        ({**REFUSED, "reason": "You've reached the limit on the number of vCPUs you can run"}, "quota"),
        ({**REFUSED, "reason": "ThrottlingException: Rate exceeded"}, "throttling"),
        ({**REFUSED, "reason": "RESOURCE:MEMORY"}, "capacity"),
        ({**REFUSED, "reason": "AccessDenied"}, "refused by ECS"),
        ({"state": "queued", "due": "repeat", "attempt": 2}, "next attempt"),
        ({"state": "queued", "due": "queued"}, "launch rate"),
        # A reader that may not read `due` and `pool`.
        ({"state": "queued"}, "launch"),
        ({"state": "queued", "reason": "RESOURCE:MEMORY"}, "capacity"),
    ],
)
def test_each_kind_of_waiting_has_its_cause(row: dict[str, Any], cause: str):
    wait = wait_reason(row)
    assert wait is not None
    assert wait.cause == cause
    assert wait.detail == row.get("reason", wait.detail)
    assert wait.detail


@pytest.mark.parametrize("state", ["running", "succeeded", "failed", "a state of a later version"])
def test_submission_that_runs_or_has_ended_does_not_wait(state: str):
    assert wait_reason({"state": state, "reason": "RESOURCE:MEMORY"}) is None


def test_reason_that_contains_the_other_is_shown_alone():
    assert causes_of({"reason": "ECS: taken back", "stopped_reason": "taken back"}) == ["ECS: taken back"]
    assert causes_of({"reason": None, "stopped_reason": "taken back"}) == ["taken back"]
