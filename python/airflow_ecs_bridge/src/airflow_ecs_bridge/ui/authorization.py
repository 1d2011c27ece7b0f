"""The task instance of a submission, by its labels, and the users that may see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable

CUT = "…"
"""The end of labels that were truncated to the bridge's limit (see `shortened`)."""


@dataclass(frozen=True)
class Sight:
    """The permissions of a user."""

    dag_ids: frozenset[str]
    """The Dags that the user may read."""
    all_dag_ids: frozenset[str]
    """The Dags of this Airflow."""
    others: bool
    """Whether the user may see submissions without a Dag, such as callbacks and submissions of other callers."""

    def of(self, row: dict[str, Any]) -> bool:
        """Return whether the user may see a submission."""
        named = str((row.get("labels") or {}).get("dag_id") or "")
        # A truncated name matches every Dag with this prefix, so the user must have access to all of them.
        dags = self._beginning(named[: -len(CUT)]) if named.endswith(CUT) else {named} & self.all_dag_ids
        return dags <= self.dag_ids if dags else self.others

    def _beginning(self, text: str) -> set[str]:
        return {dag for dag in self.all_dag_ids if dag.startswith(text)}


def described(labels: dict[str, str] | None) -> dict[str, Any]:
    """Return the name and the link of a submission's task instance, or an empty dict if it has none."""
    labels = labels or {}
    dag, run, task = (labels.get(key, "") for key in ("dag_id", "run_id", "task_id"))
    if not (dag and task):
        return {}
    index, number = labels.get("map_index"), labels.get("try_number")
    told = {"name": f"{dag}.{task}" + (f"[{index}]" if index else ""), "run_id": run, "try_number": number}
    if run and not _is_cut((dag, run, task)):
        told["link"] = address(dag, run, task, index, number)
    return told


def address(dag: str, run: str, task: str, index: str | None = None, number: str | None = None) -> str:
    """Return the path of a task instance in Airflow's UI, below the base URL."""
    path = "/".join(quote(part, safe="") for part in ("dags", dag, "runs", run, "tasks", task))
    path += f"/mapped/{quote(index, safe='')}" if index else ""
    return path + (f"?try_number={quote(number, safe='')}" if number else "")


def _is_cut(texts: Iterable[str]) -> bool:
    return any(text.endswith(CUT) for text in texts)
