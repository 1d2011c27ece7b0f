"""A run of the local stack under faults, and an audit of every submission at its end.

    python tests/protocol/chaos/run.py --seed 1 --submissions 300

The seed decides what is submitted, stopped and repeated, which calls and events fail and when a process is killed. Only
how processes and threads interleave depends on the machine. Exits with 1, and keeps all files, if any submission was
lost, doubled or recorded wrongly.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import threading
import time
import urllib.error
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "lib"))

from audit import audit
from plan import PROFILES, Planned, plan

from local_stack import PROGRAM, LocalStack, Record, until
from wire import History, TableFaults, Wire

# The protocol's minutes become seconds. Divided by 60, these are a check after 12 s and then every 20 s, a lease of
# 3 s, and unanswered launches repeated for 50 s. A claimed RunTask is sent within 1 s or not at all, so 4 s lie between
# the last one and a lookup that counts. Large runs keep the machine busy, and get three times as long.
TIMER_SCALE = {"few": 60, "many": 20}
MANY = 1000
# ECS is faster too, but by a sixth of that: it remembers a stopped task and its client token six times as long. So a
# token outlives all repeats of its launch however late they are, and a task whose events are lost is described in time.
ECS_SLOWER = 6
FUNCTIONS = ("submit", "task-state", "reconcile")
CALLERS = 4
BATCH = 40


@dataclass
class Faults:
    """The rates of faults, as shares of events, tasks or calls."""

    duplicate: float = 0.3
    drop: float = 0.15
    delay_ms: str = "0..3000"
    fail_start: float = 0.12
    api_error: float = 0.06
    # Refused, and launched all the same.
    launched_failure: float = 0.02
    table_error: float = 0.06
    consistency_lag_ms: int = 300
    # Between two kills, at least and at most, in parts of a lease.
    kill_every: tuple[float, float] = (0.03, 0.3)
    # The shares of a caller's batches that are sent again after their answer, and with other content.
    repeat: float = 0.2
    conflict: float = 0.1


@dataclass
class Run:
    """One run; its threads share it."""

    seed: int
    submissions: int
    rate: float
    timer_scale: float
    folder: Path
    # The functions of an earlier version: each process is one of them or a current one, at random.
    earlier: Path | None = None
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        self.planned = {planned.submission_id: planned for planned in plan(self.seed, self.submissions)}
        self.time_scale = self.timer_scale / ECS_SLOWER
        self.lease = 180 / self.timer_scale
        self.counts: Counter[str] = Counter()
        self.counting = threading.Lock()
        self.over = threading.Event()
        self.sent_at: dict[str, float] = {}
        self.first_seen: dict[str, Record] = {}
        self.problems: list[str] = []
        self.errors: list[BaseException] = []
        self.table_faults = TableFaults(self.faults.table_error, self.seed)
        self.history = History(self.folder / "history.jsonl")
        self.env_file = self.folder / "functions.env"
        self.versions = self.folder / "versions"

    def flags(self) -> dict[str, object]:
        faults = self.faults
        flags: dict[str, object] = {"functions-dir": self.mixed_functions(self.earlier)} if self.earlier else {}
        return flags | {
            "env-file": self.env_file,
            "simulate": True,
            "timer-scale": self.timer_scale,
            "time-scale": self.time_scale,
            "reconcile-every": 2,
            "teardown-s": 0.5 * self.time_scale,
            "seed": self.seed,
            "duplicate": faults.duplicate,
            "drop": faults.drop,
            "delay-ms": faults.delay_ms,
            "fail-start": faults.fail_start,
            "api-error": faults.api_error,
            "launched-failure": faults.launched_failure,
            "api-latency-ms": 10,
            "consistency-lag-ms": faults.consistency_lag_ms,
            # Less than the bridge assumes.
            "throttle": f"{0.7 * self.rate}/{self.rate / 2}",
            "capacity": int(self.rate),
        }

    def count(self, what: str, number: int = 1) -> None:
        with self.counting:
            self.counts[what] += number

    def mixed_functions(self, earlier: Path) -> Path:
        """Functions that are of the earlier or of the current version, which each process chooses as it starts."""
        mixed = self.folder / "functions"
        mixed.mkdir()
        for function in FUNCTIONS:
            program = mixed / function
            program.write_text(
                "#!/bin/sh\n"
                "case $(od -An -N1 -tu1 /dev/urandom) in\n"
                f"*[02468]) echo earlier {function} >> {self.versions}; exec {earlier / function} ;;\n"
                f"*) echo current {function} >> {self.versions}; exec {PROGRAM.parent / function} ;;\n"
                "esac\n"
            )
            program.chmod(0o755)
        return mixed

    def go(self) -> list[str]:
        """Run everything, and return the problems."""
        with Wire(["dynamodb"], table_faults=self.table_faults, history=self.history) as wire:
            environment = {
                "ECS_BRIDGE_LAUNCH_RATE": self.rate,
                "ECS_BRIDGE_LAUNCH_BURST": int(2 * self.rate),
                # A lookup that counts comes after it, as in production.
                "ECS_BRIDGE_SEND_WITHIN": 60 / self.timer_scale,
                # With the inputs of all decisions, for the replay.
                "AWS_LAMBDA_LOG_LEVEL": "DEBUG",
                **wire.environment(),
            }
            with LocalStack(self.folder, self.flags(), profiles=PROFILES, function_env=environment) as self.stack:
                wire.connect(self.stack.ready)
                self.run()
        self.counts |= {f"DynamoDB: {fault}": number for fault, number in self.table_faults.counts.items()}
        if self.earlier:
            self.counts |= Counter(f"started {line}" for line in self.versions.read_text().splitlines())
        flags = ["--earlier-version"] if self.earlier else []
        return self.problems + self.history.replay(self.env_file, self.stack.logs(), *flags)

    def run(self) -> None:
        work = list(self.planned.values())
        parts = [self.thread(self.call, work[caller::CALLERS], caller) for caller in range(CALLERS)]
        stopper = self.thread(self.stop)
        others = [self.thread(self.kill), self.thread(self.watch)]
        try:
            for part in [*parts, stopper]:
                part.join()
            self.raise_errors()
            until("every submission is on the feed", self.all_seen, seconds=self.longest())
        except AssertionError as error:
            missing = [planned for id, planned in self.planned.items() if id not in self.first_seen]
            rows = {row["submission_id"]: row for row in self.stack.rows()}
            self.problems += [str(error)]
            self.problems += [f"not ended: {planned}: {rows.get(planned.submission_id)}" for planned in missing[:20]]
        finally:
            self.over.set()
            for part in others:
                part.join()
        self.raise_errors()
        if not self.problems:
            self.settle()

    def longest(self) -> float:
        """Seconds after which a run that has not ended never will: ten times the launch rate's time and an hour."""
        return 10 * (self.submissions / self.rate + 3600 / self.timer_scale)

    def thread(self, work: Callable[..., None], *arguments: object) -> threading.Thread:
        def run() -> None:
            try:
                work(*arguments)
            except BaseException as error:
                self.errors.append(error)
                self.over.set()

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def raise_errors(self) -> None:
        if self.errors:
            raise self.errors[0]

    def all_seen(self) -> bool:
        self.raise_errors()
        return len(self.first_seen) == len(self.planned)

    # Callers retry unanswered calls, and sometimes answered ones.

    def call(self, work: list[Planned], caller: int) -> None:
        chance = random.Random(f"caller/{self.seed}/{caller}")
        while work and not self.over.is_set():
            size = chance.randint(1, BATCH)
            batch, work = work[:size], work[size:]
            now = time.time()
            items = [planned.item(int(now * 1000)) for planned in batch]
            self.sent_at |= {planned.submission_id: now for planned in batch}
            self.send(items)
            if chance.random() < self.faults.repeat:
                self.count("answered submissions sent again", len(items))
                self.send(items)
            if chance.random() < self.faults.conflict:
                self.send_other_content(items[0])

    def send(self, items: list[dict[str, Any]]) -> None:
        """Sends until each item has its state."""
        while items and not self.over.is_set():
            answers = self.answered(partial(self.stack.submit, *items))
            if answers is None:
                self.count("unanswered submissions sent again", len(items))
                continue
            for item, answer in zip(items, answers, strict=True):
                error = answer.get("error", {}).get("code", "unavailable")
                if "state" not in answer and error != "unavailable":
                    self.problems.append(f"{item['submission_id']} was not accepted: {answer}")
            items = [item for item, answer in zip(items, answers, strict=True) if "error" in answer]

    def send_other_content(self, item: dict[str, Any]) -> None:
        self.count("known ids sent with other content")
        while not self.over.is_set():
            answers = self.answered(lambda: self.stack.submit({**item, "command": ["echo", "something else"]}))
            if answers and answers[0].get("error", {}).get("code") != "unavailable":
                planned, answer = self.planned[item["submission_id"]], answers[0]
                # The record of a stop for an unknown id fits any content.
                fits = answer.get("state") == "cancelled" if planned.stop_after is not None else False
                if answer.get("error", {}).get("code") != "conflict" and not fits:
                    self.problems.append(f"{item['submission_id']} was accepted with other content: {answer}")
                return

    def answered(self, ask: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]] | None:
        try:
            return ask()
        except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
            code = error.code if isinstance(error, urllib.error.HTTPError) else None
            if code is not None and code < 500:
                raise
            self.over.wait(0.1)
            return None

    def stop(self) -> None:
        """Sends each stop at its time, some before their submission."""
        waiting = {id: planned.stop_after for id, planned in self.planned.items() if planned.stop_after is not None}
        while waiting and not self.over.is_set():
            now = time.time()
            due = [id for id, after in waiting.items() if after < 0 or now - self.sent_at.get(id, now) >= after][:50]
            answers = self.answered(partial(self.stack.stop, *due)) if due else None
            for answer in answers or []:
                if "state" in answer:
                    del waiting[answer["submission_id"]]
                    self.count("stops")
            self.over.wait(0.1)

    # Kills.

    def kill(self) -> None:
        chance = random.Random(f"kill/{self.seed}")
        while not self.over.wait(self.lease * chance.uniform(*self.faults.kill_every)):
            function = chance.choice(FUNCTIONS)
            processes = [process for process in self.stack.processes() if process["function"] == function]
            busy = [process for process in processes if process["state"] == "busy"]
            victim = chance.choice(busy or processes or [None])
            if victim and self.stack.kill(victim["pid"]):
                self.count(f"killed {function}, {'at work' if busy else 'idle'}")

    # The feed, as an executor reads it.

    def watch(self) -> None:
        since = 0
        while True:
            last = self.over.is_set()
            for record in self.feed(since):
                id, end = (
                    record["submission_id"],
                    {key: record.get(key) for key in ("state", "exit_code", "changed_at")},
                )
                if self.first_seen.setdefault(id, end) != end:
                    self.problems.append(f"{id} changed after its end: {self.first_seen[id]}, then {end}")
                since = max(since, int(record["changed_at"]))
            if last:
                return
            self.over.wait(1)

    def feed(self, since: int) -> list[Record]:
        query = {
            "IndexName": "feed",
            "KeyConditionExpression": "feed = :feed AND changed_at >= :since",
            "ExpressionAttributeValues": {":feed": self.stack.ready["deployment"], ":since": max(0, since - 10_000)},
        }
        records, page = [], self.stack.table.query(**query)
        while True:
            records += page["Items"]
            if "LastEvaluatedKey" not in page:
                return records
            page = self.stack.table.query(**query, ExclusiveStartKey=page["LastEvaluatedKey"])

    # The end.

    def settle(self) -> None:
        """Waits for the last events, then audits everything."""
        stack = self.stack

        def is_quiet() -> bool:
            pending = stack.invocations()["task-state"]["events_pending"]
            untold = [row for row in stack.rows() if "pending_notifications" in row]
            return pending == 0 and not untold and all(task["last_status"] == "STOPPED" for task in stack.tasks())

        try:
            until("no task is left, every event is delivered and every end told", is_quiet, every=0.5)
        except AssertionError as error:
            self.problems.append(str(error))
        self.counts["tasks"] = len(stack.tasks())
        told = stack.notifications()
        self.counts["ends told"] = len(told)
        self.counts["of these told again"] = len(told) - len({(one["end"]["submission_id"], one["to"]) for one in told})
        self.counts |= {f"local: {fault}": number for fault, number in stack.faults().items()}
        for function, tally in stack.invocations().items():
            for what in ("invocations", "errors", "retries", "abandoned"):
                self.counts[f"{function}: {what}"] = tally[what]
        transitions, alarms = read_logs(stack.logs())
        self.counts |= {f"alarm: {alarm}": number for alarm, number in alarms.items()}
        self.problems += audit(
            self.planned, stack.rows(), stack.tasks(), self.first_seen, transitions, alarms, stack.notifications()
        )

    def summary(self, seconds: float) -> str:
        states = Counter(end["state"] for end in self.first_seen.values())
        lines = [f"seed {self.seed}: {self.submissions} submissions in {seconds:.0f} s"]
        lines.append("  states: " + ", ".join(f"{number} {state}" for state, number in states.most_common()))
        lines += [f"  {what}: {number}" for what, number in sorted(self.counts.items()) if number]
        return "\n".join(lines)


