"""The drop-in for EcsRunTaskOperator, against a bridge that a test scripts. No wait of a test is unbounded."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from airflow.exceptions import AirflowException, AirflowSkipException
from airflow.providers.amazon.aws.exceptions import EcsOperatorError, EcsTaskFailToStart
from airflow.providers.amazon.aws.operators import ecs as provider
from airflow.sdk import DAG
from airflow.sdk.bases.xcom import BaseXCom
from airflow.sdk.exceptions import TaskDeferred
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from botocore.exceptions import WaiterError
from conftest import OPTIONS
from fake_bridge import PATIENCE, FakeBridge

from airflow_ecs_bridge import commands, triggers, xcom
from airflow_ecs_bridge.compat import EcsRunTaskOperator, client
from airflow_ecs_bridge.compat import trigger as compat_trigger
from airflow_ecs_bridge.compat.trigger import EcsRunTaskTrigger

T = TypeVar("T")

OVERRIDES = {
    "cpu": "256",
    "containerOverrides": [
        {"name": "main", "command": ["python", "etl.py"], "environment": [{"name": "DAY", "value": "1"}]},
    ],
}
GIVEN = {
    "task_id": "t",
    "task_definition": "etl:7",
    "cluster": "jobs",
    "launch_type": "FARGATE",
    "overrides": OVERRIDES,
}
LOGS = {"awslogs_group": "/ecs/etl", "awslogs_stream_prefix": "etl"}


class TaskInstance(SimpleNamespace):
    """What the operator uses of a task instance."""

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value


def task_instance(**more: Any) -> Any:
    known = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1, "id": "uuid"}
    return TaskInstance(**{**known, **more}, xcoms={})


@pytest.fixture(autouse=True)
def _bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No profile of the fake bridge has the drop-in's default name, and no check of a launch waits for long."""
    monkeypatch.setattr("fake_bridge.PROFILES", {"default", "ecs-run-task"})
    monkeypatch.setattr(client, "LAST_LOOK", 0.1)
    monkeypatch.setattr(client, "FIRST_LOOK", 0.05)
    monkeypatch.setattr(client, "OUTPUT_EVERY", 0.01)
    monkeypatch.setattr(xcom, "COMPLETE_AFTER", 0.0)
    monkeypatch.setattr(compat_trigger, "_lives", {})
    # Airflow 3's own logger of an operator is no part of Python's logging.
    monkeypatch.setattr(EcsRunTaskOperator, "log", logging.getLogger("compat"))
    monkeypatch.setattr(EcsRunTaskTrigger, "log", logging.getLogger("compat"))


