"""Conversion of the result of a submission into the result of its task instance."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_ecs_bridge._versions import AIRFLOW_3
from airflow_ecs_bridge.job import OUT_OF_MEMORY
from airflow_ecs_bridge.tasklog import cloudwatch_link

if TYPE_CHECKING:
    from airflow_ecs_bridge.config import Settings
    from ecs_bridge.table import Record


class Verdict(enum.Enum):
    """The report of the executor to Airflow."""

    ACCEPTED = enum.auto()
    """The bridge has accepted it. This is reported if the job requests it."""
    WAITING = enum.auto()
    """It has not started for some time. `info` contains the wait reason."""
    SUCCEEDED = enum.auto()
    FAILED = enum.auto()
    RELEASED = enum.auto()
    """No report, because it never started and never will. Airflow handles it as a task stuck in queued. Unlike a
    failure, this costs no try."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one submission, passed from a background thread to the scheduler's thread."""

    submission_id: str
    verdict: Verdict
    info: str | None = None
    has_output: bool = False
    """Whether it failed and had a container, whose output may contain the reason."""


def outcome(record: Record, settings: Settings) -> Outcome:
    """Return the outcome of a record in a terminal state."""
    if record.state == "succeeded":
        # An interrupted Airflow 3 worker reports its task's state and exits with 0. Only the record has the reason.
        eventful = record.reason or record.attempts or record.stop_code not in (None, "EssentialContainerExited")
        return Outcome(record.submission_id, Verdict.SUCCEEDED, explain(record, settings) if eventful else None)
    if record.state == "expired":
        return Outcome(record.submission_id, Verdict.RELEASED, explain(record, settings))
    return Outcome(record.submission_id, Verdict.FAILED, explain(record, settings), bool(record.task_arn))


def explain(record: Record, settings: Settings) -> str:
    """Return the result of a submission, its advice and its links in one line of text."""
    return record.summary(
        meaning="" if record.exit_code is None else _meaning(record.exit_code),
        remedy=_out_of_memory(record),
        link=cloudwatch_link(record.task_arn, record.container_name, settings),
    )


def _out_of_memory(record: Record) -> str | None:
    """Return the remedy for a container without memory, which names the options of Airflow."""
    if record.hint != OUT_OF_MEMORY:
        return None
    had = f" of {record.memory} MiB" if record.memory else ""
    return (
        f"the container may have run out of memory{had}; set executor_config={{'overrides': {{'memory': ...}}}}, "
        "or raise it for the next try with 'by_try' and 'by_try_condition': 'out_of_memory'"
    )


def _meaning(exit_code: int) -> str:
    # Container runtimes follow the shell convention of 128 + signal number.
    if exit_code == 1 and AIRFLOW_3:
        return (
            " (of Airflow's worker, not of the task: it could not reach the API server, Airflow rejected its expired "
            "token or its outdated try, or an import failed; see its log)"
        )
    return {137: " (SIGKILL, often out of memory)", 143: " (SIGTERM)"}.get(exit_code, "")
