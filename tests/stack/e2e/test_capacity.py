"""The capacity of a submission: fallbacks, relaunches elsewhere, tags, and ECS's reports on memory and hosts."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import boto3
import pytest

from api import Stack
from local_stack import PROGRAM, Record, until
from wire import Wire

NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"]}}
ELSEWHERE = {"awsvpcConfiguration": {"subnets": ["subnet-0fedcba9876543210"]}}


def on(provider: str) -> list[dict[str, str]]:
    return [{"capacityProvider": provider}]


SPOT = {"taskDefinition": "demo", "capacityProviderStrategy": on("FARGATE_SPOT"), "networkConfiguration": NETWORK}
EC2 = {"taskDefinition": "demo", "launchType": "EC2", "networkConfiguration": NETWORK}
TO_ON_DEMAND = {"capacityProviderStrategy": on("FARGATE")}


def profile(run_task: object = SPOT, **more: object) -> dict[str, object]:
    return {"container_name": "main", "run_task": run_task, **more}


PROFILES = {
    "default": profile(),
    "three": profile(
        fallbacks=[TO_ON_DEMAND, {**TO_ON_DEMAND, "networkConfiguration": ELSEWHERE}], tags_from_labels=["dag_id"]
    ),
    "interrupted": profile(
        fallbacks=[TO_ON_DEMAND],
        max_attempts=1,
        relaunch_on=[{"stop_code": "SpotInterruption", "fallback": 1, "counts_as_attempt": False}],
    ),
    "hosts": profile(EC2, relaunch_on=["InfrastructureHealth"], max_attempts=2),
    # Its tasks have no events.
    "silent": profile(
        {**SPOT, "tags": [{"key": "ecs-bridge-local:shape", "value": "no-events"}]}, fallbacks=[TO_ON_DEMAND]
    ),
    "sized": profile(EC2, allow_overrides=["overrides.memory"]),
    "pool": profile({**SPOT, "taskDefinition": "demo-pool"}, pool={"max": 1, "poll_interval_ms": 100}),
}
LATER = ["sh", "-c", "while ! [ -e $0 ]; do sleep 0.05; done"]


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with Wire(["ecs"]) as wire:
        yield wire


@pytest.fixture(scope="module")
def shared(start: Callable[..., Stack], wire: Wire) -> Stack:
    # A probe of capacity after 0.5 s, and then up to 6 s apart.
    flags = {"reconcile-every": 1, "timer-scale": 10, "time-scale": 10}
    stack = start(flags, profiles=PROFILES, function_env=wire.environment())
    wire.connect(stack.ready)
    return stack


@pytest.fixture
def stack(shared: Stack, wire: Wire) -> Iterator[Stack]:
    shared.without()
    yield shared
    shared.without()


def submit(stack: Stack, id: str, profile: str, command: Sequence[str] = ("true",), **more: object) -> None:
    [answer] = stack.submit({"submission_id": id, "command": command, "profile": profile, **more})
    assert "error" not in answer, answer


def ended(stack: Stack, id: str) -> tuple[str, str, int]:
    """The state, the capacity, and the number of the fallback."""
    row = stack.until_ended(id)
    return row["state"], row["runs_on"], int(row.get("fallback", 0))


def running(stack: Stack, id: str, attempt: int = 1) -> Record:
    return until("it runs", lambda: (row := stack.row(id))["state"] == "running" and row["attempt"] == attempt and row)


def starts(stack: Stack, id: str) -> list[int]:
    return [task["start_count"] for task in stack.tasks(id)]


def test_fallback_is_tried_immediately_without_capacity(stack: Stack, wire: Wire) -> None:
    stack.without("FARGATE_SPOT")
    wire.calls.clear()
    ids = [f"first-{number}" for number in range(20)]
    for id in ids:
        submit(stack, id, "three")
    assert {ended(stack, id) for id in ids} == {("succeeded", "FARGATE", 1)}
    assert [starts(stack, id) for id in ids] == [[1]] * len(ids)
    calls = [call for call in wire.calls if call.operation == "RunTask"]
    on_spot = [call for call in calls if call.body["capacityProviderStrategy"] == on("FARGATE_SPOT")]
    # Three refusals, and a probe each half second at most.
    most = 4 + (calls[-1].at - calls[0].at) / 0.5
    assert len(on_spot) <= most, "what has no capacity is passed over, but for a probe"
    # A request that got no answer in time is sent again as it was.
    requests = {
        (call.body["startedBy"], str(call.body["capacityProviderStrategy"]), call.body["clientToken"]) for call in calls
    }
    assert len({token for *_, token in requests}) == len(requests), "another request has another client token"


def test_last_fallback_uses_another_subnet(stack: Stack) -> None:
    stack.without("FARGATE_SPOT", "subnet-0123456789abcdef0")
    submit(stack, "last", "three")
    assert ended(stack, "last") == ("succeeded", "FARGATE", 2)


def test_submission_waits_until_capacity_is_available(stack: Stack) -> None:
    stack.without("FARGATE_SPOT", "FARGATE")
    submit(stack, "waits", "three")
    row = until("it was refused by all", lambda: (row := stack.row("waits")).get("refusals") and row)
    assert row["state"] in {"queued", "launching"}
    assert row["reason"]
    stack.without()
    state, runs_on, fallback = ended(stack, "waits")
    assert (state, runs_on) in {("succeeded", "FARGATE_SPOT"), ("succeeded", "FARGATE")}
    assert (runs_on == "FARGATE_SPOT") == (fallback == 0)
    assert starts(stack, "waits") == [1]


def test_oversized_submissions_delay_no_others(stack: Stack) -> None:
    stack.rule(memory="120000", failure="RESOURCE:MEMORY", times=100_000)
    large = [f"large-{number}" for number in range(5)]
    for id in large:
        submit(stack, id, "sized", overrides={"overrides": {"memory": "120000"}})
    until(
        "they wait for capacity",
        lambda: all(str(stack.row(id).get("due", "")).startswith("waiting/sized@") for id in large),
    )
    ids = [f"ordinary-{number}" for number in range(20)]
    for id in ids:
        submit(stack, id, "sized")
    assert {ended(stack, id)[0] for id in ids} == {"succeeded"}
    rows = [stack.show(id) for id in large]
    assert {row["state"] for row in rows} <= {"queued", "launching"}
    for row in rows:
        assert "RESOURCE:MEMORY" in row["reason"] or "with the overrides of this submission" in row["reason"], row
        assert row["advice"]
        assert row["no_capacity_since"]
    stack.drop_rules()
    assert {ended(stack, id)[0] for id in large} == {"succeeded"}
    assert [starts(stack, id) for id in large + ids] == [[1]] * (len(large) + len(ids))


def test_other_refusals_delay_no_others(stack: Stack) -> None:
    odd = [f"odd-{number}" for number in range(3)]
    for id in odd:
        error = {"code": "ClientException", "message": "Invalid 'cpu' setting for task."}
        stack.rule(submission_id=id, error=error, times=100_000)
        submit(stack, id, "sized")
    until("each was refused more than once", lambda: all(stack.row(id).get("refusals", 0) > 1 for id in odd))
    ids = [f"even-{number}" for number in range(20)]
    for id in ids:
        submit(stack, id, "sized")
    assert {ended(stack, id)[0] for id in ids} == {"succeeded"}
    stack.drop_rules()
    stack.stop(*odd)


def test_spot_submissions_launch_while_others_await_a_fallback(stack: Stack, wire: Wire) -> None:
    interrupted = [f"interrupted-{number}" for number in range(5)]
    for id in interrupted:
        submit(stack, id, "interrupted", ["sleep", "3600"])
    for id in interrupted:
        running(stack, id)
    stack.without("FARGATE_SPOT", "FARGATE")
    for id in interrupted:
        [task] = stack.tasks(id)
        stack.act(task, "spot-interruption")
    waiting = [f"wants-spot-{number}" for number in range(5)]
    for id in waiting:
        submit(stack, id, "interrupted")

    def waits(id: str) -> bool:
        return str(stack.row(id).get("due", "")).startswith("waiting/interrupted")

    until("all wait for capacity", lambda: all(map(waits, interrupted + waiting)))
    stack.without("FARGATE")
    assert {ended(stack, id) for id in waiting} == {("succeeded", "FARGATE_SPOT", 0)}
    stack.stop(*interrupted)


def test_task_of_a_refused_launch_is_found_before_fallback(stack: Stack, wire: Wire) -> None:
    wire.calls.clear()
    stack.rule(submission_id="refused", launched_failure="Capacity is unavailable at this time.")
    submit(stack, "refused", "silent", ["sleep", "3600"])
    row = until("it has a task", lambda: (row := stack.row("refused")).get("task_arn") and row)
    assert [task["task_arn"] for task in stack.tasks("refused")] == [row["task_arn"]]
    calls = [call.operation for call in wire.calls if call.operation in {"RunTask", "ListTasks"}]
    assert calls == ["RunTask", "ListTasks"]
    stack.stop("refused")


def test_runners_start_when_capacity_returns(stack: Stack) -> None:
    stack.without("FARGATE_SPOT")
    submit(stack, "pooled", "pool")
    until("several launches were refused", lambda: stack.faults()["out_of_capacity"] >= 4)
    stack.without()
    assert stack.until_ended("pooled")["state"] == "succeeded"


def test_spot_interruption_relaunches_on_demand(stack: Stack, tmp_path: Any) -> None:
    go = tmp_path / "go"
    submit(stack, "interrupted", "interrupted", [*LATER, str(go)])
    stack.act(running(stack, "interrupted"), "spot-interruption")
    again = running(stack, "interrupted", attempt=2)
    assert (again["runs_on"], again["fallback"]) == ("FARGATE", 1)
    go.touch()
    assert ended(stack, "interrupted") == ("succeeded", "FARGATE", 1)
    assert starts(stack, "interrupted") == [1, 1]
    shown = stack.show("interrupted")
    assert shown["attempts"] == ["SpotInterruption with exit code 143"]
    assert (shown["fallback"], shown["cpu"], shown["memory"]) == (1, 256, 512)


def test_labels_become_tags_of_the_task(stack: Stack, wire: Wire) -> None:
    submit(stack, "tagged", "three", labels={"dag_id": "etl*2", "other": "x"})
    arn = stack.until_ended("tagged")["task_arn"]
    key = {"aws_access_key_id": "x", "aws_secret_access_key": "x", "region_name": "us-east-1"}
    ecs = boto3.client("ecs", endpoint_url=stack.ready["ecs_url"], **key)
    [task] = ecs.describe_tasks(cluster="local", tasks=[arn], include=["TAGS"])["tasks"]
    assert task["tags"] == [{"key": "dag_id", "value": "etl_2"}]


def test_stats_sum_usage_by_label(stack: Stack) -> None:
    submit(stack, "used", "default", labels={"dag_id": "usage"})
    stack.until_ended("used")
    prices = ["--vcpu-hour", "0.04", "--gb-hour", "0.004", "--spot-discount", "50"]
    command = [PROGRAM, "stats", "--by", "dag_id", "--since", "1h", *prices]
    environment = os.environ | {"ECS_BRIDGE_LOCAL": str(stack.ready_file)}
    shown = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, check=True).stdout
    [usage] = [usage for usage in json.loads(shown)["usage"] if usage["label"] == "usage"]
    # 256 CPU units and 512 MiB on Spot for the minute that Fargate bills at least.
    assert usage["fargate_spot"] == {"vcpu_hours": 0.25 / 60, "gb_hours": 0.5 / 60}
    assert (usage["submissions"], usage["unknown"]) == (1, 0)
    assert usage["dollars"] == pytest.approx((0.25 * 0.04 + 0.5 * 0.004) / 60 / 2)
    text = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert "submitted to started" in text
    assert "DAG_ID" in text


def test_out_of_memory_hint_is_set_for_any_exit_code(stack: Stack) -> None:
    for id, code, state in [("killed", 137, "failed"), ("survived", 0, "succeeded")]:
        stack.rule(submission_id=id, shapes="out-of-memory")
        submit(stack, id, "default", ["sh", "-c", f"exit {code}"])
        row = stack.until_ended(id)
        assert (row["state"], row["exit_code"], row["hint"]) == (state, code, "out_of_memory")
        assert "memory" in row["reason"].lower()


def test_falsely_reported_host_failure_starts_no_container(stack: Stack, tmp_path: Any) -> None:
    go = tmp_path / "go"
    submit(stack, "seems-lost", "hosts", [*LATER, str(go)])
    stack.act(running(stack, "seems-lost"), "report-lost")
    until("ECS was asked once more", lambda: stack.row("seems-lost").get("stop_code") == "InfrastructureHealth")
    until("it runs on", lambda: "asked_again" not in stack.row("seems-lost"))
    assert stack.row("seems-lost")["state"] == "running"
    go.touch()
    assert ended(stack, "seems-lost") == ("succeeded", "EC2", 0)
    assert starts(stack, "seems-lost") == [1]


def test_lost_host_starts_a_second_container(stack: Stack, tmp_path: Any) -> None:
    go = tmp_path / "go"
    submit(stack, "lost", "hosts", [*LATER, str(go)])
    stack.act(running(stack, "lost"), "infrastructure-health")
    running(stack, "lost", attempt=2)
    go.touch()
    assert ended(stack, "lost") == ("succeeded", "EC2", 0)
    assert starts(stack, "lost") == [1, 1]


def test_falsely_reported_out_of_memory_stops_the_container(stack: Stack) -> None:
    submit(stack, "seems-killed", "hosts", ["sleep", "100000"])
    row = running(stack, "seems-killed")
    stack.act(row, "report-out-of-memory")
    row = stack.until_ended("seems-killed")
    assert (row["state"], row["exit_code"], row["hint"]) == ("failed", 137, "out_of_memory")
    [task] = stack.tasks("seems-killed")
    assert task["process_exit_code"] is None, "its container lives"
    stack.act(row, "send-event")
    until("it was stopped", lambda: stack.tasks("seems-killed")[0]["process_exit_code"] is not None)
    assert stack.row("seems-killed")["state"] == "failed"
