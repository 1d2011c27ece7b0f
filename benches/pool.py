"""Pools: from a submission to its command's first instruction, beside the same without a pool; commands a second; cost.

ECS's stand-in takes as long as Fargate to start a container, and the table's indexes lag. Commands have all kinds of
priorities, as the tasks of a DAG do. Idle runners wait for their doorbell, an SQS queue.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import prices
import samples
from cost import BATCH, CALL_SECONDS, MB_OF_A_CPU, each, memory
from functions import ROOT
from report import Report
from stack import Stack, call

# Seconds that Fargate takes to start a container: 30 to 60 by the documentation of Airflow's Amazon provider.
START = 45.0
BURSTS = (1, 10, 100)
# Milliseconds by which the indexes lag.
LAG = "100..300"
DAY = 24 * 60 * 60
# An idle runner waits for its doorbell for up to 20 s at a time, and asks after 135 to 150 s of that.
WAIT, REST = 20.0, 142.5
POOL = {
    **samples.PROFILES["default"],
    "run_task": {**samples.PROFILES["default"]["run_task"], "taskDefinition": "demo-pool"},  # type: ignore[dict-item]
}


def run(report: Report, idle: tuple[int, ...], commands: int, start: float = START) -> None:
    for count in idle:
        latency(report, count, start)
    throughput(report, commands)
    costs(report, 1, 160 if commands < 1_000 else 480, at_most=15)
    costs(report, 50, 160 if commands < 1_000 else 480, at_most=8)
    asks(report)


def pooled(**pool: object) -> dict[str, Any]:
    return {**samples.PROFILES, "pool": {**POOL, "pool": pool}}


def runners(stack: Stack) -> list[dict[str, Any]]:
    """The rows of all runners that are not over."""
    query = {"x-amz-target": "DynamoDB_20120810.Scan"}
    items = call(stack.ready["dynamodb_url"], {"TableName": stack.ready["table"]}, query)["Items"]
    return [item["runner"]["M"] for item in items if "runner" in item and "check_at" in item]


def until_idle(stack: Stack, count: int) -> None:
    until = time.monotonic() + 6 * START + count
    while sum("incarnation" in runner and "serves" not in runner for runner in runners(stack)) < count:
        if time.monotonic() > until:
            raise RuntimeError(f"not {count} runners are idle: {runners(stack)}")
        time.sleep(0.5)


def first_instructions(stack: Stack, folder: Path, profile: str, count: int) -> list[float]:
    """Seconds from the call that submits so many commands to the first instruction of each."""
    folder.mkdir()
    items = [
        {
            "submission_id": f"{folder.name}-{n}",
            "profile": profile,
            "command": ["sh", "-c", f"date +%s.%N > {folder}/{n}"],
            "priority": n * 7 % 1000,
        }
        for n in range(count)
    ]
    began = time.time()
    stack.submit(items)
    until = time.monotonic() + 4 * START + count
    while len(list(folder.iterdir())) < count:
        if time.monotonic() > until:
            raise RuntimeError(f"{len(list(folder.iterdir()))} of {count} have started")
        time.sleep(0.1)
    time.sleep(0.2)
    return sorted(float(file.read_text()) - began for file in folder.iterdir())


def latency(report: Report, idle: int, start: float) -> None:
    flags: dict[str, Any] = {
        "reconcile_every": 5,
        "pull_s": start,
        "provision_s": 0,
        "teardown_s": 1,
        "no_limit": True,
        "proxies": False,
    }
    flags |= {"index_lag_ms": LAG}
    profiles = pooled(max=idle + max(BURSTS), min_idle=idle)
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), profiles=profiles, **flags) as stack:
        for burst in BURSTS:
            until_idle(stack, idle)
            own = first_instructions(stack, Path(folder) / f"own-{burst}", "default", burst)
            # Reconcile replaces the runners that a burst has used: as many as were idle before.
            until_idle(stack, idle)
            samples_ = 10 if burst == 1 else 1
            taken: list[float] = []
            for nth in range(samples_):
                taken += first_instructions(stack, Path(folder) / f"pool-{burst}-{nth}", "pool", burst)
            taken.sort()
            waiting = taken[: min(idle, burst) * samples_]
            name = f"{burst} at once, {idle} runners idle, index lag {LAG} ms: submission to first instruction"
            median, last = statistics.median(waiting), waiting[max(int(len(waiting) * 0.99) - 1, 0)]
            report.add("pool", f"{name}, median", median, "s", peer=statistics.median(own), at_most=1.0)
            report.add("pool", f"{name}, 99 of 100", last, "s", peer=own[max(int(len(own) * 0.99) - 1, 0)], at_most=2.5)
            if burst > idle:
                report.add("pool", f"{name}, those without a runner", statistics.median(taken[idle:]), "s")


def throughput(report: Report, commands: int) -> None:
    """Short commands on fifty runners, each of which runs fifty of them."""
    count = 50
    flags: dict[str, Any] = {
        "reconcile_every": 2,
        "pull_s": 1,
        "provision_s": 0,
        "teardown_s": 0.5,
        "no_limit": True,
        "processes": 4,
    }
    flags |= {"index_lag_ms": LAG}
    profiles = pooled(max=count, min_idle=count, commands_per_container=50, poll_interval_ms=500)
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), profiles=profiles, **flags) as stack:
        until_idle(stack, count)
        began = time.perf_counter()
        for start in range(0, commands, 100):
            stack.submit([
                {"submission_id": f"short-{n}", "profile": "pool", "command": ["true"], "priority": n * 7 % 1000}
                for n in range(start, start + 100)
            ])  # fmt: skip
        stack.until_ended(commands, 600)
        seconds = time.perf_counter() - began
    report.add(
        "pool",
        f"{commands:,} short commands on {count} runners, index lag {LAG} ms: commands per second",
        commands / seconds,
        "",
        at_least=100,
    )


def costs(report: Report, per_container: int, commands: int, at_most: float) -> None:
    """What a command takes, of a pool that is sized by what arrives: 20 per second, each of a second."""
    flags: dict[str, Any] = {
        "reconcile_every": 60,
        "pull_s": 2,
        "provision_s": 0,
        "teardown_s": 1,
        "no_limit": True,
        "index_lag_ms": LAG,
    }
    profiles = pooled(max=200, commands_per_container=per_container)
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), profiles=profiles, **flags) as stack:
        for start in range(0, commands, BATCH):
            stack.submit([
                {"submission_id": f"each-{n}", "profile": "pool", "command": ["sleep", "1"], "priority": n * 7 % 1000}
                for n in range(start, start + BATCH)
            ])  # fmt: skip
            time.sleep(BATCH / 20)
        stack.until_ended(commands, 600)
        calls = stack.calls()
        used = each(stack, commands)
    name = f"{per_container} commands per container" if per_container > 1 else "1 command per container"
    messages = sum(calls.get(operation, 0) for operation in ("SendMessageBatch", "ReceiveMessage")) / commands
    for metric, value in (
        ("write units", used.write_units),
        ("read units", used.read_units),
        ("invocations", used.invocations),
        ("requests to SQS", messages),
        ("RunTask calls", calls.get("RunTask", 0) / commands),
        ("bytes of logs", used.log_bytes),
    ):
        report.add("pool", f"{metric} per command, {name}", value, "")
    dollars = 1e6 * (used.total() + messages * prices.SQS_REQUEST)
    report.add("pool", f"a million commands, {name}, without the containers", dollars, "$", at_most=at_most)


def asks(report: Report) -> None:
    """What an idle runner costs a day without its container: waits for its doorbell, and a question after each few."""
    flags: dict[str, Any] = {"reconcile_every": 0, "pull_s": 0.2, "provision_s": 0, "no_limit": True}
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(Path(folder), profiles=pooled(max=1, min_idle=1), **flags) as stack,
    ):
        # Without a doorbell it asks each second, so that questions can be counted soon.
        denied = {"code": "AccessDenied", "message": "no permission"}
        call(f"{stack.ready['ecs_url']}/_local/rules", {"operation": "CreateQueue", "times": 1_000, "error": denied})
        call(f"{stack.ready['lambda_url']}/2015-03-31/functions/reconcile/invocations", {})
        until_idle(stack, 1)
        before = stack.dynamodb.seen.read_units.total(), stack.dynamodb.seen.write_units.total()
        asked, used = stack.invocations()["runner-api"]["invocations"], stack.cpu()["runner-api"]
        time.sleep(20)
        count = stack.invocations()["runner-api"]["invocations"] - asked
        reads = (stack.dynamodb.seen.read_units.total() - before[0]) / count
        cpu = (stack.cpu()["runner-api"] - used) / count
    # Each question is noted in the row, and its timer is moved every five minutes.
    writes = 1 + 3 * REST / 300
    seconds = 2 * CALL_SECONDS + cpu * MB_OF_A_CPU / memory("runner-api")
    question = reads * prices.READ_UNIT + writes * prices.WRITE_UNIT + prices.INVOCATION
    question += memory("runner-api") / 1024 * seconds * prices.GB_SECOND
    report.add("pool", "read units of an empty poll", reads, "")
    report.add("pool", "CPU of an empty poll", 1000 * cpu, "ms")
    day = DAY / REST * question + DAY / WAIT * prices.SQS_REQUEST
    report.add(
        "pool", "an idle runner, without its container, a month", prices.DAYS_OF_A_MONTH * day, "$", at_most=0.10
    )


if __name__ == "__main__":
    os.environ.setdefault("JSON", "0")
    os.chdir(ROOT)
    rows = Report()
    run(rows, (10, 100), 5_000)
    rows.print()
    print(json.dumps(rows.missed()))
