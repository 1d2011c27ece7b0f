"""The importer of AwsEcsExecutor's configuration under Airflow 2.11, which parses configuration by code of its own."""

from __future__ import annotations

import pytest
from airflow.configuration import conf
from airflow.providers.amazon.aws.executors.ecs.ecs_executor_config import build_task_kwargs

from airflow_ecs_bridge.migrate import options_of, profile_of


def test_profile_requests_the_task_of_aws_ecs_executor(monkeypatch: pytest.MonkeyPatch):
    options = {"CLUSTER": "jobs", "CONTAINER_NAME": "main", "TASK_DEFINITION": "a:3", "SUBNETS": "s1,s2"}
    options |= {"SECURITY_GROUPS": "sg", "LAUNCH_TYPE": "FARGATE", "RUN_TASK_KWARGS": '{"propagate_tags": "NONE"}'}
    for name, value in options.items():
        monkeypatch.setenv(f"AIRFLOW__AWS_ECS_EXECUTOR__{name}", value)
    profile, _ = profile_of(options_of(conf))
    expected = build_task_kwargs(conf)
    overrides = {"containerOverrides": [{"name": profile["container_name"], "command": []}]}
    assert {**profile["run_task"], "overrides": overrides, "count": 1} == expected
    assert profile["max_attempts"] == 3
