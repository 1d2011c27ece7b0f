"""The stack as a whole: its start, its files, and that nothing of it is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from callers import client, has_stopped, run_program, run_task, task

from local_stack import PROGRAM, ROOT, LocalStack, call, until

ENDINGS = [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]


def run_name(stack: LocalStack) -> str:
    """A variable that all processes of a run have, read from one of its functions."""
    pid = stack.processes()[0]["pid"]
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next(variable for variable in variables if variable.startswith(b"ECS_BRIDGE_LOCAL_RUN=")).decode()


def processes_of(run: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
            line = (folder / "cmdline").read_bytes()
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
        # A watchdog has the run's name in its command line.
        if run.encode() in variables or run.split("=")[1].encode() in line.split(b"\0"):
            found.append(f"{folder.name} {line!r}")
    return found


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.name)
def test_every_process_ends_with_the_stack(start: Callable[..., LocalStack], ending: signal.Signals) -> None:
    stack = start(time_scale=100)
    # A container whose child has left its process group, with no variable but PATH.
    script = "setsid sleep 86400 & env -i PATH=$PATH sleep 86400 & sleep 86400"
    arn = run_task(client(stack, "ecs"), "left", ["sh", "-c", script])["tasks"][0]["taskArn"]
    until("the container runs", lambda: task(stack, arn)["last_status"] == "RUNNING")
    run = run_name(stack)
    assert len(processes_of(run)) > 12
    stack.process.send_signal(ending)
    until("all processes have ended", lambda: processes_of(run) == [])
    assert stack.process.wait() == (-signal.SIGKILL if ending == signal.SIGKILL else 0)


def test_stack_ends_with_its_parent(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    parent = f"""
import subprocess, time, pathlib
command = [{str(PROGRAM)!r}, "local", "--no-functions", "--ready-file", {str(ready)!r}]
child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
while not pathlib.Path({str(ready)!r}).exists():
    time.sleep(0.02)