@pytest.fixture
def here(bridge: FakeBridge, url: str, configure: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[commands.Commands]:
    configure(**{name.lower(): value for name, value in OPTIONS.items()}, submit_url=url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", url)
    monkeypatch.setattr(commands.Commands, "_here", None)
    here = commands.Commands.of_this_process()
    yield here
    for service in here._services:
        service.stop()


@pytest.fixture
def output(tmp_path: Path, here: commands.Commands, configure: Any) -> Path:
    """Have the folder of a local stack for the output of containers."""
    configure(local_log_dir=str(tmp_path))
    object.__setattr__(here.settings, "local_log_dir", str(tmp_path))
    return tmp_path


@pytest.fixture
def xcoms(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Have the XComs that a triggerer sets."""
    pushed: dict[str, Any] = {}
    monkeypatch.setattr(BaseXCom, "get_one", lambda **_: None)
    monkeypatch.setattr(BaseXCom, "set", lambda key, value, **_: pushed.update({key: value}))
    monkeypatch.setattr(BaseXCom, "delete", lambda key, **_: None)
    return pushed


def operator(**more: Any) -> EcsRunTaskOperator:
    return EcsRunTaskOperator(**{**GIVEN, **more})


def begun(act: Callable[[], T]) -> Future[T]:
    """Call something that waits, in a thread that does not outlive the tests."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(act())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return result


def meanwhile(act: Callable[[], T], bridge: FakeBridge, *then: Callable[[str], None]) -> T:
    """Call something that waits, and act on its submission while it waits."""
    result = begun(act)
    result.add_done_callback(lambda _: notify(bridge))
    bridge.wait_until(lambda: bridge.records or result.done())
    for id in list(bridge.records)[:1]:
        for each in then:
            each(id)
    return result.result(PATIENCE)


def execute(op: EcsRunTaskOperator, bridge: FakeBridge, *then: Callable[[str], None], ti: Any = None) -> Any:
    return meanwhile(lambda: op.execute({"ti": ti or task_instance()}), bridge, *then)


def ends(bridge: FakeBridge, state: str = "succeeded", **more: Any) -> Callable[[str], None]:
    return lambda id: bridge.finish(id, state, **more)


def item(bridge: FakeBridge) -> dict[str, Any]:
    (batch,) = bridge.batches
    return batch[0]


def deferred(op: EcsRunTaskOperator, ti: Any = None) -> TaskDeferred:
    with pytest.raises(TaskDeferred) as caught:
        op.execute({"ti": ti or task_instance()})
    return caught.value


def event_of(trigger: EcsRunTaskTrigger, bridge: FakeBridge, *then: Callable[[str], None]) -> dict[str, Any]:
    return meanwhile(lambda: asyncio.run(anext_of(trigger)), bridge, *then)


async def anext_of(trigger: EcsRunTaskTrigger) -> Any:
    return (await asyncio.wait_for(anext(trigger.run()), PATIENCE)).payload


def in_triggerer(trigger: EcsRunTaskTrigger, ti: Any = None) -> EcsRunTaskTrigger:
    path, kwargs = trigger.serialize()
    assert path == "airflow_ecs_bridge.compat.trigger.EcsRunTaskTrigger"
    made = EcsRunTaskTrigger(**kwargs)
    made.trigger_id = 1
    if ti is not None:
        made._task_instance = ti
    return made


# The same interface


def test_the_drop_in_has_the_interface_of_the_provider_s_operator():
    op = operator()
    assert isinstance(op, provider.EcsRunTaskOperator)
    assert op.template_fields == provider.EcsRunTaskOperator.template_fields
    assert op.template_fields_renderers == provider.EcsRunTaskOperator.template_fields_renderers
    theirs = vars(provider.EcsRunTaskOperator(**GIVEN))
    assert {name: vars(op)[name] for name in theirs if not name.startswith("_")}.keys() <= vars(op).keys()
    for name in ("launch_type", "number_logs_exception", "waiter_delay", "awslogs_fetch_interval", "reattach"):
        assert getattr(op, name) == theirs[name]


def test_the_client_has_the_methods_of_the_provider_s_protocol():
    from airflow.providers.amazon.aws.hooks.ecs import EcsProtocol

    assert isinstance(operator().client, EcsProtocol)


def test_without_the_provider_the_import_names_the_package():
    code = (
        "import sys; sys.modules['airflow.providers.amazon.aws.operators.ecs'] = None\nimport airflow_ecs_bridge.compat"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE)
    assert "requires the Amazon provider" in result.stderr
    assert "apache-airflow-providers-amazon" in result.stderr


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"overrides": {}}, "missing command in overrides"),
        ({"overrides": {"containerOverrides": [{"name": "main", "cpu": 1}]}}, "missing command in overrides"),
        ({"overrides": {"containerOverrides": [{"command": ["x"]}]}}, "must have a name"),
        ({"overrides": {"containerOverrides": [{"name": "main", "command": "x"}]}}, "must be a list of strings"),
        (
            {"overrides": {"containerOverrides": [{"name": n, "command": ["x"]} for n in "ab"]}},
            "commands of several containers",
        ),
        ({"overrides": {**OVERRIDES, "memroy": "1"}}, "did you mean overrides.*memory"),
        ({"aws_conn_id": "other"}, "remove aws_conn_id, or set it to that of"),
        ({"aws_conn_id": None}, "aws_conn_id is None"),
        ({"region_name": "us-east-1"}, "the bridge runs tasks in 'eu-central-1'"),
        ({"verify": False}, "verify applies to calls to ECS"),
        ({"botocore_config": {"read_timeout": 1}}, "set it in the connection"),
        ({"awslogs_fetch_interval": timedelta(milliseconds=1)}, "at least 1 second"),
        ({"profile": "no such!"}, "must be the name of a profile"),
        ({"priority": 1000}, "from 0 to 999"),
        ({"from_profile": ["overrides"]}, "from_profile has 'overrides'"),
        ({"from_profile": "cluster"}, "must be a list of names"),
    ],
)
def test_a_parameter_that_the_bridge_cannot_honor_is_an_error_of_the_dag(
    given: dict[str, Any], words: str, configure: Any
):
    configure(region_name="eu-central-1", aws_conn_id="aws_default")
    with pytest.raises(ValueError, match=words):
        operator(**given)
    partial = {name: value for name, value in {**GIVEN, **given}.items() if name != "group"}
    with DAG("d"), pytest.raises(ValueError, match=words):
        EcsRunTaskOperator.partial(**partial).expand(group=["a"])


