"""Decisions about the task instances of a dead scheduler, without I/O and without a clock."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_ecs_bridge.job import Job
    from ecs_bridge.table import Record

REVOKED = "revoked by Airflow, stuck in queued"
"""The reason of a stop after which Airflow queues the task instance again."""

SUBMISSION_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""IDs from Airflow or from the executor are UUIDs."""

STALE_MS = 10_000
"""The age above which a record belongs to an earlier run of its task instance. It exceeds clock differences. It is
shorter than the time between two queuings of one key, which includes a container, a trigger and the scheduler."""


class Plan(enum.Enum):
    """The action for an orphaned task instance."""

    WATCH = enum.auto()
    """The bridge has the submission, so wait for its result."""
    REPORT = enum.auto()
    """The submission ended without a scheduler, so report its result."""
    SUBMIT = enum.auto()
    """It never reached the bridge, so submit it under its existing ID. Neither a try nor a deferral is lost."""
    SUBMIT_ANEW = enum.auto()
    """It never reached the bridge, and its ID is missing or belongs to an earlier run. Submit it under a new ID."""
    LEAVE = enum.auto()
    """It never started and never will. Airflow handles it as a task stuck in queued, which costs no try."""
    REFUSE = enum.auto()
    """It is unknown and may run elsewhere, so Airflow resets it."""


@dataclass
class Orphan:
    """A task instance from Airflow's database."""

    key: Any
    submission_id: str | None
    queued: bool
    """True if the state is QUEUED, and false for RUNNING and RESTARTING."""
    foreign: bool = False
    """True if its ID belongs to another executor, which launched it before the executor was changed."""
    queued_ms: int | None = None
    """The time of queuing in epoch milliseconds, which is set only if the ID may be stale."""
    instance: tuple[Any, ...] | None = None
    """The key that all its tries share."""
    job: Job | None = None
    """The job of a queued task instance. It is created in advance, because the record is read in the background."""


def submission_id_of(external_executor_id: str | None) -> str | None:
    """Return the ID if it can be a submission ID. IDs of other executors, such as ARNs and pod names, cannot."""
    if external_executor_id and SUBMISSION_ID.fullmatch(external_executor_id):
        return external_executor_id
    return None


def judge(orphan: Orphan, record: Record | None) -> Plan:
    """Return the action for an orphan. `record` is the consistently read record of its submission, or None."""
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
