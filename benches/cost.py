"""Cost: what a task takes of DynamoDB, Lambda and the logs, counted on the wire, and that by AWS's prices.

Prices are those of us-east-1, x86, on demand. What cannot be counted here is assumed, below.
"""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path

import samples
from functions import ROOT
from report import Report
from stack import Stack

# Dollars.
WRITE_UNIT, READ_UNIT = 0.625e-6, 0.125e-6
INVOCATION, GB_SECOND = 0.20e-6, 0.0000166667
LOG_BYTE = 0.50e-9

# A call to DynamoDB or ECS, and how many of them an invocation makes one after the other.
CALL_SECONDS = 0.008
CALLS_IN_TURN = {"submit": 4 + 3, "task-state": 2, "reconcile": 6}
# Lambda gives a whole CPU at so many MB, and less in proportion below.
MB_OF_A_CPU = 1769
# The executor reads the feed so far back, once a second; a row of the feed has so many bytes.
FEED_SECONDS, FEED_ROW = 120, 150
# Airflow's scheduler hands over what it has queued in a loop: a batch.
BATCH = 16
CHECKS_AN_HOUR = 3


def run(report: Report, tasks: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        task = per_task(report, Path(folder) / "short", tasks)
        hour = per_hour(report, Path(folder) / "long")
    idle = per_idle_day()
    report.add("cost", "a million tasks of under ten minutes", task * 1e6, "$", at_most=10, peer=polling(5 * 60))
    report.add("cost", "a million further hours of run", hour * 1e6, "$", at_most=10, peer=polling(3600))
    report.add("cost", "a day of rest", idle, "$", at_most=0.10)


def per_task(report: Report, folder: Path, tasks: int) -> float:
    """Dollars of a task that is launched at once and ends within ten minutes."""
    # Reconcile is there as deployed, and finds nothing due.
    with Stack(folder, reconcile_every=60, provision_s=0.5, pull_s=0.5, teardown_s=1.5, simulate=True) as stack:
        for start in range(0, tasks, BATCH):
            stack.submit([samples.submission(index, ["sleep", "1"]) for index in range(start, start + BATCH)])
            time.sleep(BATCH / 20)
        stack.until_ended(tasks, 240)
        stack_at_rest(stack)
        seen = stack.dynamodb.seen
        writes, reads = seen.write_units.total() / tasks, seen.read_units.total() / tasks
        for purpose, units in sorted(seen.write_units.items(), key=lambda each: -each[1]):
            report.add("cost", f"write units per task: {purpose}", units / tasks, "")
        report.add("cost", f"write units per task, batches of {BATCH}", writes, "", at_most=13)
        report.add("cost", "read units per task", reads, "")
        report.add("cost", "DynamoDB requests per task", seen.calls.total() / tasks, "")
        invocations = {name: counts["invocations"] / tasks for name, counts in stack.invocations().items()}
        report.add("cost", "invocations per task", sum(invocations.values()), "", at_most=6)
        logs = sum(file.stat().st_size for name in invocations for file in stack.log_dir.glob(f"{name}-*.log")) / tasks
        report.add("cost", "bytes of logs per task", logs, "")
        used = stack.cpu()
    gb_seconds = sum(
        memory(name) / 1024 * (count * CALLS_IN_TURN[name] * CALL_SECONDS + used[name] / tasks * MB_OF_A_CPU / memory(name))
        for name, count in invocations.items()
    )
    report.add("cost", "GB-seconds per task", gb_seconds, "")
    # Reading the feed costs half a unit for each 4 KB, and shows a row once a second as long as it is that far back.
    feed = FEED_SECONDS * FEED_ROW / 4096 / 2
    return (
        writes * WRITE_UNIT
        + (reads + feed) * READ_UNIT
        + sum(invocations.values()) * INVOCATION
        + gb_seconds * GB_SECOND
        + logs * LOG_BYTE
    )


def per_hour(report: Report, folder: Path) -> float:
    """Dollars of each further hour that a task runs: a check every twenty minutes, of which one is counted."""
    tasks = 50
    # Twelve minutes become 24 seconds: one check of each.
    flags = {"timer_scale": 30, "simulate": True, "reconcile_every": 2, "provision_s": 0.1, "pull_s": 0.1}
    with Stack(folder, **flags) as stack:
        for start in range(0, tasks, 10):
            stack.submit([samples.submission(index, ["sleep", "32"]) for index in range(start, start + 10)])
        stack.until_ended(tasks, 240)
        stack_at_rest(stack)
        seen = stack.dynamodb.seen
        checks = seen.writes["claim"]
        writes = seen.write_units["claim"] / checks
        described = stack.ecs.seen.calls["DescribeTasks"]
    report.add("cost", "write units per check", writes, "")
    report.add("cost", "tasks per DescribeTasks", checks / max(described, 1), "")
    return CHECKS_AN_HOUR * (writes * WRITE_UNIT + READ_UNIT)


def per_idle_day() -> float:
    """Dollars of a day on which nothing is submitted: reconcile every minute, the executor's Query every second."""
    runs, polls = 24 * 60, 24 * 60 * 60
    queries = CALLS_IN_TURN["reconcile"] - 1
    gb_seconds = runs * memory("reconcile") / 1024 * (queries * CALL_SECONDS + 0.010)
    # A line of the run's report and its metrics.
    logs = runs * 1200
    return (runs * queries + polls) * READ_UNIT / 2 + runs * INVOCATION + gb_seconds * GB_SECOND + logs * LOG_BYTE


def polling(seconds: int) -> float:
    """Dollars of a million tasks watched by a Lambda function each, in a loop of Step Functions every 30 seconds.

    A state transition costs $0.000025; each look is two of them (wait, look), an invocation and a write.
    """
    looks = seconds / 30
    return 1e6 * looks * (2 * 0.000025 + INVOCATION + WRITE_UNIT)


def stack_at_rest(stack: Stack) -> None:
    """Wait until all tasks are torn down, and what they told has arrived."""
    until = time.monotonic() + 60
    while any(row.get("last_status") != "STOPPED" for row in stack.records()):
        if time.monotonic() > until:
            raise RuntimeError("events are missing")
        time.sleep(0.2)


def memory(function: str) -> int:
    """MB of a function, as the template has it."""
    parameter = "".join(part.capitalize() for part in function.split("-")) + "Memory"
    template = (ROOT / "template.yaml").read_text()
    found = re.search(rf"^  {parameter}:\n    Type: Number\n    Default: (\d+)", template, re.MULTILINE)
    assert found, parameter
    return int(found[1])
