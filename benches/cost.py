"""Cost: what a task takes of DynamoDB, Lambda and the logs, counted on the wire, times the prices of prices.py.

What cannot be counted here is assumed, below. benches/measured.json holds the figures that the documentation gives. If
a run here differs, write its figures there and run benches/cost_table.py.
"""

from __future__ import annotations

import re
import tempfile
import time
from pathlib import Path
from typing import Any

import prices
import samples
from functions import ROOT
from report import Report
from stack import Stack

# A call to DynamoDB or ECS, and how many of them an invocation makes one after the other.
CALL_SECONDS = 0.008
CALLS_IN_TURN = {"submit": 4 + 3, "task-state": 2, "reconcile": 9, "runner-api": 3}
# Lambda gives a whole CPU at so many MB, and less in proportion below.
MB_OF_A_CPU = 1769
# Airflow's scheduler hands over what it has queued in a loop: a batch.
BATCH = 16


def run(report: Report, tasks: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        task = per_task(report, Path(folder) / "short", tasks)
        hour = per_hour(report, Path(folder) / "long")
    idle = per_idle_day()
    sync = prices.run_task_sync()
    report.add("cost", "a million tasks of under ten minutes", task * 1e6, "$", at_most=10, peer=sync * 1e6)
    report.add("cost", "the same, polled by Step Functions", prices.polled(300) * 1e6, "$")
    report.add("cost", "a million further hours of run", hour * 1e6, "$", at_most=10, peer=prices.polled(3600) * 1e6)
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
        seen, used = stack.dynamodb.seen, each(stack, tasks)
        for purpose, units in sorted(seen.write_units.items(), key=lambda each: -each[1]):
            report.add("cost", f"write units per task: {purpose}", units / tasks, "")
        report.add("cost", f"write units per task, batches of {BATCH}", used.write_units, "", at_most=13)
        report.add("cost", "read units per task", used.read_units, "")
        report.add("cost", "DynamoDB requests per task", seen.calls.total() / tasks, "")
        report.add("cost", "invocations per task", used.invocations, "", at_most=6)
        report.add("cost", "bytes of logs per task", used.log_bytes, "")
        report.add("cost", "GB-seconds per task", used.gb_seconds, "")
    return used.total()


def each(stack: Stack, tasks: int) -> prices.Task:
    """What each of so many tasks has taken, since the stack has started."""
    seen, used = stack.dynamodb.seen, stack.cpu()
    invocations = {name: counts["invocations"] / tasks for name, counts in stack.invocations().items()}
    logs = sum(file.stat().st_size for name in invocations for file in stack.log_dir.glob(f"{name}-*.log")) / tasks
    gb_seconds = sum(
        memory(name)
        / 1024
        * (count * CALLS_IN_TURN[name] * CALL_SECONDS + used[name] / tasks * MB_OF_A_CPU / memory(name))
        for name, count in invocations.items()
    )
    writes, reads = seen.write_units.total() / tasks, seen.read_units.total() / tasks
    return prices.Task(writes, reads, sum(invocations.values()), gb_seconds, logs)


def per_hour(report: Report, folder: Path) -> float:
    """Dollars of each further hour that a task runs: a check every twenty minutes, of which one is counted."""
    tasks = 50
    # Twelve minutes become 24 seconds: one check of each.
    flags: dict[str, Any] = {
        "timer_scale": 30,
        "simulate": True,
        "reconcile_every": 2,
        "provision_s": 0.1,
        "pull_s": 0.1,
    }
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
    return prices.hour(writes)


def per_idle_day() -> float:
    """Dollars of a day without submissions."""
    queries = CALLS_IN_TURN["reconcile"] - 1
    # A run writes one line of its report and its metrics.
    return prices.idle_day(queries, memory("reconcile") / 1024 * (queries * CALL_SECONDS + 0.010), 1200)


def stack_at_rest(stack: Stack) -> None:
    """Wait until all tasks are torn down, and their events have arrived."""
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
