"""The documented profile permits what the drop-in submits for its task definitions, and nothing else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp())

import pytest

from airflow_ecs_bridge.compat import EcsRunTaskOperator
from airflow_ecs_bridge.compat.client import submission
from local_stack import LocalStack

NETWORK = {"subnets": ["subnet-0abc1"], "securityGroups": ["sg-0abc1"], "assignPublicIp": "DISABLED"}
GIVEN = {
    "task_definition": "etl-orders:3",
    "cluster": "jobs",
    "launch_type": "FARGATE",
    "network_configuration": {"awsvpcConfiguration": NETWORK},
    "overrides": {
        "cpu": "256",
        "memory": "512",
        "containerOverrides": [
            {"name": "main", "command": ["true"], "environment": [{"name": "DAY", "value": "1"}]},
        ],
    },
    "tags": {"team": "etl"},
    "propagate_tags": "TASK_DEFINITION",
}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, documented_profiles: Any) -> Iterator[LocalStack]:
    container = {"name": "main", "image": "etl", "essential": True}
    family = {"cpu": "256", "memory": "512", "requiresCompatibilities": ["FARGATE"], "networkMode": "awsvpc"}
    definitions = [
        {"family": name, "containerDefinitions": [container], **family} for name in ("etl-default", "etl-orders")
    ]
    flags = {"cluster": "jobs", "simulate": True}
    folder = tmp_path_factory.mktemp("stack")
    with LocalStack(folder, flags, profiles=documented_profiles, task_definitions=definitions) as stack:
        yield stack


def answer(stack: LocalStack, id: str, **more: Any) -> dict[str, Any]:
    """Submit what an operator with these parameters does."""
    operator = EcsRunTaskOperator(task_id="t", **{**GIVEN, **more})
    command, overrides = submission(operator._request())
    item = {"submission_id": id, "command": command, "profile": operator.profile, "overrides": overrides}
    (answer,) = stack.submit(item)
    return answer


def test_the_profile_permits_what_the_drop_in_submits(stack: LocalStack):
    assert "error" not in answer(stack, "permitted", task_definition="etl-orders")


@pytest.mark.parametrize(
    ("name", "given", "path"),
    [
        ("definition", {"task_definition": "payroll"}, "taskDefinition"),
        ("cluster", {"cluster": "other"}, "cluster"),
        ("launch-type", {"launch_type": "EC2"}, "launchType"),
        ("spot", {"capacity_provider_strategy": [{"capacityProvider": "FARGATE_SPOT"}]}, "capacityProviderStrategy"),
        (
            "subnet",
            {"network_configuration": {"awsvpcConfiguration": {**NETWORK, "subnets": ["subnet-0abc1", "x"]}}},
            "subnets",
        ),
        (
            "public",
            {"network_configuration": {"awsvpcConfiguration": {**NETWORK, "assignPublicIp": "ENABLED"}}},
            "assignPublicIp",
        ),
        ("role", {"overrides": {**GIVEN["overrides"], "taskRoleArn": "arn:aws:iam::1:role/admin"}}, "taskRoleArn"),
        (
            "container",
            {"overrides": {"containerOverrides": [{"name": "log", "command": ["true"]}]}},
            "containerOverrides[*].name",
        ),
    ],
)
def test_the_profile_permits_nothing_else(stack: LocalStack, name: str, given: dict[str, Any], path: str):
    error = answer(stack, name, **given)["error"]
    assert error["code"] == "override_not_allowed"
    assert path in error["message"]


def test_a_deployment_without_the_profile_rejects_the_drop_in(tmp_path: Path):
    with LocalStack(tmp_path, {"cluster": "jobs", "simulate": True}) as stack:
        assert answer(stack, "off")["error"]["code"] == "unknown_profile"
