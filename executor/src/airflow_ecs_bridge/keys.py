"""How an executor names a try of a task instance: by dag, run, task and numbers, or from Airflow 3.4 on by its UUID."""

from __future__ import annotations

from typing import Any

from airflow.models.taskinstancekey import TaskInstanceKey

from airflow_ecs_bridge._versions import UUID_KEYS

if UUID_KEYS:
    from airflow.executors.workloads.types import TaskInstanceUuid

    OF_TASKS: tuple[type, ...] = (TaskInstanceKey, TaskInstanceUuid)
else:
    OF_TASKS = (TaskInstanceKey,)


def key_of(ti: Any) -> Any:
    """Return the key of a task instance's try, of a workload or a row of Airflow's database."""
    return TaskInstanceUuid(ti.id) if UUID_KEYS else ti.key


def instance_of(ti: Any) -> tuple[Any, ...]:
    """Return what all tries of a task instance have in common."""
    return tuple(ti.key.primary)


def is_of_task(key: Any) -> bool:
    """Tell whether a key is a task instance's, and not a callback's."""
    return isinstance(key, OF_TASKS)
