"""The importer of AwsEcsExecutor's configuration, held against AwsEcsExecutor's own reading of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.configuration import conf
from airflow.providers.amazon.aws.executors.ecs.ecs_executor_config import build_task_kwargs

from airflow_ecs_bridge.migrate import MigrationError, options_of, profile_of

CONFIGURATIONS = {
    "fargate": {"launch_type": "FARGATE", "security_groups": "sg-1,sg-2", "assign_public_ip": "True"},
    "ec2": {"launch_type": "EC2", "platform_version": "1.4.0"},
    "without a network": {"launch_type": "EC2", "subnets": ""},
    "kwargs": {
        "run_task_kwargs": json.dumps(
            {
                "task_definition": "other",
                "capacity_provider_strategy": [{"capacityProvider": "FARGATE_SPOT", "weight": 1}],
                "tags": [{"key": "a_b", "value": "50%%"}],
                "propagate_tags": "TASK_DEFINITION",
                "overrides": {
                    "task_role_arn": "arn",
                    "containerOverrides": [{"name": "x", "command": ["y"], "cpu": 256}],
                },
            }
        )
    },
}
BASE = {"cluster": "jobs", "container_name": "airflow", "task_definition": "airflow:3", "subnets": "subnet-1,subnet-2"}


@pytest.fixture
def section(monkeypatch: pytest.MonkeyPatch):
    def set_options(**options: str) -> None:
        for name, value in {**BASE, **options}.items():
            monkeypatch.setenv(f"AIRFLOW__AWS_ECS_EXECUTOR__{name.upper()}", value)

    return set_options


def imported(**options: str) -> dict[str, Any]:
    profile, _ = profile_of({**BASE, **options})
    return profile


@pytest.mark.parametrize("options", CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_profile_requests_the_task_of_aws_ecs_executor(options: dict[str, str], section):
    section(**options)
    expected = build_task_kwargs(conf)
    profile, _ = profile_of(options_of(conf))

    # The bridge sets the count, the name and the command itself.
    assert expected.pop("count") == 1
    (container,) = expected["overrides"]["containerOverrides"]
    assert (profile["container_name"], container.pop("command")) == (container["name"], [])
    if container.keys() == {"name"}:
        del expected["overrides"]
    assert profile["run_task"] == expected


def test_command_reads_the_file_as_airflow_does(tmp_path: Path):
    config = tmp_path / "airflow.cfg"
    config.write_text(
        "[aws_ecs_executor]\n; a comment\nCluster = other\ncluster: jobs\ncontainer_name = main\n"
        "task_definition = of-the-file\nlaunch_type = FARGATE\nsubnets = s\nmax_run_task_attempts = 5\ntimeout = 3\n"
        'run_task_kwargs = {"tags": [{"key": "share",\n    "value": "50%%"}],\n    "count": 1}\n'
        "[webserver]\nsubnets = other\n"
    )
    environment = os.environ | {
        "AIRFLOW_CONFIG": str(config),
        "AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": "of-the-environment",
    }
    done = subprocess.run(
        [sys.executable, "-m", "airflow_ecs_bridge.migrate", "--name", "imported"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "imported": {
            "container_name": "main",
            "max_attempts": 5,
            "run_task": {
                "cluster": "jobs",
                "taskDefinition": "of-the-environment",
                "launchType": "FARGATE",
                "platformVersion": "LATEST",
                "tags": [{"key": "share", "value": "50%"}],
                "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s"], "assignPublicIp": "DISABLED"}},
            },
        }
    }
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: ")]
    assert "note: count is omitted: the bridge sets it in every request" in notes
    # To Airflow, options are case-sensitive.
    for ignored in ("Cluster", "timeout"):
        assert f"note: {ignored} is not an option of AwsEcsExecutor that can be imported" in notes
    assert len(notes) == 5, notes


def test_command_without_a_section_names_the_file(tmp_path: Path):
    config = tmp_path / "airflow.cfg"
    config.write_text("[core]\n")
    done = subprocess.run(
        [sys.executable, "-m", "airflow_ecs_bridge.migrate"],
        env=os.environ | {"AIRFLOW_CONFIG": str(config)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot convert {config}: task_definition is not set: set it in [aws_ecs_executor]" in done.stderr


def test_launch_type_defaults_to_fargate_with_a_note():
    profile, notes = profile_of(BASE)
    assert profile["run_task"]["launchType"] == "FARGATE"
    assert any(note.startswith("neither launch type nor capacity provider strategy is set") for note in notes)


@pytest.mark.parametrize("quote", ['"', "'"])
def test_strategy_is_json_or_a_python_literal(quote: str):
    profile = imported(capacity_provider_strategy="[{'capacityProvider': 'FARGATE_SPOT'}]".replace("'", quote))
    assert profile["run_task"]["capacityProviderStrategy"] == [{"capacityProvider": "FARGATE_SPOT"}]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"subnets": "", "security_groups": "sg"}, "subnets is not set"),
        ({"launch_type": "EC2", "capacity_provider_strategy": "[]"}, "mutually exclusive"),
        ({"capacity_provider_strategy": "FARGATE"}, "must be a list of capacity providers"),
        ({"run_task_kwargs": "[1]"}, "run_task_kwargs must be a JSON object"),
        ({"run_task_kwargs": '{"overrides": {"containerOverrides": []}}'}, "overrides that RunTask accepts"),
        ({"run_task_kwargs": '{"overrides": []}'}, "overrides that RunTask accepts"),
        ({"max_run_task_attempts": "0"}, "max_run_task_attempts is '0'"),
        ({"task_definition": ""}, "task_definition is not set"),
        ({"container_name": ""}, "container_name is not set"),
    ],
)
def test_invalid_configuration_is_refused_by_option(options: dict[str, str], message: str, section):
    section(**options)
    with pytest.raises(MigrationError, match=message):
        profile_of(options_of(conf))