def test_all_problems_are_in_one_message():
    with pytest.raises(ValueError, match=r"verify applies.*missing command"):
        operator(verify=False, overrides={})


def test_templates_and_outputs_are_no_errors_when_the_dag_is_parsed():
    with DAG("d"):
        output = operator().output
        given = (
            "{{ params.overrides }}",
            output,
            {"containerOverrides": output},
            {"containerOverrides": "{{ params.containers }}"},
            {"containerOverrides": [{"name": "{{ x }}", "command": "{{ params.command }}"}]},
            {"containerOverrides": [{"name": "main", "command": ["echo", output]}]},
            {"memory": output, **OVERRIDES},
        )
        for number, overrides in enumerate(given):
            assert operator(task_id=f"t{number}", overrides=overrides).overrides is overrides


def test_a_rendered_template_is_checked_in_the_worker(here: commands.Commands):
    op = operator(overrides="{{ params.overrides }}")
    op.overrides = {}
    with pytest.raises(ValueError, match="missing command"):
        op.execute({"ti": task_instance()})


# Submissions


def test_a_submission_has_all_parameters_of_run_task(bridge: FakeBridge, here: commands.Commands):
    more = {
        "capacity_provider_strategy": [{"capacityProvider": "FARGATE_SPOT"}],
        "volume_configurations": [{"name": "data", "managedEBSVolume": {"sizeInGiB": 10}}],
        "group": "nightly",
        "placement_constraints": [{"type": "distinctInstance"}],
        "placement_strategy": [{"type": "binpack", "field": "memory"}],
        "platform_version": "1.4.0",
        "network_configuration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
        "tags": {"team": "etl"},
        "propagate_tags": "TASK_DEFINITION",
    }
    execute(operator(**more, priority=7), bridge, ends(bridge))
    sent = item(bridge)
    assert sent["command"] == ["python", "etl.py"]
    assert sent["profile"] == "ecs-run-task"
    assert sent["priority"] == 7
    assert sent["labels"]["task_id"] == "t"
    assert sent["overrides"] == {
        "taskDefinition": "etl:7",
        "cluster": "jobs",
        "capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}],
        "volumeConfigurations": more["volume_configurations"],
        "group": "nightly",
        "placementConstraints": more["placement_constraints"],
        "placementStrategy": more["placement_strategy"],
        "platformVersion": "1.4.0",
        "networkConfiguration": more["network_configuration"],
        "tags": [{"key": "team", "value": "etl"}],
        "propagateTags": "TASK_DEFINITION",
        "overrides": {
            "cpu": "256",
            "containerOverrides": [{"name": "main", "environment": [{"name": "DAY", "value": "1"}]}],
        },
    }


def test_the_profile_can_determine_parameters(bridge: FakeBridge, here: commands.Commands):
    names = ["task_definition", "cluster", "launch_type"]
    op = operator(
        from_profile=names, profile="default", overrides={"containerOverrides": OVERRIDES["containerOverrides"]}
    )
    execute(op, bridge, ends(bridge))
    environment = [{"name": "main", "environment": [{"name": "DAY", "value": "1"}]}]
    assert item(bridge)["overrides"] == {"overrides": {"containerOverrides": environment}}


def test_the_same_try_finds_its_submission_again_and_a_retry_does_not(bridge: FakeBridge, here: commands.Commands):
    op = operator()
    lost = begun(lambda: op.execute({"ti": task_instance()}))
    bridge.wait_until(lambda: bridge.records)
    (first,) = bridge.records
    # Its worker is gone, and another one runs the same try.
    bridge.wait_until(lambda: op._bridge_client._run or poke(bridge))
    op._bridge_client.close()
    with pytest.raises(BaseException):  # noqa: B017, PT011
        lost.result(PATIENCE)
    execute(operator(), bridge, ends(bridge))
    assert bridge.starts == {first: 1}
    again = begun(lambda: operator().execute({"ti": task_instance(try_number=2, id="other")}))
    bridge.wait_until(lambda: len(bridge.records) == 2)
    second = list(bridge.records)[1]
    bridge.finish(second)
    again.result(PATIENCE)
    assert bridge.starts == {first: 1, second: 1}


