"""What the benches send: submissions as Airflow 3 makes them, and events as ECS sends them."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import uuid
from typing import Any

DEPLOYMENT = "airflow"
ACCOUNT, REGION, CLUSTER_NAME = "123456789012", "us-east-1", "airflow"
CLUSTER = f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/{CLUSTER_NAME}"
CONTAINER = "main"

PROFILES: dict[str, Any] = {
    "default": {
        "container_name": CONTAINER,
        "run_task": {
            "taskDefinition": "demo",
            "launchType": "FARGATE",
            "platformVersion": "LATEST",
            "enableECSManagedTags": True,
            "propagateTags": "TASK_DEFINITION",
            "networkConfiguration": {
                "awsvpcConfiguration": {
                    "subnets": ["subnet-0a1b2c3d4e5f60718", "subnet-1b2c3d4e5f6071829", "subnet-2c3d4e5f607182930"],
                    "securityGroups": ["sg-0123456789abcdef0"],
                    "assignPublicIp": "DISABLED",
                }
            },
        },
        "allow_overrides": ["overrides.containerOverrides.environment", "overrides.cpu", "overrides.memory", "tags"],
    }
}


def submission(index: int, command: list[str] | None = None) -> dict[str, Any]:
    """The submission of an Airflow task instance: some 1.3 KB of overrides, a token of HS512 in it.

    `command` replaces what would start a worker; the workload is then in its environment.
    """
    chance = random.Random(index)
    submission_id = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    dag_id, task_id, run_id = "sales_report_daily", f"transform_{index % 40:02}", "scheduled__2026-03-01T04:00:00+00:00"
    workload = {
        "token": token(chance, submission_id),
        "ti": {
            "id": submission_id,
            "dag_version_id": str(uuid.UUID(int=chance.getrandbits(128), version=4)),
            "task_id": task_id,
            "dag_id": dag_id,
            "run_id": run_id,
            "try_number": 1,
            "map_index": -1,
            "pool_slots": 1,
            "queue": "default",
            "priority_weight": 1,
            "executor_config": None,
            "parent_context_carrier": {},
            "context_carrier": {},
        },
        "dag_rel_path": "reports/sales/daily.py",
        "bundle_info": {"name": "dags-folder", "version": None},
        "log_path": f"dag_id={dag_id}/run_id={run_id}/task_id={task_id}/attempt=1.log",
        "type": "ExecuteTask",
    }
    argument = json.dumps(workload, separators=(",", ":"))
    variable = {"name": "AIRFLOW_EXECUTE_WORKLOAD_JSON", "value": argument}
    overrides = {"overrides": {"containerOverrides": [{"name": CONTAINER, "environment": [variable]}]}}
    worker = ["python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string", argument]
    return {
        "submission_id": submission_id,
        **({"command": command, "overrides": overrides} if command else {"command": worker}),
        "labels": {"dag_id": dag_id, "task_id": task_id, "run_id": run_id, "try_number": "1"},
        "launch_deadline": 4_000_000_000_000,
    }


def token(chance: random.Random, subject: str) -> str:
    claims = {
        "sub": subject,
        "jti": f"{chance.getrandbits(128):032x}",
        "iss": "https://airflow.example.com",
        "aud": "urn:airflow.apache.org:task",
        "nbf": 1_772_337_600,
        "exp": 1_772_338_200,
        "iat": 1_772_337_600,
    }
    parts = [json.dumps(part).encode() for part in ({"alg": "HS512", "typ": "JWT"}, claims)]
    parts.append(hashlib.sha512(subject.encode()).digest())
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)


def event(submission_id: str, version: int, last_status: str, exit_code: int | None = None) -> bytes:
    """A Task State Change event as Fargate sends it, of a task with a log router beside the worker."""
    task_id = uuid.uuid5(uuid.NAMESPACE_URL, submission_id).hex
    arn = f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/{CLUSTER_NAME}/{task_id}"
    containers = f"arn:aws:ecs:{REGION}:{ACCOUNT}:container/{CLUSTER_NAME}/{task_id}"
    stopped = exit_code is not None

    def container(name: str) -> dict[str, Any]:
        return {
            "containerArn": f"{containers}/{uuid.UUID(int=version)}",
            **({"exitCode": exit_code} if stopped else {}),
            "lastStatus": "STOPPED" if stopped else "RUNNING",
            "name": name,
            "image": f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/airflow:3.1.0",
            "imageDigest": f"sha256:{hashlib.sha256(name.encode()).hexdigest()}",
            "runtimeId": f"{task_id}-3935363592",
            "taskArn": arn,
            "networkInterfaces": [{"attachmentId": str(uuid.UUID(int=7)), "privateIpv4Address": "10.0.3.61"}],
            "cpu": "0",
        }

    detail = {
        "attachments": [
            {
                "id": str(uuid.UUID(int=7)),
                "type": "eni",
                "status": "ATTACHED",
                "details": [
                    {"name": "subnetId", "value": "subnet-0a1b2c3d4e5f60718"},
                    {"name": "networkInterfaceId", "value": "eni-0a1b2c3d4e5f60718"},
                    {"name": "macAddress", "value": "0a:98:eb:a7:29:ba"},
                    {"name": "privateIPv4Address", "value": "10.0.3.61"},
                ],
            }
        ],
        "attributes": [{"name": "ecs.cpu-architecture", "value": "x86_64"}],
        "availabilityZone": f"{REGION}b",
        "clusterArn": CLUSTER,
        "connectivity": "CONNECTED",
        "connectivityAt": "2026-03-01T04:05:55.246Z",
        "containers": [container("log_router"), container(CONTAINER)],
        "cpu": "256",
        "createdAt": "2026-03-01T04:05:49.598Z",
        "desiredStatus": "STOPPED" if stopped else "RUNNING",
        "enableExecuteCommand": False,
        "ephemeralStorage": {"sizeInGiB": 20},
        "group": "family:demo",
        "lastStatus": last_status,
        "launchType": "FARGATE",
        "memory": "512",
        "overrides": {
            "containerOverrides": [{"name": CONTAINER, "command": submission(1)["command"], "environment": []}]
        },
        "platformVersion": "1.4.0",
        "pullStartedAt": "2026-03-01T04:06:09.694Z",
        "pullStoppedAt": "2026-03-01T04:06:16.694Z",
        "startedAt": "2026-03-01T04:06:20.694Z",
        "startedBy": f"{DEPLOYMENT}/{submission_id}/1",
        "taskArn": arn,
        "taskDefinitionArn": f"arn:aws:ecs:{REGION}:{ACCOUNT}:task-definition/demo:2",
        "updatedAt": "2026-03-01T04:06:47.229Z",
        "version": version,
    }
    if stopped:
        detail |= {"executionStoppedAt": "2026-03-01T04:06:43Z", "stoppingAt": "2026-03-01T04:06:43.679Z"}
        detail |= {"stopCode": "EssentialContainerExited", "stoppedReason": "Essential container in task exited"}
    if last_status == "STOPPED":
        detail |= {"stoppedAt": "2026-03-01T04:06:47.229Z"}
    envelope = {
        "version": "0",
        "id": str(uuid.UUID(int=version)),
        "detail-type": "ECS Task State Change",
        "source": "aws.ecs",
        "account": ACCOUNT,
        "time": "2026-03-01T04:06:47Z",
        "region": REGION,
        "resources": [arn],
        "detail": detail,
    }
    return json.dumps(envelope).encode()
