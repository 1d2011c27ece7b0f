"""The task-state function's own work: instructions, CPU and memory per event, against a DynamoDB that does nothing."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import samples
from aws_stub import Aws
from functions import HELLO, PEER, environment, rust
from report import Report
from runtime_api import Function

from wire import Server

# Instructions are counted as the difference of two runs, which leaves the start out.
FEW, MANY = 20, 120
# Millions per event, and the share that a compiler or a library may change unnoticed. CPU time varies more.
INSTRUCTIONS = (1.89, 0.05)


def run(report: Report, events: int, memory_events: int) -> None:
    aws = Aws()
    with Server(aws.answer) as server:
        variables = environment(server.url)
        ours = [cpu(rust("task-state"), variables, events) for _ in range(3)]
        peer = [cpu(PEER, variables, events // 4) for _ in range(3)]
        report.add("task-state", "CPU per event", ours, "µs", peer=peer)
        # An event that is taken and answered, no more: with two calls to DynamoDB none costs less than twice that.
        floor = [cpu([HELLO], variables, events) for _ in range(3)]
        report.add("task-state", "CPU per event of hello-world, which does nothing", floor, "µs", peer=peer)
        if shutil.which("valgrind"):
            few, many = (instructions(variables, count) for count in (FEW, MANY))
            per_event = (many - few) / (MANY - FEW) / 1e6
            report.add("task-state", "instructions per event", per_event, "million", within=INSTRUCTIONS)
        memory(report, variables, memory_events)


def cpu(command: list[str], variables: dict[str, str], events: int) -> float:
    """Microseconds of CPU per event, once warm."""
    with Function(command, variables) as function:
        function.cold_start()
        for index in range(50):
            function.invoke(samples.event(f"warm-{index}", 3, "RUNNING"))
        before = function.cpu()
        for index in range(events):
            function.invoke(samples.event(f"event-{index}", 3, "RUNNING"))
        return (function.cpu() - before) / events * 1e6


def instructions(variables: dict[str, str], events: int) -> int:
    """Instructions of a whole run with so many events."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind.out"
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *rust("task-state")]
        with Function(command, variables) as function:
            function.cold_start()
            for index in range(events):
                function.invoke(samples.event(f"counted-{index}", 3, "RUNNING"))
            subprocess.run(["callgrind_control", "--dump", str(function.process.pid)], check=True, capture_output=True)
            dump = Path(f"{out}.1")
            return int(re.findall(r"^(?:summary|totals): (\d+)", dump.read_text(), re.MULTILINE)[-1])


def memory(report: Report, variables: dict[str, str], events: int) -> None:
    """Memory after many events: whether it grows."""
    with Function(rust("task-state"), variables) as function:
        function.cold_start()
        held = []
        for index in range(events):
            function.invoke(samples.event(f"memory-{index}", 3, "RUNNING"))
            if index + 1 in (events // 10, events):
                held.append(function.memory())
        report.add("task-state", f"peak memory after {events:,} events", function.peak_memory(), "MiB", at_most=40)
        report.add("task-state", f"more memory than after {events // 10:,}", held[1] - held[0], "MiB", at_most=1)
