"""What infra/airflow-on-fargate makes, lifted out of its template and run: each service's command, environment and
secrets, through the image's entry point; the tasks' definition and the bridge's profiles, on the local stack.

Replaced is only what is an address in AWS, a size of a test, or an identity.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import string
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from cryptography.fernet import Fernet
from local_airflow import BIN, Airflow, free_port
from moto.server import ThreadedMotoServer
from postgres import Postgres

from local_stack import PROGRAM, LocalStack

ROOT = Path(__file__).resolve().parents[3]
IMAGE = ROOT / "infra/image"
ENTRYPOINT = IMAGE / "entrypoint.sh"
NAME = "data"
DAGS = ROOT / "infra/airflow-on-fargate/dags"
SERVICES = ("scheduler", "api-server", "dag-processor", "triggerer")
FAMILIES = (*SERVICES, "task")
# The tasks of the fan; FAN=1000 as the DAG has it.
FAN = int(os.environ.get("FAN", "10"))


def image_environment() -> dict[str, str]:
    """Return what the image sets in every container."""
    text = re.sub(r"^\s*#.*\n", "", (IMAGE / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    (variables,) = re.findall(r"^ENV (.*)$", text, flags=re.MULTILINE)
    return {name: value.strip('"') for name, value in re.findall(r'([A-Z_a-z0-9]+)=("[^"]*"|\S*)', variables)}


@dataclass
class Deployed:
    """What CloudFormation makes of the template."""

    containers: dict[str, dict[str, Any]]
    """The container of each task definition."""
    bridge: dict[str, str]
    """The parameters of the nested stack."""
    log_bucket: str
    secrets: dict[str, dict[str, Any]]
    """How each secret is generated."""
    task: dict[str, Any]
    """The tasks' definition, without its container."""

    @classmethod
    def by_moto(cls, **parameters: str) -> Deployed:
        """Ask moto, which is in the environment of the infrastructure's tests."""
        command = [ROOT / ".venv-infra/bin/python", ROOT / "tests/infra/fargate.py"]
        given = [f"{name}={value}" for name, value in {"Name": NAME, **parameters}.items()]
        return cls(**json.loads(subprocess.run([*command, *given], stdout=subprocess.PIPE, check=True).stdout))

    def environment(self, name: str) -> dict[str, str]:
        """Return what a container finds, its secrets aside."""
        return image_environment() | {each["name"]: each["value"] for each in self.containers[name]["environment"]}

    def secret_variables(self, name: str) -> list[str]:
        """Return the variables that ECS takes from Secrets Manager."""
        return [each["name"] for each in self.containers[name].get("secrets", [])]

    def generated(self, secret: str) -> str:
        """Return a value as Secrets Manager generates it."""
        rule = self.secrets[secret]
        assert rule["ExcludePunctuation"]
        return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(rule["PasswordLength"]))


