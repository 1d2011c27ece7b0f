"""Each function fails at its first, second, … effect and is run again: its submission ends the same.

An effect is a call that changes something outside of the process: a write to the table, RunTask, StopTask, an
invocation. The function dies before it or just after it; or it is a write that DynamoDB refuses, or one whose answer is
lost. No schedule runs reconcile: it is invoked by hand.
"""

from __future__ import annotations

import itertools
import time
import urllib.error
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest

from local_stack import TERMINAL, FunctionError, LocalStack, Record, until
from wire import DEATHS, Cut, Fault, Wire

# A lease of 3 s, the first check after 12 s; ECS remembers for 6 minutes.
FLAGS = {"reconcile-every": 0, "processes": 1, "simulate": True, "timer-scale": 60, "time-scale": 10}
RUN_TASK = {
    "taskDefinition": "demo",
    "launchType": "FARGATE",
    "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"]}},
}
PROFILES = {
    "default": {"container_name": "main", "run_task": RUN_TASK},
    "short": {"container_name": "main", "run_task": RUN_TASK, "run_timeout": 1},
    "again": {"container_name": "main", "run_task": RUN_TASK, "relaunch_on": ["SpotInterruption"], "max_attempts": 2},
    # Its tasks have no events: they would answer an unanswered launch.
    "silent": {
        "container_name": "main",
        "run_task": {**RUN_TASK, "tags": [{"key": "ecs-bridge-local:shape", "value": "no-events"}]},
    },
}
# A conflict is the refusal that the SDK does not retry: the function has to deal with it.
FAULTS = (Fault.DIES_BEFORE, Fault.DIES_AFTER, Fault.CONFLICT, Fault.ANSWER_LOST)
EXIT_3 = ["sh", "-c", "exit 3"]
FOREVER = ["sleep", "100000"]


class Bench:
    """A stack, and the steps of which flows are made."""

    def __init__(self, stack: LocalStack) -> None:
        self.stack = stack

    def submit(self, id: str, command: list[str] = EXIT_3, profile: str = "default", **more: object) -> None:
        accepted(self.stack.submit({"submission_id": id, "command": command, "profile": profile, **more}))

    def launch(self, id: str, command: list[str] = EXIT_3, profile: str = "default", **more: object) -> None:
        self.submit(id, command, profile, **more)
        if not self.stack.tasks(id):
            raise TooLate

    def stop(self, id: str) -> None:
        accepted(self.stack.stop(id))

    def reconcile(self, _: str = "") -> None:
        self.stack.invoke("reconcile")

    def task_state(self, id: str) -> None:
        """The last event of the submission's task, as EventBridge would deliver it."""
        self.stack.invoke("task-state", self.events(id)[-1])

    def events(self, id: str) -> list[dict[str, Any]]:
        return [event for event in self.stack.events() if event["detail"].get("startedBy", "").split("/")[1:2] == [id]]

    def until_task(self, id: str, last_status: str) -> None:
        def is_there() -> bool:
            return any(task["last_status"] == last_status for task in self.stack.tasks(id))

        until(f"the task of {id} is {last_status}", is_there)

    def no_answer(self, id: str) -> None:
        self.stack.rule(submission_id=id, answer="none")


def accepted(answers: list[dict[str, Any]]) -> None:
    [answer] = answers
    if answer.get("error", {}).get("code") == "unavailable":
        # The caller retries it, as after a death.
        raise FunctionError(answer)
    assert "error" not in answer, answer


class TooLate(Exception):
    """The machine was too slow for the flow to begin here: a claimed RunTask was sent late, or a lease expired."""


def nothing(_: Bench, __: str) -> None:
    pass


@dataclass(frozen=True)
class Flow:
    """Something that one function does, and how its submission ends however often that function failed."""

    name: str
    function: str
    act: Callable[[Bench, str], None]
    state: str
    exit_code: int | None
    # The least number of its effects where nothing fails: with fewer, the cuts are not where they should be.
    effects: int
    before: Callable[[Bench, str], None] = nothing
    starts: int = 1
    attempt: int = 1
    # Whether EventBridge delivers events; else the flow needs none, or delivers them itself.
    events: bool = True
    timer_scale: int = 60
    # The number of notifications.
    told: int = 0


def launched(
    command: list[str] = EXIT_3, status: str = "RUNNING", profile: str = "default"
) -> Callable[[Bench, str], None]:
    def before(bench: Bench, id: str) -> None:
        bench.launch(id, command, profile)
        bench.until_task(id, status)

    return before


def no_launch_token(bench: Bench, _: str) -> None:
    bench.stack.set_launch_rate(1)


def throttled(bench: Bench, id: str) -> None:
    bench.stack.rule(submission_id=id, error={"code": "ThrottlingException", "message": "Rate exceeded"})


def queued(bench: Bench, id: str) -> None:
    throttled(bench, id)
    bench.submit(id)
    if bench.stack.row(id)["state"] != "queued":
        raise TooLate


