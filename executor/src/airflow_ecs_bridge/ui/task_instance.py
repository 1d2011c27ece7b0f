"""What the tab of a task instance shows: its tries, and what became of each try's submissions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow_ecs_bridge._versions import UUID_KEYS
from airflow_ecs_bridge.adoption import submission_id_of
from airflow_ecs_bridge.previous_tries import tries_table
from airflow_ecs_bridge.tasklog import cloudwatch_link
from airflow_ecs_bridge.ui.dashboard import waits_for, what_to_do

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_ecs_bridge.config import Settings
    from airflow_ecs_bridge.ui.queries import Row

MOST_TRIES = 25
"""The last tries; each may have two submissions: a worker's, and a command of `EcsBridgeOperator`."""

FACTS = ("profile", "runs_on", "cpu", "memory", "priority", "cluster", "container_name", "task_arn")


def tries_of(dag_id: str, run_id: str, task_id: str, map_index: int) -> list[dict[str, Any]] | None:
    """Ask Airflow's database for the last tries of a task instance, the newest first; None if there is no such one."""
    from airflow.models.taskinstance import TaskInstance as TI
    from airflow.utils.session import create_session
    from sqlalchemy import select

    table, index = tries_table()

    def of(model: Any, uuid: Any, index: Any) -> Any:
        columns = (model.try_number, model.state, model.external_executor_id, uuid)
        key = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id}
        found = select(*columns).filter_by(**key).where(index == map_index)
        return found.order_by(model.try_number.desc()).limit(MOST_TRIES).execution_options(include_all_attempts=True)

    with create_session() as session:
        if UUID_KEYS:
            now, before = session.execute(of(table, table.id, index)).all(), []
        else:
            now = session.execute(of(TI, TI.id, TI.map_index)).all()
            before = session.execute(of(table, table.task_instance_id, index)).all()
    if not now:
        return None
    subject = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
    return [
        {"try_number": number, "state": state and str(state), "ids": _ids(subject, number, external, uuid)}
        for number, state, external, uuid in [*now, *before][:MOST_TRIES]
    ]


def _ids(subject: dict[str, Any], number: int, external: str | None, uuid: Any) -> dict[str, str]:
    """Return what a try's submissions would be called: its worker's, and its operator's command's."""
    from airflow_ecs_bridge.commands import submission_id

    ids = {"command": submission_id(SimpleNamespace(**subject, try_number=number, id=uuid))}
    if worker := submission_id_of(external):
        ids["worker"] = worker
    return ids


def instance(tries: Iterable[dict[str, Any]], records: dict[str, Row], settings: Settings) -> list[dict[str, Any]]:
    """Return the tries with what the bridge knows of them."""
    return [
        {
            "try_number": each["try_number"],
            "state": each["state"],
            "submissions": [
                submission(records[id], kind, settings) for kind, id in each["ids"].items() if id in records
            ],
        }
        for each in tries
    ]


def submission(row: Row, kind: str, settings: Settings) -> dict[str, Any]:
    """Return a submission for people; times are epoch milliseconds."""
    cause = waits_for(row, {})
    return {
        "submission_id": row["submission_id"],
        "kind": kind,
        "state": row["state"],
        "waits_for": cause and {"cause": cause[0], "detail": cause[1]},
        "exit_code": row.get("exit_code"),
        "reason": row.get("reason"),
        "stop_code": row.get("stop_code"),
        "stopped_reason": row.get("stopped_reason"),
        "advice": what_to_do(row),
        "attempt": row.get("attempt", 1),
        "attempts": row.get("attempts", []),
        "timeline": timeline(row),
        "facts": {name: row[name] for name in FACTS if name in row},
        "runner_id": row.get("pooled", {}).get("taken", {}).get("runner_id"),
        "log": cloudwatch_link(row.get("task_arn"), row.get("container_name"), settings),
    }


def timeline(row: Row) -> list[dict[str, Any]]:
    """Return what a submission went through, in order."""
    steps = (
        ("created_at", "submitted"),
        ("launched_at", "launched" + (f" on {row['runs_on']}" if row.get("runs_on") else "")),
        ("started_at", "running"),
        ("container_exited_at", "exited" + (f" with {row['exit_code']}" if "exit_code" in row else "")),
        ("changed_at", f"recorded as {row['state']}"),
        ("stopped_at", "ECS task stopped"),
    )
    # ECS's clock and the bridge's differ a little.
    return sorted(({"at": row[name], "what": what} for name, what in steps if name in row), key=lambda step: step["at"])