class OnFargate(Airflow):
    """An Airflow whose services start as their task definitions say."""

    def __init__(self, home: Path, deployed: Deployed, postgres: Postgres, aws_url: str) -> None:
        super().__init__(home, DAGS, database=postgres.url)
        self.deployed = deployed
        self.health_url = f"http://127.0.0.1:{free_port()}/health"
        self.secret_values = {
            "PGPASSWORD": postgres.password or "",
            "FERNET_SEED": deployed.generated("FernetSecret"),
            "AIRFLOW__API_AUTH__JWT_SECRET": deployed.generated("JwtSecret"),
            "AIRFLOW__API__SECRET_KEY": deployed.generated("ApiSecret"),
            "AIRFLOW_ADMIN_PASSWORD": deployed.generated("AdminSecret"),
        }
        # Of every container here, in place of the image's file system and of AWS.
        self.here = {
            "PATH": f"{BIN}:{PROGRAM.parent}:{os.environ['PATH']}",
            "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
            "AWS_ENDPOINT_URL_S3": aws_url,
            "AWS_ENDPOINT_URL_SECRETS_MANAGER": aws_url,
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        self.addresses = {
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"postgresql+psycopg2://airflow@127.0.0.1:{postgres.port}/postgres",
            "PGSSLMODE": "disable",
            "AIRFLOW__API__BASE_URL": self.url,
        }

    def of_task(self) -> dict[str, Any]:
        """Return the tasks' definition for the local stack."""
        # A home of its own, so that the API server cannot find the tasks' logs beside its own.
        replaced = {
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW_HOME": f"{self.home}/task",
        }
        environment = self.deployed.environment("task") | self.here | replaced
        container = self.deployed.containers["task"] | {
            "entryPoint": [str(ENTRYPOINT)],
            "environment": [{"name": name, "value": value} for name, value in environment.items()],
        }
        kept = ("name", "image", "essential", "entryPoint", "environment", "stopTimeout")
        return self.deployed.task | {
            "family": f"{NAME}-task",
            "taskRoleArn": "arn:aws:iam::123456789012:role/task",
            "containerDefinitions": [{name: container[name] for name in kept}],
        }

    def use(self, stack: LocalStack) -> None:
        """Take this bridge."""
        self.addresses |= {
            "AIRFLOW__ECS_BRIDGE_EXECUTOR__SUBMIT_URL": stack.ready["submit_url"],
            "AIRFLOW__ECS_BRIDGE_EXECUTOR__TABLE": stack.ready["table"],
            "AIRFLOW__ECS_BRIDGE_EXECUTOR__REGION_NAME": stack.ready["region"],
        }
        self.here |= {"AWS_ENDPOINT_URL_DYNAMODB": stack.ready["dynamodb_url"]}

    def of_service(self, name: str) -> dict[str, str]:
        """Return the environment of a service's container."""
        definition = self.deployed.environment(name)
        replaced = {variable: value for variable, value in self.addresses.items() if variable in definition}
        given = {variable: self.secret_values[variable] for variable in self.deployed.secret_variables(name)}
        identity = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
        # Ports that others use here too, and a server of one process.
        ports = {
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT": self.health_url.split(":")[2].split("/")[0],
        }
        return definition | self.here | {"AIRFLOW_HOME": str(self.home)} | replaced | given | identity | ports

    def __enter__(self) -> OnFargate:
        self.home.mkdir(parents=True, exist_ok=True)
        try:
            # In the order of the services' DependsOn: the scheduler's entry point migrates the database.
            for name in SERVICES:
                self._run(name, [ENTRYPOINT, *self.deployed.containers[name]["command"]], self.of_service(name))
                if name == "scheduler":
                    self.until("the scheduler is healthy", self._is_healthy)
            self.until("the API server answers", self._is_up)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _is_healthy(self) -> bool:
        try:
            with urllib.request.urlopen(self.health_url, timeout=5):
                return True
        except OSError:
            return False

    def _token_request(self) -> urllib.request.Request:
        body = json.dumps({"username": "admin", "password": self.secret_values["AIRFLOW_ADMIN_PASSWORD"]})
        headers = {"Content-Type": "application/json"}
        return urllib.request.Request(f"{self.url}/auth/token", body.encode(), headers)


@pytest.fixture(scope="module")
def deployed() -> Deployed:
    return Deployed.by_moto(PoolMax="2")


@pytest.fixture(scope="module")
def running(
    deployed: Deployed, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[OnFargate, LocalStack, Any]]:
    """All of it: Airflow, the bridge, and the rest of AWS."""
    with ExitStack() as parts:
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        parts.callback(server.stop)
        aws_url = "http://{}:{}".format(*server.get_host_and_port())
        session = boto3.Session("local", "local", region_name="us-east-1")
        s3 = session.client("s3", endpoint_url=aws_url)
        s3.create_bucket(Bucket=deployed.log_bucket)
        manager = session.client("secretsmanager", endpoint_url=aws_url)
        manager.create_secret(Name=f"{NAME}/variables/greeting", SecretString="hello from Secrets Manager")
        postgres = parts.enter_context(Postgres(deployed.generated("DatabaseSecret")))
        airflow = OnFargate(tmp_path_factory.mktemp("fargate"), deployed, postgres, aws_url)
        flags = {
            "deployment": NAME,
            "cluster": NAME,
            "reconcile-every": 1,
            "container-env": f"PATH={airflow.here['PATH']}",
        }
        stack = parts.enter_context(
            LocalStack(
                tmp_path_factory.mktemp("stack"),
                flags,
                profiles=json.loads(deployed.bridge["Profiles"]),
                task_definitions=[airflow.of_task()],
            )
        )
        airflow.use(stack)
        yield parts.enter_context(airflow), stack, s3


def requests(stack: LocalStack, run: str) -> dict[str, dict[str, Any]]:
    """Return what RunTask was asked for, by the task of the run: ECS repeats it in each event."""
    ids = {
        row["submission_id"]: row["labels"]["task_id"]
        for row in stack.rows()
        if row.get("labels", {}).get("run_id") == run
    }
    asked = {event["detail"]["startedBy"].split("/")[1]: event["detail"]["overrides"] for event in stack.events()}
    return {ids[id]: overrides for id, overrides in asked.items() if id in ids}


def test_numbers_run_in_containers_of_different_sizes_and_are_joined(running):
    airflow, stack, s3 = running
    run = airflow.trigger("numbers", count=10)
    assert airflow.finish(run) == "success"
    values = dict(airflow.rows("SELECT task_id, value FROM xcom WHERE run_id = ? AND key = 'return_value'", run))
    assert {task: int(value) for task, value in values.items()} == {"count": 10, "odd": 25, "even": 30, "join": 55}

    asked = requests(stack, run)
    sizes = {task: (each.get("cpu"), each.get("memory")) for task, each in asked.items()}
    # The others are on the pool.
    assert sizes == {"odd": ("512", "2048"), "even": ("1024", "4096")}
    for task in asked:
        [container] = asked[task]["containerOverrides"]
        assert container["name"] == "airflow"
        assert container["environment"] == [{"name": "KIND", "value": task}]

    # The log of a container that is gone: from the bucket, by way of the API server.
    path = f"/api/v2/dags/numbers/dagRuns/{run}/taskInstances/odd/logs/1?full_content=true"
    assert "the odd numbers up to 10 add up to 25" in json.dumps(airflow.call("GET", path))
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket=airflow.deployed.log_bucket)["Contents"]]
    assert any(key.startswith(f"logs/dag_id=numbers/run_id={run}/task_id=odd/") for key in keys)


