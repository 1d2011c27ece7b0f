"""What the end of a submission means for its task instance."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_ecs_bridge.table import Record


class Verdict(enum.Enum):
    """What the executor tells Airflow."""

    ACCEPTED = enum.auto()
    """The bridge has it; reported where the job asks for it."""
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


def outcome(record: Record) -> Outcome:
    """Judge a record in a terminal state."""
    if record.state == "succeeded":
        # Airflow 3's worker fails its task when it is interrupted, and exits with 0: only this says why.
        eventful = record.reason or record.attempts or record.stop_code not in (None, "EssentialContainerExited")
        return Outcome(record.submission_id, Verdict.SUCCEEDED, explain(record) if eventful else None)
    if record.state == "expired":
        return Outcome(record.submission_id, Verdict.RELEASED, explain(record))
    return Outcome(record.submission_id, Verdict.FAILED, explain(record))


def explain(record: Record) -> str:
    """Put into one line for people how a submission ended, and where to look further."""
    facts = [f"the ECS bridge says {record.state}"]
    if record.exit_code is not None:
        facts.append(f"exit code {record.exit_code}{_signal(record.exit_code)}")
    if record.stop_code:
        facts.append(f"stop code {record.stop_code}")
    facts += [f"attempt {number} ended with {end}" for number, end in enumerate(record.attempts, 1)]
    facts += [text for text in dict.fromkeys((record.reason, record.stopped_reason)) if text]
    facts.append(f"submission {record.submission_id}")
    if record.task_arn:
        facts.append(record.task_arn)
    return ", ".join(facts)


def _signal(exit_code: int) -> str:
    # A shell's convention, which container runtimes follow: 128 + the signal's number.
    return {137: " (killed, often for want of memory)", 143: " (terminated)"}.get(exit_code, "")
