"""Backlog: what submissions cost that arrive faster than ECS launches them, as when many DAGs start at midnight.

Each is submitted by itself, as by callers that share nothing.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import samples
from report import Report
from stack import Stack

# Submissions and launches per second.
ARRIVALS, RATE = 5, 4


def run(report: Report, submissions: int) -> None:
    limit = {"ECS_BRIDGE_LAUNCH_RATE": RATE, "ECS_BRIDGE_LAUNCH_BURST": RATE}
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(Path(folder), reconcile_every=60, simulate=True, teardown_s=1, variables=limit) as stack,
        ThreadPoolExecutor(16) as callers,
    ):
        begun = time.monotonic()
        for index in range(submissions):
            callers.submit(stack.submit, [samples.submission(index, ["sleep", "1"])])
            time.sleep(max(0.0, begun + (index + 1) / ARRIVALS - time.monotonic()))
        callers.shutdown()
        stack.until_ended(submissions, 240)
        seen, of_reconcile = stack.dynamodb.seen, stack.invocations()["reconcile"]
        what = f"{submissions} submissions at {ARRIVALS} per second, launch rate {RATE}"
        report.add("backlog", f"{what}: invocations of reconcile", of_reconcile["invocations"], "")
        report.add("backlog", f"{what}: at once", of_reconcile.get("most_in_flight", float("nan")), "", at_most=2)
        failed = seen.write_units["launch tokens, condition failed"] / submissions
        report.add("backlog", f"{what}: failed token writes per submission", failed, "", at_most=1)
        report.add(
            "backlog", f"{what}: write units per submission", seen.write_units.total() / submissions, "", at_most=18
        )