def test_a_fan_of_short_tasks_runs_on_the_pool(running):
    airflow, stack, _ = running
    run = airflow.trigger("fan", tasks=FAN)
    assert airflow.finish(run, 600 + 6 * FAN) == "success"
    ((total,),) = airflow.rows("SELECT value FROM xcom WHERE run_id = ? AND task_id = 'total'", run)
    assert int(total) == sum(number * number for number in range(FAN))
    rows = [row for row in stack.rows() if row.get("labels", {}).get("run_id") == run]
    assert len(rows) == FAN + 2
    assert all("pooled" in row and row["attempt"] == 1 for row in rows)
    # No task of it was launched by itself, and no more runners than the pool may have.
    assert not requests(stack, run)
    assert 1 <= len([row for row in stack.rows() if "runner" in row and "check_at" in row]) <= 2


def test_the_fernet_key_that_the_containers_derive_encrypts_connections(running):
    airflow, _, _ = running
    body = {"connection_id": "warehouse", "conn_type": "http", "password": "not in clear"}
    airflow.call("POST", "/api/v2/connections", body)
    ((password, is_encrypted),) = airflow.rows(
        "SELECT password, is_encrypted FROM connection WHERE conn_id = 'warehouse'"
    )
    assert is_encrypted
    seed = airflow.secret_values["FERNET_SEED"]
    assert Fernet(f"{seed}A=").decrypt(password.encode()) == b"not in clear"


def test_variables_come_from_secrets_manager(running):
    airflow, _, _ = running
    script = "from airflow.models import Variable; print(Variable.get('greeting'))"
    done = subprocess.run(
        [ENTRYPOINT, "python", "-c", script],
        env=airflow.of_service("dag-processor"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "hello from Secrets Manager"


def test_the_scheduler_forgets_the_password_of_the_admin(running):
    airflow, _, _ = running
    [scheduler] = [process for process in airflow._processes if process.args[-1] == "scheduler"]
    environment = Path(f"/proc/{scheduler.pid}/environ").read_text()
    assert "FERNET_SEED=" in environment
    assert "AIRFLOW_ADMIN_PASSWORD" not in environment


@pytest.mark.parametrize("name", SERVICES)
def test_its_health_check_finds_a_service_healthy(running, name):
    airflow, _, _ = running
    kind, command = airflow.deployed.containers[name]["healthCheck"]["command"]
    assert kind == "CMD-SHELL"
    environment = airflow.of_service(name)
    command = command.replace("localhost:8080", f"127.0.0.1:{airflow.port}")
    command = command.replace("localhost:8974", airflow.health_url.split("/")[2])
    subprocess.run(["/bin/sh", "-c", command], env=environment, stdout=subprocess.DEVNULL, check=True)


def test_tasks_get_no_secret_and_services_only_their_own(deployed):
    assert {name: deployed.secret_variables(name) for name in FAMILIES} == {
        "scheduler": ["PGPASSWORD", "FERNET_SEED", "AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW_ADMIN_PASSWORD"],
        "api-server": ["PGPASSWORD", "FERNET_SEED", "AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__API__SECRET_KEY"],
        "dag-processor": ["PGPASSWORD", "FERNET_SEED"],
        "triggerer": ["PGPASSWORD", "FERNET_SEED", "AIRFLOW__API__SECRET_KEY"],
        "task": [],
    }
