"""The local stack's event patterns against LocalStack's engine, for every pair of patterns and events.

The patterns use the operators that the local stack supports: exact values, ``prefix``, ``exists`` and ``$or``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import types
from typing import Any

import pytest

from local_stack import PROGRAM

# The engine runs alone but for one exception class, whose module would pull in all of LocalStack.
api = types.ModuleType("localstack.aws.api.events")
Invalid: type[Exception] = type("InvalidEventPatternException", (Exception,), {"__init__": Exception.__init__})
api.InvalidEventPatternException = Invalid  # type: ignore[attr-defined]
sys.modules["localstack.aws.api.events"] = api
from localstack.services.events.event_rule_engine import EventPatternCompiler, EventRuleEngine

PATTERNS: list[dict[str, Any]] = [
    {"source": ["aws.ecs"]},
    {"source": ["aws.ecs", "aws.batch"], "detail-type": ["ECS Task State Change"]},
    {"detail": {"lastStatus": ["RUNNING", "STOPPED"]}},
    {"detail": {"lastStatus": ["STOPPED"], "desiredStatus": ["STOPPED"]}},
    {"detail": {"startedBy": [{"prefix": "prod/"}]}},
    {"detail": {"startedBy": [{"exists": True}]}},
    {"detail": {"startedBy": [{"exists": False}]}},
    {"detail": {"version": [5]}},
    {"detail": {"containers": {"exitCode": [0]}}},
    {"detail": {"containers": {"exitCode": [{"exists": True}]}}},
    {"detail": {"containers": {"name": ["main"]}}},
    {"detail": {"attachments": {"details": {"name": ["subnetId"]}}}},
    {"detail": {"nothing": [None]}},
    {"detail": {"$or": [{"lastStatus": ["RUNNING"]}, {"containers": {"exitCode": [{"exists": True}]}}]}},
    {
        "source": ["aws.ecs"],
        "detail": {
            "startedBy": [{"prefix": "prod/"}],
            "$or": [{"lastStatus": ["RUNNING", "STOPPED"]}, {"containers": {"exitCode": [{"exists": True}]}}],
        },
    },
    {"$or": [{"source": ["aws.batch"]}, {"detail": {"version": [4, 5]}}]},
]


def event(source: str = "aws.ecs", detail_type: str = "ECS Task State Change", **detail: Any) -> dict[str, Any]:
    return {"source": source, "detail-type": detail_type, "detail": detail}


EVENTS: list[dict[str, Any]] = [
    event(),
    event(lastStatus="RUNNING", desiredStatus="STOPPED", stopCode="SpotInterruption", version=4),
    event(lastStatus="STOPPED", desiredStatus="STOPPED", stopCode="UserInitiated", version=5),
    event(startedBy="prod/a/1", lastStatus="PENDING", containers=[{"name": "main"}]),
    event(
        startedBy="PROD/A/1", lastStatus="DEPROVISIONING", containers=[{"name": "x"}, {"name": "main", "exitCode": 0}]
    ),
    event(startedBy="production/b/2", version=2, containers=[{"name": "main", "exitCode": 137}]),
    event(startedBy="prod/x/y/1", lastStatus="STOPPED", containers=[]),
    event(nothing=None, address="10.0.3.61", attachments=[{"details": [{"name": "a"}, {"name": "subnetId"}]}]),
    event(address="10.1.0.1", attachments=[{"details": []}], version=1),
    event(source="aws.batch", detail_type="Batch Job State Change", status="RUNNING"),
    event(detail_type="ECS Container Instance State Change", version=7),
]

INVALID: list[dict[str, Any]] = [
    {"a": []},
    {"a": "b"},
    {"a": [{"prefix": "x", "suffix": "y"}]},
    {"a": [{"regex": "x"}]},
    {"a": [{"prefix": 1}]},
    {"a": [{"exists": "yes"}]},
]


def ours(pairs: list[tuple[Any, Any]]) -> list[Any]:
    lines = "".join(json.dumps({"pattern": pattern, "event": event}) + "\n" for pattern, event in pairs)
    command = [PROGRAM, "local", "match-pattern"]
    answer = subprocess.run(command, input=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in answer.stdout.splitlines()]


def theirs(pattern: dict[str, Any], event: dict[str, Any]) -> bool:
    compiled = EventPatternCompiler().compile_event_pattern(json.dumps(pattern))
    return bool(EventRuleEngine().evaluate_pattern_on_event(compiled, event))


def test_engines_agree_on_every_pattern_and_event() -> None:
    pairs = [(pattern, event) for pattern in PATTERNS for event in EVENTS]
    answers = ours(pairs)
    expected = [theirs(pattern, event) for pattern, event in pairs]
    differing = [
        (pattern, event, answer)
        for (pattern, event), answer, other in zip(pairs, answers, expected, strict=True)
        if answer != other
    ]
    assert differing == []
    # The comparison means something only where events match and do not match.
    assert 0.2 < sum(answers) / len(answers) < 0.8


def test_engines_reject_the_same_patterns() -> None:
    for pattern, answer in zip(INVALID, ours([(pattern, {}) for pattern in INVALID]), strict=True):
        assert isinstance(answer, dict), pattern
        with pytest.raises(Invalid):
            theirs(pattern, {})


@pytest.mark.parametrize("operator", ["anything-but", "cidr", "equals-ignore-case", "numeric", "suffix", "wildcard"])
def test_unsupported_operator_is_named(operator: str) -> None:
    [answer] = ours([({"a": [{operator: "x"}]}, {})])
    assert f'does not support the operator "{operator}"' in answer["error"]


def test_one_array_element_must_match_the_whole_pattern() -> None:
    """As in EventBridge, by the documentation of its open-source engine. LocalStack's checks each field separately."""
    pattern = {"containers": {"name": ["main"], "exitCode": [1]}}
    apart = {"containers": [{"name": "main", "exitCode": 0}, {"name": "x", "exitCode": 1}]}
    together = {"containers": [{"name": "x", "exitCode": 0}, {"name": "main", "exitCode": 1}]}
    assert ours([(pattern, apart), (pattern, together)]) == [False, True]
