"""Pools under every fault at once.

Functions and runners are killed at random. Events are dropped, doubled and late. Calls to ECS and DynamoDB fail.
Indexes lag and messages are lost. Priorities are mixed, and profiles change in any order. Each command starts once an
attempt, and ends with what it returned. Every write is a decision that keeps its promises.
"""

from __future__ import annotations

import copy
import json
import random
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import Pools, profile

from local_stack import LocalStack, Record, kill_runner, until
from wire import History, TableFaults, Wire

SEEDS = (1,)
SUBMISSIONS = 40
# Not without end: on a slow machine, a runner would be killed before it has started, again and again.
DISTURBANCES = 100
FLAGS = {
    "timer-scale": 60,
    "time-scale": 10,
    "reconcile-every": 1,
    "teardown-s": 1,
    "duplicate": 0.3,
    "drop": 0.15,
    "delay-ms": "0..2000",
    "fail-start": 0.1,
    "api-error": 0.05,
    "api-latency-ms": 10,
    "consistency-lag-ms": 200,
    "index-lag-ms": "0..400",
    "lost-messages": 0.2,
    "doubled-messages": 0.2,
}
INTERRUPTIONS = ["SpotInterruption", "TerminationNotice", "InfrastructureHealth"]
PROFILES = {
    "one": profile({"max": 4}, max_attempts=3),
    "three": profile({"max": 3, "commands_per_container": 3}, max_attempts=3),
    "again": profile({"max": 3}, max_attempts=3, relaunch_on=INTERRUPTIONS),
}
FUNCTIONS = ("submit", "task-state", "reconcile", "runner-api")


class Chaos:
    def __init__(self, seed: int, pools: Pools) -> None:
        self.pools, self.stack = pools, pools.stack
        self.chance = random.Random(f"pools/{seed}")
        self.over = threading.Event()
        self.counts: Counter[str] = Counter()
        self.profiles: dict[str, Any] = copy.deepcopy(PROFILES)
        # Runners that this has killed, or had interrupted.
        self.harmed: set[str] = set()

    def submit(self) -> dict[str, tuple[str, int]]:
        """Submits all, each until it is accepted; returns profile and exit code by id."""
        planned = {}
        for number in range(SUBMISSIONS):
            id, code = f"chaos-{number}", self.chance.choice([0, 0, 0, 7])
            name = self.chance.choice(list(PROFILES))
            planned[id] = (name, code)
            then = f"sleep 0.{self.chance.randint(0, 9)}; echo {code} >> {self.pools.folder}/{id}.codes; exit {code}"
            item = {"submission_id": id, "profile": name, "command": self.pools.command(id, then)}
            item["priority"] = self.chance.choice([0, 250, 500, 750, 999])
            until(f"{id} is accepted", lambda item=item: self.is_accepted(item))
        return planned

    def is_accepted(self, item: dict[str, object]) -> bool:
        try:
            [answer] = self.stack.submit(item)
        except OSError:
            return False
        return "error" not in answer

    def kill(self) -> None:
        for _ in range(DISTURBANCES):
            if self.over.wait(self.chance.uniform(0.2, 0.8)):
                return
            if self.chance.random() < 0.5:
                function = self.chance.choice(FUNCTIONS)
                processes = [each for each in self.stack.processes() if each["function"] == function]
                busy = [each for each in processes if each["state"] == "busy"]
                victim = self.chance.choice(busy or processes or [None])
                self.counts[f"killed {function}"] += bool(victim and self.stack.kill(victim["pid"]))
                continue
            if self.chance.random() < 0.1:
                self.change_a_profile()
                continue
            running = [task for task in self.stack.tasks() if task["last_status"] == "RUNNING"]
            if not running:
                continue
            runner = self.chance.choice(running)
            self.harmed.add(runner["submission_id"])
            if self.chance.random() < 0.5:
                self.stack.act(runner, "spot-interruption")
                self.counts["interrupted runners"] += 1
            else:
                try:
                    kill_runner(runner["submission_id"])
                    self.counts["killed runners"] += 1
                except (ValueError, AssertionError, ProcessLookupError):
                    # It had ended by itself.
                    pass

    def change_a_profile(self) -> None:
        """Write another version of a profile, which each process of a function reads when it next starts."""
        self.counts["changed profiles"] += 1
        name = self.chance.choice(list(self.profiles))
        run_task = self.profiles[name]["run_task"]
        environment = [{"name": "VERSION", "value": str(self.counts["changed profiles"])}]
        run_task["overrides"] = {"containerOverrides": [{"name": "main", "environment": environment}]}
        whole = self.pools.folder.parent / "profiles.new"
        whole.write_text(json.dumps(self.profiles))
        whole.rename(whole.with_name("profiles.json"))

    def run(self) -> Iterator[str]:
        """Submit and kill until all have ended, and yield the problems."""
        killer = threading.Thread(target=self.kill)
        killer.start()
        try:
            planned = self.submit()
            for id in planned:
                self.stack.until_ended(id)
        finally:
            self.over.set()
            killer.join()
        for id, (name, code) in planned.items():
            yield from (f"{id}: {problem}" for problem in self.problems(self.stack.row(id), name, code))

    def problems(self, row: Record, name: str, code: int) -> Iterator[str]:
        id, attempts = row["submission_id"], int(row["attempt"])
        starts = self.pools.starts(id)
        codes = self.pools.folder / f"{id}.codes"
        returned = {int(line) for line in codes.read_text().split()} if codes.exists() else set()
        if starts > (attempts if name == "again" else 1):
            yield f"started {starts} times: {row}"
        if left := {"request", "due", "check_at", "pool", "rank"} & row.keys():
            yield f"still has {left}"
        if "exit_code" not in row:
            runner = row["pooled"].get("taken", {}).get("runner_id")
            if row["state"] != "failed" or runner not in self.harmed:
                yield f"has no exit code, and its runner came to no harm: {row}"
            return
        seen = int(row["exit_code"])
        if (seen == 0) != (row["state"] == "succeeded") or row["state"] not in ("succeeded", "failed"):
            yield f"is {row['state']} with exit code {seen}"
        # SIGTERM ends a command of an interrupted runner with 143.
        interrupted = seen in (143, 137) and row["pooled"]["taken"]["runner_id"] in self.harmed
        if not interrupted and (seen != code or seen not in returned):
            yield f"has exit code {seen}, and its command returned {returned or 'nothing'}"


