"""A secret in commands, environments and refused input appears in no log, answer, metric or row.

Excepted are requests to ECS, and the output of containers.
"""

from __future__ import annotations

import base64
import contextlib
import json
import time
import urllib.error
import urllib.request
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from boto3.dynamodb.types import Binary

from local_stack import PATIENCE, FunctionError, LocalStack, until

RUN_TASK = {
    "taskDefinition": "demo",
    "launchType": "FARGATE",
    "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"]}},
}
PROFILES = {
    "default": {
        "container_name": "main",
        "run_task": RUN_TASK,
        "allow_overrides": ["overrides.containerOverrides.environment"],
    },
    "once": {"container_name": "main", "run_task": RUN_TASK, "max_attempts": 1},
    "pool": {
        "container_name": "main",
        "run_task": RUN_TASK | {"taskDefinition": "demo-pool"},
        "allow_overrides": ["overrides.containerOverrides.environment"],
        "pool": {"max": 1, "poll_interval_ms": 100, "commands_per_container": 2},
    },
}
FLAGS = {"reconcile-every": 1, "timer-scale": 60, "time-scale": 10, "teardown-s": 2}
TOKEN = f"hunter2{uuid.uuid4().hex}"
ENDED = "feed"


@dataclass
class Seen:
    """A run of a stack, with the logs, answers and rows that it left."""

    stack: LocalStack
    answers: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)

    def post(self, path: str, body: bytes, content_type: str = "application/json") -> str:
        url = f"{self.stack.ready['submit_url']}{path}"
        request = urllib.request.Request(url, body, {"content-type": content_type})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                text = f"{answer.headers}{answer.read().decode()}"
        except urllib.error.HTTPError as error:
            text = f"{error.headers}{error.read().decode()}"
        self.answers.append(text)
        return text

    def submit(self, id: str, *command: str, **more: object) -> None:
        """A submission whose command and environment hold the secret."""
        environment = [{"name": "SECRET", "value": TOKEN}]
        overrides = {"overrides": {"containerOverrides": [{"name": "main", "environment": environment}]}}
        item = {"submission_id": id, "command": command, "overrides": overrides, **more}
        if more.get("profile") == "once":
            del item["overrides"]
        self.post("/v1/submissions", json.dumps({"submissions": [item]}).encode())
        self.ids.append(id)

    def refused(self, **item: object) -> None:
        """An invalid submission."""
        self.post("/v1/submissions", json.dumps({"submissions": [item]}).encode())

    def invoke(self, function: str, payload: object) -> None:
        try:
            self.answers.append(json.dumps(self.stack.invoke(function, payload)))
        except FunctionError as error:
            self.answers.append(str(error))


def echo(code: str) -> dict[str, str]:
    """An error of ECS that quotes its request."""
    return {"code": code, "message": f"bad value {TOKEN} in sh -c 'echo {TOKEN}; exit 3' of --password={TOKEN}"}


