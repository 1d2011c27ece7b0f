"""Workloads as the scheduler makes them, and a way to run an executor's heartbeats."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from airflow.executors import workloads
from airflow.executors.workloads.base import BundleInfo
from airflow.executors.workloads.callback import CallbackDTO, CallbackFetchMethod, ExecuteCallback
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.utils.state import TaskInstanceState
from fake_bridge import PATIENCE

PARTS = ("dag_id", "run_id", "try_number", "map_index")


def task(executor: Any, name: str = "extract", *, id: str | None = "new", **fields: Any) -> workloads.ExecuteTask:
    """Make a task's workload; `id` is its external_executor_id."""
    values: dict[str, Any] = {
        "dag_id": "orders",
        "run_id": "scheduled__2026-11-21T00:00:00+00:00",
        "try_number": 1,
        "map_index": -1,
        "pool_slots": 1,
        "queue": "default",
        "priority_weight": 1,
        "executor_config": {},
    }
    values |= fields
    # As Airflow has it: another try is another UUID, and a deferred task that resumes keeps its own.
    ti_id = uuid.uuid5(uuid.NAMESPACE_URL, repr([name, *(values[part] for part in PARTS)]))
    ti = TaskInstanceDTO(
        id=ti_id,
        dag_version_id=uuid.uuid4(),
        task_id=name,
        external_executor_id=str(uuid.uuid4()) if id == "new" else id,
        **values,
    )
    return workloads.ExecuteTask(
        ti=ti,
        dag_rel_path="orders.py",
        token=workloads.ExecuteTask.generate_token(str(ti_id), executor.jwt_generator),
        log_path="orders/extract.log",
        bundle_info=BundleInfo(name="dags-folder", version=None),
    )


def callback(executor: Any) -> ExecuteCallback:
    """Make a callback's workload."""
    id = str(uuid.uuid4())
    return ExecuteCallback(
        callback=CallbackDTO(id=id, fetch_method=CallbackFetchMethod.IMPORT_PATH, data={"path": "orders.tell"}),
        dag_rel_path="orders.py",
        token=workloads.ExecuteTask.generate_token(id, executor.jwt_generator),
        log_path="orders/callback.log",
        bundle_info=BundleInfo(name="dags-folder", version=None),
    )


def orphan(workload: workloads.ExecuteTask, state: str = TaskInstanceState.RUNNING, **fields: Any) -> Any:
    """Make what a scheduler hands to adoption: a row of its task instance table."""
    ti = workload.ti
    values = {
        name: getattr(ti, name)
        for name in ("dag_id", "task_id", "run_id", "try_number", "map_index", "queue", "priority_weight")
    }
    values |= {"id": ti.id, "key": ti.key}
    values |= {"external_executor_id": ti.external_executor_id, "executor_config": ti.executor_config}
    return SimpleNamespace(**{**values, "state": state, "queued_dttm": None, **fields})


def beat_until(executor: Any, predicate: Callable[[], Any], timeout: float = PATIENCE) -> None:
    """Beat like a scheduler, only faster, until it holds."""
    give_up = time.monotonic() + timeout
    while not predicate():
        assert time.monotonic() < give_up, "the executor did not come to that state"
        executor.heartbeat()
        time.sleep(0.01)


def run(executor: Any, *items: Any) -> None:
    """Queue workloads and beat once."""
    for item in items:
        executor.queue_workload(item, session=None)
    executor.heartbeat()
