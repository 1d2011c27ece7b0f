"""Tells for what submissions wait, and since when, from a thread of its own."""

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
"""Seconds between two looks at a submission that waits."""

AT_ONCE = 100
"""Submissions of a look, which is one request."""

_PAUSE = 1.0
_LOOKUP_TIMEOUT = 30.0


class WaitReasons:
    """Looks at what has not started: a request a second at most, and none for what has."""

    def __init__(
        self,
        lookup: Callable[[Iterable[str]], Future[dict[str, Record]]],
        tell: Callable[[str, str], None],
        after: float,
    ) -> None:
        """Make one.

        :param lookup: reads records by their ids
        :param tell: takes an id and for what it waits; once, until that changes
        :param after: seconds after which a submission is looked at first
        """
        self._lookup = lookup
        self._tell = tell
        self._after = after
        self._lock = threading.Lock()
        # When each is looked at next; never again once it has started.
        self._due: dict[str, float] = {}
        self._told: dict[str, str] = {}
        self.service = Service("ecs-bridge-waits", self.step)

    def add(self, submission_id: str) -> None:
        """Look at this one, until it is forgotten; from any thread."""
        with self._lock:
            self._due.setdefault(submission_id, time.monotonic() + self._after)

    def forget(self, submission_id: str) -> None:
        """Do not look at this one any more."""
        with self._lock:
            self._due.pop(submission_id, None)
            self._told.pop(submission_id, None)

    def keep(self, submission_ids: set[str]) -> None:
        """Look at these, and forget all others."""
        for id in set(self._due) - submission_ids:
            self.forget(id)
        for id in submission_ids:
            self.add(id)

    def step(self) -> None:
        """Look at what is due."""
        time.sleep(_PAUSE)
        now = time.monotonic()
        with self._lock:
            ids = sorted((id for id, at in self._due.items() if at <= now), key=self._due.__getitem__)[:AT_ONCE]
        if not ids:
            return
        try:
            records = self._lookup(ids).result(_LOOKUP_TIMEOUT)
        except Exception as error:
            # Whoever reads the table for results says so too, and louder.
            log.debug("what %d submissions wait for could not be read: %s", len(ids), error)
            records = {}
        for id in ids:
            if text := self._news(id, records.get(id), now):
                self._tell(id, text)

    def _news(self, id: str, record: Record | None, now: float) -> str | None:
        """Return what to tell of one, and note when to look at it again."""
        text = wait_reason(record) if record else None
        with self._lock:
            if id not in self._due:
                return None
            # It is not known yet, waits, or has started.
            self._due[id] = math.inf if record and text is None else now + EVERY
            if text is None or self._told.get(id) == text:
                return None
            self._told[id] = text
            return text
