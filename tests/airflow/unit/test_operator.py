"""The operator and its trigger against a bridge that a test scripts."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from datetime import datetime, timedelta, timezone
from io import BytesIO
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from airflow.exceptions import AirflowException, AirflowSkipException
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from airflow.triggers.base import TaskFailedEvent, TaskSkippedEvent, TaskSuccessEvent, TriggerEvent
from asgiref.sync import async_to_sync
from botocore.exceptions import ClientError, EndpointConnectionError
from fake_bridge import PATIENCE, FakeBridge, now_ms
from fake_logs import Clock, FakeLogs
from moto.server import ThreadedMotoServer

from airflow_ecs_bridge import cloudwatch_logs, commands, comms, live, log_tail, metrics, triggers, wait_reasons, xcom
from airflow_ecs_bridge.job import InvalidSubmissionError
from airflow_ecs_bridge.operators import EcsBridgeOperator
from airflow_ecs_bridge.results import Outcome, Verdict
from airflow_ecs_bridge.triggers import EcsBridgeTrigger
from ecs_bridge.table import Record, Table

TI = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=1, id="uuid")


@pytest.fixture
def here(bridge: FakeBridge, url: str, configure: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[commands.Commands]:
    """Have the threads of a triggerer."""
    from conftest import OPTIONS

    configure(**{name.lower(): value for name, value in OPTIONS.items()}, submit_url=url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
    monkeypatch.setattr(commands.Commands, "_here", None)
    here = commands.Commands.of_this_process()
    yield here
    for service in here._services:
        service.stop()


async def event_of(trigger: EcsBridgeTrigger) -> TriggerEvent:
    return await anext(trigger.run())


def ends(bridge: FakeBridge, *ids: str, state: str = "succeeded", **more: Any) -> Any:
    """Wait for submissions, and end them."""

    def end() -> None:
        bridge.wait_until(lambda: bridge.records.keys() >= set(ids))
        for id in ids:
            bridge.finish(id, state, **more)

    return asyncio.to_thread(end)


def trigger(id: str = "op-1", **more: Any) -> EcsBridgeTrigger:
    """Make one as a triggerer does."""
    made = EcsBridgeTrigger(**{"command": ["echo", "hello"], "submission_id": id, "ends_task": True, **more})
    made.trigger_id = 1
    return made


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What Airflow's API answers to a triggerer about `TI`, and which calls fail."""
    api = SimpleNamespace(state="deferred", submission=None, failures=0, noted=[], forgotten=[])

    def states(**_: Any) -> dict[str, Any]:
        if api.failures:
            api.failures -= 1
            raise RuntimeError("no answer")
        return {"r": {} if api.state == "deleted" else {"t": api.state}}

    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(states))
    monkeypatch.setattr(BaseXCom, "get_one", lambda **_: api.submission)
    monkeypatch.setattr(BaseXCom, "set", lambda key, value, **_: api.noted.append(value))
    monkeypatch.setattr(BaseXCom, "delete", lambda key, **_: api.forgotten.append(key))
    monkeypatch.setattr(triggers, "ASK_AGAIN", 0.01)
    return api


def test_the_id_is_that_of_the_try_and_of_this_airflow():
    same = SimpleNamespace(**vars(TI))
    assert commands.submission_id(TI) == commands.submission_id(same)
    others = [{"try_number": 2}, {"map_index": 0}, {"run_id": "s"}, {"id": "of another Airflow"}]
    ids = {commands.submission_id(SimpleNamespace(**{**vars(TI), **other})) for other in others}
    assert len(ids | {commands.submission_id(TI)}) == 5
    assert all(len(id) <= 60 for id in ids)


def test_an_item_has_what_was_asked_for():
    body = commands.item(
        "op-1",
        ["python", "etl.py"],
        profile="large",
        overrides={"overrides": {"memory": "8192", "containerOverrides": [{"name": "log", "cpu": 1}]}},
        environment={"DAY": "2026-01-01"},
        container="main",
        priority=10,
        about=commands.subject(TI),
    )
    containers = [
        {"name": "log", "cpu": 1},
        {"name": "main", "environment": [{"name": "DAY", "value": "2026-01-01"}]},
    ]
    assert body == {
        "submission_id": "op-1",
        "command": ["python", "etl.py"],
        "labels": {"dag_id": "d", "run_id": "r", "task_id": "t", "try_number": "1"},
        "profile": "large",
        "overrides": {"overrides": {"memory": "8192", "containerOverrides": containers}},
        "priority": 10,
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"command": "echo"}, "must be a non-empty list of strings"),
        ({"command": []}, "must be a non-empty list of strings"),
        ({"environment": {"A": "b"}}, "set container"),
        ({"priority": 1000}, "invalid priority: 1000; must be an integer from 0 to 999"),
        ({"overrides": {"count": 2}}, "the bridge sets count"),
        ({"overrides": {"memroy": "1"}}, "unknown parameters in executor_config: memroy"),
        ({"profile": "no such name!"}, "must be a profile name"),
    ],
)
def test_what_cannot_be_submitted_says_what_would_be_right(given: dict[str, Any], words: str):
    with pytest.raises(InvalidSubmissionError, match=words):
        commands.item("op-1", **{"command": ["true"], **given})


