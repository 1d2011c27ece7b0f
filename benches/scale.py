"""Scale: many submissions in simulated time, 2,000 in flight, and whether what each costs grows with their number."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import samples
from launch import send
from report import Report
from stack import Stack

IN_FLIGHT = 2000
# A minute of a task's life in a second.
TIME_SCALE = 60


def run(report: Report, submissions: int) -> None:
    flags: dict[str, Any] = {
        "simulate": True,
        "time_scale": TIME_SCALE,
        "reconcile_every": 60,
        "provision_s": 20,
        "pull_s": 20,
        "teardown_s": 25,
        "no_limit": True,
    }
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), proxies=False, **flags) as stack:
        began, sent, ended = time.monotonic(), 0, 0
        tenths: list[tuple[int, float, int]] = []
        while ended < submissions:
            room = min(IN_FLIGHT - (sent - ended), submissions - sent) // 100 * 100
            if room > 0:
                last = sent + min(room, 400)
                send(stack, [samples.submission(index, ["sleep", "240"]) for index in range(sent, last)])
                sent = last
            else:
                time.sleep(0.2)
            ended = stack.ended()
            if ended >= (len(tenths) + 1) * submissions // 10:
                invocations = sum(counts["invocations"] for counts in stack.invocations().values())
                tenths.append((ended, sum(stack.cpu().values()), invocations))
        seconds = time.monotonic() - began
        # The first tenth is launched before any has ended: the steady state begins after it.
        (early, early_cpu, early_calls), (middle, middle_cpu, middle_calls) = tenths[0], tenths[len(tenths) // 2]
        late, late_cpu, late_calls = tenths[-1]
        halves = [
            ((middle_cpu - early_cpu) / (middle - early), (middle_calls - early_calls) / (middle - early)),
            ((late_cpu - middle_cpu) / (late - middle), (late_calls - middle_calls) / (late - middle)),
        ]
        name = f"{submissions:,}, {IN_FLIGHT:,} in flight"
        report.add("scale", f"{name}, CPU of the functions per task", late_cpu / late * 1000, "ms")
        report.add(
            "scale", f"{name}, second half by first, CPU per task", halves[1][0] / halves[0][0], "times", at_most=1.2
        )
        report.add("scale", f"{name}, invocations per task", late_calls / late, "")
        report.add(
            "scale", f"{name}, second half by first, invocations", halves[1][1] / halves[0][1], "times", at_most=1.1
        )
        for function, held in stack.memory().items():
            report.add("scale", f"{name}, peak memory of {function}", held, "MiB", at_most=40)
        report.add("scale", f"{name}, tasks a second on this machine", submissions / seconds, "")
        lost = submissions - sum(row["state"]["S"] == "succeeded" for row in stack.feed().values())
        report.add("scale", f"{name}, not succeeded", lost, "", at_most=0)
