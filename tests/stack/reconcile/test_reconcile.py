"""The promises of reconcile, on the local stack with shortened timers.

No schedule runs it here: each test invokes it, or shows that submit does.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from local_stack import ROOT, FunctionError, LocalStack, Record, until
from wire import Call, Wire

# A lease of 3 s, the first check after 12 s; ECS remembers for 6 minutes.
TIMES = {"timer-scale": 60, "time-scale": 10, "teardown-s": 1}
LEASE_MS = 3_000
# For flows that only wait. A lookup that counts comes 1.25 s after the last call at the earliest.
HASTY = {"timer-scale": 240, "time-scale": 20}
HASTY_ENV = {"ECS_BRIDGE_SEND_WITHIN": 1.25}
NO_SCHEDULE = {"reconcile-every": 3600}
RUN_TASK = {
    "taskDefinition": "demo",
    "launchType": "FARGATE",
    "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"]}},
}


def profile(**policy: object) -> dict[str, object]:
    return {"container_name": "main", "run_task": RUN_TASK} | policy


PROFILES = {
    "default": profile(),
    "launch-timeout": profile(launch_timeout=1),
    "run-timeout": profile(run_timeout=1),
    "again": profile(relaunch_on=["SpotInterruption"], max_attempts=2),
    # Its tasks have no events.
    "silent": profile(run_task={**RUN_TASK, "tags": [{"key": "ecs-bridge-local:shape", "value": "no-events"}]}),
}
EXIT_3 = ["sh", "-c", "exit 3"]
FOREVER = ["sleep", "100000"]
THROTTLED = {"code": "ThrottlingException", "message": "Rate exceeded"}
SERVER_ERROR = {"code": "ServerException", "message": "Service Unavailable. Please try again later."}


class Bench:
    """A stack behind a wire."""

    def __init__(self, stack: LocalStack, wire: Wire) -> None:
        self.stack = stack
        self.wire = wire

    def submit(self, id: str, command: list[str] = EXIT_3, profile: str = "default", **more: object) -> dict[str, Any]:
        [answer] = self.stack.submit({"submission_id": id, "command": command, "profile": profile, **more})
        assert "error" not in answer, answer
        return answer

    def settle(self, id: str) -> Record:
        """Invokes reconcile until the submission has ended."""

        def ended() -> Record | None:
            row = self.stack.row(id)
            if "changed_at" in row:
                return row
            self.stack.invoke("reconcile")
            return None

        row = until(f"{id} has ended", ended)
        assert not {"due", "check_at", "request"} & row.keys()
        return row

    def until_task(self, id: str, last_status: str) -> dict[str, Any]:
        def find() -> dict[str, Any] | None:
            return next((task for task in self.stack.tasks(id) if task["last_status"] == last_status), None)

        return until(f"a task of {id} is {last_status}", find)

    def launches(self, id: str) -> list[Call]:
        """The RunTask calls for a submission."""
        return [
            call
            for call in self.wire.calls
            if call.operation == "RunTask" and call.body.get("startedBy", "").split("/")[1:2] == [id]
        ]

    def starts(self, id: str) -> int:
        return sum(task["start_count"] for task in self.stack.tasks(id))


@contextmanager
def stack_behind_a_wire(folder: Path, function_env: Mapping[str, object] = {}, **flags: object) -> Iterator[Bench]:
    with Wire() as wire:
        flags = {**TIMES, **NO_SCHEDULE, "simulate": True, **flags}
        environment = {**wire.environment(), **function_env}
        with LocalStack(folder, flags, profiles=PROFILES, function_env=environment) as stack:
            wire.connect(stack.ready)
            yield Bench(stack, wire)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with stack_behind_a_wire(tmp_path_factory.mktemp("reconcile")) as bench:
        yield bench


@pytest.fixture(scope="module")
def never_placed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A stack whose tasks never leave PROVISIONING."""
    with stack_behind_a_wire(tmp_path_factory.mktemp("never-placed"), **{"provision-s": 1e6}) as bench:
        yield bench


