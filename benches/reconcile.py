"""Reconcile: how near the launch rate it drains a queue, how many timers it serves, and what those cost.

Its runs are processes of the bench's own, beside the local stack, whose own functions launch and look after nothing.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import prices
import samples
from cost import CALL_SECONDS, MB_OF_A_CPU, memory
from cpu_share import limited
from functions import ROOT, environment, rust
from launch import send
from report import Report
from runtime_api import Function
from stack import Stack, call

# RunTask's latency as AWS customers report it, and a raised quota.
LATENCY = 0.7
RATE = 200
RUNS = 2
TIMERS_A_MINUTE = 20_000
# How many timers a run reads at a time, and how many calls it makes for them one after the other.
PAGE, CALLS_OF_A_PAGE = 100, 7
IN_FLIGHT = (1_000, 10_000, 50_000, 100_000, 200_000)
# The run that a schedule starts each minute goes on for so long.
RUN_SECONDS = 55


# What ReconcileMemory may be, from the default of earlier versions to a whole vCPU.
MEMORIES = (256, 512, 1024, MB_OF_A_CPU)


def run(report: Report, queued: int, timers: int) -> None:
    drain(report, queued)
    serve(report, timers)
    for megabytes in MEMORIES:
        with_share(report, megabytes, queued, timers)


@contextmanager
def reconciles(stack: Stack, runs: int, **variables: object) -> Iterator[list[Function]]:
    """Processes of reconcile that work on the table and the ECS of `stack`."""
    env = environment("") | {
        "AWS_ENDPOINT_URL_DYNAMODB": stack.ready["dynamodb_url"],
        "AWS_ENDPOINT_URL_ECS": stack.ready["ecs_url"],
        "ECS_BRIDGE_TABLE": stack.ready["table"],
    }
    env |= {name: str(value) for name, value in variables.items()}
    with ExitStack() as processes:
        started = [
            processes.enter_context(Function(rust("reconcile"), env, stack.folder / f"bench-reconcile-{number}.log"))
            for number in range(runs)
        ]
        for process in started:
            process.cold_start()
        yield started


def drain(report: Report, queued: int) -> None:
    """One run and a queue that is longer than what it may launch."""
    flags: dict[str, Any] = {
        "simulate": True,
        "reconcile_every": 0,
        "pull_s": 600,
        "api_latency_ms": int(LATENCY * 1000),
    }
    # The stack's own functions launch next to nothing: what they are sent stays queued.
    limit = {"ECS_BRIDGE_LAUNCH_RATE": 0.1, "ECS_BRIDGE_LAUNCH_BURST": 1}
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), proxies=False, variables=limit, **flags) as stack:
        send(stack, [samples.submission(index, ["sleep", "600"]) for index in range(queued)])
        before = stack.calls()["RunTask"]
        variables = {"ECS_BRIDGE_LAUNCH_RATE": RATE, "ECS_BRIDGE_LAUNCH_BURST": RATE}
        with reconciles(stack, 1, **variables) as [reconcile]:
            began = time.perf_counter()
            with ThreadPoolExecutor(1) as waiting:
                waiting.submit(reconcile.invoke, b"{}")
                time.sleep(5)
                early, at = stack.calls()["RunTask"], time.perf_counter()
                while (
                    late := stack.calls()["RunTask"]
                ) < 0.9 * queued and time.perf_counter() - began < RUN_SECONDS - 5:
                    time.sleep(0.1)
                seconds = time.perf_counter() - at
            used = reconcile.cpu()
        name = f"queue of {queued:,}, RunTask takes {LATENCY} s, one run"
        report.add(
            "reconcile", f"{name}: share of {RATE} a second", 100 * (late - early) / seconds / RATE, "%", at_least=95
        )
        report.add("reconcile", f"{name}: CPU a launch", 1000 * used / (stack.calls()["RunTask"] - before), "ms")


def with_share(report: Report, megabytes: int, queued: int, timers: int) -> None:
    """Launches and timers of one run with Lambda's share of a CPU, and what a launch costs."""
    flags: dict[str, Any] = {
        "simulate": True,
        "reconcile_every": 0,
        "pull_s": 600,
        "api_latency_ms": int(LATENCY * 1000),
    }
    limit = {"ECS_BRIDGE_LAUNCH_RATE": 0.1, "ECS_BRIDGE_LAUNCH_BURST": 1}
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), proxies=False, variables=limit, **flags) as stack:
        send(stack, [samples.submission(index, ["sleep", "600"]) for index in range(queued)])
        variables = {"ECS_BRIDGE_LAUNCH_RATE": 10 * RATE, "ECS_BRIDGE_LAUNCH_BURST": RATE}
        with (
            reconciles(stack, 1, **variables) as [reconcile],
            limited(reconcile.process.pid, megabytes) as by,
            ThreadPoolExecutor(1) as waiting,
        ):
            done = waiting.submit(reconcile.invoke, b"{}")
            time.sleep(5)
            before, used, at = stack.calls()["RunTask"], reconcile.cpu(), time.perf_counter()
            while (launched := stack.calls()["RunTask"]) < 0.9 * queued and time.perf_counter() - at < RUN_SECONDS / 2:
                time.sleep(0.1)
            seconds, used = time.perf_counter() - at, reconcile.cpu() - used
            rate, cpu = (launched - before) / seconds, used / max(launched - before, 1)
            reconcile.process.kill()
            done.exception()
    name = f"{megabytes} MB ({by})"
    possible = min(megabytes / MB_OF_A_CPU, 1) / cpu
    report.add("reconcile", f"{name}: launches a second", rate, "")
    report.add("reconcile", f"{name}: launches a second, by CPU alone", possible, "")
    dollars = 1e6 * megabytes / 1024 * prices.GB_SECOND / min(possible, RATE)
    report.add("reconcile", f"{name}: a million launches at {RATE} a second or what it can", dollars, "$")
    served(report, name, megabytes, timers // 2)


def served(report: Report, name: str, megabytes: int, timers: int) -> None:
    flags: dict[str, Any] = {
        "simulate": True,
        "reconcile_every": 0,
        "pull_s": 0.1,
        "provision_s": 0.1,
        "timer_scale": 30,
        "no_limit": True,
    }
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), proxies=False, **flags) as stack:
        send(stack, [samples.submission(index, ["sleep", "100000"]) for index in range(timers)])
        time.sleep(30)
        with (
            reconciles(stack, 1) as [reconcile],
            limited(reconcile.process.pid, megabytes),
            ThreadPoolExecutor(1) as waiting,
        ):
            began = time.perf_counter()
            done = waiting.submit(reconcile.invoke, b"{}")
            seconds, count = until_served(stack, timers, began)
            reconcile.process.kill()
            done.exception()
    report.add("reconcile", f"{name}: timers a minute", 60 * count / seconds, "")