def unanswered(command: list[str] = EXIT_3) -> Callable[[Bench, str], None]:
    """RunTask happened, and its answer was lost."""

    def before(bench: Bench, id: str) -> None:
        bench.no_answer(id)
        bench.launch(id, command, "silent")
        assert bench.stack.row(id)["state"] == "launching"

    return before


def unanswered_and_stopped(bench: Bench, id: str) -> None:
    unanswered(FOREVER)(bench, id)
    bench.stop(id)


def failed_to_start(bench: Bench, id: str) -> None:
    bench.stack.rule(submission_id=id, shapes="cannot-pull")
    bench.launch(id)
    bench.until_task(id, "STOPPED")


def interrupted(bench: Bench, id: str) -> None:
    bench.stack.rule(submission_id=id, shapes="spot-interruption")
    bench.launch(id, FOREVER, "again")
    bench.until_task(id, "STOPPED")
    # The next attempt runs to its end.
    bench.stack.rule(submission_id=id, shapes="infrastructure-health")


def orphaned(bench: Bench, id: str) -> None:
    """A live task of a submission that has ended."""
    bench.stop(id)
    ready = bench.stack.ready
    keys = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    ecs = boto3.client("ecs", endpoint_url=ready["ecs_url"], region_name=ready["region"], **keys)
    overrides = {"containerOverrides": [{"name": "main", "command": FOREVER}]}
    ecs.run_task(cluster=ready["cluster"], startedBy=f"{ready['deployment']}/{id}/1", overrides=overrides, **RUN_TASK)
    bench.until_task(id, "RUNNING")


def stop_refused(bench: Bench, id: str) -> None:
    launched(FOREVER)(bench, id)
    bench.stack.rule(operation="StopTask", error={"code": "AccessDeniedException", "message": "not now"})
    bench.stop(id)


def forgotten(bench: Bench, id: str) -> None:
    bench.stack.rule(submission_id=id, shapes="forgotten")
    launched(EXIT_3, "STOPPED")(bench, id)


def listeners(id: str) -> dict[str, str]:
    return {"event_bus": "default", "task_token": f"token-{id}"}


def launched_with_listeners(bench: Bench, id: str) -> None:
    bench.launch(id, notify=listeners(id))
    bench.until_task(id, "STOPPED")


def ended_with_listeners(bench: Bench, id: str) -> None:
    """A submission that submit ends. submit delivers no notifications."""
    no_launch_token(bench, id)
    bench.submit(id, notify=listeners(id))
    if bench.stack.row(id)["state"] != "queued":
        raise TooLate
    bench.stop(id)


# The longest first, as they run side by side.
FLOWS = [
    Flow("reconcile gives up", "reconcile", Bench.reconcile, "lost", None, 4, forgotten, timer_scale=120),
    Flow("reconcile launches", "reconcile", Bench.reconcile, "failed", 3, 4, queued),
    Flow("reconcile repeats", "reconcile", Bench.reconcile, "failed", 3, 3, unanswered()),
    Flow(
        "reconcile describes", "reconcile", Bench.reconcile, "failed", 3, 2, launched(EXIT_3, "STOPPED"), events=False
    ),
    Flow(
        "reconcile ends what runs too long",
        "reconcile",
        Bench.reconcile,
        "failed",
        143,
        2,
        launched(FOREVER, profile="short"),
    ),
    Flow("reconcile looks up", "reconcile", Bench.reconcile, "cancelled", 143, 3, unanswered_and_stopped),
    Flow("reconcile stops", "reconcile", Bench.reconcile, "cancelled", 143, 2, stop_refused),
    Flow("submit queues", "submit", Bench.submit, "failed", 3, 5, throttled),
    Flow("submit launches", "submit", Bench.submit, "failed", 3, 4),
    Flow("submit has no launch token", "submit", Bench.submit, "failed", 3, 2, no_launch_token),
    Flow(
        "task-state tries again",
        "task-state",
        Bench.task_state,
        "failed",
        3,
        1,
        failed_to_start,
        attempt=2,
        events=False,
    ),
    Flow(
        "task-state launches again after Spot",
        "task-state",
        Bench.task_state,
        "failed",
        None,
        1,
        interrupted,
        2,
        2,
        events=False,
    ),
    Flow(
        "task-state stops an orphaned task",
        "task-state",
        Bench.task_state,
        "cancelled",
        None,
        2,
        orphaned,
        events=False,
    ),
    Flow(
        "task-state tells",
        "task-state",
        Bench.task_state,
        "failed",
        3,
        4,
        launched_with_listeners,
        events=False,
        told=2,
    ),
    Flow("reconcile tells", "reconcile", Bench.reconcile, "cancelled", None, 4, ended_with_listeners, starts=0, told=2),
    Flow("task-state ends", "task-state", Bench.task_state, "failed", 3, 1, launched(EXIT_3, "STOPPED"), events=False),
    Flow("submit stops", "submit", Bench.stop, "cancelled", 143, 2, launched(FOREVER)),
    Flow("submit stops an unknown id", "submit", Bench.stop, "cancelled", None, 1, starts=0),
]