async def both(*awaited: Any) -> list[Any]:
    return await asyncio.gather(*awaited)


def test_a_trigger_submits_waits_and_ends_the_task(bridge: FakeBridge, here: commands.Commands):
    event, _ = asyncio.run(both(event_of(trigger()), ends(bridge, "op-1")))
    assert isinstance(event, TaskSuccessEvent)
    assert bridge.records["op-1"]["state"] == "succeeded"


def test_a_failure_tells_why_and_what_to_do_and_the_last_lines(
    bridge: FakeBridge, here: commands.Commands, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(commands, "tail", lambda aws, settings, record, lines: ["Traceback", f"at most {lines}"])
    end = ends(bridge, "op-1", state="failed", exit_code=127, reason="container main exited with 127")
    event, _ = asyncio.run(both(event_of(trigger(ends_task=False, log_lines=7)), end))
    text = event.payload["text"]
    assert not event.payload["succeeded"]
    for words in ("exit code 127", "The image has no such command", "ecs-bridge show op-1", "at most 7"):
        assert words in text
    with pytest.raises(AirflowException, match="exit code 127"):
        EcsBridgeOperator(task_id="t", command=["x"]).execute_complete({}, event.payload)


def test_what_is_refused_fails_and_is_not_repeated(bridge: FakeBridge, here: commands.Commands):
    event = asyncio.run(event_of(trigger(profile="nobody")))
    assert isinstance(event, TaskFailedEvent)
    assert len(bridge.batches) == 1


def test_another_triggerer_waits_for_the_same_end(bridge: FakeBridge, here: commands.Commands):
    async def handed_over() -> Any:
        first = asyncio.create_task(event_of(trigger()))
        await asyncio.to_thread(bridge.wait_until, lambda: "op-1" in bridge.records)
        first.cancel()
        return await both(event_of(trigger()), ends(bridge, "op-1"))

    event, _ = asyncio.run(handed_over())
    assert isinstance(event, TaskSuccessEvent)
    assert bridge.starts["op-1"] == 1


def test_a_thousand_triggers_share_one_reader_and_few_calls(
    bridge: FakeBridge,
    here: commands.Commands,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
):
    ids = [f"op-{number}" for number in range(1_000)]
    polls: list[str] = []
    changes = Table.changes

    def counted(table: Table, *range_: Any) -> Any:
        polls.append(threading.current_thread().name)
        return changes(table, *range_)

    monkeypatch.setattr(Table, "changes", counted)

    async def all_of_them() -> Any:
        waiting = [asyncio.create_task(event_of(trigger(id))) for id in ids]
        await asyncio.to_thread(bridge.wait_until, lambda: len(bridge.records) == 1_000)
        before = len(polls)
        await asyncio.to_thread(bridge.wait_until, lambda: len(polls) >= before + 3)
        await ends(bridge, *ids)
        return await asyncio.gather(*waiting)

    events = asyncio.run(all_of_them())
    assert all(isinstance(event, TaskSuccessEvent) for event in events), caplog.text[-3_000:]
    assert set(polls) == {"ecs-bridge-watch"}
    assert len(bridge.batches) < 100


async def cancelled(bridge: FakeBridge, one: EcsBridgeTrigger) -> None:
    """Start a trigger and cancel it, as a triggerer does for each that it has no longer."""
    waiting = asyncio.create_task(event_of(one))
    await asyncio.to_thread(bridge.wait_until, lambda: "op-1" in bridge.records)
    waiting.cancel()
    if triggers.TRIGGERS_HAVE_ON_KILL:
        await one.on_kill()
    await one.cleanup()


@pytest.mark.parametrize("airflow_calls_on_kill", [True, False])
@pytest.mark.parametrize(
    ("state", "submission", "stopped"),
    [
        ("deferred", None, False),
        ("deferred", "op-1", False),
        ("deferred", "op-of-the-next-try", True),
        ("failed", "op-1", True),
        ("queued", None, True),
        (None, None, True),
        ("deleted", None, True),
    ],
)
def test_a_cancelled_trigger_stops_its_command_only_if_its_try_is_given_up(
    bridge: FakeBridge,
    here: commands.Commands,
    airflow: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    airflow_calls_on_kill: bool,
    state: str | None,
    submission: str | None,
    stopped: bool,
):
    """A triggerer also cancels those that it has lost to another one."""
    monkeypatch.setattr(triggers, "TRIGGERS_HAVE_ON_KILL", airflow_calls_on_kill)
    airflow.state, airflow.submission = state, submission
    one = trigger()
    one.task_instance = TI
    asyncio.run(cancelled(bridge, one))
    if stopped:
        bridge.wait_until(lambda: bridge.stops)
    assert [id for id, _ in bridge.stops] == (["op-1"] if stopped else [])


def test_airflow_s_answer_is_waited_for_however_often_the_trigger_is_cancelled(
    bridge: FakeBridge, here: commands.Commands, airflow: SimpleNamespace
):
    """Airflow 3.3.2 cancels it at each of its loops."""
    airflow.state = "failed"
    answers = threading.Event()
    states = RuntimeTaskInstance.get_task_states

    def slow(**given: Any) -> Any:
        assert answers.wait(60)
        return states(**given)

    async def run() -> None:
        one = trigger()
        one.task_instance = TI
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(slow))
            killed = asyncio.create_task(one.on_kill())
            for _ in range(3):
                await asyncio.sleep(0)
                killed.cancel()
            with pytest.raises(asyncio.CancelledError):
                await killed
            answers.set()
            await asyncio.to_thread(bridge.wait_until, lambda: bridge.stops)

    asyncio.run(run())
    assert [id for id, _ in bridge.stops] == ["op-1"]


