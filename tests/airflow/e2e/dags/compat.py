"""The drop-in for EcsRunTaskOperator, in a worker and in the triggerer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_ecs_bridge.compat import EcsRunTaskOperator

WAITS = "echo before; while ! test -e $RAN.{{ run_id }}.go; do sleep 0.2; done; echo after; echo last"
FAILS = "echo one; echo ERROR: two; exit 7"


def ecs(task_id: str, line: str, **more: Any) -> EcsRunTaskOperator:
    """Return a task with the parameters of a DAG for the provider."""
    container = {"name": "main", "command": ["sh", "-c", line], "environment": [{"name": "A", "value": "{{ run_id }}"}]}
    return EcsRunTaskOperator(
        task_id=task_id,
        task_definition="demo",
        cluster="local",
        launch_type="FARGATE",
        overrides={"cpu": "256", "containerOverrides": [container]},
        network_configuration={"awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"]}},
        awslogs_group="/ecs/demo",
        awslogs_stream_prefix="demo/main",
        awslogs_fetch_interval=timedelta(seconds=1),
        number_logs_exception=2,
        reattach=True,
        waiter_delay=1,
        **more,
    )


with DAG("compat", schedule=None):
    for mode, deferrable in (("worker", False), ("triggerer", True)):
        output = ecs(f"waits_in_{mode}", WAITS, deferrable=deferrable)
        ecs(f"fails_in_{mode}", FAILS, deferrable=deferrable)
        ecs(f"skips_in_{mode}", FAILS, deferrable=deferrable, skip_on_exit_code=7)
        ecs(f"marked_in_{mode}", "sleep 600", deferrable=deferrable)
        ecs(f"typo_in_{mode}", "true", deferrable=deferrable, profile="nobody")

        @task(task_id=f"uses_{mode}")
        def uses(value: str, arn: str) -> None:
            """Check the XComs of an upstream task."""
            assert value == "last", value
            assert ":task/" in arn, arn

        uses(output.output, output.output["ecs_task_arn"])
