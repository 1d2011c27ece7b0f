"""Direct invocations of submit, for callers that can invoke a function but not sign a request."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from api import Stack
from local_stack import PROGRAM, ROOT, FunctionError


def failure(stack: Stack, payload: object) -> tuple[str, str]:
    """The type and the message of the function's error."""
    with pytest.raises(FunctionError) as raised:
        stack.invoke("submit", payload)
    error = json.loads(str(raised.value))
    return error["errorType"], error["errorMessage"]


def test_single_submission_returns_its_record_and_runs_once(stack: Stack) -> None:
    payload = {"submission_id": "direct", "command": ["sh", "-c", "exit 3"], "labels": {"from": "a schedule"}}
    first, again = (stack.invoke("submit", payload) for _ in range(2))
    assert first["submission_id"] == again["submission_id"] == "direct"
    assert "index" not in first
    assert stack.until_ended("direct")["exit_code"] == 3
    assert [task["start_count"] for task in stack.tasks("direct")] == [1]
    assert stack.invoke("submit", {"submission_id": "direct"})["labels"] == {"from": "a schedule"}


def test_several_submissions_return_their_records(stack: Stack) -> None:
    answer = stack.invoke("submit", {"submissions": [{"submission_id": "direct-1", "command": ["true"]}, {}]})
    good, bad = answer["submissions"]
    assert good["submission_id"] == "direct-1"
    assert bad["error"]["code"] == "invalid"
    stack.until_ended("direct-1")


def test_stop_and_health_can_be_invoked(stack: Stack) -> None:
    answer = stack.invoke("submit", {"submission_ids": ["never-submitted"], "reason": "a test"})
    assert answer["submissions"][0]["state"] == "cancelled"
    assert stack.invoke("submit", {"health": True}) == stack.api.send("GET", "/v1/health").json


def test_error_type_is_the_error_code(stack: Stack) -> None:
    for payload, code, words in [
        ({"submission_id": "x", "command": []}, "invalid", "command must have at least one string"),
        ({"submission_id": "x", "command": ["true"], "profile": "nobody"}, "unknown_profile", "no such profile"),
        ({"submission_id": "never-heard-of"}, "not_found", "no submission has this id"),
        ({}, "unprocessable", "a direct invocation is "),
        ({"health": False}, "unprocessable", "a direct invocation is "),
        ([], "unprocessable", "a direct invocation is "),
        ("text", "unprocessable", "a direct invocation is "),
        ({"submissions": 1}, "unprocessable", "submissions"),
    ]:
        assert failure(stack, payload)[0] == code, payload
        assert words in failure(stack, payload)[1]
    stack.invoke("submit", {"submission_id": "taken", "command": ["true"]})
    assert failure(stack, {"submission_id": "taken", "command": ["false"]})[0] == "conflict"
    stack.until_ended("taken")


def test_demo_runs_without_function_urls() -> None:
    command = [sys.executable, ROOT / "examples/demo.py", "--no-function-urls"]
    environment = os.environ | {"ECS_BRIDGE_PROGRAM": str(PROGRAM)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