def serve(report: Report, timers: int) -> None:
    """Two runs, and as many checks of running tasks as come due within a minute."""
    # The first check is due 24 s after the launch: when the last task has been submitted, the first ones wait.
    flags: dict[str, Any] = {
        "simulate": True,
        "reconcile_every": 0,
        "pull_s": 0.1,
        "provision_s": 0.1,
        "timer_scale": 30,
        "no_limit": True,
    }
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), proxies=False, **flags) as stack:
        send(stack, [samples.submission(index, ["sleep", "100000"]) for index in range(timers)])
        time.sleep(30)
        with reconciles(stack, RUNS) as processes:
            began = time.perf_counter()
            with ThreadPoolExecutor(RUNS) as waiting:
                runs = [waiting.submit(process.invoke, b"{}") for process in processes]
                seconds, served = until_served(stack, timers, began)
                cpu = sum(process.cpu() for process in processes) / timers
                for done in runs:
                    done.result()
            described = stack.calls()["DescribeTasks"]
        name = f"{timers:,} timers, {RUNS} runs"
        report.add("reconcile", f"{name}: timers a minute", 60 * served / seconds, "", at_least=TIMERS_A_MINUTE)
        report.add("reconcile", f"{name}: tasks per DescribeTasks", timers / described, "")
        report.add("reconcile", f"{name}: CPU a timer", 1000 * cpu, "ms")
    cost_curve(report, cpu)


def until_served(stack: Stack, timers: int, began: float) -> tuple[float, int]:
    """Seconds until all timers were served, or the runs had to end; and how many were."""
    while True:
        seconds = time.perf_counter() - began
        served = timers - due(stack)
        if served == timers or seconds > RUN_SECONDS:
            return seconds, served
        time.sleep(0.2)


def due(stack: Stack) -> int:
    """How many timers are due. A served one is due again in twenty minutes, by the bench's own processes."""
    count = 0
    for shard in range(4):
        query = {
            "TableName": stack.ready["table"],
            "IndexName": "due",
            "Select": "COUNT",
            "KeyConditionExpression": "due = :due AND check_at <= :now",
            "ExpressionAttributeValues": {":due": {"S": str(shard)}, ":now": {"N": str(int(time.time() * 1000))}},
        }
        while True:
            answer = call(stack.ready["dynamodb_url"], query, {"x-amz-target": "DynamoDB_20120810.Query"})
            count += answer["Count"]
            if "LastEvaluatedKey" not in answer:
                break
            query["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
    return count


def cost_curve(report: Report, cpu: float) -> None:
    """The hourly cost of tasks in flight, by the measured CPU of a timer and the units of its claim (bench `cost`)."""
    measured = json.loads((ROOT / "benches" / "measured.json").read_text())
    for tasks in IN_FLIGHT:
        timers = tasks * prices.CHECKS_AN_HOUR
        # A hundred at a time: a Query, a BatchGetItem, claims side by side, a DescribeTasks; in between, CPU alone.
        waiting = timers / PAGE * CALLS_OF_A_PAGE * CALL_SECONDS
        gb_seconds = (waiting + timers * cpu * MB_OF_A_CPU / memory("reconcile")) * memory("reconcile") / 1024
        dollars = tasks * prices.hour(measured["check_write_units"]) + gb_seconds * prices.GB_SECOND
        report.add(
            "reconcile", f"{tasks:,} in flight, simulated: timers a minute", timers / 60, "", at_most=TIMERS_A_MINUTE
        )
        report.add("reconcile", f"{tasks:,} in flight, simulated: an hour", dollars, "$")


if __name__ == "__main__":
    os.environ.setdefault("JSON", "0")
    rows = Report()
    run(rows, 4_000, 20_000)
    rows.print()