def submit_before_a_deadline(id: str, submit: Callable[[str, int], dict[str, Any]]) -> str:
    """Submit with a launch deadline after the acceptance, however slow the machine is, and return the id.

    `submit` takes an id and the deadline; where the bridge accepts it only after that, another gets more time.
    """
    for seconds in (1, 10, 100):
        if submit(f"{id}-{seconds}", int((time.time() + seconds) * 1000))["state"] != "expired":
            return f"{id}-{seconds}"
    raise AssertionError(f"{id} was accepted too late")


def outcome(row: Record) -> tuple[str, int | None]:
    return row["state"], row.get("exit_code")


# Refusals for now.


def test_retryable_refusal_is_launched_again(bench: Bench) -> None:
    bench.stack.rule(submission_id="refused", error=THROTTLED, times=2)
    assert bench.submit("refused")["state"] == "queued"
    assert outcome(bench.settle("refused")) == ("failed", 3)
    calls = bench.launches("refused")
    assert len(calls) >= 3
    assert len({call.body["clientToken"] for call in calls}) == 1
    assert bench.starts("refused") == 1


def test_submit_and_reconcile_share_the_launch_rate(tmp_path_factory: pytest.TempPathFactory) -> None:
    rate, burst, count = 5, 20, 60
    with Wire() as wire:
        environment = {**wire.environment(), "ECS_BRIDGE_LAUNCH_RATE": rate, "ECS_BRIDGE_LAUNCH_BURST": burst}
        flags = {**NO_SCHEDULE, "simulate": True, "teardown-s": 0}
        with LocalStack(tmp_path_factory.mktemp("rate"), flags, profiles=PROFILES, function_env=environment) as stack:
            wire.connect(stack.ready)
            began = time.time()
            items = [{"submission_id": f"rate-{number}", "command": ["true"]} for number in range(count)]
            states = Counter(answer["state"] for answer in stack.submit(*items))
            # A machine that is slow enough has a launch token for each.
            assert states["queued"] > 0 or time.time() - began > (count - burst) / rate
            # Meanwhile submit takes its share of the same bucket.
            late = [{"submission_id": f"late-{number}", "command": ["true"]} for number in range(10)]
            stack.submit(*late)
            until("all have succeeded", lambda: all(row["state"] == "succeeded" for row in stack.rows()))
    launches = sorted(call.at for call in wire.calls if call.operation == "RunTask")
    assert len(launches) == count + len(late)
    for number, at in enumerate(launches, 1):
        assert number <= burst + rate * (at - began) + 1
    sustained = launches[burst:]
    print(f"{(len(sustained) - 1) / (sustained[-1] - sustained[0]):.1f} of {rate} launches a second beyond the burst")


def test_concurrent_runs_launch_each_submission_once(tmp_path: Path) -> None:
    several = 6
    ids = [f"several-{number}" for number in range(40)]
    # Tokens for two launches each, and a few more: a run that is late three times in a row ends with unused tokens.
    # No lease of half a minute expires meanwhile.
    launch_rate = {"ECS_BRIDGE_LAUNCH_RATE": 0.1, "ECS_BRIDGE_LAUNCH_BURST": 2 * len(ids) + several}
    flags = {**TIMES, **NO_SCHEDULE, "simulate": True, "timer-scale": 5}
    with LocalStack(tmp_path, flags, profiles=PROFILES, function_env=launch_rate) as stack:
        for id in ids:
            stack.rule(submission_id=id, error=THROTTLED)
        stack.submit(*({"submission_id": id, "command": EXIT_3} for id in ids))
        with ThreadPoolExecutor(several) as pool:
            reports = list(pool.map(lambda _: stack.invoke("reconcile"), range(several)))
        assert sum(report["errors"] for report in reports) == 0
        ends = Counter(outcome(stack.until_ended(id)) for id in ids)
        assert ends == {("failed", 3): len(ids)}
        # submit called RunTask once for each, and the run that claimed it once more.
        assert stack.calls()["RunTask"] == 2 * len(ids)
        assert [task["start_count"] for task in stack.tasks()] == [1] * len(ids)