def run(seed: int, folder: Path) -> tuple[list[str], Chaos]:
    history, functions_env = History(folder / "history.jsonl"), folder / "functions.env"
    with Wire(["dynamodb"], table_faults=TableFaults(0.04, seed), history=history) as wire:
        flags = FLAGS | {"seed": seed, "env-file": functions_env}
        # With the inputs of all decisions, for the replay. A lookup that counts comes after a call, as in production.
        environment = {"AWS_LAMBDA_LOG_LEVEL": "DEBUG", "ECS_BRIDGE_SEND_WITHIN": 1, **wire.environment()}
        with LocalStack(folder / "stack", flags, profiles=PROFILES, function_env=environment) as stack:
            wire.connect(stack.ready)
            (folder / "stack" / "starts").mkdir()
            chaos = Chaos(seed, Pools(stack, folder / "stack" / "starts"))
            problems = list(chaos.run())
    return problems + history.replay(functions_env, stack.logs()), chaos


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Future[tuple[list[str], Chaos]]]]:
    """Side by side: most of the time they wait."""
    with ThreadPoolExecutor(len(SEEDS)) as pool:
        yield {seed: pool.submit(run, seed, tmp_path_factory.mktemp("chaos")) for seed in SEEDS}


@pytest.mark.parametrize("seed", SEEDS)
def test_each_command_starts_once_with_its_exit_code(
    seed: int, runs: dict[int, Future[tuple[list[str], Chaos]]]
) -> None:
    problems, chaos = runs[seed].result()
    print(chaos.counts)
    assert not problems, "\n".join(problems)
    assert chaos.harmed
    assert any(chaos.counts[f"killed {function}"] for function in FUNCTIONS)