def test_a_cancellation_keeps_its_message_while_airflow_is_asked(monkeypatch: pytest.MonkeyPatch):
    """By that message Airflow 3.3 tells a cleared task's trigger from one that ends with its triggerer."""
    answers = threading.Event()

    async def run() -> Any:
        asks = asyncio.create_task(comms._in_thread_of_airflow(lambda: answers.wait(60)))
        await asyncio.sleep(0.05)
        asks.cancel("by a user")
        try:
            await asks
        except asyncio.CancelledError as error:
            return error.args
        finally:
            answers.set()

    assert asyncio.run(run()) == ("by a user",)


@pytest.mark.parametrize(("failures", "stopped"), [(triggers.ASKS - 1, True), (triggers.ASKS, False)])
def test_nothing_is_stopped_while_airflow_is_silent(
    bridge: FakeBridge, here: commands.Commands, airflow: SimpleNamespace, failures: int, stopped: bool
):
    airflow.state, airflow.failures = "failed", failures
    one = trigger()
    one.task_instance = TI
    asyncio.run(cancelled(bridge, one))
    if stopped:
        bridge.wait_until(lambda: bridge.stops)
    assert bool(bridge.stops) is stopped


def test_stop_on_kill_false_leaves_a_cleared_command_alone(
    bridge: FakeBridge, here: commands.Commands, airflow: SimpleNamespace
):
    airflow.state = "failed"
    one = trigger(stop_on_kill=False)
    one.task_instance = TI
    asyncio.run(cancelled(bridge, one))
    assert not bridge.stops


@pytest.mark.parametrize(
    ("try_number", "submission", "stopped", "noted"),
    [
        (1, None, [], ["op-1"]),
        (2, "op-of-try-1", ["op-of-try-1"], ["op-1"]),
        # Another triggerer has begun this try.
        (2, "op-1", [], []),
        (2, None, [], ["op-1"]),
    ],
)
def test_a_try_stops_the_command_of_the_one_before(
    bridge: FakeBridge,
    here: commands.Commands,
    airflow: SimpleNamespace,
    try_number: int,
    submission: str | None,
    stopped: list[str],
    noted: list[str],
):
    """A triggerer that was killed stops nothing when its task is cleared."""
    airflow.submission = submission
    one = trigger()
    one.task_instance = SimpleNamespace(**{**vars(TI), "try_number": try_number})
    asyncio.run(both(event_of(one), ends(bridge, "op-1")))
    bridge.wait_until(lambda: len(bridge.stops) >= len(stopped))
    assert [id for id, _ in bridge.stops] == stopped
    assert airflow.noted == noted
    assert airflow.forgotten == (["return_value"] if noted and try_number > 1 else [])


def test_a_thread_asks_airflow_through_the_loop_of_the_triggers(monkeypatch: pytest.MonkeyPatch):
    """Airflow 3.0 and 3.1 mix up the answers of what other threads ask."""
    monkeypatch.setattr(comms, "_loop", None)
    through: list[Any] = []

    async def run() -> Any:
        comms.use_loop_of_triggers()
        loop = asyncio.get_running_loop()

        def ask() -> str:
            # As Airflow's own functions find the loop.
            through.append(async_to_sync(running_loop)() is loop)
            return "answer"

        answer: Future[str] = Future()
        threading.Thread(target=lambda: answer.set_result(comms.call(ask))).start()
        return await asyncio.wrap_future(answer)

    async def running_loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    assert asyncio.run(run()) == "answer"
    assert through == [True]
    # The triggerer has ended.
    assert comms.call(lambda: 7) == 7


