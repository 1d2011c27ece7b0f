"""The provider's system tests of EcsRunTaskOperator on the local stack, with one import changed.

ECS's other operations (clusters and task definitions) and CloudWatch Logs are moto's. The sensor of example_ecs_fargate
is marked as successful, because it would ask moto for a task that the local stack runs.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import sdist
from moto.server import ThreadedMotoServer

from local_stack import LocalStack

SECONDS = 600
ENV = "envtest"
ENTRY = {"name": "", "image": "ubuntu", "essential": True, "entryPoint": ["sh", "-c"], "command": ["ls"]}
ALL = ["*", "cluster", "taskDefinition", "networkConfiguration"]
REGION = "us-east-1"

STUBS = {
    "version_compat": "AIRFLOW_V_3_0_PLUS = True\n",
    "watcher": "from airflow.sdk import task\n\n\n@task\ndef watcher():\n    pass\n",
    "system_tests": "def get_test_run(dag):\n    return None\n",
}

RUN = """
import importlib, json, re, sys
name, skipped, result = sys.argv[1:]
run = importlib.import_module(name).dag.test(mark_success_pattern=re.compile(skipped))
states = {each.task_id: str(each.state) for each in run.get_task_instances()}
open(result, "w").write(json.dumps(states))
"""


@pytest.fixture(scope="module")
def tests(pytestconfig: pytest.Config) -> Path:
    """Have the tests of the installed provider."""
    try:
        return sdist.tests(pytestconfig.cache.mkdir("amazon-provider"))
    except sdist.Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.parametrize(
    ("name", "family", "cluster", "container", "task"),
    [
        ("example_ecs", "task-definition", "jobs", "container", "run_task"),
        (
            "example_ecs_fargate",
            "test-definition",
            f"{ENV}-test-cluster",
            "test-container",
            "hello_world",
        ),
    ],
)
def test_the_system_test_runs_with_one_import_changed(
    tests: Path,
    moto: str,
    tmp_path: Path,
    name: str,
    family: str,
    cluster: str,
    container: str,
    task: str,
):
    source = (tests / f"system/amazon/aws/{name}.py").read_text()
    # It is one of several names that example_ecs imports, and the only one of example_ecs_fargate.
    one = r"^(    |from airflow\.providers\.amazon\.aws\.operators\.ecs import )EcsRunTaskOperator,?$"
    changed, count = re.subn(one, "", source, flags=re.MULTILINE)
    assert count == 1
    changed = changed.replace(
        "\nimport boto3\n", "\nimport boto3\nfrom airflow_ecs_bridge.compat import EcsRunTaskOperator\n", 1
    )
    (tmp_path / f"{name}.py").write_text(changed)
    stubs = tmp_path / "tests_common" / "test_utils"
    stubs.mkdir(parents=True)
    for module, text in STUBS.items():
        (stubs / f"{module}.py").write_text(text)

    main = f"{ENV}-{container}"
    definition = {
        "family": f"{ENV}-{family}",
        "containerDefinitions": [{**ENTRY, "name": main}],
        "cpu": "256",
        "memory": "512",
        "networkMode": "awsvpc",
    }
    profile = {"container_name": main, "run_task": {"taskDefinition": f"{ENV}-{family}"}, "allow_overrides": ALL}
    # The local stack has no entry points: this program is what `sh -c` makes of the command.
    (tmp_path / "bin").mkdir()
    entry = tmp_path / "bin" / "echo hello world"
    entry.write_text("#!/bin/sh\necho hello world\n")
    entry.chmod(0o755)
    flags = {"cluster": cluster, "container-env": f"PATH={entry.parent}:{os.environ['PATH']}"}
    logs = boto3.client("logs", REGION, endpoint_url=moto, aws_access_key_id="x", aws_secret_access_key="x")
    logs.create_log_group(logGroupName=f"/ecs_test/{ENV}")
    with LocalStack(
        tmp_path / "stack", flags, profiles={"ecs-run-task": profile}, task_definitions=[definition]
    ) as stack:
        states = run(tests, tmp_path, stack, moto, name, cluster)
        (row,) = stack.rows()
    assert row["state"] == "succeeded"
    assert states[task] == "success"
    assert set(states.values()) == {"success"}


def run(tests: Path, folder: Path, stack: LocalStack, moto: str, name: str, cluster: str) -> dict[str, Any]:
    """Run a Dag in this machine's Airflow, and return the states of its tasks."""
    section = "AIRFLOW__ECS_BRIDGE_EXECUTOR__"
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "AWS"))},
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW_CONN_AWS_DEFAULT": "aws://x:x@/?region_name=" + REGION,
        f"{section}SUBMIT_URL": stack.ready["submit_url"],
        f"{section}TABLE": stack.ready["table"],
        f"{section}DEPLOYMENT": stack.ready["deployment"],
        f"{section}LOCAL_LOG_DIR": str(stack.log_dir),
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": moto,
        "AWS_ENDPOINT_URL_DYNAMODB": stack.ready["dynamodb_url"],
        "SYSTEM_TESTS_ENV_ID": ENV,
        "CLUSTER_NAME": cluster,
        "SUBNETS": "subnet-0123456789abcdef0",
        "SECURITY_GROUPS": "sg-0123456789abcdef0",
        "PYTHONPATH": f"{folder}:{tests}:{':'.join(sys.path)}",
    }
    for command in (
        [str(Path(sys.executable).with_name("airflow")), "db", "migrate"],
        [sys.executable, "-c", RUN, name, "await_task_finish", str(folder / "states.json")],
    ):
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS)
        assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-6000:]
    states: dict[str, Any] = json.loads((folder / "states.json").read_text())
    assert "hello world" in result.stdout or name != "example_ecs", result.stdout[-6000:]
    return states