def live(seen: Seen) -> None:
    """Every way in which a submission may end, and every error that its caller may get."""
    stack = seen.stack
    say = ("sh", "-c", f"echo {TOKEN}; exit 3")
    for id, rule in {
        "refused-for-good": {"error": echo("InvalidParameterException")},
        "denied": {"error": echo("AccessDeniedException")},
        "throttled": {"error": echo("ThrottlingException"), "times": 3},
        "server-error": {"error": echo("ServerException"), "times": 3},
        "no-capacity": {"failure": f"RESOURCE:MEMORY for echo {TOKEN}", "times": 2},
        "no-answer": {"answer": "none"},
        "late": {"error": echo("ThrottlingException"), "times": 1000},
        "cannot-pull": {"shapes": "cannot-pull", "times": 3},
        "host-lost": {"shapes": "infrastructure-health"},
        "forgotten": {"shapes": "forgotten"},
    }.items():
        stack.rule(submission_id=id, **rule)
        more = {"launch_deadline": int(time.time() * 1000) + 1500} if id == "late" else {}
        seen.submit(id, *say, f"--password={TOKEN}", TOKEN, **more)
    seen.submit("succeeds", "sh", "-c", f": {TOKEN}")
    seen.submit("succeeds", "sh", "-c", f": {TOKEN} and other content")
    seen.submit("fails", *say)
    seen.submit("pooled", *say, profile="pool")
    stack.until_ended("pooled")
    seen.submit("pooled-and-killed", "sh", "-c", f": {TOKEN}; sleep 1000", profile="pool")
    row = until("a runner has it", lambda: "task_arn" in (row := stack.row("pooled-and-killed")) and row)
    seen.submit("pooled-and-stopped", "sh", "-c", f": {TOKEN}; sleep 1000", profile="pool")
    seen.post("/v1/stops", json.dumps({"submission_ids": ["pooled-and-stopped"], "reason": "cleared"}).encode())
    # No other runner starts: at this scale one is due each second, and no run of reconcile ends.
    pause = "SET paused = :yes ADD rev :one"
    stack.table.update_item(
        Key={"submission_id": "#pool/pool"}, UpdateExpression=pause, ExpressionAttributeValues={":yes": True, ":one": 1}
    )
    stack.act(row, "infrastructure-health")
    seen.submit("stopped", "sh", "-c", f": {TOKEN}; sleep 1000")
    seen.post("/v1/stops", json.dumps({"submission_ids": ["stopped"], "reason": "cleared"}).encode())
    for profile in ("default", "once"):
        seen.submit(f"no-program-{profile}", f"/no/such/{TOKEN}", TOKEN, profile=profile)
        stack.rule(submission_id=f"docker-{profile}", shapes="no-events")
        # It lives until that was said of it.
        said = stack.log_dir / f"said-{profile}"
        seen.submit(
            f"docker-{profile}", "sh", "-c", f": {TOKEN}; until [ -e {said} ]; do sleep 0.1; done", profile=profile
        )
        docker_says(seen, f"docker-{profile}")
        said.touch()

    # Refused requests.
    refused = {"submission_id": "refused", "command": [TOKEN]}
    seen.refused(**refused, profile="unknown")
    seen.refused(**refused, overrides={"overrides": {"taskRoleArn": TOKEN}})
    seen.refused(**refused, overrides={"overrides": {"containerOverrides": [{"name": "main", "secret": TOKEN}]}})
    seen.refused(**refused, overrides={"overrides": TOKEN})
    seen.refused(**refused, overrides={"count": TOKEN})
    seen.refused(**refused, labels=TOKEN)
    seen.refused(**refused, launch_deadline=TOKEN)
    seen.refused(**refused, **{TOKEN: 1})
    seen.refused(submission_id="refused", command=TOKEN)
    seen.refused(submission_id="refused", command=[TOKEN * 300])
    seen.refused(submission_id=f"{TOKEN}!", command=[TOKEN])
    body = json.dumps({"submissions": [refused]}).encode()
    seen.post("/v1/submissions", body[:-2])
    seen.post("/v1/submissions", body.replace(b"refused", b"\xff"))
    seen.post("/v1/submissions", body, "text/plain")
    seen.post("/v1/submissions", json.dumps({"submissions": TOKEN}).encode())
    seen.post("/v1/submissions", json.dumps(TOKEN).encode())

    # Events that task-state cannot parse.
    events = [event for event in stack.events() if event["detail"].get("startedBy", "").startswith("local/")]
    broken = {**events[0]["detail"], "lastStatus": {"no": TOKEN}}
    seen.invoke("task-state", {**events[0], "detail": broken})
    seen.invoke("task-state", {"detail": TOKEN})
    seen.invoke("task-state", TOKEN)
    seen.invoke("reconcile", {"why": TOKEN})


