"""What the end of a submission means for its task instance."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ecs_bridge.advice import advice

from airflow_ecs_bridge._versions import AIRFLOW_3
from airflow_ecs_bridge.job import OUT_OF_MEMORY
from airflow_ecs_bridge.tasklog import cloudwatch_link

if TYPE_CHECKING:
    from ecs_bridge.table import Record

    from airflow_ecs_bridge.config import Settings


class Verdict(enum.Enum):
    """What the executor tells Airflow."""

    ACCEPTED = enum.auto()
    """The bridge has it; reported where the job asks for it."""
    WAITING = enum.auto()
    """It has not started for a while; `info` says for what it waits."""
    SUCCEEDED = enum.auto()
    FAILED = enum.auto()
    RELEASED = enum.auto()
    """Nothing: it never started and never will. Airflow's own handling of tasks stuck in queued takes it up again
    without costing a try, where a failure would."""


@dataclass(frozen=True)
class Outcome:
    """What became of one submission, on its way from a background thread to the scheduler's."""

    submission_id: str
    verdict: Verdict
    info: str | None = None
    has_output: bool = False
    """Whether it failed and had a container, which may have written why."""


def outcome(record: Record, settings: Settings) -> Outcome:
    """Judge a record in a terminal state."""
    if record.state == "succeeded":
        # Airflow 3's worker reports its task's state when it is interrupted, and exits with 0: only this says why.
        eventful = record.reason or record.attempts or record.stop_code not in (None, "EssentialContainerExited")
        return Outcome(record.submission_id, Verdict.SUCCEEDED, explain(record, settings) if eventful else None)
    if record.state == "expired":
        return Outcome(record.submission_id, Verdict.RELEASED, explain(record, settings))
    return Outcome(record.submission_id, Verdict.FAILED, explain(record, settings), bool(record.task_arn))


def explain(record: Record, settings: Settings) -> str:
    """Put into one line for people how a submission ended, and where to look further."""
    facts = [f"the ECS bridge says {record.state}"]
    if record.exit_code is not None:
        facts.append(f"exit code {record.exit_code}{_meaning(record.exit_code)}")
    if record.stop_code:
        facts.append(f"stop code {record.stop_code}")
    facts += record.earlier + record.causes
    if help := _advice(record):
        facts.append(f"what to do: {help}")
    facts.append(f"submission {record.submission_id} (ecs-bridge show {record.submission_id})")
    if record.task_arn:
        facts.append(record.task_arn)
    if link := cloudwatch_link(record.task_arn, record.container_name, settings):
        facts.append(link)
    return ", ".join(facts)


def _advice(record: Record) -> str | None:
    if record.hint == OUT_OF_MEMORY:
        had = f" of {record.memory} MiB" if record.memory else ""
        return (
            f"it may have run out of memory{had}: give it more by executor_config={{'overrides': {{'memory': ...}}}}, "
            "or to the next try by 'by_try' with 'by_try_condition': 'out_of_memory'"
        )
    reasons = (record.reason, record.stopped_reason)
    return advice(record.state, reasons=reasons, exit_code=record.exit_code, stop_code=record.stop_code)


def _meaning(exit_code: int) -> str:
    # A shell's convention, which container runtimes follow: 128 + the signal's number.
    if exit_code == 1 and AIRFLOW_3:
        return (
            " (of Airflow's worker, not of the task: it could not reach the API server, was refused because its token "
            "had expired or its try was no longer the current one, or could not import; its log tells)"
        )
    return {137: " (killed, often for want of memory)", 143: " (terminated)"}.get(exit_code, "")
