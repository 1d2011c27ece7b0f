"""Runs MiniStack, an emulator of AWS by another project, which shares none of this project's assumptions.

Its CloudFormation deploys the templates of a release. Its Lambda runs the functions as processes under their own roles,
whose policies it evaluates. Its ECS starts containers, which are processes here (`containers/docker`).
`emulator_gaps.py` lists everything that it does not support.
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import threading
import urllib.request
import uuid
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Self

import boto3
from botocore.exceptions import ClientError
from emulator_gaps import cut
from release_template import packaged, without_urls
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse
from stacks import PARAMETERS

from cloudformation import ACCOUNT, REGION
from local_stack import PATIENCE, PROGRAM, ROOT, until

PYTHON = ROOT / ".venv-emulator/bin/python"
FUNCTIONS = ("submit", "task-state", "reconcile", "runner-api")
ARCHITECTURE = "x86_64"
BUCKET = "releases"
# The account's root user, whom every policy allows everything.
ROOT_USER = {"AWS_ACCESS_KEY_ID": ACCOUNT, "AWS_SECRET_ACCESS_KEY": "test"}

GONE = {"ResourceNotFoundException", "AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"}

Values = dict[str, Any]


class Emulator:
    """An empty account. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "containers").mkdir()

    def __enter__(self) -> Self:
        with ExitStack() as parts:
            while not self._is_started(parts):
                pass
            self.client("s3").create_bucket(Bucket=BUCKET)
            self._parts = parts.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.close()

    def _is_started(self, parts: ExitStack) -> bool:
        """Starts it on a port that was free. Returns false if another process has taken the port since."""
        self.url = f"http://127.0.0.1:{free_port()}"
        with (self.folder / "emulator.log").open("wb") as output:
            process = subprocess.Popen(
                [PYTHON, "-m", "ministack"],
                cwd=self.folder,
                env=self._variables(),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        parts.callback(end, process)

        def is_up() -> bool:
            try:
                with urllib.request.urlopen(f"{self.url}/_ministack/health", timeout=PATIENCE):
                    return True
            except OSError:
                return process.poll() is not None

        until("the emulator is up", is_up)
        is_running = process.poll() is None
        assert is_running or "already in use" in self.log(), self.log()
        return is_running

    def _variables(self) -> dict[str, str]:
        """Passes on nothing of this process's environment but PATH: the functions inherit all of it."""
        return ROOT_USER | {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(__file__).with_name("containers")),
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": self.url.rsplit(":", 1)[1],
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": REGION,
            "MINISTACK_ACCOUNT_ID": ACCOUNT,
            "MINISTACK_REGION": REGION,
            # The host in the URLs of queues.
            "MINISTACK_HOST": "127.0.0.1",
            # Checks signatures and evaluates policies.
            "AUTH": "true",
            "LAMBDA_EXECUTOR": "local",
            # No daemon, even where there is one.
            "DOCKER_HOST": f"unix://{self.folder}/none",
            "LAMBDA_ASYNC_RETRY_BASE_SECONDS": "0",
            "LOG_LEVEL": "INFO",
            "TMPDIR": str(self.folder),
            "STATE_DIR": str(self.folder / "state"),
            "S3_DATA_DIR": str(self.folder / "s3"),
            "CONTAINERS": str(self.folder / "containers"),
            "CONTAINER_PATH": str(PROGRAM.parent),
        }

    def client(self, service: str, keys: Mapping[str, str] = ROOT_USER) -> Any:
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=keys.get("AWS_SESSION_TOKEN"),
        )

    def user(self, name: str, *policy_arns: str) -> dict[str, str]:
        """Creates a user with these policies and returns its keys."""
        iam = self.client("iam")
        iam.create_user(UserName=name)
        for arn in policy_arns:
            iam.attach_user_policy(UserName=name, PolicyArn=arn)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}

    # Stacks.

    def release(self, prefix: str, build: bytes = b"") -> None:
        """Uploads a release below a prefix: the zips of the programs, and CloudFormation's templates.

        `build` is appended to each program. The kernel does not load it, so only the code's hash differs.
        """
        s3 = self.client("s3")
        for name in FUNCTIONS:
            stripped = self.folder / name
            subprocess.run(["strip", "-o", stripped, PROGRAM.with_name(name)], check=True)
            body = io.BytesIO()
            with zipfile.ZipFile(body, "w") as archive:
                file = zipfile.ZipInfo("bootstrap")
                file.external_attr = 0o755 << 16
                archive.writestr(file, stripped.read_bytes() + build)
            s3.put_object(Bucket=BUCKET, Key=f"{prefix}{ARCHITECTURE}/{name}.zip", Body=body.getvalue())
        text = (ROOT / "template.yaml").read_text()
        for file, source in (("packaged", text), ("packaged-no-urls", without_urls(text))):
            template = yaml_parse(packaged(source, [ARCHITECTURE]))
            # Templates that nest this one name no bucket.
            template["Parameters"]["CodeBucket"]["Default"] = BUCKET
            template["Parameters"]["CodePrefix"]["Default"] = prefix
            self.upload(f"{prefix}{file}.json", template)
            # The emulator does not transform nested templates.
            defaults = {name: each["Default"] for name, each in template["Parameters"].items() if "Default" in each}
            nested = transform(template, defaults | PARAMETERS, managed_policy_loader=None)
            self.upload(f"{prefix}{file}-nested.json", nested)

    def upload(self, key: str, template: Values) -> str:
        """Uploads a template without its gaps and returns its address."""
        self.client("s3").put_object(Bucket=BUCKET, Key=key, Body=json.dumps(cut(template)))
        return f"{self.url}/{BUCKET}/{key}"

    def deploy(
        self, name: str, template: str, parameters: Mapping[str, str], keys: Mapping[str, str] = ROOT_USER
    ) -> dict[str, str]:
        """Creates or updates a stack through a change set, as `sam deploy` does, and returns its outputs."""
        formation = self.client("cloudformation", keys)
        known = {stack["StackName"] for stack in self.client("cloudformation").describe_stacks()["Stacks"]}
        change_set = f"change-{uuid.uuid4()}"
        formation.create_change_set(
            StackName=name,
            ChangeSetName=change_set,
            ChangeSetType="UPDATE" if name in known else "CREATE",
            TemplateURL=template,
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        )

        def made() -> Values | None:
            found = formation.describe_change_set(StackName=name, ChangeSetName=change_set)
            return None if found["Status"].endswith(("PENDING", "IN_PROGRESS")) else found

        found = until("the change set is made", made)
        assert found["Status"] == "CREATE_COMPLETE", found.get("StatusReason")
        formation.execute_change_set(StackName=name, ChangeSetName=change_set)
        stack = self.until_settled(name)
        assert stack["StackStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE"), self.failures(name)
        return {output["OutputKey"]: output["OutputValue"] for output in stack.get("Outputs", [])}

    def until_settled(self, name: str) -> Values:
        """Waits until no operation is in progress, and returns the stack."""

        def settled() -> Values | None:
            [stack] = self.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
            return None if stack["StackStatus"].endswith("_IN_PROGRESS") else stack

        return until(f"the stack {name} is settled", settled)

    def failures(self, name: str) -> list[str]:
        events = self.client("cloudformation").describe_stack_events(StackName=name)["StackEvents"]
        return [
            f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}"
            for event in events
            if event["ResourceStatus"].endswith("FAILED")
        ]

    def log(self) -> str:
        return (self.folder / "emulator.log").read_text()

    # Programs.

    def environment(self, keys: Mapping[str, str]) -> dict[str, str]:
        """Returns the variables of a program that runs with these keys."""
        return {"PATH": os.environ["PATH"], "AWS_ENDPOINT_URL": self.url, "AWS_REGION": REGION, **keys}

    def cli(self, *arguments: str, keys: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        command = [str(PROGRAM), *arguments]
        environment = self.environment(keys)
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=3_600)

    def address(self, function_url: str) -> str:
        """Returns the address of a function URL on this machine."""
        return f"{self.url}/_aws/lambda-url/{function_url.removeprefix('https://').split('.')[0]}"