print(child.pid, flush=True)
"""
    answer = subprocess.run([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, check=True)
    pid = int(answer.stdout)

    def is_over() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True

    until("the local stack has ended", is_over)


def test_ready_file_has_every_address(start: Callable[..., LocalStack]) -> None:
    ready = start(no_functions=True, deployment="dev", cluster="jobs").ready
    assert set(ready) == {
        "submit_url",
        "submit_function",
        "runner_api_url",
        "lambda_url",
        "dynamodb_url",
        "ecs_url",
        "table",
        "cluster",
        "region",
        "deployment",
        "pid",
        "log_dir",
    }
    assert ready["deployment"] == "dev"
    assert ready["cluster"] == "arn:aws:ecs:us-east-1:123456789012:cluster/jobs"


def test_environment_file_has_the_functions_variables(start: Callable[..., LocalStack], tmp_path: Path) -> None:
    file = tmp_path / "env"
    ready = start(no_functions=True, env_file=file, timer_scale=5).ready
    variables = dict(line.split("=", 1) for line in file.read_text().splitlines())
    assert variables["AWS_ENDPOINT_URL_DYNAMODB"] == ready["dynamodb_url"]
    assert variables["AWS_ENDPOINT_URL_ECS"] == ready["ecs_url"]
    assert variables["ECS_BRIDGE_TABLE"] == ready["table"]
    assert variables["ECS_BRIDGE_TIMER_SCALE"] == "5"


def test_table_has_the_keys_of_the_template(start: Callable[..., LocalStack]) -> None:
    stack = start(no_functions=True)
    dynamodb = client(stack, "dynamodb")
    table = dynamodb.describe_table(TableName=stack.ready["table"])["Table"]
    assert [key["AttributeName"] for key in table["KeySchema"]] == ["submission_id"]
    assert {index["IndexName"] for index in table["GlobalSecondaryIndexes"]} == {"feed", "due", "pool"}
    expiry = dynamodb.describe_time_to_live(TableName=stack.ready["table"])["TimeToLiveDescription"]
    assert expiry == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires_at"}


def test_function_that_cannot_start_is_reported(tmp_path: Path) -> None:
    answer = run_program("local", "--function-env", "ECS_BRIDGE_LAUNCH_RATE=fast", "--log-dir", tmp_path)
    assert answer.returncode == 1
    assert "does not start" in answer.stderr
    assert str(tmp_path) in answer.stderr


def test_containers_inherit_only_path(start: Callable[..., LocalStack]) -> None:
    stack = start(no_functions=True, time_scale=100, container_env="GIVEN=all")
    overrides = {
        "containerOverrides": [{"name": "main", "command": ["env"], "environment": [{"name": "ASKED", "value": "one"}]}]
    }
    arn = run_task(client(stack, "ecs"), "env", [], overrides=overrides)["tasks"][0]["taskArn"]
    until("the task ends", lambda: has_stopped(stack, arn))
    log = stack.log_dir / f"{arn.rsplit('/', 1)[1]}-main.log"
    variables = dict(line.split("=", 1) for line in log.read_text().splitlines())
    # The runner program is beside the functions.
    path = f"{os.environ['PATH']}:{PROGRAM.parent}"
    assert (variables["GIVEN"], variables["ASKED"], variables["PATH"]) == ("all", "one", path)
    assert {name for name in variables if name.startswith("AWS_")} == {"AWS_REGION", "AWS_EXECUTION_ENV"}
    assert variables["ECS_CONTAINER_METADATA_URI_V4"].startswith(stack.ready["ecs_url"])


def test_functions_accept_invocations_of_the_sdk(start: Callable[..., LocalStack]) -> None:
    stack = start()
    functions = client(stack, "lambda")
    answer = functions.invoke(FunctionName="reconcile", Payload=b"{}")
    assert (answer["StatusCode"], "FunctionError" in answer) == (200, False)
    arn = "arn:aws:lambda:us-east-1:123456789012:function:reconcile"
    assert functions.invoke(FunctionName=arn, InvocationType="Event", Payload=b"{}")["StatusCode"] == 202
    until("the event is handled", lambda: stack.invocations()["reconcile"]["events_pending"] == 0)
    with pytest.raises(functions.exceptions.ResourceNotFoundException):
        functions.invoke(FunctionName="nobody", Payload=b"{}")
    with pytest.raises(functions.exceptions.InvalidRequestContentException):
        functions.invoke(FunctionName="reconcile", Payload=b"{")


def test_killed_process_is_replaced(start: Callable[..., LocalStack]) -> None:
    stack = start(processes=1)

    def pids() -> list[int]:
        return [process["pid"] for process in stack.processes() if process["function"] == "submit"]

    before = pids()
    assert stack.kill(before[0])
    assert call("GET", f"{stack.ready['submit_url']}/v1/health")
    assert pids() != before
    assert not stack.kill(os.getpid()), "only functions' processes can be killed"


def test_invalid_flags_are_rejected_with_a_reason() -> None:
    for flags, reason in [
        (["--drop", "2"], "from 0 to 1"),
        (["--delay-ms", "5..1"], "the smaller first"),
        (["--throttle", "0"], "above 0"),
        (["--profiles", "/no/such/file"], "/no/such/file"),
        (["--functions-dir", str(ROOT / "docs")], "build it"),
    ]:
        answer = run_program("local", *flags)
        assert answer.returncode != 0
        assert reason in answer.stderr, answer.stderr


def test_event_faults_follow_the_seed(start: Callable[..., LocalStack]) -> None:
    def faults() -> dict[str, int]:
        stack = start(duplicate=0.5, drop=0.2, delay_ms="1..50", time_scale=100, simulate=True, seed=7)
        ecs = client(stack, "ecs")
        for number in range(50):
            run_task(ecs, str(number), ["true"])
        until("all tasks end", lambda: all(row["last_status"] == "STOPPED" for row in stack.tasks()))
        return stack.faults()

    counts = faults()
    assert counts["duplicated"] > 0
    assert counts["dropped"] > 0
    assert counts == faults()
