"""Executor keys of a try of a task instance, which are UUIDs from Airflow 3.4 on."""

from __future__ import annotations

from typing import Any

from airflow.models.taskinstancekey import TaskInstanceKey

from airflow_ecs_bridge._versions import UUID_KEYS

if UUID_KEYS:
    from airflow.executors.workloads.types import TaskInstanceUuid  # type: ignore[attr-defined]

    OF_TASKS: tuple[type, ...] = (TaskInstanceKey, TaskInstanceUuid)
else:
    OF_TASKS = (TaskInstanceKey,)


def key_of(ti: Any) -> Any:
    """Return the key of a try, from a workload or a row of Airflow's database."""
    return TaskInstanceUuid(ti.id) if UUID_KEYS else ti.key


def instance_of(ti: Any) -> tuple[Any, ...]:
    """Return the key that all tries of a task instance share."""
    return tuple(ti.key.primary)


def is_of_task(key: Any) -> bool:
    """Return whether a key belongs to a task instance and not to a callback."""
    return isinstance(key, OF_TASKS)
