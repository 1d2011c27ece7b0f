"""The operator and its trigger against a bridge that a test scripts."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.exceptions import AirflowException
from airflow.triggers.base import TaskFailedEvent, TaskSuccessEvent, TriggerEvent
from airflow_ecs_bridge import commands, containerlog, lastlines, triggers
from airflow_ecs_bridge.job import Unsubmittable
from airflow_ecs_bridge.operators import EcsBridgeOperator
from airflow_ecs_bridge.outcome import Outcome, Verdict
from airflow_ecs_bridge.triggers import EcsBridgeTrigger
from fake_bridge import FakeBridge

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
    return EcsBridgeTrigger(**{"command": ["echo", "hello"], "submission_id": id, "ends_task": True, **more})


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
        ({"command": "echo"}, "command must be a list of strings"),
        ({"command": []}, "command must be a list of strings"),
        ({"environment": {"A": "b"}}, "set container"),
        ({"priority": 1000}, "priority must be a whole number from 0 to 999"),
        ({"overrides": {"count": 2}}, "may not set count"),
        ({"overrides": {"memroy": "1"}}, "not a parameter of RunTask|a parameter of RunTask: memroy"),
        ({"profile": "no such name!"}, "not a profile's name"),
    ],
)
def test_what_cannot_be_submitted_says_what_would_be_right(given: dict[str, Any], words: str):
    with pytest.raises(Unsubmittable, match=words):
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
    bridge: FakeBridge, here: commands.Commands, caplog: pytest.LogCaptureFixture
):
    ids = [f"op-{number}" for number in range(1_000)]

    async def all_of_them() -> Any:
        waiting = [asyncio.create_task(event_of(trigger(id))) for id in ids]
        await asyncio.to_thread(bridge.wait_until, lambda: len(bridge.records) == 1_000)
        before = bridge.calls["Query"]
        await asyncio.sleep(2)
        polls = bridge.calls["Query"] - before
        await ends(bridge, *ids)
        return polls, await asyncio.gather(*waiting)

    polls, events = asyncio.run(all_of_them())
    assert all(isinstance(event, TaskSuccessEvent) for event in events), caplog.text[-3_000:]
    # Ten reads a second are what the options here ask for, however many wait.
    assert 1 <= polls <= 30
    assert len(bridge.batches) < 100


def test_a_killed_task_stops_its_command(bridge: FakeBridge, here: commands.Commands):
    async def killed() -> None:
        waiting = asyncio.create_task(event_of(trigger()))
        await asyncio.to_thread(bridge.wait_until, lambda: "op-1" in bridge.records)
        await trigger().on_kill()
        await asyncio.to_thread(bridge.wait_until, lambda: bridge.stops)
        waiting.cancel()

    asyncio.run(killed())
    assert bridge.stops[0][0] == "op-1"


def test_a_worker_can_wait_itself(bridge: FakeBridge, here: commands.Commands):
    operator = EcsBridgeOperator(task_id="t", command=["true"], deferrable=False)
    id = commands.submission_id(TI)

    async def run() -> Any:
        return await both(asyncio.to_thread(operator.execute, {"ti": TI}), ends(bridge, id))

    assert asyncio.run(run())[0] is None
    operator.on_kill()
    assert bridge.stops[0][0] == id


@pytest.mark.parametrize(("state", "stopped"), [("deferred", False), ("failed", True), (None, False)])
def test_before_airflow_3_3_a_trigger_that_ends_asks_whether_its_task_waits(
    bridge: FakeBridge, here: commands.Commands, monkeypatch: pytest.MonkeyPatch, state: str | None, stopped: bool
):
    """A triggerer that restarts stops nothing; neither does one that cannot find out."""
    monkeypatch.setattr(triggers, "HAS_ON_KILL", False)

    async def told(ti: Any) -> str | None:
        return state

    monkeypatch.setattr(triggers, "state_of", told)

    async def cleared() -> None:
        one = trigger()
        one.task_instance = TI
        waiting = asyncio.create_task(event_of(one))
        await asyncio.to_thread(bridge.wait_until, lambda: "op-1" in bridge.records)
        waiting.cancel()
        await one.cleanup()

    asyncio.run(cleared())
    if stopped:
        bridge.wait_until(lambda: bridge.stops)
    assert bool(bridge.stops) is stopped


def test_the_last_line_becomes_an_xcom(bridge: FakeBridge, here: commands.Commands, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(commands, "tail", lambda *_: ["first", "42"])
    event, _ = asyncio.run(both(event_of(trigger(xcom_last_line=True)), ends(bridge, "op-1")))
    assert event.xcoms == {"return_value": "42"}
    monkeypatch.setattr(commands, "tail", lambda *_: [])
    event, _ = asyncio.run(both(event_of(trigger("op-2", xcom_last_line=True)), ends(bridge, "op-2")))
    assert isinstance(event, TaskFailedEvent)


def test_the_containers_last_lines_are_one_bounded_read(here: commands.Commands):
    settings = SimpleNamespace(awslogs_group="/ecs", awslogs_stream_prefix="app", awslogs_region=None)
    asked = {}

    def get_log_events(**given: Any) -> dict[str, Any]:
        asked.update(given)
        return {"events": [{"message": "a\n"}, {"message": "b"}]}

    aws = SimpleNamespace(client=lambda service, region: SimpleNamespace(get_log_events=get_log_events))
    record = {"task_arn": "arn:aws:ecs:eu-central-1:1:task/jobs/abc", "container_name": "main", "runner_id": "r"}
    record |= {"started_at": 10_000, "container_exited_at": 20_000}
    assert containerlog.tail(aws, settings, record, 20) == ["a", "b"]
    assert asked == {
        "logGroupName": "/ecs",
        "logStreamName": "app/main/abc",
        "limit": 20,
        "startFromHead": False,
        "startTime": 9_000,
        "endTime": 22_000,
    }


def test_a_failed_container_has_its_last_lines_in_the_event_log(monkeypatch: pytest.MonkeyPatch):
    settings = SimpleNamespace(awslogs_group="/ecs", awslogs_stream_prefix="app", failure_log_lines=3)
    told: list[Outcome] = []
    lines = lastlines.LastLines(None, settings, told.append)

    def tail(aws: Any, settings: Any, record: dict[str, Any], lines: int) -> list[str]:
        return ["x" * 3_000, f"{record['task_arn']} {lines}"]

    monkeypatch.setattr(lastlines, "tail", tail)
    container = {"task_arn": "arn", "container_name": "main"}
    lines.report(Outcome("well", Verdict.SUCCEEDED, "fine"))
    lines.report(Outcome("never-ran", Verdict.FAILED, "rejected"))
    lines.report(Outcome("badly", Verdict.FAILED, "exit code 1", container))
    assert [outcome.submission_id for outcome in told] == ["well", "never-ran"]
    lines.step()
    assert told[2].info.startswith("exit code 1, the container's last lines:\n")
    assert told[2].info.endswith("arn 3")
    assert len(told[2].info) < 1_600
    # What cannot be read keeps nothing back, and a storm of failures is told without.
    monkeypatch.setattr(lastlines, "tail", lambda *_: 1 / 0)
    for number in range(50):
        lines.report(Outcome(str(number), Verdict.FAILED, "exit code 1", container))
    assert len(told) == 3 + 30
    for _ in range(20):
        lines.step()
    assert len(told) == 3 + 50


@pytest.mark.parametrize(
    ("given", "begins"),
    [
        ({}, True),
        ({"deferrable": False}, False),
        ({"start_from_trigger": False}, False),
        ({"command": ["echo", "{{ ds }}"]}, True),
    ],
)
def test_a_task_begins_in_the_triggerer_where_it_can(given: dict[str, Any], begins: bool):
    operator = EcsBridgeOperator(task_id="t", **{"command": ["true"], **given})
    assert operator.start_from_trigger is begins
    if begins:
        arguments = operator.start_trigger_args
        assert arguments.trigger_kwargs["ends_task"]
        assert EcsBridgeTrigger(**arguments.trigger_kwargs).serialize()[1]["command"] == given.get("command", ["true"])


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
