"""Callers of a local stack: the AWS SDK, and the command line."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import boto3
from shapes import problems

from local_stack import PATIENCE, PROGRAM, LocalStack

NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"]}}


def client(stack: LocalStack, service: str) -> Any:
    """A boto3 client; the raw answers of ECS are checked as they come."""
    endpoint = stack.ready[f"{service}_url"]
    keys = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    made = boto3.client(service, endpoint_url=endpoint, region_name=stack.ready["region"], **keys)
    if service == "ecs":
        made.meta.events.register("before-parse.ecs", check_answer)
    return made


def check_answer(operation_model: Any, response_dict: dict[str, Any], **_: object) -> None:
    """botocore parses leniently, so the raw answer is validated against the model."""
    if response_dict["status_code"] == 200:
        found = problems(operation_model.output_shape, json.loads(response_dict["body"]))
        assert not found, f"{operation_model.name}: {found}"


def run_task(ecs: Any, submission: str, command: list[str], **more: Any) -> Any:
    """RunTask of the demo definition, as the bridge would call it."""
    request = {
        "cluster": "local",
        "taskDefinition": "demo",
        "launchType": "FARGATE",
        "networkConfiguration": NETWORK,
        "startedBy": f"local/{submission}/1",
        "overrides": {"containerOverrides": [{"name": "main", "command": command}]},
    }
    return ecs.run_task(**request | more)


def task(stack: LocalStack, arn: str) -> dict[str, Any]:
    """The final record of a task in the stand-in."""
    return next(row for row in stack.tasks() if row["task_arn"] == arn)


def has_stopped(stack: LocalStack, arn: str) -> bool:
    return bool(task(stack, arn)["last_status"] == "STOPPED")


def run_program(*arguments: object, **variables: object) -> subprocess.CompletedProcess[str]:
    """`ecs-bridge`, with these variables in its environment."""
    environment = {"PATH": os.environ["PATH"]} | {name: str(value) for name, value in variables.items()}
    command = [PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=PATIENCE, check=False)
