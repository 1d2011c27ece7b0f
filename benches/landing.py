"""Landing: from the exit of a container to the row that the executor reads, at rest and when 1,000 end together.

The executor's part, from the row to the event in its buffer, is in benches/executor.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import samples
from launch import send
from report import Report
from stack import Stack

# Seconds that Fargate takes from the last container's exit to STOPPED, and AwsEcsExecutor to poll.
TEARDOWN = 25.0


def run(report: Report, together: int) -> None:
    flags: dict[str, Any] = {"simulate": True, "reconcile_every": 20, "no_limit": True}
    with (
        tempfile.TemporaryDirectory() as folder,
        Stack(Path(folder), teardown_s=TEARDOWN, proxies=False, **flags) as stack,
    ):
        at_rest = []
        for index in range(10):
            item = samples.submission(index, ["sleep", "0"])
            stack.submit([item])
            stack.until_ended(index + 1, 30)
        at_rest = landings(stack)
        stop = statistics.median(at_rest) + TEARDOWN
        report.add("landing", "exit to the feed, at rest", at_rest, "s", peer=stop, at_most=1.0)

        began = time.monotonic()
        # All but the same end, spread over ten seconds, however long the launches take.
        lead = together / 40
        for start in range(0, together, 100):
            left = began + lead - time.monotonic()
            batch = range(start, min(start + 100, together))
            ends = [max(left, 1) + 10 * index / together for index in batch]
            send(stack, [
                samples.submission(1000 + index, ["sleep", f"{end:.2f}"])
                for index, end in zip(batch, ends, strict=True)
            ])  # fmt: skip
        stack.until_ended(10 + together, 120 + lead)
        busy = sorted(landings(stack, skip=10))
        report.add("landing", f"exit to the feed, {together:,} in 10 s, median", busy, "s", peer=stop, at_most=1.0)
        slowest = busy[int(len(busy) * 0.99) - 1]
        report.add("landing", f"exit to the feed, {together:,} in 10 s, 99 of 100", slowest, "s", at_most=1.5)


def landings(stack: Stack, skip: int = 0) -> list[float]:
    """Seconds from each container's exit to the row's place on the feed, the first first."""
    rows = sorted(stack.records(), key=lambda row: row["changed_at"])
    return [(row["changed_at"] - row["container_exited_at"]) / 1000 for row in rows][skip:]
