"""The feed of ended submissions, its cursor and its reader.

Entries can appear late and out of order, because an index lags and the clocks of the writers differ. So each read
begins shortly before the newest known entry, and sometimes further back. The reader drops known entries.
"""

from __future__ import annotations

import json
import time
from collections import deque
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ecs_bridge._sansio import retried
from ecs_bridge.errors import SubmissionNotFoundError
from ecs_bridge.table import END_OF_TIME, Record, Table, records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ecs_bridge._sansio import Steps

SHORT_OVERLAP_MS = 3_000
"""Overlap of a poll with the newest known entry. The usual lag of an index is below 1 second."""

LONG_OVERLAP_MS = 120_000
"""Overlap of the read that happens every `LONG_OVERLAP_EVERY` seconds. Reading two minutes of a busy feed in each poll
would cost ten times as many read units and ten times the CPU time."""

LONG_OVERLAP_EVERY = 20.0

LOOKUP_EVERY = 60.0
"""Interval in seconds between reads of the records by ID, so that a wait never depends on the feed alone."""

_VERSION = 1


def now_ms() -> int:
    """Return the time of this machine in epoch milliseconds."""
    return int(time.time() * 1000)


def advanced(newest: int, entries: Iterable[Record], now: int) -> int:
    """Return the position in the feed after these entries.

    The position never exceeds the local time. Otherwise, a writer with a wrong clock would hide later entries.
    """
    return max([newest, *(min(entry.changed_at or 0, now) for entry in entries)])