def test_a_triggerer_emits_what_waits_in_it(
    bridge: FakeBridge, here: commands.Commands, airflow: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
):
    seen: dict[str, float] = {}
    monkeypatch.setattr(metrics, "INTERVAL", 0.05)
    monkeypatch.setattr(metrics.STATS, "gauge", lambda name, value, **_: seen.update({name: value}))
    monkeypatch.setattr(metrics.STATS, "incr", lambda name, value, **_: seen.update({name: value}))

    async def run() -> None:
        one, other = trigger(), trigger("op-2")
        one.task_instance = other.task_instance = TI
        waiting = [asyncio.create_task(event_of(each)) for each in (one, other)]
        while seen.get("ecs_bridge.triggerer.in_flight") != 2:
            await asyncio.sleep(0.05)
        await ends(bridge, "op-1", "op-2")
        await asyncio.gather(*waiting)

    asyncio.run(run())
    assert seen.keys() == {f"ecs_bridge.triggerer.{name}" for name in (*metrics.GAUGES, *metrics.COUNTERS)}


def test_a_worker_can_wait_itself(bridge: FakeBridge, here: commands.Commands):
    operator = EcsBridgeOperator(task_id="t", command=["true"], deferrable=False)
    id = commands.submission_id(TI)

    async def run() -> Any:
        return await both(asyncio.to_thread(operator.execute, {"ti": TI}), ends(bridge, id))

    assert asyncio.run(run())[0] is None
    operator.on_kill()
    assert bridge.stops[0][0] == id


def test_a_worker_that_is_killed_while_it_waits_fails_its_task(bridge: FakeBridge, here: commands.Commands):
    """Airflow calls on_kill and goes on with execute, which must not return as if the command had ended well."""
    operator = EcsBridgeOperator(task_id="t", command=["sleep", "600"], deferrable=False)
    id = commands.submission_id(TI)

    def kill() -> None:
        bridge.wait_until(lambda: id in bridge.records)
        operator.on_kill()
        assert bridge.stops[0][0] == id
        bridge.finish(id, "cancelled", reason="its task was killed in Airflow")

    async def run() -> None:
        await both(asyncio.to_thread(operator.execute, {"ti": TI}), asyncio.to_thread(kill))

    with pytest.raises(AirflowException, match="its task was killed in Airflow"):
        asyncio.run(run())