# Waiting in a worker


def test_a_worker_waits_and_pushes_the_arn(bridge: FakeBridge, here: commands.Commands):
    ti, op = task_instance(), operator()
    assert execute(op, bridge, ends(bridge), ti=ti) is None
    (record,) = bridge.records.values()
    assert op.arn == record["task_arn"]
    assert ti.xcoms == {"ecs_task_arn": record["task_arn"]}


def test_without_do_xcom_push_nothing_is_pushed(bridge: FakeBridge, here: commands.Commands):
    ti = task_instance()
    execute(operator(do_xcom_push=False), bridge, ends(bridge), ti=ti)
    assert ti.xcoms == {}


def test_a_queued_submission_is_awaited_until_it_has_a_task(bridge: FakeBridge, here: commands.Commands):
    ti = task_instance()
    submit = bridge._submit

    def held(sent: dict[str, Any]) -> dict[str, Any]:
        answer = submit(sent)
        bridge.records[sent["submission_id"]].pop("task_arn", None)
        return answer

    bridge._submit = held  # type: ignore[method-assign]

    def launch(id: str) -> None:
        lookups = len(bridge.looked_up)
        bridge.wait_until(lambda: len(bridge.looked_up) > lookups + 2)
        assert not ti.xcoms
        with bridge.changed:
            bridge.records[id].update(task_arn="arn:aws:ecs:eu-central-1:1:task/c/1", state="running")
        bridge.wait_until(lambda: ti.xcoms)
        bridge.finish(id)

    execute(operator(), bridge, launch, ti=ti)
    assert ti.xcoms == {"ecs_task_arn": "arn:aws:ecs:eu-central-1:1:task/c/1"}


def test_without_wait_for_completion_the_task_ends_at_the_launch(bridge: FakeBridge, here: commands.Commands):
    ti = task_instance()
    assert execute(operator(wait_for_completion=False), bridge, ti=ti) is None
    (record,) = bridge.records.values()
    assert record["state"] == "launched"
    assert ti.xcoms == {"ecs_task_arn": record["task_arn"]}
    assert not bridge.stops


def test_an_exit_code_fails_with_the_provider_s_text(bridge: FakeBridge, here: commands.Commands):
    with pytest.raises(AirflowException, match=r"This task is not in success state .*'exitCode': 7"):
        execute(operator(), bridge, ends(bridge, "failed", exit_code=7))


@pytest.mark.parametrize("codes", [7, [7, 8]])
def test_an_exit_code_can_skip(bridge: FakeBridge, here: commands.Commands, codes: Any):
    with pytest.raises(AirflowSkipException, match="This task is not in success state"):
        execute(operator(skip_on_exit_code=codes), bridge, ends(bridge, "failed", exit_code=7))


def test_no_exit_code_is_not_one_that_skips(bridge: FakeBridge, here: commands.Commands):
    """ECS stopped the task before its container exited. That is no reason to skip."""

    def stopped(id: str) -> None:
        bridge.finish(id, "failed", stop_code="ServiceSchedulerInitiated")
        with bridge.changed:
            del bridge.records[id]["exit_code"]

    with pytest.raises(AirflowException, match="not in success state") as caught:
        execute(operator(skip_on_exit_code=[7]), bridge, stopped)
    assert not isinstance(caught.value, AirflowSkipException)


def test_a_failed_start_has_the_provider_s_exception(bridge: FakeBridge, here: commands.Commands):
    def fails(id: str) -> None:
        reason = "CannotPullContainerError: no such image"
        bridge.finish(id, "failed", stop_code="TaskFailedToStart", stopped_reason=reason)
        with bridge.changed:
            del bridge.records[id]["exit_code"]

    with pytest.raises(EcsTaskFailToStart, match="failed to start due to: CannotPullContainerError"):
        execute(operator(), bridge, fails)


def test_a_terminated_host_has_the_provider_s_text(bridge: FakeBridge, here: commands.Commands):
    reason = "Host EC2 (instance i-1) terminated."
    with pytest.raises(AirflowException, match="because the host instance terminated"):
        execute(operator(), bridge, ends(bridge, "failed", stopped_reason=reason))


