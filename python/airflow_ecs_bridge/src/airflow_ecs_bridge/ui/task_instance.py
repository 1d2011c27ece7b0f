"""Data of the tab of a task instance, which shows its tries and the submissions of each try."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow_ecs_bridge._versions import UUID_KEYS
from airflow_ecs_bridge.adoption import submission_id_of
from airflow_ecs_bridge.previous_tries import tries_table
from airflow_ecs_bridge.tasklog import cloudwatch_link
from airflow_ecs_bridge.ui.dashboard import FAILED
from ecs_bridge.progress import advice_of, timeline, wait_reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_ecs_bridge.config import Settings
    from ecs_bridge.table import Row

MOST_TRIES = 25
"""Maximum number of tries. Each can have two submissions, for its worker and for the command of `EcsBridgeOperator`."""

FAILED_TRIES = frozenset({"failed", "up_for_retry"})
"""Airflow's states of a try that failed."""

NOT_GREEN = {
    "worker": (
        "Airflow marked this try as failed, although the container of its worker exited with 0. The worker exits "
        "with 0 after it has reported a failed task. See the task log for the error."
    ),
    "command": (
        "Airflow marked this try as failed, although the operator's command succeeded. See the task log for the error."
    ),
}
"""The warning for a failed try without a failed submission, by the kind of the submission that succeeded."""

FACTS = ("profile", "runs_on", "cpu", "memory", "priority", "cluster", "container_name", "task_arn")


def tries_of(dag_id: str, run_id: str, task_id: str, map_index: int) -> list[dict[str, Any]] | None:
    """Query Airflow's database for the last tries of a task instance, newest first. Return None for an unknown one."""
    from airflow.models.taskinstance import TaskInstance as TI
    from airflow.utils.session import create_session
    from sqlalchemy import select

    table, index = tries_table()

    def of(model: Any, uuid: Any, index: Any) -> Any:
        columns = (model.try_number, model.state, model.external_executor_id, uuid)
        key = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id}
        found = select(*columns).filter_by(**key).where(index == map_index)
        return found.order_by(model.try_number.desc()).limit(MOST_TRIES).execution_options(include_all_attempts=True)

    now: list[Any]
    before: list[Any]
    with create_session() as session:
        if UUID_KEYS:
            now, before = list(session.execute(of(table, table.id, index))), []
        else:
            now = list(session.execute(of(TI, TI.id, TI.map_index)))
            before = list(session.execute(of(table, table.task_instance_id, index)))
    if not now:
        return None
    subject = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
    return [
        {"try_number": number, "state": state and str(state), "ids": _ids(subject, number, external, uuid)}
        for number, state, external, uuid in [*now, *before][:MOST_TRIES]
    ]


def _ids(subject: dict[str, Any], number: int, external: str | None, uuid: Any) -> dict[str, str]:
    """Return the possible submission IDs of a try, for its worker and for the command of its operator."""
    from airflow_ecs_bridge.commands import submission_id

    ids = {"command": submission_id(SimpleNamespace(**subject, try_number=number, id=uuid))}
    if worker := submission_id_of(external):
        ids["worker"] = worker
    return ids


def instance(tries: Iterable[dict[str, Any]], records: dict[str, Row], settings: Settings) -> list[dict[str, Any]]:
    """Return the tries with their submissions."""
    return [_try(each, records, settings) for each in tries]


def _try(each: dict[str, Any], records: dict[str, Row], settings: Settings) -> dict[str, Any]:
    """Return a try. If the try failed in Airflow, a submission that succeeded is marked as overruled."""
    known = [submission(records[id], kind, settings) for kind, id in each["ids"].items() if id in records]
    has_failed = each["state"] in FAILED_TRIES
    for found in known:
        found["overruled"] = has_failed and found["state"] == "succeeded"
    succeeded = next((found["kind"] for found in known if found["overruled"]), None)
    is_explained = any(found["state"] in FAILED for found in known)
    return {
        "try_number": each["try_number"],
        "state": each["state"],
        "warning": None if succeeded is None or is_explained else NOT_GREEN[succeeded],
        "submissions": known,
    }


def submission(row: Row, kind: str, settings: Settings) -> dict[str, Any]:
    """Return a submission for the tab. Times are epoch milliseconds."""
    wait = wait_reason(row)
    return {
        "submission_id": row["submission_id"],
        "kind": kind,
        "state": row["state"],
        "waits_for": wait and wait._asdict(),
        "exit_code": row.get("exit_code"),
        "reason": row.get("reason"),
        "stop_code": row.get("stop_code"),
        "stopped_reason": row.get("stopped_reason"),
        "advice": advice_of(row),
        "attempt": row.get("attempt", 1),
        "attempts": row.get("attempts", []),
        "timeline": [step._asdict() for step in timeline(row)],
        "facts": {name: row[name] for name in FACTS if name in row},
        "runner_id": row.get("pooled", {}).get("taken", {}).get("runner_id"),
        "log": cloudwatch_link(row.get("task_arn"), row.get("container_name"), settings),
    }