@pytest.fixture
def logs(configure: Any, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Where output is, and what each read of its last line finds; an exception is raised."""
    configure(awslogs_group="/ecs", awslogs_stream_prefix="app")
    monkeypatch.setattr(xcom, "LOOK_EVERY", 0.01)
    reads: list[Any] = []

    def tail(aws: Any, settings: Any, record: dict[str, Any], lines: int) -> list[str]:
        found = reads.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(commands, "tail", tail)
    return reads


def denied(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "no"}}, "GetLogEvents")


def last_line_of(bridge: FakeBridge, **more: Any) -> TriggerEvent:
    """Run a command whose last line is wanted; it ends as `more` says."""
    return asyncio.run(both(event_of(trigger(xcom_last_line=True)), ends(bridge, "op-1", **more)))[0]


def test_the_last_line_is_read_until_no_more_arrives(logs: Any, bridge: FakeBridge, here: commands.Commands):
    logs += [["41 of 42"], ["42"], ["42"]]
    event = last_line_of(bridge, stopped_at=1)
    assert isinstance(event, TaskSuccessEvent)
    assert event.xcoms is not None
    assert event.xcoms["return_value"] == "42"
    assert logs == []


def test_output_is_not_read_before_its_task_has_stopped(logs: Any, bridge: FakeBridge, here: commands.Commands):
    logs += [["42"], ["42"]]
    # So that its age alone never makes the output complete.
    an_hour_ahead = now_ms() + 3_600_000

    def stop() -> None:
        # Two reads of the record that find it ended, and its task not STOPPED.
        bridge.wait_until(lambda: bridge.calls["/v1/submissions/op-1"] >= 3)
        assert len(logs) == 2
        with bridge.changed:
            bridge.records["op-1"]["stopped_at"] = 1

    async def run() -> Any:
        asked = event_of(trigger(xcom_last_line=True))
        return await both(asked, ends(bridge, "op-1", container_exited_at=an_hour_ahead), asyncio.to_thread(stop))

    assert asyncio.run(run())[0].xcoms["return_value"] == "42"


@pytest.mark.parametrize(
    ("record", "complete"),
    [
        ({"stopped_at": 1}, True),
        ({"container_exited_at": 999_000, "changed_at": 1_000_000}, False),
        ({"container_exited_at": 900_000}, True),
        ({"changed_at": 900_000}, True),
        # A runner's task goes on, or has stopped for another reason.
        ({"container_exited_at": 999_000, "stopped_at": 1, "runner_id": "r"}, False),
        ({}, False),
    ],
)
def test_a_container_s_output_is_complete_when_its_record_says_so(record: dict[str, Any], complete: bool):
    assert xcom.is_complete(record, 1_001.0) is complete


def test_the_looks_for_the_last_line_are_bounded(logs: Any, bridge: FakeBridge, here: commands.Commands):
    logs += [[str(number)] for number in range(100)]
    event = last_line_of(bridge, stopped_at=1)
    assert isinstance(event, TaskSuccessEvent)
    assert event.xcoms is not None
    assert event.xcoms["return_value"] == str(xcom.MOST_LOOKS - 1)


@pytest.mark.parametrize("found", [[], denied("ResourceNotFoundException")])
def test_a_command_that_wrote_nothing_has_no_return_value(
    logs: Any, bridge: FakeBridge, here: commands.Commands, found: Any
):
    logs += [found, found]
    event = last_line_of(bridge, stopped_at=1)
    assert isinstance(event, TaskSuccessEvent)
    assert "return_value" not in (event.xcoms or {})


def test_output_that_may_not_be_read_fails_the_task(logs: Any, bridge: FakeBridge, here: commands.Commands):
    logs += [denied("AccessDeniedException")]
    asked = trigger(xcom_last_line=True, ends_task=False)
    event = asyncio.run(both(event_of(asked), ends(bridge, "op-1", stopped_at=1)))[0]
    assert not event.payload["succeeded"]
    assert "logs:GetLogEvents" in event.payload["text"]


def test_a_last_line_without_a_log_group_is_refused_before_anything_runs(bridge: FakeBridge, here: commands.Commands):
    event = asyncio.run(event_of(trigger(xcom_last_line=True, ends_task=False)))
    assert "awslogs_group and awslogs_stream_prefix" in event.payload["text"]
    assert not bridge.records


# Live output


@pytest.fixture
def output(here: commands.Commands, monkeypatch: pytest.MonkeyPatch) -> FakeLogs:
    """Have a log group, in real time."""
    clock = Clock()
    monkeypatch.setattr(Clock, "ms", lambda self: now_ms())
    monkeypatch.setattr(live, "FIRST_LOOK", 0.01)
    monkeypatch.setattr(live, "TOGETHER", 0.01)
    monkeypatch.setattr(live, "SETTLE", 0.1)
    monkeypatch.setattr(live, "HANGS", PATIENCE)
    monkeypatch.setattr(live, "LAST", PATIENCE)
    made = FakeLogs(clock)
    client = here.aws.client
    monkeypatch.setattr(here.aws, "client", lambda name, *more, **_: made if name == "logs" else client(name, *more))
    return made


@pytest.fixture
def known(configure: Any) -> None:
    configure(awslogs_group="/ecs", awslogs_stream_prefix="app")


def runs(bridge: FakeBridge, id: str = "op-1") -> str:
    """Wait for a submission, and let it run; return its stream."""
    bridge.wait_until(lambda: id in bridge.records)
    with bridge.changed:
        bridge.records[id]["state"] = "running"
    return f"app/main/{bridge.records[id]['task_arn'].rpartition('/')[2]}"


def log_of(made: EcsBridgeTrigger, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the log of a trigger, which it is yet to write."""
    told: list[str] = []
    for level in ("info", "warning", "error"):
        monkeypatch.setattr(made.log, level, lambda text, *args: told.append(text % args if args else text))
    return told


async def until(look: Any) -> None:
    give_up = asyncio.get_running_loop().time() + PATIENCE
    while not look():
        assert asyncio.get_running_loop().time() < give_up
        await asyncio.sleep(0.01)


def test_output_is_in_the_task_s_log_while_the_command_runs(
    known: None, bridge: FakeBridge, output: FakeLogs, monkeypatch: pytest.MonkeyPatch
):
    one = trigger(awslogs_fetch_interval=0.05)
    told = log_of(one, monkeypatch)

    async def commands_life() -> None:
        stream = await asyncio.to_thread(runs, bridge)
        output.write(stream, "100 % of it\n")
        await until(lambda: any(text.endswith("] 100 % of it") for text in told))
        assert bridge.records["op-1"]["state"] == "running"
        output.write(stream, "the end")
        bridge.finish("op-1")

    async def run() -> Any:
        return await both(event_of(one), commands_life())

    event = asyncio.run(run())[0]
    assert isinstance(event, TaskSuccessEvent)
    (end,) = (place for place, text in enumerate(told) if text.endswith("] the end"))
    assert "ECS bridge state succeeded" in told[end + 1 :]


def test_a_failed_reader_neither_fails_nor_delays_a_task(known: None, bridge: FakeBridge, output: FakeLogs):
    output.always = ValueError("a bug")

    async def commands_life() -> None:
        await asyncio.to_thread(runs, bridge)
        await until(lambda: output.calls)
        bridge.finish("op-1")

    async def run() -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(live, "LAST", 0.1)
            return await both(event_of(trigger(awslogs_fetch_interval=0.05)), commands_life())

    assert isinstance(asyncio.run(run())[0], TaskSuccessEvent)


@pytest.mark.parametrize(("interval", "times"), [(2.0, 1), (None, 0)])
def test_a_log_without_output_says_why_once(
    bridge: FakeBridge,
    here: commands.Commands,
    monkeypatch: pytest.MonkeyPatch,
    interval: float | None,
    times: int,
):
    one = trigger(awslogs_fetch_interval=interval)
    told = log_of(one, monkeypatch)
    asyncio.run(both(event_of(one), ends(bridge, "op-1")))
    assert sum("set awslogs_group and awslogs_stream_prefix" in text for text in told) == times


def test_a_task_that_is_stopped_is_read_for_no_longer(known: None, bridge: FakeBridge, output: FakeLogs):
    here = commands.Commands.of_this_process()

    async def run() -> None:
        waits = asyncio.create_task(event_of(trigger(awslogs_fetch_interval=0.05)))
        await asyncio.to_thread(runs, bridge)
        await until(lambda: output.calls)
        waits.cancel()
        await asyncio.gather(waits, return_exceptions=True)

    asyncio.run(run())
    assert not here._live._followers


def test_live_output_goes_with_the_trigger_in_seconds():
    def seconds(**given: Any) -> float | None:
        operator = EcsBridgeOperator(task_id="t", command=["true"], **given)
        assert operator.start_trigger_args is not None
        kwargs = operator.start_trigger_args.trigger_kwargs
        assert kwargs is not None
        made = EcsBridgeTrigger(**{**kwargs, "submission_id": "op-1"})
        assert made.serialize()[1]["awslogs_fetch_interval"] == kwargs["awslogs_fetch_interval"]
        return kwargs["awslogs_fetch_interval"]

    assert seconds() == 2.0
    assert seconds(awslogs_fetch_interval=timedelta(seconds=30)) == 30.0
    assert seconds(awslogs_fetch_interval=None) is None
    for wrong in (timedelta(0), timedelta(seconds=-1), 30, "30"):
        with pytest.raises(ValueError, match="invalid awslogs_fetch_interval"):
            EcsBridgeOperator(task_id="t", command=["true"], awslogs_fetch_interval=wrong)  # type: ignore[arg-type]


# A return value from an object


@pytest.fixture(scope="module")
def moto_url() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A bucket named results."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto_url)
    client = boto3.client("s3", region_name="us-east-1", endpoint_url=moto_url)
    client.create_bucket(Bucket="results")
    yield client
    for each in client.list_objects_v2(Bucket="results").get("Contents", []):
        client.delete_object(Bucket="results", Key=each["Key"])


URI = "s3://results/day 1/rows.json"


def object_of(bridge: FakeBridge, **more: Any) -> TriggerEvent:
    asked = trigger(xcom_s3_uri=URI, ends_task=False)
    return asyncio.run(both(event_of(asked), ends(bridge, "op-1", **more)))[0]


def test_the_json_that_a_command_wrote_is_the_return_value(s3: Any, bridge: FakeBridge, here: commands.Commands):
    created_at = now_ms()
    s3.put_object(Bucket="results", Key="day 1/rows.json", Body=b'{"rows": [1, 2], "day": "\xc3\xa4"}')
    event = object_of(bridge, created_at=created_at)
    assert event.payload["xcoms"] == {"return_value": {"rows": [1, 2], "day": "ä"}}
    operator = EcsBridgeOperator(task_id="t", command=["x"], xcom_s3_uri=URI)
    assert operator.execute_complete({}, event.payload) == {"rows": [1, 2], "day": "ä"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (None, "NoSuchKey"),
        (b"three rows", "is not valid JSON"),
        (b"1" * (xcom.MOST_BYTES + 1), "262145 bytes"),
    ],
)
def test_an_object_that_cannot_be_a_return_value_fails_the_task_and_says_why(
    s3: Any, bridge: FakeBridge, here: commands.Commands, body: bytes | None, words: str
):
    created_at = now_ms()
    if body is not None:
        s3.put_object(Bucket="results", Key="day 1/rows.json", Body=body)
    event = object_of(bridge, created_at=created_at)
    assert not event.payload["succeeded"]
    assert words in event.payload["text"]
    assert "the command succeeded, but its return value is missing" in event.payload["text"]