def test_a_lost_task_is_missing(bridge: FakeBridge, here: commands.Commands):
    with pytest.raises(AirflowException, match="MISSING"):
        execute(operator(), bridge, ends(bridge, "lost"))


def test_a_submission_that_is_not_accepted_has_the_provider_s_exception(bridge: FakeBridge, here: commands.Commands):
    with pytest.raises(EcsOperatorError, match="unknown_profile") as caught:
        operator(profile="nobody").execute({"ti": task_instance()})
    assert "unknown_profile" in caught.value.failures[0]["reason"]


def test_a_rejected_launch_has_the_provider_s_exception(bridge: FakeBridge, here: commands.Commands):
    submit = bridge._submit

    def rejected(sent: dict[str, Any]) -> dict[str, Any]:
        answer = submit(sent)
        id = sent["submission_id"]
        del bridge.records[id]["task_arn"]
        bridge.finish(id, "rejected", reason="InvalidParameterException: no such container")
        return {**answer, "state": "rejected"}

    bridge._submit = rejected  # type: ignore[method-assign]
    with pytest.raises(EcsOperatorError, match="InvalidParameterException: no such container"):
        execute(operator(), bridge)


def test_the_waiter_gives_up_and_stops_the_command(bridge: FakeBridge, here: commands.Commands):
    with pytest.raises(WaiterError, match="Max attempts exceeded"):
        execute(operator(waiter_delay=0.01, waiter_max_attempts=1), bridge)
    assert [reason for _, reason in bridge.stops] == ["Task failed after creation; cleanup by Airflow"]


def test_without_stop_task_on_failure_the_command_continues(bridge: FakeBridge, here: commands.Commands):
    with pytest.raises(WaiterError):
        execute(operator(waiter_delay=0.01, waiter_max_attempts=1, stop_task_on_failure=False), bridge)
    assert not bridge.stops


def test_a_killed_worker_stops_its_command(bridge: FakeBridge, here: commands.Commands):
    op = operator()

    def kill(id: str) -> None:
        op.on_kill()
        bridge.finish(id, "cancelled", exit_code=143)

    with pytest.raises(AirflowException, match="not in success state"):
        execute(op, bridge, kill)
    assert bridge.stops == [(next(iter(bridge.records)), "Task killed by the user")]


def test_an_operator_that_has_not_begun_stops_nothing(bridge: FakeBridge, here: commands.Commands):
    operator().on_kill()
    assert not bridge.stops