def test_backlog_is_served_by_one_run_at_a_time(tmp_path: Path) -> None:
    rate = {"ECS_BRIDGE_LAUNCH_RATE": 10, "ECS_BRIDGE_LAUNCH_BURST": 10}
    ids = [f"storm-{number}" for number in range(100)]
    with Wire() as wire:
        flags = {**NO_SCHEDULE, "simulate": True, "processes": 8}
        with LocalStack(tmp_path, flags, profiles=PROFILES, function_env=wire.environment() | rate) as stack:
            wire.connect(stack.ready)
            with ThreadPoolExecutor(8) as callers:
                list(callers.map(lambda id: stack.submit({"submission_id": id, "command": EXIT_3}), ids))
            for id in ids:
                stack.until_ended(id)
            assert sum(call.operation == "RunTask" for call in wire.calls) == len(ids)
            # One, and its successor; more only where a busy machine holds one up for longer than it promised to look.
            assert stack.invocations()["reconcile"]["most_in_flight"] <= 5
            of_row = [
                call.body for call in wire.calls if call.body.get("Key") == {"submission_id": {"S": "#launch-rate"}}
            ]
            takes = [body for body in of_row if "empty_at" in body.get("UpdateExpression", "")]
            assert len(takes) < 2 * len(ids), "less than one write fails for each submission"
            wakes = [call for call in wire.calls if call.operation == "Invoke"]
            assert len(wakes) < len(ids) / 5


def test_smaller_priority_values_are_launched_first(tmp_path: Path) -> None:
    """To the half second of launches that reconcile reads together."""
    # Ten are read at a time.
    rate = {"ECS_BRIDGE_LAUNCH_RATE": 20, "ECS_BRIDGE_LAUNCH_BURST": 1}
    with Wire() as wire:
        environment = {**wire.environment(), **rate, "ECS_BRIDGE_RECONCILE_FUNCTION": "nobody"}
        flags = {**NO_SCHEDULE, "simulate": True}
        with LocalStack(tmp_path / "stack", flags, profiles=PROFILES, function_env=environment) as stack:
            wire.connect(stack.ready)
            priorities = [999, 500, 0, 501, 100]
            items = [
                {"submission_id": f"{priority}-{nth}", "command": EXIT_3, "priority": priority}
                for priority in priorities
                for nth in range(10)
            ]
            # The call itself launches as many as it has tokens for: the first, and others if it takes long.
            first = {"submission_id": "first", "command": EXIT_3}
            answers = stack.submit(first, *items)
            ids = ["first", *(item["submission_id"] for item in items)]
            queued = {id for id, answer in zip(ids, answers, strict=True) if answer["state"] == "queued"}

            def launched() -> list[str]:
                stack.invoke("reconcile")
                calls = [call.body["startedBy"].split("/")[1] for call in wire.calls if call.operation == "RunTask"]
                return [id for id in calls if id in queued]

            until("all are launched", lambda: len(launched()) >= len(queued))
            order = [int(id.split("-")[0]) for id in launched()]
            assert order == sorted(order)
            assert len(order) == len(queued)


def test_queued_submission_expires_at_its_deadline(bench: Bench) -> None:
    def submit(id: str, deadline: int) -> dict[str, Any]:
        bench.stack.rule(submission_id=id, error=THROTTLED, times=1000)
        return bench.submit(id, launch_deadline=deadline)

    late = submit_before_a_deadline("late", submit)
    row = bench.settle(late)
    assert row["state"] == "expired"
    assert "deadline" in row["reason"]
    assert "Rate exceeded" in row["reason"]
    assert bench.stack.tasks(late) == []


def test_resubmissions_return_their_launch_tokens(tmp_path: Path) -> None:
    known = [{"submission_id": f"known-{number}", "command": ["true"]} for number in range(50)]
    new = [{"submission_id": f"new-{number}", "command": ["true"]} for number in range(60)]
    # One token for each submission. Three calls hold some of them at a time.
    launch_rate = {"ECS_BRIDGE_LAUNCH_RATE": 0.1, "ECS_BRIDGE_LAUNCH_BURST": len(known) + len(new)}
    # Its tasks stay in PROVISIONING, and no event is faster than an answer.
    flags = {**NO_SCHEDULE, "simulate": True, "provision-s": 1e6}
    with LocalStack(tmp_path, flags, profiles=PROFILES, function_env=launch_rate) as stack:
        assert Counter(answer["state"] for answer in stack.submit(*known)) == {"launched": len(known)}
        with ThreadPoolExecutor(3) as clients:
            answers = [*clients.map(lambda _: stack.submit(*known), range(12))]
        assert not any("error" in answer for answers in answers for answer in answers)
        assert Counter(answer["state"] for answer in stack.submit(*new)) == {"launched": len(new)}


