"""Local stacks with pools, for the tests of this folder."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from local_stack import LocalStack, Record, until

RUN_TASK = {
    "taskDefinition": "demo-pool",
    "launchType": "FARGATE",
    "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"]}},
}
# A runner asks ten times a second: a test waits for no more than that.
QUICK = {"poll_interval_ms": 100, "idle_timeout": 30}


def profile(pool: Mapping[str, object], **policy: object) -> dict[str, object]:
    allowed = ["overrides.containerOverrides.environment", "overrides.cpu"]
    return {"container_name": "main", "run_task": RUN_TASK, "allow_overrides": allowed, "pool": QUICK | pool} | policy


PROFILES = {
    "one": profile({"max": 1}),
    "two": profile({"max": 2}),
    "five": profile({"max": 5}),
    "ready": profile({"max": 3, "min_idle": 2}),
    "three-each": profile({"max": 1, "commands_per_container": 3}),
    "again": profile({"max": 2}, relaunch_on=["SpotInterruption"], max_attempts=2),
    "broken": profile({"max": 2, "runner": ["sh", "-c", "exit 3"]}),
}


def is_idle(runner: Mapping[str, Any]) -> bool:
    """Whether a runner has polled, serves nothing, and is not closing."""
    return "incarnation" in runner and "serves" not in runner and not runner["closing"]


class Pools:
    """A stack with pools, and helpers for tests."""

    def __init__(self, stack: LocalStack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder
        self.names = itertools.count()

    def submit(self, profile: str, command: list[str], **more: object) -> str:
        id = f"s{next(self.names)}"
        [answer] = self.stack.submit({"submission_id": id, "command": command, "profile": profile, **more})
        assert "error" not in answer, answer
        return id

    def command(self, id: str, then: str = "exit 0") -> list[str]:
        """A command that leaves a line in the file of its name each time that it starts."""
        return ["sh", "-c", f"echo $ECS_BRIDGE_SUBMISSION_ID started >> {self.folder}/{id}; {then}"]

    def starts(self, name: str) -> int:
        file = self.folder / name
        return len(file.read_text().splitlines()) if file.exists() else 0

    def until_started(self, name: str, times: int = 1) -> None:
        until(f"{name} has started", lambda: self.starts(name) >= times)

    def ended(self, id: str) -> Record:
        return self.stack.until_ended(id)

    def runners(self, profile: str) -> list[Record]:
        """The rows of a profile's runners, the first created first."""
        rows = [row for row in self.stack.rows() if row["submission_id"].startswith("runner-")]
        return sorted(
            (row for row in rows if row["profile"] == profile),
            key=lambda row: (row["created_at"], row["submission_id"]),
        )

    def alive(self, profile: str) -> list[Record]:
        return [row for row in self.runners(profile) if "check_at" in row]

    def until_idle(self, profile: str, count: int = 1) -> list[Record]:
        """Wait for idle runners, and return their rows."""

        def idle() -> list[Record] | None:
            rows = [row for row in self.alive(profile) if is_idle(row["runner"])]
            return rows if len(rows) >= count else None

        return until(f"{count} runners of {profile} are idle", idle)

    def task(self, runner: str) -> dict[str, Any]:
        [task] = self.stack.tasks(runner)
        return task

    def act(self, runner: str, action: str) -> None:
        self.stack.act(self.task(runner), action)

    def row(self, profile: str) -> Record:
        found = self.stack.table.get_item(Key={"submission_id": f"#pool/{profile}"}, ConsistentRead=True)
        return found.get("Item", {})

    def set(self, profile: str, **values: object) -> None:
        """Change the pool's row as an operator does."""
        names = {f"#{name}": name for name in values}
        numbers = {name: Decimal(value) if type(value) is int else value for name, value in values.items()}
        self.stack.table.update_item(
            Key={"submission_id": f"#pool/{profile}"},
            UpdateExpression="SET " + ", ".join(f"#{name} = :{name}" for name in values) + " ADD rev :one",
            ExpressionAttributeNames=names,
            ExpressionAttributeValues={f":{name}": value for name, value in numbers.items()} | {":one": 1},
        )


@contextmanager
def starting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Pools]]:
    """Yield a function that starts stacks, and end them at exit."""
    with ExitStack() as stacks:

        def start(profiles: object = PROFILES, flags: Mapping[str, object] = {}) -> Pools:
            folder = tmp_path_factory.mktemp("pools")
            flags = {"reconcile-every": 1, "time-scale": 10, "teardown-s": 1} | flags
            stack = stacks.enter_context(LocalStack(folder, flags, profiles=profiles))
            (folder / "starts").mkdir()
            return Pools(stack, folder / "starts")

        yield start


@pytest.fixture
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Pools]]:
    """Starts stacks that end with the test: `start(PROFILES, {"timer-scale": 60})`."""
    with starting(tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="session")
def pools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pools]:
    """A stack that the tests share."""
    with starting(tmp_path_factory) as start:
        yield start()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]