def test_reattach_reports_that_it_is_not_necessary(
    bridge: FakeBridge, here: commands.Commands, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    execute(operator(reattach=True), bridge, ends(bridge))
    assert "reattach is not necessary on the bridge" in caplog.text
    assert bridge.starts.total() == 1


def test_a_failure_logs_the_reason_and_the_submission(
    bridge: FakeBridge, here: commands.Commands, caplog: pytest.LogCaptureFixture
):
    with pytest.raises(AirflowException):
        execute(operator(), bridge, ends(bridge, "failed", exit_code=127, reason="container main exited with 127"))
    assert "container main exited with 127" in caplog.text
    assert "ecs-bridge show op-" in caplog.text


def test_a_region_that_only_the_process_knows_is_checked_before_a_submission(
    bridge: FakeBridge, here: commands.Commands, configure: Any
):
    configure(region_name="")
    op = operator(region_name="us-east-1")
    with pytest.raises(ValueError, match="the bridge runs tasks in 'eu-central-1'"):
        op.execute({"ti": task_instance()})
    assert not bridge.batches


# Output


def write(folder: Path, bridge: FakeBridge, text: str) -> Callable[[str], None]:
    def append(id: str) -> None:
        task = bridge.records[id]["task_arn"].rsplit("/", 1)[-1]
        with (folder / f"{task}-main.log").open("a") as file:
            file.write(text)

    return append


def test_a_worker_shows_output_while_the_command_runs(
    bridge: FakeBridge, output: Path, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("INFO")
    op = operator(**LOGS, awslogs_fetch_interval=timedelta(seconds=1))

    def is_shown(text: str) -> Callable[[str], None]:
        return lambda _: bridge.wait_until(lambda: text in caplog.text or poke(bridge))

    before, after = write(output, bridge, "before\nERROR: 50% full\n"), write(output, bridge, "after\nlast")
    result = execute(op, bridge, before, is_shown("] before"), after, ends(bridge))
    assert result == "last"
    assert "] after" in caplog.text
    assert {each.levelname for each in caplog.records if "50% full" in each.getMessage()} == {"ERROR"}


def poke(bridge: FakeBridge) -> bool:
    """Make a wait look again soon, for something that is not a change of the bridge."""
    timer = threading.Timer(0.05, lambda: notify(bridge))
    timer.daemon = True
    timer.start()
    return False


def notify(bridge: FakeBridge) -> None:
    with bridge.changed:
        bridge.changed.notify_all()


def test_a_failure_has_the_last_lines(bridge: FakeBridge, output: Path):
    op = operator(**LOGS, number_logs_exception=2)
    text = "This task is not in success state - last 2 logs from Cloudwatch:\nTraceback\nlast$"
    with pytest.raises(AirflowException, match=text):
        execute(op, bridge, write(output, bridge, "first\nTraceback\nlast\n"), ends(bridge, "failed", exit_code=1))


def test_the_stream_is_that_of_the_container_with_the_command():
    op = operator(**LOGS)
    op._infer_container_name()
    op.arn = "arn:aws:ecs:eu-central-1:1:task/jobs/123"
    assert op._get_logs_stream_name() == "etl/main/123"
    assert op._logs() == {"group": "/ecs/etl", "prefix": "etl", "container": "main", "region": None}
    op = operator(awslogs_group="g", awslogs_stream_prefix="etl/main")
    op._infer_container_name()
    assert op._logs()["prefix"] == "etl"
    assert operator(**LOGS, container_name="side")._logs()["container"] == "side"


def test_the_link_leads_to_the_stream_of_the_container(bridge: FakeBridge, output: Path):
    op = operator(**LOGS)
    execute(op, bridge, ends(bridge))
    (link,) = [each.get_link(op, ti_key=None) for each in op.operator_extra_links]
    assert link.startswith("https://eu-central-1.console.aws.amazon.com/cloudwatch/")
    assert link.endswith(f"$252Fmain$252F{op.arn.rsplit('/', 1)[-1]}")


# Waiting in the triggerer


def test_a_deferrable_task_defers_before_it_submits(bridge: FakeBridge, here: commands.Commands):
    found = deferred(operator(deferrable=True, waiter_delay=2, waiter_max_attempts=30))
    assert isinstance(found.trigger, EcsRunTaskTrigger)
    assert found.method_name == "execute_complete"
    assert found.timeout == timedelta(seconds=120)
    assert not bridge.batches
    short = operator(deferrable=True, execution_timeout=timedelta(seconds=5))
    assert deferred(short).timeout == timedelta(seconds=5)


def test_worker_and_triggerer_submit_the_same(bridge: FakeBridge, here: commands.Commands):
    trigger = in_triggerer(deferred(operator(deferrable=True)).trigger)
    assert event_of(trigger, bridge, ends(bridge))["status"] == "success"
    # A process that reads the end in the feed before it submits has nothing to submit.
    bridge.hide_from_feed(item(bridge)["submission_id"])
    execute(operator(), bridge)
    (one, other) = bridge.batches
    assert one == other
    assert bridge.starts.total() == 1


def test_the_triggerer_pushes_the_arn_at_the_launch(bridge: FakeBridge, here: commands.Commands, xcoms: dict[str, Any]):
    ti = task_instance()
    trigger = in_triggerer(deferred(operator(deferrable=True), ti).trigger, ti)

    def is_pushed(id: str) -> None:
        bridge.wait_until(lambda: "ecs_task_arn" in xcoms or poke(bridge))

    event = event_of(trigger, bridge, is_pushed, ends(bridge))
    assert xcoms["ecs_task_arn"] == event["task_arn"]
    assert operator(deferrable=True).execute_complete({"ti": ti}, event) is None
    assert ti.xcoms == {"ecs_task_arn": event["task_arn"]}


def test_a_deferred_failure_has_the_texts_of_a_worker(bridge: FakeBridge, output: Path):
    op = operator(**LOGS, deferrable=True, waiter_delay=1)
    ti = task_instance()
    trigger = in_triggerer(deferred(op, ti).trigger)
    event = event_of(trigger, bridge, write(output, bridge, "oh\nno\n"), ends(bridge, "failed", exit_code=3))
    assert event["status"] == "success"
    with pytest.raises(AirflowException, match="last 10 logs from Cloudwatch:\noh\nno"):
        operator(**LOGS, deferrable=True).execute_complete({"ti": ti}, event)


def test_the_triggerer_shows_output_at_its_level(bridge: FakeBridge, output: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO")
    op = operator(**LOGS, deferrable=True, waiter_delay=1)
    ti = task_instance()

    def is_running(id: str) -> None:
        with bridge.changed:
            bridge.records[id]["state"] = "running"

    def is_shown(_: str) -> None:
        bridge.wait_until(lambda: "WARNING: 50% full" in caplog.messages or poke(bridge))

    lines = write(output, bridge, "WARNING: 50% full\n")
    trigger = in_triggerer(deferred(op, ti).trigger)
    event = event_of(trigger, bridge, is_running, lines, is_shown, write(output, bridge, "last\n"), ends(bridge))
    assert {each.levelname for each in caplog.records if "50% full" in each.getMessage()} == {"WARNING"}
    assert operator(**LOGS, deferrable=True).execute_complete({"ti": ti}, event) == "last"


def test_a_deferred_submission_that_is_not_accepted_has_the_provider_s_exception(
    bridge: FakeBridge, here: commands.Commands
):
    trigger = in_triggerer(deferred(operator(deferrable=True, profile="nobody")).trigger)
    event = asyncio.run(anext_of(trigger))
    assert event["status"] == "not_started"
    with pytest.raises(EcsOperatorError, match="unknown_profile"):
        operator().execute_complete({"ti": task_instance()}, event)


def test_the_triggerer_gives_up_and_stops_the_command(bridge: FakeBridge, here: commands.Commands):
    op = operator(deferrable=True, waiter_delay=0.01, waiter_max_attempts=1)
    event = event_of(in_triggerer(deferred(op).trigger), bridge)
    assert event["message"] == "Waiter error: max attempts reached"
    bridge.wait_until(lambda: bridge.stops)
    with pytest.raises(AirflowException, match="Waiter error: max attempts reached"):
        operator().execute_complete({"ti": task_instance()}, event)


def test_a_triggerer_that_gives_up_can_leave_the_command(bridge: FakeBridge, here: commands.Commands):
    op = operator(deferrable=True, waiter_delay=0.01, waiter_max_attempts=1, stop_task_on_failure=False)
    assert event_of(in_triggerer(deferred(op).trigger), bridge)["status"] == "error"
    assert not bridge.stops


@pytest.mark.parametrize(("state", "stops"), [("deferred", 0), ("failed", 1), ("deleted", 1)])
def test_a_cancelled_trigger_asks_airflow_before_it_stops_the_command(
    bridge: FakeBridge,
    here: commands.Commands,
    monkeypatch: pytest.MonkeyPatch,
    xcoms: dict[str, Any],
    state: str,
    stops: int,
):
    states = {"r": {} if state == "deleted" else {"t": state}}
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", staticmethod(lambda **_: states))
    monkeypatch.setattr(triggers, "ASK_AGAIN", 0.01)
    ti = task_instance()
    trigger = in_triggerer(deferred(operator(deferrable=True), ti).trigger, ti)

    async def kill() -> None:
        waits = asyncio.create_task(anext_of(trigger))
        await asyncio.to_thread(bridge.wait_until, lambda: bridge.records)
        await asyncio.wait_for(trigger.on_kill(), PATIENCE)
        waits.cancel()
        if stops:
            await asyncio.to_thread(bridge.wait_until, lambda: bridge.stops)

    asyncio.run(kill())
    assert len(bridge.stops) == stops


def test_another_triggerer_waits_for_the_same_task(bridge: FakeBridge, here: commands.Commands):
    ti = task_instance()
    trigger = deferred(operator(deferrable=True), ti).trigger

    async def handed_over() -> Any:
        first = asyncio.create_task(anext_of(in_triggerer(trigger)))
        await asyncio.to_thread(bridge.wait_until, lambda: bridge.records)
        first.cancel()
        second = asyncio.create_task(anext_of(in_triggerer(trigger)))
        await asyncio.to_thread(bridge.finish, next(iter(bridge.records)))
        return await second

    assert asyncio.run(handed_over())["status"] == "success"
    assert bridge.starts.total() == 1
