"""The local stack as a process, and its interface for tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

import boto3
from botocore.config import Config

ROOT = Path(__file__).resolve().parents[2]
# The functions are in the same folder.
PROGRAM = Path(os.environ.get("ECS_BRIDGE_PROGRAM", ROOT / "target" / "debug" / "ecs-bridge"))
TERMINAL = {"succeeded", "failed", "rejected", "expired", "cancelled", "lost"}
# Seconds after which a wait fails, enough for a busy machine.
PATIENCE = 240
LAUNCH_RATE_ROW = "#launch-rate"
# The functions log as in Lambda, JSON Lines. However short a test's timers are, a claimed RunTask has its whole minute
# to be sent: on a busy machine, a second may pass.
FUNCTION_ENV = {"AWS_LAMBDA_LOG_FORMAT": "JSON", "ECS_BRIDGE_SEND_WITHIN": 60}

T = TypeVar("T")
Record = dict[str, Any]


def call(method: str, url: str, body: object | None = None, timeout: float = PATIENCE) -> Any:
    """One HTTP request with JSON on both sides; an answer that is no 2xx raises `HTTPError`."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.loads(answer.read() or b"null")


def until(what: str, look: Callable[[], T | None], seconds: float = PATIENCE, every: float = 0.05) -> T:
    """The first truthy answer of `look`."""
    end = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {what}"
        time.sleep(every)
    return seen


def runner_process(runner_id: str) -> int:
    """The process of the runner program in a runner's container."""
    variable = f"ECS_BRIDGE_RUNNER_ID={runner_id}".encode()
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                environment = file.read().split(b"\0")
            program = os.readlink(f"/proc/{pid}/exe")
        except OSError:
            continue
        if variable in environment and program.endswith("/ecs-bridge-runner"):
            found.append(int(pid))
    [only] = found
    return only


def kill_runner(runner_id: str) -> None:
    """Kills it with SIGKILL."""
    os.kill(runner_process(runner_id), signal.SIGKILL)