def test_submit_starts_nothing_it_cannot_finish(tmp_path: Path) -> None:
    template = tmp_path / "template.yaml"
    template.write_text((ROOT / "template.yaml").read_text().replace("Timeout: 60", "Timeout: 25", 1))
    flags = {**NO_SCHEDULE, "simulate": True, "template": template, "api-latency-ms": 3000}
    items = [{"submission_id": f"slow-{number}", "command": ["true"]} for number in range(100)]
    with LocalStack(tmp_path / "stack", flags, profiles=PROFILES) as stack:
        left, calls = items, 0

        def submit() -> bool:
            nonlocal left, calls
            answers, calls = stack.submit(*left), calls + 1
            assert {answer["error"]["code"] for answer in answers if "error" in answer} <= {"unavailable"}
            left = [item for item, answer in zip(left, answers, strict=True) if "error" in answer]
            recorded = {row["submission_id"] for row in stack.rows()}
            assert recorded == {item["submission_id"] for item in items if item not in left}
            return not left

        # Each call starts launches for 5 s, and RunTask takes 3 s. On a busy machine, there are more calls.
        until("all are accepted", submit)
        assert calls > 1
        assert stack.calls()["RunTask"] == len(items)


def test_launch_with_unrecorded_outcome_is_unavailable(bench: Bench) -> None:
    bench.stack.rule(submission_id="unwritten", error=THROTTLED)
    bench.wire.fails = lambda call: call.operation == "UpdateItem" and "unwritten" in str(call.body)
    item = {"submission_id": "unwritten", "command": EXIT_3, "profile": "default"}
    [answer] = bench.stack.submit(item)
    bench.wire.fails = lambda _: False
    assert answer["error"]["code"] == "unavailable"
    unwritten = bench.stack.row("unwritten")
    assert [answer["state"] for answer in bench.stack.submit(item)] == ["launching"]
    due = bench.stack.row("unwritten")["check_at"]
    assert due <= unwritten["check_at"]
    assert due <= time.time() * 1000 + LEASE_MS
    assert outcome(bench.settle("unwritten")) == ("failed", 3)


def test_resubmission_is_unavailable_until_its_notification_is_recorded(bench: Bench) -> None:
    # The stop came first, and its record has no notification: only the submission has one.
    bench.stack.stop("overtaken")
    bench.wire.fails = lambda call: call.operation == "UpdateItem" and "overtaken" in str(call.body)
    item = {"submission_id": "overtaken", "command": EXIT_3, "notify": {"event_bus": "default"}}
    [answer] = bench.stack.submit(item)
    bench.wire.fails = lambda _: False
    assert answer["error"]["code"] == "unavailable"
    assert [answer["state"] for answer in bench.stack.submit(item)] == ["cancelled"]
    bench.stack.until_notified("overtaken")
    assert [one["to"] for one in bench.stack.notifications("overtaken")] == ["default"]


# Capacity.


