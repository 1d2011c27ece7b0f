"""Where a task of the operator starts and ends: in the triggerer, where the result is a worker's."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from airflow.exceptions import SerializationError
from airflow.sdk import DAG, Asset, BaseOperator, TaskGroup, XComArg, task, task_group
from airflow.sdk.definitions.param import Param
from airflow.serialization.serialized_objects import DagSerialization

from airflow_ecs_bridge import _versions, starts
from airflow_ecs_bridge.operators import EcsBridgeOperator
from airflow_ecs_bridge.triggers import EcsBridgeTrigger


class Plain(EcsBridgeOperator):
    """Sets what it always wants."""

    ui_color = "#ffffff"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(command=["true"], **kwargs)

    def helper(self) -> None:
        """Help."""


class Overrides(EcsBridgeOperator):
    def execute(self, context: Any) -> Any:
        return super().execute(context)


class Mixin:
    def post_execute(self, context: Any, result: Any = None) -> None:
        """Do something."""


class Mixed(Mixin, EcsBridgeOperator):
    """Overrides by a base class."""


class Scripts(EcsBridgeOperator):
    template_ext = (".sh",)


def nothing(*_: Any, **__: Any) -> None:
    """Do nothing."""


def in_dag(operator: type[EcsBridgeOperator] = EcsBridgeOperator, dag: dict[str, Any] | None = None, **given: Any):
    """Make a task in a Dag of its own."""
    with DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), **(dag or {})):
        if operator is not Plain:
            given = {"command": ["true"], **given}
        return operator(task_id="t", **given)


def as_scheduler_has_it(made: EcsBridgeOperator) -> Any:
    return DagSerialization.from_dict(DagSerialization.to_dict(made.dag)).get_task("t")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"operator": Plain},
        {"environment": {"DAY": "{{ ds }}", "NUMBER": "{{ 7 * 6 }}"}, "container": "main"},
        {
            "command": [
                "echo",
                "{{ dag_run.conf['x'] }} {{ params.y | upper }} {{ ti.try_number }} {{ macros.ds_add(ds, 1) }}",
            ]
        },
        {
            "command": [
                "echo",
                "{% set n = 3 %}{% for i in range(n) %}{{ i }}{% endfor %} {{ logical_date.strftime('%Y') }}",
            ]
        },
        {"overrides": {"overrides": {"memory": "8192", "containerOverrides": [{"name": "main", "cpu": 1}]}}},
        {"retries": 3, "retry_delay": timedelta(0), "execution_timeout": timedelta(hours=1), "depends_on_past": True},
        {"dag": {"params": {"y": "z"}}},
        {"email": "me@example.com", "email_on_failure": False, "email_on_retry": False},
        {"xcom_s3_uri": "s3://b/{{ run_id }}.json"},
        {"do_xcom_push": False, "multiple_outputs": True},
        {"inlets": [Asset("x")]},
    ],
)
def test_a_task_starts_in_the_triggerer_where_the_result_is_a_worker_s(given: dict[str, Any]):
    made = in_dag(**given)
    assert made.why_worker() is None
    assert in_dag(**given, start_from_trigger=True).start_from_trigger is True
    served = as_scheduler_has_it(made)
    assert served.start_from_trigger is True
    arguments = served.start_trigger_args
    assert arguments.trigger_cls.endswith(".EcsBridgeTrigger")
    assert arguments.next_method == "execute_complete"
    assert arguments.timeout == given.get("execution_timeout")
    assert EcsBridgeTrigger(**made.start_trigger_args.trigger_kwargs).ends_task


@task
def up() -> str:
    return "value"


WORKER = [
    ({"deferrable": False}, "deferrable is False"),
    ({"start_from_trigger": False}, "start_from_trigger is False"),
    # What the supervisor would have to answer, and what differs between processes or with time.
    ({"command": ["echo", "{{ ti.xcom_pull(task_ids='a') }}"]}, "command has a template with ti.xcom_pull"),
    ({"command": ["echo", "{{ ti['xcom_pull'](task_ids='a') }}"]}, "a template with ti.xcom_pull"),
    ({"command": ["echo", "{{ task_instance.xcom_pull('a') }}"]}, "a template with task_instance.xcom_pull"),
    ({"command": ["echo", "{% set x = ti %}{{ x.xcom_pull('a') }}"]}, "a template with ti"),
    ({"command": ["echo", "{{ ti[name] }}"]}, r"a template with ti\.\[\.\.\.\]"),
    ({"command": ["echo", "{{ prev_start_date_success }}"]}, "a template with prev_start_date_success"),
    ({"command": ["echo", "{{ triggering_asset_events }}"]}, "a template with triggering_asset_events"),
    ({"environment": {"A": "{{ var.value.a }}"}}, "environment has a template with var"),
    ({"environment": {"A": "{{ conn.a.host }}"}}, "environment has a template with conn"),
    ({"environment": {"A": "{{ conf.get('a', 'b') }}"}}, "environment has a template with conf"),
    ({"profile": "{{ macros.uuid.uuid4() }}"}, "profile has a template with macros.uuid"),
    ({"profile": "{{ macros.datetime.now() }}"}, "a template with now"),
    ({"profile": "{{ logical_date.now() }}"}, "a template with now"),
    ({"profile": "{{ [1, 2] | random }}"}, "a template with random"),
    ({"profile": "{{ dag_run.start_date }}"}, "a template with dag_run.start_date"),
    ({"profile": "{{ mine }}"}, "a template with mine"),
    ({"command": ["echo", "{% include 'x.sh' %}"]}, "a template with include"),
    ({"command": ["echo", "{{ ds"]}, "a template with an error"),
    ({"command": ["echo", "{{ ds }}"], "dag": {"user_defined_macros": {"f": nothing}}}, "user_defined_macros"),
    ({"command": ["echo", "{{ ds }}"], "dag": {"user_defined_filters": {"f": nothing}}}, "user_defined_filters"),
    (
        {"command": ["echo", "{{ ds }}"], "dag": {"jinja_environment_kwargs": {"trim_blocks": True}}},
        "jinja_environment",
    ),
    ({"command": ["echo", "{{ ds }}"], "dag": {"render_template_as_native_obj": True}}, "native objects"),
    # Values that do not get to the triggerer as they are.
    ({"command": ("echo",)}, "command has a value of type tuple"),
    ({"command": ["cat", Path("x")]}, "command has a value of type PosixPath"),
    ({"environment": {1: "x"}}, "environment has a key that is not plain text"),
    ({"environment": {"{{ ds }}": "x"}}, "environment has a key that is not plain text"),
    # What only a worker does.
    ({"outlets": [Asset("x")]}, "it has outlets"),
    *(({f"{name}_callback": nothing}, f"{name}_callback") for name in starts.CALLBACKS),
    ({"on_failure_callback": [nothing]}, "on_failure_callback"),
    ({"pre_execute": nothing}, "pre_execute"),
    ({"post_execute": nothing}, "post_execute"),
    ({"operator": Overrides}, "it overrides execute"),
    ({"operator": Mixed}, "it overrides post_execute"),
    ({"operator": Scripts}, "it overrides template_ext"),
    ({"email": "me@example.com"}, "it has email"),
    ({"dag": {"fail_fast": True}}, "fail_fast"),
    ({"xcom_s3_uri": "s3://b/k", "multiple_outputs": True}, "multiple_outputs"),
    ({"params": {"n": Param(type="integer")}}, "its own params"),
    # Limits that the scheduler does not apply to what it defers.
    ({"pool": "etl"}, "its pool is 'etl'"),
    ({"max_active_tis_per_dag": 1}, "max_active_tis_per_dag"),
    ({"max_active_tis_per_dagrun": 1}, "max_active_tis_per_dagrun"),
    ({"dag": {"max_active_tasks": 3}}, "max_active_tasks"),
    # Defaults are no less than arguments.
    ({"dag": {"default_args": {"pool": "etl"}}}, "its pool is 'etl'"),
    ({"dag": {"default_args": {"on_success_callback": nothing}}}, "on_success_callback"),
]


@pytest.mark.parametrize(("given", "words"), WORKER)
def test_a_task_that_cannot_starts_in_a_worker_and_says_why(given: dict[str, Any], words: str):
    made = in_dag(**given)
    assert made.start_from_trigger is False
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(made.why_worker())
    served = as_scheduler_has_it(made)
    assert served.start_from_trigger is False
    assert served.start_trigger_args is None


@pytest.mark.parametrize(("given", "words"), [each for each in WORKER if "start_from_trigger" not in each[0]])
def test_start_from_trigger_where_it_cannot_be_is_an_error_of_the_dag(given: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=f"True is not possible, because .*{words}"):
        in_dag(**given, start_from_trigger=True)


@pytest.mark.parametrize("field", ["command", "environment", "overrides", "profile"])
def test_the_output_of_a_task_is_resolved_by_a_worker(field: str):
    with DAG("d", schedule=None):
        value: XComArg = up()
        given = {"command": ["true"], field: value if field in ("command", "profile") else {"X": value}}
        made = EcsBridgeOperator(task_id="t", **given)
        assert made.why_worker() == f"{field} has the output of another task"
        assert made.upstream_task_ids == {"up"}
        with pytest.raises(ValueError, match="output of another task"):
            EcsBridgeOperator(task_id="u", start_from_trigger=True, **given)


def test_what_comes_after_the_constructor_counts():
    made = in_dag()
    assert made.start_from_trigger
    made.on_success_callback = nothing
    assert not as_scheduler_has_it(made).start_from_trigger
    forced = in_dag(start_from_trigger=True)
    forced.outlets = [Asset("x")]
    with pytest.raises(SerializationError, match="True is not possible, because it has outlets"):
        DagSerialization.to_dict(forced.dag)


def test_a_task_over_whose_value_another_is_mapped_starts_in_a_worker():
    @task
    def each(value: Any) -> None: ...

    with DAG("d", schedule=None):
        values = EcsBridgeOperator(task_id="values", command=["true"], xcom_s3_uri="s3://b/k")
        plain = EcsBridgeOperator(task_id="plain", command=["true"])
        each.expand(value=values.output) << plain
    assert "mapped over its return value" in str(values.why_worker())
    assert plain.why_worker() is None


def test_mapped_tasks_start_in_a_worker():
    @task_group
    def group(day: str) -> None:
        EcsBridgeOperator(task_id="t", command=["true"])

    with DAG("d", schedule=None) as dag:
        EcsBridgeOperator.partial(task_id="mapped").expand(command=[["true"], ["false"]])
        group.expand(day=["a", "b"])
        with TaskGroup("plain"):
            EcsBridgeOperator(task_id="t", command=["true"])
    assert dag.get_task("group.t").why_worker() == "it is in a mapped task group"
    served = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    starts = {task.task_id: task.start_from_trigger for task in served.tasks}
    assert starts == {"mapped": False, "group.t": False, "plain.t": True}
    with pytest.raises(ValueError, match="not possible with expand"):
        EcsBridgeOperator.partial(task_id="t", start_from_trigger=True)
    assert EcsBridgeOperator.partial(task_id="t", start_from_trigger=None)


def test_an_xcom_backend_is_a_worker_s(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AIRFLOW__CORE__XCOM_BACKEND", "mine.XComInS3")
    assert "xcom_backend is mine.XComInS3" in str(in_dag().why_worker())
    assert in_dag(do_xcom_push=False).why_worker() is None


@pytest.mark.parametrize("version", ["3.3.0", "3.2.2"])
def test_an_airflow_that_cannot_starts_all_in_workers(version: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(_versions, "TEXT", version)
    monkeypatch.setattr(_versions, "TRIGGERS_RUN_WHOLE_TASKS", _versions.parsed(version) >= (3, 3, 1))
    made = in_dag()
    assert f"Airflow {version} starts tasks only in workers" in str(made.why_worker())
    assert f"Airflow {version} ends tasks only in workers" in str(starts.why_ends_in_worker(made))
    assert not made.start_from_trigger


@pytest.mark.parametrize(
    ("text", "parsed"), [("3.4.0b2", (3, 4, 0)), ("2.10.5", (2, 10, 5)), ("3.3.2+local", (3, 3, 2))]
)
def test_a_version_is_compared_by_its_numbers(text: str, parsed: tuple[int, ...]):
    assert _versions.parsed(text) == parsed


def test_a_worker_s_own_operators_are_untouched():
    assert BaseOperator.start_from_trigger is False
    assert EcsBridgeOperator.start_from_trigger is False
