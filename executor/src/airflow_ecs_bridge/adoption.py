"""What to do with the task instances of a scheduler that died. Pure: no I/O, no clock."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecs_bridge.table import Record

    from airflow_ecs_bridge.job import Job

REVOKED = "revoked by Airflow, stuck in queued"
"""The reason of a stop that Airflow follows by queuing the task instance again."""

SUBMISSION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""Ids that Airflow assigns, or the executor makes, are UUIDs."""

STALE_MS = 10_000
"""A record this much older than its task instance's queuing is of an earlier run. Above what clocks differ, and below
what lies between two queuings of one key: a container's launch and end, a trigger's work, and the scheduler's."""


class Plan(enum.Enum):
    """What becomes of an orphaned task instance."""

    WATCH = enum.auto()
    """It is with the bridge: wait for its end."""
    REPORT = enum.auto()
    """It ended while nobody looked."""
    SUBMIT = enum.auto()
    """It never reached the bridge: submit it now, under the id it has. Neither a try nor a deferral's state is lost."""
    SUBMIT_ANEW = enum.auto()
    """It never reached the bridge, and has no id, or one of an earlier run: submit it under a new one."""
    LEAVE = enum.auto()
    """It never started and never will: Airflow's handling of tasks stuck in queued takes it up, at no try's cost."""
    REFUSE = enum.auto()
    """We know nothing of it, and it may run elsewhere: Airflow resets it."""


@dataclass
class Orphan:
    """A task instance as its row in Airflow's database has it."""

    key: Any
    submission_id: str | None
    queued: bool
    """Its state is QUEUED; else it is RUNNING or RESTARTING."""
    foreign: bool = False
    """It has an id that is none of ours: another executor launched it, before the executor was changed."""
    queued_ms: int | None = None
    """When it was queued, in epoch milliseconds; asked for only where the id may be stale."""
    instance: tuple[Any, ...] | None = None
    """What all its tries have in common."""
    job: Job | None = None
    """How to submit it, if it is queued; made in advance, since its record is read in the background."""


def submission_id_of(external_executor_id: str | None) -> str | None:
    """Return the id if it can be one of ours; another executor's (an ARN, a pod's name) cannot."""
    if external_executor_id and SUBMISSION_ID.fullmatch(external_executor_id):
        return external_executor_id
    return None


def judge(orphan: Orphan, record: Record | None) -> Plan:
    """Decide by the record of the orphan's submission, read consistently; None: there is none."""
    if record is None:
        if not orphan.queued or orphan.foreign:
            return Plan.REFUSE
        return Plan.SUBMIT if orphan.submission_id else Plan.SUBMIT_ANEW
    if orphan.queued and _stale(orphan, record):
        return Plan.SUBMIT_ANEW
    if not record.ended:
        return Plan.WATCH
    revoked = record.state == "cancelled" and REVOKED in (record.reason or "")
    if orphan.queued and (revoked or record.state == "expired"):
        return Plan.LEAVE
    return Plan.REPORT


def _stale(orphan: Orphan, record: Record) -> bool:
    if orphan.queued_ms is None or record.created_at is None:
        return False
    return record.created_at + STALE_MS < orphan.queued_ms