def test_profile_without_capacity_delays_no_other(tmp_path: Path) -> None:
    definition = {"family": "gpu", "containerDefinitions": [{"name": "main", "image": "local", "essential": True}]}
    profiles = {"default": profile(), "gpu": profile(run_task={"taskDefinition": "gpu"})}
    ids = [f"gpu-{number}" for number in range(300)]
    flags = {"simulate": True, "timer-scale": 10, "reconcile-every": 5}
    with LocalStack(tmp_path, flags, profiles=profiles, task_definitions=[definition]) as stack:
        stack.rule(task_definition="gpu", failure="RESOURCE:GPU", times=100_000)
        for start in range(0, len(ids), 100):
            items = [{"submission_id": id, "command": ["true"], "profile": "gpu"} for id in ids[start : start + 100]]
            assert {answer["state"] for answer in stack.submit(*items)} == {"queued"}

        def submit(id: str, deadline: int) -> dict[str, Any]:
            item = {"submission_id": id, "command": ["true"], "profile": "gpu", "launch_deadline": deadline}
            return stack.submit(item)[0]

        late = submit_before_a_deadline("late", submit)
        [healthy] = stack.submit({"submission_id": "healthy", "command": ["true"]})
        assert "task_arn" in healthy

        def waiting() -> list[Record]:
            return [row for row in stack.rows() if row.get("due") == "waiting/gpu"]

        # One of them may be finding out whether capacity is back.
        until("all wait for capacity", lambda: len(waiting()) >= len(ids) - 1)
        assert "RESOURCE:GPU" in waiting()[0]["reason"] or "no capacity" in waiting()[0]["reason"]
        assert stack.calls()["RunTask"] < len(ids) / 2

        assert stack.until_ended(late)["state"] == "expired"
        assert "before that" in stack.row(late)["reason"]
        assert stack.tasks(late) == []

        stack.drop_rules()

        launched = [row for row in stack.rows() if not row["submission_id"].startswith("late")]
        assert len(launched) == len(ids) + 1
        for row in launched:
            assert stack.until_ended(row["submission_id"])["state"] == "succeeded"
        assert [task["start_count"] for task in stack.tasks()] == [1] * (len(ids) + 1)


# Unanswered launches.


def run_until_the_stack_ends(stack: LocalStack) -> None:
    with suppress(OSError, FunctionError):
        while True:
            stack.invoke("reconcile")


def test_stop_precedes_repeats_without_launch_tokens(tmp_path: Path) -> None:
    ids = [f"unanswered-{number}" for number in range(500)]
    launch_rate = {"ECS_BRIDGE_LAUNCH_RATE": 0.1, "ECS_BRIDGE_LAUNCH_BURST": len(ids) + 1}
    # Repeats go on for five minutes.
    flags = {**NO_SCHEDULE, "simulate": True, "timer-scale": 10, "time-scale": 10}
    with LocalStack(tmp_path, flags, profiles=PROFILES, function_env=launch_rate) as stack:
        stack.submit({"submission_id": "to-stop", "command": FOREVER})
        stack.until_state("to-stop", "running")
        for start in range(0, len(ids), 100):
            for id in ids[start : start + 100]:
                stack.rule(submission_id=id, answer="server_error")
            hundred = [
                {"submission_id": id, "command": FOREVER, "profile": "silent"} for id in ids[start : start + 100]
            ]
            assert {answer["state"] for answer in stack.submit(*hundred)} == {"launching"}
        stack.rule(operation="StopTask", error=THROTTLED, times=4)
        stack.stop("to-stop")
        # A run continues while repeats are due, which is longer than this test takes.
        threading.Thread(target=run_until_the_stack_ends, args=(stack,), daemon=True).start()
        until("the stop has ended it", lambda: "changed_at" in stack.row("to-stop"))
        assert outcome(stack.row("to-stop")) == ("cancelled", 143)
        assert "launching" in {stack.row(id)["state"] for id in ids}, "all repeats were served first"


@pytest.mark.parametrize("answer", ["none", "server_error"])
def test_unanswered_launch_is_repeated_with_the_same_token(bench: Bench, answer: str) -> None:
    id = f"unanswered-{answer}"
    bench.stack.rule(submission_id=id, answer=answer, times=2)
    assert bench.submit(id, profile="silent")["state"] == "launching"
    assert outcome(bench.settle(id)) == ("failed", 3)
    calls = bench.launches(id)
    assert len(calls) >= 3
    assert all(call.body == calls[0].body for call in calls)
    assert len(bench.stack.tasks(id)) == 1
    assert bench.starts(id) == 1


