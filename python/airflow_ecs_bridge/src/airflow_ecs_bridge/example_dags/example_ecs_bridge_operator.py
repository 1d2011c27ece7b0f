"""Print odd and even numbers in parallel containers of different sizes, without Airflow in the image.

The profile ``default`` must have an image with ``sh`` and must allow ``overrides.cpu`` and ``overrides.memory``.
"""

from __future__ import annotations

import pendulum

from airflow_ecs_bridge.operators import EcsBridgeOperator

try:
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow.models.dag import DAG  # type: ignore[no-redef]

# Fargate's sizes: CPU units and MiB.
SIZES = {"odd": ("256", "512"), "even": ("512", "1024")}

with DAG(
    "example_ecs_bridge_operator",
    schedule=None,
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    tags=["example"],
):
    join = EcsBridgeOperator(task_id="join", command=["sh", "-c", "echo both are done on {{ ds }}"])
    for kind, (cpu, memory) in SIZES.items():
        first = 1 if kind == "odd" else 2
        numbers = EcsBridgeOperator(
            task_id=kind,
            command=["sh", "-c", f"for n in $(seq {first} 2 100); do echo $n; done"],
            overrides={"overrides": {"cpu": cpu, "memory": memory}},
        )
        numbers >> join