def read_logs(files: list[Path]) -> tuple[dict[str, list[tuple[str, str]]], Counter[str]]:
    """The state changes that the functions logged, by submission, and the count of each error."""
    transitions: dict[str, list[tuple[str, str]]] = {}
    alarms: Counter[str] = Counter()
    for file in files:
        for line in file.open(errors="replace"):
            if '"transition"' not in line and '"ERROR"' not in line:
                continue
            try:
                entry = json.loads(line)
            except ValueError:
                # Cut by a kill.
                continue
            fields = entry.get("fields", {})
            if fields.get("message") == "transition":
                transitions.setdefault(fields["submission_id"], []).append((fields["from"], fields["to"]))
            elif entry.get("level") == "ERROR":
                alarms[fields.get("message", "?")] += 1
    return transitions, alarms


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--submissions", type=int, default=300)
    parser.add_argument("--rate", type=float, default=40, help="launches a second that the bridge assumes")
    parser.add_argument("--timer-scale", type=float, help="by what the protocol's times are divided")
    parser.add_argument(
        "--table-error", type=float, default=Faults.table_error, help="share of DynamoDB's calls that fail"
    )
    parser.add_argument("--earlier", type=Path, help="folder with the functions of an earlier version, which take part")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ecs-bridge-chaos-"))
    timer_scale = arguments.timer_scale or TIMER_SCALE["many" if arguments.submissions > MANY else "few"]
    faults = Faults(table_error=arguments.table_error)
    run = Run(arguments.seed, arguments.submissions, arguments.rate, timer_scale, folder, arguments.earlier, faults)
    began = time.monotonic()
    problems = run.go()
    print(run.summary(time.monotonic() - began))
    if problems:
        print(*problems[:50], sep="\n")
        print(f"{len(problems)} problems; logs in {folder}")
        target = "chaos-versions" if arguments.earlier else "chaos"
        print(f"again: make {target} SEED={arguments.seed} N={arguments.submissions}")
        return 1
    print("Every submission is accounted for.")
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