def test_launch_that_is_never_answered_is_lost(tmp_path: Path) -> None:
    with stack_behind_a_wire(tmp_path, HASTY_ENV, **HASTY) as bench:
        bench.stack.rule(submission_id="unanswered", error=SERVER_ERROR, times=1000)
        bench.submit("unanswered")
        row = bench.settle("unanswered")
        calls = bench.launches("unanswered")
    assert row["state"] == "lost"
    assert "may have run" in row["reason"]
    assert len(calls) > 1
    assert all(call.body == calls[0].body for call in calls)
    lookups = [call for call in bench.wire.calls if call.operation == "ListTasks"]
    # Two that count, each in both desired statuses; none is followed by a launch.
    assert len(lookups) >= 4
    assert lookups[0].at > calls[-1].at


def test_refused_repeat_settles_nothing(bench: Bench) -> None:
    bench.stack.rule(submission_id="refused-repeat", answer="none")
    bench.stack.rule(submission_id="refused-repeat", error={"code": "AccessDeniedException", "message": "no"}, times=2)
    bench.submit("refused-repeat", profile="silent")
    assert outcome(bench.settle("refused-repeat")) == ("failed", 3)
    assert len(bench.launches("refused-repeat")) >= 4
    assert bench.starts("refused-repeat") == 1


def test_unanswered_launch_past_its_deadline_is_looked_up(bench: Bench) -> None:
    def submit(id: str, deadline: int) -> dict[str, Any]:
        bench.stack.rule(submission_id=id, answer="none", times=1000)
        return bench.submit(id, profile="silent", launch_deadline=deadline)

    late = submit_before_a_deadline("unanswered-late", submit)
    assert outcome(bench.settle(late)) == ("failed", 3)
    assert bench.starts(late) == 1


# Missing events.


def test_result_without_an_event_is_found(tmp_path: Path) -> None:
    # No run of reconcile but those of the test.
    with stack_behind_a_wire(tmp_path) as bench:
        bench.submit("silent", profile="silent")
        bench.until_task("silent", "STOPPED")
        reports: list[dict[str, Any]] = []

        def ended() -> bool:
            reports.append(bench.stack.invoke("reconcile"))
            return "changed_at" in bench.stack.row("silent")

        until("its end is found", ended)
        assert outcome(bench.stack.row("silent")) == ("failed", 3)
    names = {"claimed", "launches", "described", "looked_up", "stops", "repaired", "errors", "unfinished"}
    assert all(report.keys() >= names for report in reports)
    last = reports[-1]
    assert (last["described"], last["repaired"], last["errors"], last["unfinished"]) == (1, 1, 0, False)
    assert sum(report["repaired"] for report in reports) == 1


def test_task_that_ecs_forgot_is_stopped_and_lost(bench: Bench) -> None:
    bench.stack.rule(submission_id="gone", shapes="forgotten")
    bench.submit("gone")
    task = bench.until_task("gone", "STOPPED")
    row = bench.settle("gone")
    assert outcome(row) == ("lost", None)
    asked = [
        call.operation
        for call in bench.wire.calls
        if task["task_arn"] in str(call.body) and "Update" not in call.operation
    ]
    assert asked.count("DescribeTasks") >= 2
    assert asked[-1] == "StopTask"
    assert bench.starts("gone") == 1


# Timeouts.


def test_task_fails_after_launch_timeout(never_placed: Bench) -> None:
    never_placed.submit("never", FOREVER, "launch-timeout")
    row = never_placed.settle("never")
    assert outcome(row) == ("failed", None)
    assert "launch_timeout" in row["reason"]
    assert never_placed.starts("never") == 0
    never_placed.until_task("never", "STOPPED")


def test_task_fails_after_run_timeout(bench: Bench) -> None:
    bench.submit("long", FOREVER, "run-timeout")
    row = bench.settle("long")
    assert outcome(row) == ("failed", 143)
    assert "run_timeout" in row["reason"]


# Stops.


def test_stop_before_submission_cancels_it(bench: Bench) -> None:
    assert [answer["state"] for answer in bench.stack.stop("overtaken")] == ["cancelled"]
    assert bench.submit("overtaken")["state"] == "cancelled"
    assert bench.stack.tasks("overtaken") == []
    assert bench.launches("overtaken") == []


