"""Request stops from the bridge, in a separate thread.

`stop` stops a submission immediately. `abandon` first waits up to `GRACE` seconds if the container is running. Its
worker may have reported the result of the task and may still be uploading the log.
"""

from __future__ import annotations

import logging
import queue
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_ecs_bridge.threads import Service, drain
from ecs_bridge._sansio import backoff
from ecs_bridge.api import BATCH_SIZE, BridgeClient
from ecs_bridge.errors import BridgeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from ecs_bridge.table import Record

log = logging.getLogger(__name__)

GIVE_UP_AFTER = 900.0
"""Seconds. The worker also detects through its own heartbeat that the task instance is no longer active."""


GRACE = 60.0
"""Seconds that the running container of an abandoned submission has to exit by itself."""

_LOOKUP_TIMEOUT = 30.0


@dataclass
class _Abandoned:
    reason: str
    until: float
    """The end of the grace period."""
    runs: bool = False
    """Whether its record shows that the container is running."""


class Stopper:
    """The scheduler's thread calls `stop` and `abandon`. A stop is retried until the bridge accepts it."""

    def __init__(self, client: BridgeClient, lookup: Callable[[Iterable[str]], Future[dict[str, Record]]]) -> None:
        """Create a stopper. `lookup` reads records by ID."""
        self._client = client
        self._lookup = lookup
        self._wishes: queue.SimpleQueue[tuple[str, str, bool]] = queue.SimpleQueue()
        # Only this thread uses it. The reason and the deadline of each stop that is not accepted yet.
        self._open: dict[str, tuple[str, float]] = {}
        self._abandoned: dict[str, _Abandoned] = {}
        self._failures = 0
        self.service = Service("ecs-bridge-stop", self.step)

    def stop(self, submission_id: str, reason: str) -> None:
        """Stop a submission without waiting."""
        self._wishes.put((submission_id, reason, True))

    def abandon(self, submission_id: str, reason: str) -> None:
        """Stop a submission whose container may be about to exit, without waiting."""
        self._wishes.put((submission_id, reason, False))

    def step(self) -> None:
        """Send the requested stops, or wait for a request."""
        wait = backoff(self._failures) if self._failures else 1.0
        for submission_id, reason, at_once in drain(self._wishes, BATCH_SIZE, wait):
            if at_once:
                self._want(submission_id, reason)
            else:
                self._abandoned[submission_id] = _Abandoned(reason, time.monotonic() + GRACE)
        self._judge()
        self._give_up()
        if not self._open:
            return
        reason = next(iter(self._open.values()))[0]
        self._send([id for id, (why, _) in self._open.items() if why == reason][:BATCH_SIZE], reason)

    def _want(self, submission_id: str, reason: str) -> None:
        self._abandoned.pop(submission_id, None)
        self._open[submission_id] = (reason, time.monotonic() + GIVE_UP_AFTER)

    def _judge(self) -> None:
        """Read the records of abandoned submissions immediately, and again at the end of the grace period."""
        now = time.monotonic()
        due = [id for id, each in self._abandoned.items() if not each.runs or each.until <= now][:BATCH_SIZE]
        if not due:
            return
        try:
            records = self._lookup(due).result(_LOOKUP_TIMEOUT)
        except Exception as error:
            self._failures += 1
            log.warning("could not read %d abandoned submissions; will retry: %s", len(due), error)
            return
        self._failures = 0
        for submission_id in due:
            record, each = records.get(submission_id), self._abandoned[submission_id]
            if record is not None and record.ended:
                del self._abandoned[submission_id]
            elif record is not None and record.state == "running" and each.until > now:
                each.runs = True
            else:
                # Also without a record, because the bridge then rejects a submission that arrives later.
                self._want(submission_id, each.reason)

    def _send(self, batch: list[str], reason: str) -> None:
        try:
            answers = self._client.stop(batch, reason)
        except BridgeError as error:
            self._failures += 1
            log.warning("%d stops failed; will retry: %s", len(batch), error)
            return
        refused = 0
        for submission_id, answer in zip(batch, answers, strict=True):
            if answer.error_code == "unavailable":
                refused += 1
                continue
            del self._open[submission_id]
            if answer.error_code:
                log.warning(
                    "stop of submission %s rejected: %s: %s", submission_id, answer.error_code, answer.error_message
                )
        self._failures = self._failures + 1 if refused else 0

    def _give_up(self) -> None:
        now = time.monotonic()
        for submission_id in [id for id, (_, until) in self._open.items() if until < now]:
            del self._open[submission_id]
            log.error("could not stop submission %s; it will run to completion", submission_id)
