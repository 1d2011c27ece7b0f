"""The main job, before your eyes: a handful of commands submitted to the bridge on this machine.

Starts the local stack, submits, shows each submission going through its states (live on a terminal, line by line in a
pipe), and ends with a table. Then runs one command in a container of its own and on a pool whose container waits. Exit
code 0 only if each came out as it should. Arguments are further flags of `ecs-bridge local`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = Path(os.environ.get("ECS_BRIDGE_PROGRAM", ROOT / "target" / "debug" / "ecs-bridge"))
ENDS = {"succeeded", "failed", "rejected", "expired", "cancelled", "lost"}
LONGEST = 120.0
# Seconds that a container takes to start here. On Fargate it is 30 to 60.
START = 5

NETWORK = {"awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"]}}


def profile(task_definition: str, **policy: object) -> dict[str, object]:
    run_task = {"taskDefinition": task_definition, "launchType": "FARGATE", "networkConfiguration": NETWORK}
    return {"container_name": "main", "run_task": run_task, **policy}


PROFILES = {
    "default": profile("demo"),
    "once": profile("demo", max_attempts=1),
    # Its essential sidecar exits with 1 when the task is torn down.
    "sidecar": profile("demo-sidecar"),
    # A container waits for commands.
    "pool": profile("demo-pool", pool={"max": 2, "min_idle": 1}),
}


@dataclass
class Show:
    """One command, and how it must come out."""

    submission_id: str
    command: list[str]
    state: str
    exit_code: int | None
    stop_code: str
    profile: str = "default"
    record: dict[str, Any] = field(default_factory=dict)
    seconds_to_record: float | None = None

    def is_over(self) -> bool:
        """Terminal, and all is known: the task's own end comes after its container's."""
        return self.record.get("state") in ENDS and ("stopped_at" in self.record or "task_arn" not in self.record)

    def is_right(self) -> bool:
        seen = (self.record.get("state"), self.record.get("exit_code"), self.record.get("stop_code"))
        return seen == (self.state, self.exit_code, self.stop_code)


SHOWS = [
    Show("succeeds", ["sh", "-c", "sleep 1; echo hello"], "succeeded", 0, "EssentialContainerExited"),
    Show("exits-7", ["sh", "-c", "sleep 1; exit 7"], "failed", 7, "EssentialContainerExited"),
    Show("is-killed", ["sh", "-c", "sleep 1; kill -KILL $$"], "failed", 137, "EssentialContainerExited"),
    Show("never-starts", ["/no/such/program"], "failed", None, "TaskFailedToStart", "once"),
    Show("sidecar-fails", ["sh", "-c", "echo done"], "succeeded", 0, "EssentialContainerExited", "sidecar"),
]


class Bridge:
    """submit, by its URL, or invoked where it has none."""

    def __init__(self, ready: dict[str, str]) -> None:
        self.url = ready.get("submit_url")
        self.invoke = f"{ready['lambda_url']}/2015-03-31/functions/{ready['submit_function']}/invocations"

    def submit(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        url = f"{self.url}/v1/submissions" if self.url else self.invoke
        return self.call(url, {"submissions": items})["submissions"]

    def show(self, submission_id: str) -> dict[str, Any]:
        if self.url:
            return self.call(f"{self.url}/v1/submissions/{submission_id}")
        return self.call(self.invoke, {"submission_id": submission_id})

    @staticmethod
    def call(url: str, body: object | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(url, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


class Screen:
    """A line for each submission: rewritten in place on a terminal, printed at each change elsewhere."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()
        self.drawn = 0
        self.said: dict[str, str] = {}
        self.began = time.monotonic()

    def draw(self) -> None:
        lines = [self.line(show) for show in SHOWS]
        if self.live:
            up = f"\x1b[{self.drawn}A" if self.drawn else ""
            print(up + "".join(f"\x1b[2K{line}\n" for line in lines), end="", flush=True)
            self.drawn = len(lines)
            return
        for show, line in zip(SHOWS, lines, strict=True):
            if self.said.get(show.submission_id) != line:
                self.said[show.submission_id] = line
                print(f"{time.monotonic() - self.began:6.1f} s  {line}", flush=True)

    @staticmethod
    def line(show: Show) -> str:
        record = show.record
        words = [
            f"{show.submission_id:<14}",
            f"{record.get('state', '-'):<10}",
            f"{record.get('last_status', '-'):<14}",
        ]
        if "exit_code" in record:
            words.append(f"exit code {record['exit_code']}")
        return " ".join(words).rstrip()