def docker_says(seen: Seen, id: str) -> None:
    """ECS reports that the container did not start, in the words of a container runtime, which quote the program."""
    row = until(f"{id} is launched", lambda: {"task_arn"} <= (row := seen.stack.row(id)).keys() and row)
    words = (
        f'unable to start container process: exec: "/no/such/{TOKEN}": stat /no/such/{TOKEN}: no such file or directory'
    )
    container = {"name": "main", "lastStatus": "STOPPED", "taskArn": row["task_arn"]}
    container["reason"] = f"CannotStartContainerError: Error response from daemon: {words}: unknown"
    detail = {
        "taskArn": row["task_arn"],
        "clusterArn": seen.stack.ready["cluster"],
        "startedBy": f"local/{id}/1",
        "version": 100,
        "lastStatus": "STOPPED",
        "desiredStatus": "STOPPED",
        "stopCode": "TaskFailedToStart",
        "stoppedReason": f"Task failed to start: {words}",
        "containers": [container],
    }
    seen.invoke("task-state", {"source": "aws.ecs", "detail-type": "ECS Task State Change", "detail": detail})
    row = seen.stack.row(id)
    assert row["state"] == "failed" or row["attempt"] == 2, row


@pytest.fixture(scope="module", params=["INFO", "DEBUG"])
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """A run at each log level that a deployment can have."""
    environment = {"AWS_LAMBDA_LOG_LEVEL": request.param, "ECS_BRIDGE_DEPLOYMENT": "local"}
    folder = tmp_path_factory.mktemp("secrets")
    with LocalStack(folder, FLAGS, profiles=PROFILES, function_env=environment) as stack:
        seen = Seen(stack)
        live(seen)
        for id in seen.ids:
            stack.until_ended(id)
            seen.answers.append(json.dumps(stack.show(id)))
        yield seen


def readings(value: Any) -> Iterator[str]:
    """Every text in a row, those in compressed bytes included."""
    match value:
        case dict():
            for name, inner in value.items():
                yield str(name)
                yield from readings(inner)
        case list() | set():
            for inner in value:
                yield from readings(inner)
        case Binary() | bytes():
            raw = bytes(value)
            yield raw.decode("latin-1")
            with contextlib.suppress(zlib.error, UnicodeDecodeError):
                yield zlib.decompress(raw, wbits=-15).decode()
        case _:
            yield str(value)


def leaks(text: str) -> bool:
    encoded = base64.b64encode(TOKEN.encode()).decode().rstrip("=")
    return any(form in text for form in (TOKEN, encoded[:-1], TOKEN.encode().hex()))


def around(text: str) -> str:
    at = text.find(TOKEN)
    return text[max(0, at - 300) : at + 60]


def test_search_finds_the_secret_in_requests(seen: Seen) -> None:
    """In the requests to ECS, and in a stored request."""
    assert any(leaks(json.dumps(event)) for event in seen.stack.events())
    compressor = zlib.compressobj(wbits=-15)
    stored = compressor.compress(json.dumps({"command": [TOKEN]}).encode()) + compressor.flush()
    assert any(leaks(text) for text in readings({"request": Binary(stored)}))


def test_logs_and_metrics_contain_no_secret(seen: Seen) -> None:
    files = seen.stack.logs()
    assert sum(file.stat().st_size for file in files) > 0
    found = [f"{file.name}: {around(line)}" for file in files for line in file.read_text().splitlines() if leaks(line)]
    assert not found, "\n".join(found[:20])


def test_responses_contain_no_secret(seen: Seen) -> None:
    found = [around(answer) for answer in seen.answers if leaks(answer)]
    assert not found, "\n".join(found)


def test_terminal_rows_contain_no_secret(seen: Seen) -> None:
    rows = seen.stack.rows()
    submissions = [row for row in rows if "runner" not in row]
    assert len(submissions) == len(set(seen.ids))
    assert all(ENDED in row and "request" not in row for row in submissions)
    found = [f"{row['submission_id']}: {around(text)}" for row in rows for text in readings(row) if leaks(text)]
    assert not found, "\n".join(found)


def test_run_reaches_every_terminal_state(seen: Seen) -> None:
    states = {row["state"] for row in seen.stack.rows() if "runner" not in row}
    assert states == {"succeeded", "failed", "rejected", "expired", "cancelled", "lost"}