def test_an_object_of_an_earlier_try_is_not_taken_for_this_one_s(s3: Any, bridge: FakeBridge, here: commands.Commands):
    s3.put_object(Bucket="results", Key="day 1/rows.json", Body=b"1")
    event = object_of(bridge, created_at=now_ms() + 60_000)
    assert "older than this try" in event.payload["text"]


def test_a_read_that_fails_for_now_is_repeated(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(xcom, "backoff", lambda tries: 0.0)
    written = {"LastModified": datetime.now(timezone.utc), "ContentLength": 1}
    answers = [denied("SlowDown"), EndpointConnectionError(endpoint_url="x"), {**written, "Body": BytesIO(b"7")}]

    def get_object(**_: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    aws: Any = SimpleNamespace(client=lambda *_, **__: SimpleNamespace(get_object=get_object))
    assert xcom.read_object(aws, URI, now_ms()) == 7
    answers += [denied("InternalError")] * xcom.TRIES
    with pytest.raises(xcom.NoResult, match="InternalError"):
        xcom.read_object(aws, URI, now_ms())


@pytest.mark.parametrize("uri", ["results/rows.json", "s3://results", "s3://results/", "s3:///rows", "s3://a/b/", 7])
def test_what_is_no_object_is_refused_before_anything_runs(bridge: FakeBridge, here: commands.Commands, uri: Any):
    event = asyncio.run(event_of(trigger(xcom_s3_uri=uri, ends_task=False)))
    assert "must be s3://BUCKET/KEY" in event.payload["text"]
    assert not bridge.records


def test_a_task_has_one_return_value_and_who_wants_none_reads_none():
    with pytest.raises(ValueError, match="set only one"):
        EcsBridgeOperator(task_id="t", command=["x"], xcom_last_line=True, xcom_s3_uri=URI)
    for wish in ({"xcom_last_line": True}, {"xcom_s3_uri": URI}):
        operator = EcsBridgeOperator(task_id="t", command=["x"], do_xcom_push=False, **wish)
        kwargs = operator.start_trigger_args.trigger_kwargs
        assert (kwargs["xcom_last_line"], kwargs["xcom_s3_uri"]) == (False, None)


def test_a_worker_hands_the_link_to_the_log_to_airflow_without_its_database():
    operator = EcsBridgeOperator(task_id="t", command=["x"])
    (link,) = operator.operator_extra_links
    assert link.get_link(operator, ti_key=None) == ""
    operator.execute_complete({}, {"succeeded": True, "text": "well", "xcoms": {link.xcom_key: "https://console"}})
    assert link.get_link(operator, ti_key=None) == "https://console"


# Other ends


@pytest.mark.parametrize(("code", "event_type"), [(99, TaskSkippedEvent), (1, TaskFailedEvent)])
def test_an_exit_code_can_skip_the_task(
    bridge: FakeBridge, here: commands.Commands, code: int, event_type: type[TriggerEvent]
):
    operator = EcsBridgeOperator(task_id="t", command=["x"], skip_on_exit_code={99, 100})
    end = ends(bridge, "op-1", state="failed", exit_code=code)
    event = asyncio.run(both(event_of(trigger(**operator.start_trigger_args.trigger_kwargs)), end))[0]
    assert type(event) is event_type


def test_a_worker_skips_its_task_too():
    operator = EcsBridgeOperator(task_id="t", command=["x"], skip_on_exit_code=99)
    told = {"succeeded": False, "skipped": True, "text": "exit code 99"}
    with pytest.raises(AirflowSkipException, match="exit code 99"):
        operator.execute_complete({}, told)


@pytest.mark.parametrize("airflow", [2, 3])
def test_the_execution_timeout_stops_the_command_and_needs_no_worker(
    bridge: FakeBridge, here: commands.Commands, airflow: int
):
    one = trigger()
    until = datetime.now(timezone.utc) + timedelta(seconds=1)
    if airflow == 3:
        one.timeout_after = until
    else:
        one.task_instance = SimpleNamespace(**vars(TI), trigger_timeout=until)
    assert isinstance(asyncio.run(event_of(one)), TaskFailedEvent)
    bridge.wait_until(lambda: bridge.stops)
    assert bridge.stops == [("op-1", triggers.TIMED_OUT)]


def test_options_that_cannot_be_used_fail_the_task_with_what_is_wrong(configure: Any, monkeypatch: pytest.MonkeyPatch):
    configure(submit_url="", table="")
    monkeypatch.setattr(commands.Commands, "_here", None)
    event = asyncio.run(event_of(trigger(ends_task=False)))
    assert "submit_url or submit_function must be set" in event.payload["text"]
    assert "table must be set" in event.payload["text"]


# What waits


def test_the_log_of_a_command_that_waits_says_for_what_and_since_when(
    bridge: FakeBridge, configure: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
):
    monkeypatch.setattr(commands, "WAITS_AFTER", 0.0)
    monkeypatch.setattr(wait_reasons, "EVERY", 0.1)
    monkeypatch.setattr(wait_reasons, "_PAUSE", 0.05)
    request.getfixturevalue("here")
    told: list[str] = []

    async def run() -> None:
        one = trigger()
        monkeypatch.setattr(one.log, "info", lambda text, *args: told.append(text % args))
        waiting = asyncio.create_task(event_of(one))
        await asyncio.to_thread(bridge.wait_until, lambda: "op-1" in bridge.records)
        with bridge.changed:
            bridge.records["op-1"].update(state="queued", reason="RESOURCE:MEMORY", created_at=1_800_000_000_000)
        while not any("RESOURCE:MEMORY" in text for text in told):
            await asyncio.sleep(0.05)
        looks = bridge.calls["BatchGetItem"]
        await asyncio.to_thread(bridge.wait_until, lambda: bridge.calls["BatchGetItem"] >= looks + 3)
        await ends(bridge, "op-1")
        await waiting

    asyncio.run(run())
    lines = [text for text in told if " has been waiting since " in text]
    assert len(lines) == 1
    assert "op-1 has been waiting since 2027-01-15T08:00:00Z, state queued: RESOURCE:MEMORY, what to do: " in lines[0]


def test_what_has_started_is_looked_at_once():
    looked_up: list[list[str]] = []
    told: list[tuple[str, str]] = []

    def lookup(ids: Any) -> Future[dict[str, Record]]:
        looked_up.append(list(ids))
        answer: Future[dict[str, Record]] = Future()
        answer.set_result({"runs": Record("runs", "running"), "waits": Record("waits", "launched")})
        return answer

    looker = wait_reasons.WaitReasons(lookup, lambda id, text: told.append((id, text)), after=0.0)
    looker.keep({"runs", "waits", "not there yet"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wait_reasons, "_PAUSE", 0.0)
        patch.setattr(wait_reasons, "EVERY", 0.0)
        for _ in range(3):
            looker.step()
    assert [sorted(ids) for ids in looked_up] == [["not there yet", "runs", "waits"], *[["not there yet", "waits"]] * 2]
    assert [id for id, _ in told] == ["waits"]
    assert "waiting for container start" in told[0][1]
    looker.keep(set())
    looker.step()
    assert len(looked_up) == 3


def test_the_containers_last_lines_are_one_bounded_read(here: commands.Commands):
    settings = SimpleNamespace(
        awslogs_group="/ecs", awslogs_stream_prefix="app", awslogs_region=None, local_log_dir=None
    )
    asked = {}

    def get_log_events(**given: Any) -> dict[str, Any]:
        asked.update(given)
        return {"events": [{"message": "a\n"}, {"message": "b"}]}

    aws = SimpleNamespace(client=lambda service, region: SimpleNamespace(get_log_events=get_log_events))
    record = {"task_arn": "arn:aws:ecs:eu-central-1:1:task/jobs/abc", "container_name": "main", "runner_id": "r"}
    record |= {"started_at": 10_000, "container_exited_at": 20_000}
    assert cloudwatch_logs.tail(aws, settings, record, 20) == ["a", "b"]
    assert asked == {
        "logGroupName": "/ecs",
        "logStreamName": "app/main/abc",
        "limit": 20,
        "startFromHead": False,
        "startTime": 10_000,
        "endTime": 20_001,
    }
    # Not known when its command began: the container's lines may be another command's.
    del record["started_at"]
    assert cloudwatch_logs.tail(aws, settings, record, 20) == []


def test_a_failed_container_has_its_last_lines_in_the_event_log(monkeypatch: pytest.MonkeyPatch):
    settings = SimpleNamespace(knows_output=True, failure_log_lines=3)
    told: list[Outcome] = []
    lines = log_tail.LogTail(None, settings, lambda id: {"task_arn": "arn", "submission_id": id}, told.append)

    def tail(aws: Any, settings: Any, record: dict[str, Any], lines: int) -> list[str]:
        return ["x" * 3_000, f"{record['task_arn']} of {record['submission_id']} {lines}"]

    monkeypatch.setattr(log_tail, "tail", tail)
    lines.report(Outcome("well", Verdict.SUCCEEDED, "fine"))
    lines.report(Outcome("never-ran", Verdict.FAILED, "rejected"))
    lines.report(Outcome("badly", Verdict.FAILED, "exit code 1", has_output=True))
    assert [outcome.submission_id for outcome in told] == ["well", "never-ran"]
    lines.step()
    assert told[2].info.startswith("exit code 1, last lines of the container:\n")
    assert told[2].info.endswith("arn of badly 3")
    assert len(told[2].info) < 1_600
    # What cannot be read keeps nothing back, and a storm of failures is told without.
    monkeypatch.setattr(log_tail, "tail", lambda *_: 1 / 0)
    for number in range(50):
        lines.report(Outcome(str(number), Verdict.FAILED, "exit code 1", has_output=True))
    assert len(told) == 3 + 30
    for _ in range(20):
        lines.step()
    assert len(told) == 3 + 50


def test_a_dag_processor_imports_neither_boto3_nor_the_executor():
    code = "import sys, airflow_ecs_bridge.operators; print({'boto3', 'botocore'} & sys.modules.keys(), "
    code += "'airflow_ecs_bridge.executor' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set() False"


def test_the_example_dag_joins_two_sizes():
    from airflow_ecs_bridge.example_dags import example_ecs_bridge_operator as example

    tasks = {task.task_id: task for task in example.join.dag.tasks}
    assert tasks["join"].upstream_task_ids == {"odd", "even"}
    assert all(task.start_from_trigger for task in tasks.values())
    assert tasks["even"].overrides == {"overrides": {"cpu": "512", "memory": "1024"}}
