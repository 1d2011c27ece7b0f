"""Submitting: 1,000 at once with slow AWS calls, and at the limit of ECS's launch rate."""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import samples
from botocore.config import Config
from report import Report
from stack import Stack

LATENCY = 0.030
BATCH = 100
# As many as the executor sends side by side.
SENDERS = 4
RATE, BURST = 20, 100


def run(report: Report, submissions: int) -> None:
    at_once(report, submissions)
    at_the_limit(report, submissions)


def send(stack: Stack, items: list[dict[str, object]]) -> list[dict[str, object]]:
    batches = [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
    with ThreadPoolExecutor(SENDERS) as senders:
        return [answer for answers in senders.map(stack.submit, batches) for answer in answers]


def at_once(report: Report, submissions: int) -> None:
    """Without a limit: how long ECS and DynamoDB alone make it take."""
    flags: dict[str, Any] = {"no_limit": True, "simulate": True, "reconcile_every": 0, "pull_s": 60}
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), latency=LATENCY, **flags) as stack:
        items = [samples.submission(index, ["sh", "-c", "exit 0"]) for index in range(submissions)]
        send(stack, items[:BATCH])
        before, began = stack.cpu()["submit"], time.perf_counter()
        calls = stack.ecs.seen.calls.total() + stack.dynamodb.seen.calls.total()
        answers = send(stack, [dict(item, submission_id=f"{item['submission_id']}-b") for item in items])
        seconds = time.perf_counter() - began
        launched = sum(answer.get("state") == "launched" for answer in answers)
        used = stack.cpu()["submit"] - before
        calls = stack.ecs.seen.calls.total() + stack.dynamodb.seen.calls.total() - calls
        peer = one_by_one(stack, submissions // 10) * 10
        name = f"{submissions:,} with {LATENCY * 1000:.0f} ms a call"
        report.add("submit", name, seconds, "s", peer=peer)
        report.add("submit", f"{name}, launched at once", launched, "", at_least=submissions)
        report.add("submit", f"{name}, requests each", calls / submissions, "")
        report.add("submit", f"{name}, most RunTask calls under way", stack.ecs.seen.most_under_way, "")
        report.add("submit", f"{name}, CPU each", used / submissions * 1000, "ms")


def one_by_one(stack: Stack, calls: int) -> float:
    """Seconds of RunTask calls as AwsEcsExecutor makes them: boto3, one after the other."""
    ecs = boto3.client(
        "ecs", endpoint_url=stack.ecs.url, region_name=samples.REGION, aws_access_key_id="bench",
        aws_secret_access_key="bench", config=Config(retries={"max_attempts": 0}),
    )  # fmt: skip
    run_task = {**samples.PROFILES["default"]["run_task"], "cluster": samples.CLUSTER}
    began = time.perf_counter()
    for index in range(calls):
        command = samples.submission(index, ["sh", "-c", "exit 0"])["command"]
        overrides = {"containerOverrides": [{"name": samples.CONTAINER, "command": command}]}
        ecs.run_task(**run_task, count=1, overrides=overrides)
    return time.perf_counter() - began


def at_the_limit(report: Report, submissions: int) -> None:
    """With ECS's own limit: how near it they are launched, and how many calls it refuses."""
    flags: dict[str, Any] = {"throttle": f"{RATE}/{BURST}", "simulate": True, "reconcile_every": 60}
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), latency=LATENCY, **flags) as stack:
        items = [samples.submission(index, ["sleep", "0"]) for index in range(submissions)]
        began = time.perf_counter()
        send(stack, items)
        seen = stack.ecs.seen
        launched, until = 0, time.monotonic() + 4 * submissions / RATE
        while launched < submissions:
            if time.monotonic() > until:
                raise RuntimeError(f"{launched} of {submissions} were launched in time")
            time.sleep(0.02)
            launched = seen.calls["RunTask"] - seen.errors.total()
        seconds = time.perf_counter() - began
        least = (submissions - BURST) / RATE
        name = f"{submissions:,} at {RATE} a second"
        report.add("submit", f"{name}, share of the limit", 100 * least / seconds, "%", at_least=95)
        throttles = seen.errors.total()
        report.add("submit", f"{name}, throttled calls", 100 * throttles / seen.calls["RunTask"], "%", at_most=2)


if __name__ == "__main__":
    os.environ.setdefault("JSON", "0")
    rows = Report()
    run(rows, 1000)
    rows.print()
