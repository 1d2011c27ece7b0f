"""Each kind of task of the operator, twice: as it starts by default, and with a worker's start."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, Asset, task

from airflow_ecs_bridge.operators import EcsBridgeOperator


def leaves(what: str) -> Callable[..., None]:
    """Return a callback that leaves a line in $RAN."""

    def leave(context: Any, *_: Any) -> None:
        ti = context["ti"]
        with open(os.environ["RAN"], "a") as file:
            file.write(f"{ti.run_id} {ti.task_id} {what}\n")

    return leave


class Overrides(EcsBridgeOperator):
    """Does something of its own in a worker."""

    def execute(self, context: Any) -> Any:
        """Leave a line, and go on."""
        leaves("execute")(context)
        return super().execute(context)


def echo(text: str, then: str = "true") -> list[str]:
    """Return a command that leaves a line in $RAN."""
    return ["sh", "-c", f"echo {{{{ run_id }}}} {{{{ task.task_id }}}} {text} >> $RAN; {then}"]


# While it runs, another of its kind finds its folder.
ALONE = "mkdir $RAN.$0.alone && sleep 1 && rmdir $RAN.$0.alone"

for name, common in {"kinds_default": {}, "kinds_worker": {"start_from_trigger": False}}.items():
    with DAG(name, schedule=None, default_args={"retry_delay": timedelta(0), "container": "main"}):

        @task
        def up() -> str:
            """Return what another task uses."""
            return "from-up"

        @task
        def words() -> list[str]:
            """Return a whole command."""
            return ["sh", "-c", "exit 0"]

        value = up()
        EcsBridgeOperator(
            task_id="plain", command=echo("{{ ds_nodash | default('no-date') }} {{ params.get('x', 1) }}"), **common
        )
        EcsBridgeOperator(task_id="fails", command=echo("try-{{ ti.try_number }}", "exit 3"), retries=1, **common)
        EcsBridgeOperator(task_id="skips", command=echo("skips", "exit 99"), skip_on_exit_code=99, **common)
        EcsBridgeOperator(task_id="output", command=echo("$X"), environment={"X": value}, **common)
        EcsBridgeOperator(task_id="command", command=words(), **common)
        pulls = EcsBridgeOperator(task_id="pulls", command=echo("{{ ti.xcom_pull(task_ids='up') }}"), **common)
        value >> pulls
        EcsBridgeOperator(task_id="previous", command=echo("{{ prev_start_date_success or 'none' }}"), **common)
        EcsBridgeOperator(task_id="outlets", command=["true"], outlets=[Asset(f"asset-of-{name}")], **common)
        for end, code in {"success": 0, "failure": 3, "skipped": 99}.items():
            EcsBridgeOperator(
                task_id=f"callback_{end}",
                command=["sh", "-c", f"exit {code}"],
                skip_on_exit_code=99,
                **{f"on_{end}_callback": leaves(f"on_{end}")},
                **common,
            )
        EcsBridgeOperator(task_id="on_execute", command=["true"], on_execute_callback=leaves("on_execute"), **common)
        EcsBridgeOperator(task_id="pre_execute", command=["true"], pre_execute=leaves("pre_execute"), **common)
        Overrides(task_id="overrides", command=["true"], **common)
        EcsBridgeOperator.partial(task_id="mapped", retries=1).expand(
            command=[echo("mapped {{ ti.map_index }}"), ["sh", "-c", "exit 4"]]
        )
        EcsBridgeOperator.partial(task_id="limited", max_active_tis_per_dag=1).expand(
            command=[["sh", "-c", ALONE, f"{name}.limited"]] * 2
        )
        for number in range(2):
            EcsBridgeOperator(
                task_id=f"pooled_{number}", command=["sh", "-c", ALONE, f"{name}.pooled"], pool="narrow", **common
            )

    with DAG(f"{name}_macros", schedule=None, user_defined_macros={"shout": str.upper}):
        EcsBridgeOperator(task_id="macro", command=echo("{{ shout('hello') }}"), **common)
        EcsBridgeOperator(task_id="wrong", command=echo("{{ 1 / 0 }}"), **common)

with DAG("held", schedule=None):
    for number in range(4):
        EcsBridgeOperator(
            task_id=f"held-{number}",
            command=[
                "sh",
                "-c",
                f"echo {{{{ run_id }}}} held-{number} >> $RAN; while ! test -e $RAN.go; do sleep 0.2; done",
            ],
        )