def table() -> str:
    head = ["id", "state", "exit code", "stop code", "reason", "exit to record"]
    rows = [head]
    for show in SHOWS:
        record, seconds = show.record, show.seconds_to_record
        rows.append(
            [
                show.submission_id,
                record["state"],
                str(record.get("exit_code", "-")),
                record.get("stop_code", "-"),
                record.get("reason", "-"),
                "-" if seconds is None else f"{seconds:.3f} s",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def watch(bridge: Bridge) -> None:
    screen = Screen()
    until = time.monotonic() + LONGEST
    while not all(show.is_over() for show in SHOWS):
        if time.monotonic() > until:
            sys.exit(f"not over after {LONGEST:.0f} s: {[show.submission_id for show in SHOWS if not show.is_over()]}")
        for show in SHOWS:
            if show.is_over():
                continue
            before, show.record = show.record, bridge.show(show.submission_id)
            ended = show.record["state"] in ENDS and before.get("state") not in ENDS
            if ended and "container_exited_at" in show.record:
                # Of the write that ended it; the task's own end writes once more.
                show.seconds_to_record = (show.record["updated_at"] - show.record["container_exited_at"]) / 1000
        screen.draw()
        time.sleep(0.05)


def compare(bridge: Bridge) -> bool:
    """Runs one command in a container of its own and on the pool, and prints how long each took to its exit."""
    print("\nThe same command once more, in a container of its own and on a pool:")
    for name in ("default", "pool"):
        [answer] = bridge.submit([{"submission_id": f"on-{name}", "command": ["true"], "profile": name}])
        until = time.monotonic() + LONGEST
        while (record := bridge.show(answer["submission_id"]))["state"] not in ENDS:
            if time.monotonic() > until:
                sys.exit(f"{answer['submission_id']} is not over after {LONGEST:.0f} s")
            time.sleep(0.05)
        seconds = (record["container_exited_at"] - record["created_at"]) / 1000
        print(f"  {name:<8} {record['state']:<10} {seconds:5.1f} s from the submission to the exit")
        if record["state"] != "succeeded":
            return False
    print(f"A container takes {START} s to start here, and 30 to 60 s on Fargate.")
    return True


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="ecs-bridge-demo-") as folder:
        ready, profiles = Path(folder) / "ready.json", Path(folder) / "profiles.json"
        profiles.write_text(json.dumps(PROFILES))
        options = ["--ready-file", ready, "--profiles", profiles, "--log-dir", Path(folder) / "logs"]
        options += ["--pull-s", str(START), "--reconcile-every", "2", *sys.argv[1:]]
        stack = subprocess.Popen([PROGRAM, "local", *options], stdout=subprocess.DEVNULL)
        try:
            while not ready.exists():
                if stack.poll() is not None:
                    return stack.returncode or 1
                time.sleep(0.05)
            bridge = Bridge(json.loads(ready.read_text()))
            print("Submissions:")
            for show in SHOWS:
                print(f"  {show.submission_id:<14} {' '.join(show.command)}")
            print()
            items = [
                {"submission_id": show.submission_id, "command": show.command, "profile": show.profile}
                for show in SHOWS
            ]
            for answer in bridge.submit(items):
                if "error" in answer:
                    sys.exit(f"{answer['submission_id']}: {answer['error']['message']}")
            watch(bridge)
            print(f"\n{table()}")
            compared = compare(bridge)
        finally:
            stack.terminate()
            stack.wait()
    wrong = [show for show in SHOWS if not show.is_right()]
    for show in wrong:
        print(f"{show.submission_id} should be {show.state}, exit code {show.exit_code}, {show.stop_code}")
    is_right = compared and not wrong
    print("Each came out as it should." if is_right else "Not every one came out as it should.")
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