class EventBridge:
    """Delivers the events of ECS, which the emulator does not emit, through the deployed rules. A context manager."""

    def __init__(self, emulator: Emulator) -> None:
        self._ecs, self._events = emulator.client("ecs"), emulator.client("events")
        self._lambda, self._sqs = emulator.client("lambda"), emulator.client("sqs")
        self._ended = threading.Event()
        self._seen: dict[str, int] = {}
        # The events that were handed to the targets of a rule.
        self.handed: list[Values] = []
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        if self.failure:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self._ended.wait(0.2):
                for cluster in self._ecs.list_clusters()["clusterArns"]:
                    self._look(cluster)
        except BaseException as failure:
            self.failure = failure

    def _look(self, cluster: str) -> None:
        arns = [
            arn
            for desired in ("RUNNING", "STOPPED")
            for arn in self._ecs.list_tasks(cluster=cluster, desiredStatus=desired)["taskArns"]
        ]
        for start in range(0, len(arns), 100):
            for task in self._ecs.describe_tasks(cluster=cluster, tasks=arns[start : start + 100])["tasks"]:
                if task["version"] > self._seen.get(task["taskArn"], 0):
                    self._seen[task["taskArn"]] = task["version"]
                    self.put(event_of(task))

    def matching(self, event: Values) -> list[str]:
        """Returns the rules of the default bus whose patterns match an event."""
        rules = [rule for rule in self._events.list_rules()["Rules"] if "EventPattern" in rule]
        text = json.dumps(event)
        return [
            rule["Name"]
            for rule in rules
            if self._events.test_event_pattern(EventPattern=rule["EventPattern"], Event=text)["Result"]
        ]

    def put(self, event: Values) -> None:
        """Puts an event on the default bus, whose rules and targets may be deleted at any time."""
        for rule in self.matching(event):
            try:
                for target in self._events.list_targets_by_rule(Rule=rule)["Targets"]:
                    self._hand(target["Arn"], json.dumps(event))
                    self.handed.append(event)
            except ClientError as error:
                if error.response["Error"]["Code"] not in GONE:
                    raise

    def _hand(self, arn: str, event: str) -> None:
        _, _, service, _, _, resource = arn.split(":", 5)
        if service == "lambda":
            self._lambda.invoke(FunctionName=arn, InvocationType="Event", Payload=event)
        elif service == "sqs":
            self._sqs.send_message(QueueUrl=self._sqs.get_queue_url(QueueName=resource)["QueueUrl"], MessageBody=event)
        else:
            raise NotImplementedError(arn)


def event_of(task: Values) -> Values:
    """Returns the event that ECS sends when a task has changed to this."""
    now = datetime.now(timezone.utc)
    detail = {name: value for name, value in task.items() if name != "tags"} | {"updatedAt": now}
    event = {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "ECS Task State Change",
        "source": "aws.ecs",
        "account": ACCOUNT,
        "time": now.replace(microsecond=0),
        "region": REGION,
        "resources": [task["taskArn"]],
        "detail": detail,
    }
    return json.loads(json.dumps(event, default=lambda time: time.astimezone(timezone.utc).isoformat()[:19] + "Z"))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends the emulator, then its functions and containers, which outlive it in its process group."""
    process.terminate()
    process.wait()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
