"""A local stack for each test that asks for one, and boto3 clients whose raw answers are checked as they come."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from shapes import problems

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / "ecs-bridge"
NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"]}}
PATIENCE = 60.0


@dataclass
class Stack:
    """A running `ecs-bridge local`."""

    process: subprocess.Popen[str]
    ready_file: Path
    ready: dict[str, str]

    def client(self, service: str) -> Any:
        client = boto3.client(
            service,
            endpoint_url=self.ready[f"{service}_url"],
            region_name=self.ready["region"],
            aws_access_key_id="local",
            aws_secret_access_key="local",
        )
        if service == "ecs":
            client.meta.events.register("before-parse.ecs", check_answer)
        return client

    def get(self, which: str, path: str) -> Any:
        return self.ask("GET", which, path)

    def ask(self, method: str, which: str, path: str, body: object | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        url = f"{self.ready[f'{which}_url']}{path}"
        request = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def task(self, arn: str) -> dict[str, Any]:
        """What really became of a task."""
        rows = self.get("ecs", "/_local/tasks")["tasks"]
        return next(row for row in rows if row["task_arn"] == arn)

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "ECS_BRIDGE_READY_FILE": str(self.ready_file)}
        return subprocess.run(
            [PROGRAM, *arguments], capture_output=True, text=True, env=environment, timeout=PATIENCE, check=False
        )

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)


def check_answer(operation_model: Any, response_dict: dict[str, Any], **_: object) -> None:
    """botocore reads leniently: the raw answer is held against the model, so that nothing in it goes unseen."""
    if response_dict["status_code"] == 200:
        found = problems(operation_model.output_shape, json.loads(response_dict["body"]))
        assert not found, f"{operation_model.name}: {found}"


def wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Stack]]:
    stacks: list[Stack] = []

    def start(*flags: str) -> Stack:
        folder = tmp_path_factory.mktemp("stack")
        ready = folder / "ready.json"
        command = [PROGRAM, "local", "--ready-file", ready, "--log-dir", folder / "logs", *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        wait_until(lambda: ready.exists() or process.poll() is not None, "the ready file")
        assert process.poll() is None, process.communicate()[0]
        stacks.append(Stack(process, ready, json.loads(ready.read_text())))
        return stacks[-1]

    yield start
    for stack in stacks:
        stack.end()


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