@dataclass
class Outcome:
    """The outcome of a flow with a fault at each of its effects."""

    cuts: Counter[Fault] = field(default_factory=Counter)
    seconds: float = 0
    problems: list[str] = field(default_factory=list)


@contextmanager
def bench(flow: Flow, folder: Path) -> Iterator[tuple[Bench, Wire]]:
    with Wire() as wire:
        environment = {**wire.environment(), "ECS_BRIDGE_RECONCILE_FUNCTION": "nobody"}
        flags = {**FLAGS, "timer-scale": flow.timer_scale, "drop": 0 if flow.events else 1}
        with LocalStack(folder, flags, profiles=PROFILES, function_env=environment) as stack:
            wire.connect(stack.ready)
            yield Bench(stack), wire


def fail_everywhere(flow: Flow, folder: Path) -> Outcome:
    outcome, began = Outcome(), time.monotonic()
    with bench(flow, folder) as (at, wire):
        for fault in FAULTS:
            for nth in itertools.count(1):
                id = arrange(flow, at, f"{fault.name.lower()}-{nth}")
                [victim] = (process["pid"] for process in at.stack.processes() if process["function"] == flow.function)
                wire.cut = cut = Cut(victim, nth, fault, partial(at.stack.kill, victim))
                while not survived(flow, at, id):
                    wire.cut = None
                wire.cut = None
                outcome.problems += [f"{id}: {problem}" for problem in problems_at_the_end(flow, at, id)]
                if not cut.made:
                    break
                outcome.cuts[fault] += 1
                if outcome.problems:
                    return outcome
    outcome.seconds = time.monotonic() - began
    return outcome


def arrange(flow: Flow, bench: Bench, name: str) -> str:
    """A submission at the point where the flow begins."""
    for number in range(20):
        id = f"{name}-{number}"
        try:
            flow.before(bench, id)
        except (TooLate, FunctionError):
            # Ended, so that reconcile does not work on it.
            bench.stack.drop_rules()
            with suppress(FunctionError):
                bench.stop(id)
            continue
        return id
    raise TooLate


def survived(flow: Flow, bench: Bench, id: str) -> bool:
    """False where the function died, or DynamoDB was unavailable to it: it is then run again."""
    try:
        flow.act(bench, id)
    except FunctionError:
        return False
    except urllib.error.HTTPError as error:
        if error.code != 502:
            raise
        return False
    return True


def problems_at_the_end(flow: Flow, bench: Bench, id: str) -> Iterator[str]:
    """Runs reconcile until the submission has ended, and compares."""

    def is_over() -> Record | None:
        with suppress(FunctionError):
            bench.reconcile()
        row = bench.stack.row(id)
        stopped = all(task["last_status"] == "STOPPED" for task in bench.stack.tasks(id))
        return row if row["state"] in TERMINAL and "pending_notifications" not in row and stopped else None

    try:
        row = until(f"{id} has ended", is_over, every=0.1)
    except AssertionError as error:
        yield f"{error}: {bench.stack.row(id)}, {bench.stack.tasks(id)}"
        return
    tasks = bench.stack.tasks(id)
    seen = (row["state"], row.get("exit_code"), row["attempt"], sum(task["start_count"] for task in tasks))
    expected = (flow.state, flow.exit_code, flow.attempt, flow.starts)
    if seen != expected:
        yield f"ended with {seen}, not {expected}: {row}, {tasks}"
    if any(task["start_count"] > 1 for task in tasks) or len({task["attempt"] for task in tasks}) < len(tasks):
        yield f"ran twice: {tasks}"
    told = Counter(one["to"] for one in bench.stack.notifications(id))
    if len(told) != flow.told or any(number > 2 for number in told.values()):
        yield f"told {told}"
    if any(
        one["end"]["state"] != flow.state or one["end"].get("exit_code") != flow.exit_code
        for one in bench.stack.notifications(id)
    ):
        yield f"told another end: {bench.stack.notifications(id)}"
    if left := {"request", "due", "check_at"} & row.keys():
        yield f"still has {left}"


@pytest.fixture(scope="module")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Outcome]]]:
    """The selected flows, side by side: most of the time they wait for leases to expire."""
    asked = [item.callspec.params["flow"] for item in request.session.items if item.path == request.path]
    with ThreadPoolExecutor(8) as pool:
        yield {flow.name: pool.submit(fail_everywhere, flow, tmp_path_factory.mktemp("cuts")) for flow in asked}
        pool.shutdown(cancel_futures=True)


@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: flow.name.replace(" ", "-"))
def test_flow_has_the_same_result_after_any_failure(flow: Flow, outcomes: dict[str, Future[Outcome]]) -> None:
    outcome = outcomes[flow.name].result()
    print(f"{flow.name}: {outcome.cuts.total()} faults in {outcome.seconds:.0f} s")
    assert not outcome.problems, "\n".join(outcome.problems)
    least = {fault: flow.effects if fault in DEATHS else 1 for fault in FAULTS}
    assert all(outcome.cuts[fault] >= number for fault, number in least.items()), outcome.cuts