class LocalStack:
    """A stack, with a folder for its files; a context manager, so that it always ends."""

    def __init__(
        self,
        folder: Path,
        flags: Mapping[str, object] = {},
        *,
        profiles: object | None = None,
        task_definitions: object | None = None,
        function_env: Mapping[str, object] = {},
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log_dir = folder / "logs"
        self.ready_file = folder / "ready.json"
        self.command = [str(PROGRAM), "local", "--ready-file", str(self.ready_file), "--log-dir", str(self.log_dir)]
        for name, content in (("profiles", profiles), ("task-definitions", task_definitions)):
            if content is not None:
                file = folder / f"{name}.json"
                file.write_text(json.dumps(content))
                self.command += [f"--{name}", str(file)]
        for flag, value in flags.items():
            if value is not False:
                self.command += [f"--{flag}"] if value is True else [f"--{flag}", str(value)]
        for variable, value in {**FUNCTION_ENV, **function_env}.items():
            self.command += ["--function-env", f"{variable}={value}"]
        self.output = (folder / "local.log").open("wb")

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(self.command, stdout=self.output, stderr=subprocess.STDOUT)

        def is_up() -> bool:
            assert self.process.poll() is None, Path(self.output.name).read_text()
            return self.ready_file.exists()

        try:
            until("the local stack is up", is_up)
        except BaseException:
            self.__exit__()
            raise
        self.ready = json.loads(self.ready_file.read_text())
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()
        self.output.close()

    # The API.

    def submit(self, *items: Mapping[str, Any]) -> list[dict[str, Any]]:
        return self.ask("submissions", {"submissions": items})["submissions"]

    def stop(self, *ids: str, reason: str = "no longer wanted") -> list[dict[str, Any]]:
        return self.ask("stops", {"submission_ids": ids, "reason": reason})["submissions"]

    def show(self, submission_id: str) -> Record:
        if "submit_url" not in self.ready:
            return self.invoke("submit", {"submission_id": submission_id})
        return call("GET", f"{self.ready['submit_url']}/v1/submissions/{submission_id}")

    def ask(self, path: str, body: object) -> Any:
        """By URL, or by invocation where the functions have none."""
        if "submit_url" not in self.ready:
            return self.invoke("submit", body)
        return call("POST", f"{self.ready['submit_url']}/v1/{path}", body)

    # The functions.

    def invoke(self, function: str, payload: object = None) -> Any:
        """A synchronous invocation; `FunctionError` where the function failed, or its process died."""
        url = f"{self.ready['lambda_url']}/2015-03-31/functions/{function}/invocations"
        request = urllib.request.Request(url, json.dumps(payload or {}).encode())
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            if answer.headers.get("x-amz-function-error"):
                raise FunctionError(answer.read().decode())
            return json.load(answer)

    def processes(self) -> list[dict[str, Any]]:
        return call("GET", f"{self.ready['lambda_url']}/_local/processes")["processes"]

    def kill(self, pid: int) -> bool:
        """Kills a function's process with SIGKILL; false where it has ended already."""
        try:
            return call("DELETE", f"{self.ready['lambda_url']}/_local/processes/{pid}")["killed"]
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return False

    def invocations(self) -> dict[str, dict[str, int]]:
        return call("GET", f"{self.ready['lambda_url']}/_local/invocations")["functions"]

    def abandoned(self) -> list[dict[str, Any]]:
        """The events that failed three times."""
        return call("GET", f"{self.ready['lambda_url']}/_local/abandoned")["abandoned"]

    def logs(self) -> list[Path]:
        """The files that the functions write."""
        return [
            path
            for name in ("submit", "task-state", "reconcile", "runner-api")
            for path in self.log_dir.glob(f"{name}-*.log")
        ]

    # ECS.

    def tasks(self, submission_id: str | None = None) -> list[dict[str, Any]]:
        """All tasks of the run, or those of one submission, the first first."""
        tasks = call("GET", f"{self.ready['ecs_url']}/_local/tasks")["tasks"]
        return [task for task in tasks if submission_id is None or task["submission_id"] == submission_id]

    def ecs(self, target: str, body: object) -> Any:
        """Call an operation of a service that shares ECS's address, such as `AmazonSQS.CreateQueue`."""
        request = urllib.request.Request(self.ready["ecs_url"], json.dumps(body).encode(), {"x-amz-target": target})
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.load(answer)

    def calls(self) -> dict[str, int]:
        return call("GET", f"{self.ready['ecs_url']}/_local/calls")["calls"]

    def faults(self) -> dict[str, int]:
        return call("GET", f"{self.ready['ecs_url']}/_local/faults")

    def rule(self, **rule: object) -> None:
        """A fault of the next calls; see `ecs-bridge local --help`."""
        call("POST", f"{self.ready['ecs_url']}/_local/rules", rule)

    def drop_rules(self) -> None:
        call("DELETE", f"{self.ready['ecs_url']}/_local/rules")

    def without(self, *names: str) -> None:
        """From now on these capacity providers, launch types and subnets have no capacity."""
        call("PUT", f"{self.ready['ecs_url']}/_local/capacity", {"without": names})

    def act(self, task: Mapping[str, Any], action: str) -> None:
        task_id = task["task_arn"].rsplit("/", 1)[1]
        call("POST", f"{self.ready['ecs_url']}/_local/tasks/{task_id}/{action}", {})

    def events(self) -> list[dict[str, Any]]:
        return call("GET", f"{self.ready['ecs_url']}/_local/events")["events"]

    def put_event(self, event: Mapping[str, Any]) -> None:
        """Puts an event on the bus."""
        call("POST", f"{self.ready['ecs_url']}/_local/events", event)

    def notifications(self, submission_id: str | None = None) -> list[dict[str, Any]]:
        """The notifications that Step Functions and event buses received, or those of one submission."""
        sent = call("GET", f"{self.ready['ecs_url']}/_local/notifications")["notifications"]
        return [one for one in sent if submission_id in (None, one["end"]["submission_id"])]

    def until_notified(self, submission_id: str) -> Record:
        """The row once it has ended and no notification is pending."""

        def is_notified() -> Record | None:
            row = self.row(submission_id)
            return row if row["state"] in TERMINAL and "pending_notifications" not in row else None

        return until(f"the notifications of {submission_id} are delivered", is_notified)

    # The table.

    @cached_property
    def table(self) -> Any:
        resource = boto3.resource(
            "dynamodb",
            endpoint_url=self.ready["dynamodb_url"],
            region_name=self.ready["region"],
            aws_access_key_id="local",
            aws_secret_access_key="local",
            config=Config(retries={"total_max_attempts": 3}),
        )
        return resource.Table(self.ready["table"])

    def set_launch_rate(self, seconds: float) -> None:
        """Take all launch tokens for up to a second. A later time counts as a wrong clock."""
        micros = int((time.time() + seconds) * 1e6)
        self.table.put_item(Item={"submission_id": LAUNCH_RATE_ROW, "empty_at": micros})

    def rows(self) -> list[Record]:
        """All records: not the rows of the launch rate and of pools."""
        rows, page = [], self.table.scan(ConsistentRead=True)
        while True:
            rows += page["Items"]
            if "LastEvaluatedKey" not in page:
                return [row for row in rows if not row["submission_id"].startswith("#")]
            page = self.table.scan(ConsistentRead=True, ExclusiveStartKey=page["LastEvaluatedKey"])

    def row(self, submission_id: str) -> Record:
        return self.table.get_item(Key={"submission_id": submission_id}, ConsistentRead=True)["Item"]

    def until_state(self, submission_id: str, *states: str, seconds: float = PATIENCE) -> Record:
        """The row once it is in one of these states."""
        row: Record = {}

        def look() -> Record | None:
            nonlocal row
            row = self.row(submission_id)
            if row["state"] in states:
                return row
            assert row["state"] not in TERMINAL, f"{submission_id} is {row['state']}, not {states}: {row.get('reason')}"
            return None

        try:
            return until(f"{submission_id} is {' or '.join(states)}", look, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {row}") from None

    def until_ended(self, submission_id: str, seconds: float = PATIENCE) -> Record:
        """The row once it is terminal."""
        return self.until_state(submission_id, *TERMINAL, seconds=seconds)


class FunctionError(Exception):
    """The function failed, or its process died."""
