"""The executor's advice is the bridge's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from airflow.configuration import conf

from airflow_ecs_bridge.config import Settings
from airflow_ecs_bridge.results import explain
from airflow_ecs_bridge.tasklog import describe
from ecs_bridge.advice import advice
from ecs_bridge.table import Record

CASES = json.loads((Path(__file__).parents[2] / "fixtures" / "advice.json").read_text(encoding="utf-8"))


@pytest.fixture
def settings(configure) -> Settings:
    configure(submit_url="https://abc.lambda-url.eu-central-1.on.aws/", table="t", deployment="prod")
    return Settings.from_conf(conf)


def test_it_says_what_the_bridge_says():
    assert len(CASES) > 80
    for case in CASES:
        record = case["record"]
        found = advice(
            record["state"],
            reasons=(record.get("reason"), record.get("stopped_reason")),
            hint=record.get("hint"),
            exit_code=record.get("exit_code"),
            stop_code=record.get("stop_code"),
        )
        assert found == case["advice"], record


def test_a_failure_explains_itself(settings):
    reason = "TaskFailedToStart: CannotPullContainerError: pull access denied"
    text = explain(Record("an-id", "failed", reason=reason), settings)
    assert reason in text
    assert "what to do: The registry denies access" in text
    assert "ecs-bridge show an-id" in text


def test_a_task_that_waits_says_for_what_and_since_when(settings):
    record = {
        "submission_id": "an-id",
        "state": "queued",
        "created_at": 1_800_000_000_000,
        "reason": "RESOURCE:MEMORY",
        "advice": "Let the cluster scale.",
    }
    assert describe(record, settings) == [
        "ECS bridge: submission an-id is queued since 2027-01-15T08:00:00Z",
        "Waiting for capacity: RESOURCE:MEMORY",
        "Advice: Let the cluster scale.",
        "Details: ecs-bridge show an-id",
    ]


def test_a_task_that_runs_says_where(settings):
    record = {"submission_id": "an-id", "state": "running", "started_at": 1_800_000_000_000, "runs_on": "FARGATE_SPOT"}
    assert describe(record, settings) == [
        "ECS bridge: submission an-id is running since 2027-01-15T08:00:00Z on FARGATE_SPOT",
        "Details: ecs-bridge show an-id",
    ]
