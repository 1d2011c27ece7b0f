"""What the screenshots of the page show: commands that run, wait, and fail."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_ecs_bridge.operators import EcsBridgeOperator


def command(name: str, line: str, profile: str = "etl") -> EcsBridgeOperator:
    """A shell's line on a profile of the local stack."""
    return EcsBridgeOperator(task_id=name, profile=profile, command=["sh", "-c", line])


with DAG("orders", schedule=None, max_active_tasks=50, max_active_runs=20):
    for number in range(4):
        command(f"extract_{number}", f"sleep {number + 1}")
    for number in range(3):
        command(f"score_{number}", f"sleep {2 * number}", "quick")

with DAG("reports", schedule=None, max_active_tasks=50):
    for number in range(5):
        command(f"render_{number}", "sleep 900")
    for number in range(6):
        command(f"mail_{number}", "sleep 900", "quick")
    for number in range(3):
        command(f"train_{number}", "true", "spot")
    command("publish", "exit 127")
    command("archive", "kill -9 $$")
    command("mirror", "true", "typo")
