"""Report why submissions are waiting, in a separate thread."""

from __future__ import annotations

import logging
import math
import threading
import time
from typing import TYPE_CHECKING

from airflow_ecs_bridge.tasklog import wait_reason
from airflow_ecs_bridge.threads import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future

    from ecs_bridge.table import Record

log = logging.getLogger(__name__)

EVERY = 30.0
"""Interval between checks of a waiting submission, in seconds."""

AT_ONCE = 100
"""Maximum number of submissions per check, which is one request."""

_PAUSE = 1.0
_LOOKUP_TIMEOUT = 30.0


class WaitReasons:
    """Checks of submissions that have not started, with up to one request per second."""

    def __init__(
        self,
        lookup: Callable[[Iterable[str]], Future[dict[str, Record]]],
        tell: Callable[[str, str], None],
        after: float,
    ) -> None:
        """Create the checks.

        :param lookup: reads records by ID
        :param tell: receives an ID and its wait reason, once per change
        :param after: initial delay in seconds
        """
        self._lookup = lookup
        self._tell = tell
        self._after = after
        self._lock = threading.Lock()
        # The time of the next check of each submission, which is infinite after its start.
        self._due: dict[str, float] = {}
        self._told: dict[str, str] = {}
        self.service = Service("ecs-bridge-waits", self.step)

    def add(self, submission_id: str) -> None:
        """Track a submission until it is forgotten, from any thread."""
        with self._lock:
            self._due.setdefault(submission_id, time.monotonic() + self._after)

    def forget(self, submission_id: str) -> None:
        """Stop tracking a submission."""
        with self._lock:
            self._due.pop(submission_id, None)
            self._told.pop(submission_id, None)

    def keep(self, submission_ids: set[str]) -> None:
        """Track these submissions, and forget all others."""
        for id in set(self._due) - submission_ids:
            self.forget(id)
        for id in submission_ids:
            self.add(id)

    def step(self) -> None:
        """Run the checks that are due."""
        time.sleep(_PAUSE)
        now = time.monotonic()
        with self._lock:
            ids = sorted((id for id, at in self._due.items() if at <= now), key=self._due.__getitem__)[:AT_ONCE]
        if not ids:
            return
        try:
            records = self._lookup(ids).result(_LOOKUP_TIMEOUT)
        except Exception as error:
            # The watcher logs the same failure at a higher level.
            log.debug("could not read why %d submissions are waiting: %s", len(ids), error)
            records = {}
        for id in ids:
            if text := self._news(id, records.get(id), now):
                self._tell(id, text)

    def _news(self, id: str, record: Record | None, now: float) -> str | None:
        """Return a new wait reason, and schedule the next check."""
        text = wait_reason(record) if record else None
        with self._lock:
            if id not in self._due:
                return None
            # The submission is unknown, waiting or started.
            self._due[id] = math.inf if record and text is None else now + EVERY
            if text is None or self._told.get(id) == text:
                return None
            self._told[id] = text
            return text