def test_stop_while_queued_cancels_permanently(bench: Bench) -> None:
    bench.stack.rule(submission_id="queued", error=THROTTLED)
    bench.submit("queued")
    # submit woke reconcile, which may have been faster than the stop.
    [answer] = bench.stack.stop("queued", reason="cleared")
    row = bench.settle("queued")
    assert row["state"] == "cancelled"
    assert row["reason"] == "cleared"
    if answer["state"] == "cancelled":
        assert len(bench.launches("queued")) == 1
        assert bench.starts("queued") == 0


def test_stop_while_launching_stops_the_task_later(bench: Bench) -> None:
    bench.stack.rule(submission_id="launching", answer="none", times=1000)
    bench.submit("launching", FOREVER, "silent")
    assert [answer["state"] for answer in bench.stack.stop("launching")] == ["launching"]
    launches = len(bench.launches("launching"))
    assert bench.settle("launching")["state"] == "cancelled"
    assert len(bench.launches("launching")) == launches
    bench.until_task("launching", "STOPPED")


def test_stop_while_provisioning_stops_the_task(never_placed: Bench) -> None:
    never_placed.submit("early")
    assert [answer["state"] for answer in never_placed.stack.stop("early")] == ["launched"]
    assert outcome(never_placed.settle("early")) == ("cancelled", None)
    assert never_placed.starts("early") == 0
    never_placed.until_task("early", "STOPPED")


def test_stop_while_running_stops_the_container(bench: Bench) -> None:
    bench.submit("running", FOREVER)
    bench.stack.until_state("running", "running")
    bench.stack.stop("running", reason="cleared")
    row = bench.settle("running")
    assert outcome(row) == ("cancelled", 143)
    assert row["reason"] == "cleared"


def test_stopped_container_with_exit_code_0_succeeds(bench: Bench, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    bench.submit("graceful", ["sh", "-c", f"trap 'exit 0' TERM; touch {ready}; while :; do sleep 0.05; done"])
    until("the container has set its trap", ready.exists)
    bench.stack.stop("graceful")
    assert outcome(bench.settle("graceful")) == ("succeeded", 0)


def test_refused_stop_is_repeated(bench: Bench) -> None:
    bench.submit("refused-stop", FOREVER)
    bench.stack.until_state("refused-stop", "running")
    bench.stack.rule(operation="StopTask", error=THROTTLED, times=8)
    bench.stack.stop("refused-stop")
    assert outcome(bench.settle("refused-stop")) == ("cancelled", 143)


def test_stop_after_the_result_changes_nothing(bench: Bench) -> None:
    bench.submit("over")
    before = bench.settle("over")
    assert [answer["state"] for answer in bench.stack.stop("over")] == ["failed"]
    # The STOPPED event may still fill in unknown attributes.
    after = bench.stack.row("over")
    assert outcome(after) == outcome(before)
    assert "stop_requested" not in after


# Another attempt.


def test_interruption_is_relaunched_if_configured(bench: Bench) -> None:
    bench.stack.rule(submission_id="spot", shapes="spot-interruption")
    bench.submit("spot", ["sleep", "20"], "again")
    row = bench.settle("spot")
    assert outcome(row) == ("succeeded", 0)
    assert row["attempt"] == 2
    assert [reason.startswith("SpotInterruption") for reason in row["attempts"]] == [True]
    first, second = bench.stack.tasks("spot")
    assert first["exited_at"] <= first["stopped_at"] <= second["created_at"]


def test_unstarted_container_is_relaunched_until_max_attempts(bench: Bench) -> None:
    bench.stack.rule(submission_id="no-image", shapes="cannot-pull", times=3)
    bench.submit("no-image")
    row = bench.settle("no-image")
    assert outcome(row) == ("failed", None)
    assert row["attempt"] == 3
    assert "CannotPullContainerError" in row["reason"]
    assert len(row["attempts"]) == 2
    assert bench.starts("no-image") == 0


def test_task_state_triggers_the_next_attempt(bench: Bench) -> None:
    bench.stack.rule(submission_id="woken", shapes="cannot-pull")
    bench.submit("woken")
    # Only task-state invokes reconcile.
    row = bench.stack.until_ended("woken")
    assert outcome(row) == ("failed", 3)
    assert row["attempt"] == 2