@dataclass(frozen=True)
class Cursor:
    """A position in the feed. Save ``str(cursor)``, and restore it with `parse`.

    A cursor contains the IDs that were returned in the previous two minutes, about 60 bytes per ID.
    """

    newest: int = 0
    """The time of the newest returned entry, in epoch milliseconds."""
    seen: Mapping[str, int] = field(default_factory=dict, repr=False)
    """Returned IDs that a read may return again, with their end times."""

    @classmethod
    def beginning(cls) -> Cursor:
        """Return the position before the oldest entry of the table."""
        return cls()

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Parse the output of `str`; raise ValueError for other text."""
        try:
            content = json.loads(text)
            version, newest, seen = content["version"], content["newest"], content["seen"]
            right = version == _VERSION and isinstance(newest, int) and all(isinstance(at, int) for at in seen.values())
        except (AttributeError, KeyError, TypeError, ValueError):
            right = False
        if not right:
            raise ValueError(f"invalid cursor: must be the text of str(cursor), version {_VERSION}")
        return cls(newest, seen)

    def __str__(self) -> str:
        content = {"version": _VERSION, "newest": self.newest, "seen": self._near()}
        return json.dumps(content, separators=(",", ":"))

    def _near(self) -> dict[str, int]:
        return {id: at for id, at in self.seen.items() if at >= self.newest - LONG_OVERLAP_MS}


@dataclass(frozen=True)
class Span:
    """A part of the feed that is not read yet, in epoch milliseconds, and the start of its next page."""

    since: int
    until: int = END_OF_TIME
    after: dict[str, Any] | None = None

    def read(self, table: Table) -> tuple[list[Record], Span | None]:
        """Read the next page with one request, and return its entries and the rest of the part."""
        entries, after = table.changes(self.since, self.after, self.until)
        return entries, replace(self, after=after) if after else None


def latest_cursor(table: Callable[[], Table], retry_timeout: float) -> Steps[Cursor]:
    """Return the position after the current end of the feed."""
    now = now_ms()
    # Use the clocks of the writers if they wrote something, because ours may be ahead. A reader starts at `since`.
    newest = now - LONG_OVERLAP_MS
    span: Span | None = Span(newest - LONG_OVERLAP_MS)
    seen: dict[str, int] = {}
    while span:
        entries, span = yield from retried(partial(_read, table, span), retry_timeout)
        newest = advanced(newest, entries, now)
        seen.update({entry.submission_id: entry.changed_at or 0 for entry in entries})
    return Cursor(newest, seen)


def _read(table: Callable[[], Table], span: Span) -> tuple[list[Record], Span | None]:
    return span.read(table())


class Reader:
    """A reader of the feed. `poll` makes the next request when it is due, and `take` returns the next record."""

    def __init__(
        self,
        table: Callable[[], Table],
        cursor: Cursor,
        poll_interval: float,
        retry_timeout: float,
        wanted: Callable[[str], bool] = lambda id: True,
    ) -> None:
        """Create a reader.

        :param table: returns the reader of the table, for each request
        :param poll_interval: interval between polls, in seconds
        :param retry_timeout: time for retries of a failed request, in seconds
        :param wanted: returns whether the reader returns the record of an ID
        """
        self._table = table
        self._poll_interval = poll_interval
        self._retry_timeout = retry_timeout
        self._wanted = wanted
        self._newest = cursor.newest
        self._seen = dict(cursor.seen)
        self._found: deque[Record] = deque()
        self._span: Span | None = None
        """The rest of the current poll."""
        self._next_poll = 0.0
        self._next_further_back = 0.0

    @property
    def cursor(self) -> Cursor:
        """The position after the last returned entry."""
        return Cursor(self._newest, dict(self._seen))

    def poll(self) -> Steps[None]:
        """Request the feed once, and read the records of new entries. Pause first if the poll is not due."""
        if self._span is None and (pause := self._next_poll - time.monotonic()) > 0:
            yield pause
        span = self._span or self._begin()
        # Later reads never begin before this time.
        self._seen = {id: at for id, at in self._seen.items() if at >= self._newest - LONG_OVERLAP_MS}
        entries, rest = yield from retried(partial(_read, self._table, span), self._retry_timeout)
        new = {each.submission_id: each for each in entries if each.submission_id not in self._seen}
        wanted = [id for id in new if self._wanted(id)]
        # The feed has few attributes. If a record has expired in the table, the entry of the feed replaces it.
        full = yield from records(self._table, wanted, self._retry_timeout)
        self._span = rest
        self._found.extend(replace(full.get(id, new[id]), changed_at=new[id].changed_at) for id in wanted)
        self._newest = advanced(self._newest, (new[id] for id in new.keys() - set(wanted)), now_ms())

    def take(self) -> Record | None:
        """Return the next record, or None if another poll is necessary."""
        if not self._found:
            return None
        record = self._found.popleft()
        self._newest = advanced(self._newest, [record], now_ms())
        self._seen[record.submission_id] = record.changed_at or 0
        return record

    def _begin(self) -> Span:
        """Begin a poll, and return the part of the feed that it reads."""
        now = time.monotonic()
        self._next_poll = now + self._poll_interval
        overlap = SHORT_OVERLAP_MS
        if now >= self._next_further_back:
            self._next_further_back = now + LONG_OVERLAP_EVERY
            overlap = LONG_OVERLAP_MS
        self._span = Span(max(self._newest - overlap, 0))
        return self._span


class Waiting:
    """Waits for any number of submissions with one read of the feed for all of them."""

    def __init__(self, table: Callable[[], Table], poll_interval: float, retry_timeout: float) -> None:
        """Create a wait; see `Reader`."""
        self._table = table
        self._poll_interval = poll_interval
        self._retry_timeout = retry_timeout
        self._ids: set[str] = set()
        self._unread: set[str] = set()
        self._reader: Reader | None = None
        self._next_lookup = 0.0

    def add(self, submission_ids: Iterable[str]) -> None:
        """Add submissions to the wait."""
        new = set(submission_ids) - self._ids
        if new and not self._ids:
            # The new submissions may have ended earlier, so the feed must be read again from an earlier position.
            self._reader = None
        self._ids |= new
        self._unread |= new

    def drop(self, submission_id: str) -> None:
        """Remove a submission from the wait."""
        self._ids.discard(submission_id)
        self._unread.discard(submission_id)

    def step(self) -> Steps[tuple[list[Record], SubmissionNotFoundError | None]]:
        """Return ended records, and an error for IDs without a record. Pause first if the step is not due."""
        reader = self._reader
        if reader is None:
            # Start earlier, because the clocks of the writers may be behind.
            begin = Cursor(now_ms() - LONG_OVERLAP_MS)
            reader = self._reader = Reader(
                self._table, begin, self._poll_interval, self._retry_timeout, lambda id: id in self._ids
            )
            self._next_lookup = time.monotonic() + LOOKUP_EVERY
        if time.monotonic() >= self._next_lookup:
            self._next_lookup = time.monotonic() + LOOKUP_EVERY
            self._unread |= self._ids
        if self._unread:
            ids = sorted(self._unread)
            found = yield from records(self._table, ids, self._retry_timeout)
            self._unread -= set(ids)
            missing = [id for id in ids if id not in found and id in self._ids]
            ended = [record for record in found.values() if record.ended]
        else:
            yield from reader.poll()
            missing, ended = [], list(iter(reader.take, None))
        ended = [record for record in ended if record.submission_id in self._ids]
        for id in [*missing, *(record.submission_id for record in ended)]:
            self.drop(id)
        return ended, SubmissionNotFoundError(missing) if missing else None
