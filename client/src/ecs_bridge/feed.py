"""The feed of what ended: where a reader is in it, and how it reads on.

An entry may be seen late and out of order: an index lags, and the writers' clocks differ. So each read begins a little
before the newest entry seen, and now and then further back, and what was seen before is dropped.
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
from ecs_bridge.table import Record, Table, records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ecs_bridge._sansio import Steps

SHORT_OVERLAP_MS = 3_000
"""How far back of the newest entry seen a poll reads: an index's usual lag is below a second."""

LONG_OVERLAP_MS = 120_000
"""How far back the feed is read every `LONG_OVERLAP_EVERY` seconds. To read two minutes of a busy feed in each poll
would cost ten times as much, in read units and in this process's CPU."""

LONG_OVERLAP_EVERY = 20.0

LOOKUP_EVERY = 60.0
"""Seconds after which what is waited for is read by its id, so that nothing depends on the feed alone."""

_VERSION = 1


def now_ms() -> int:
    """Return this machine's time in epoch milliseconds."""
    return int(time.time() * 1000)


def advanced(newest: int, entries: Iterable[Record], now: int) -> int:
    """Return the place in the feed after these entries.

    No clock but ours takes it beyond now, or one that is wrong would hide what follows.
    """
    return max([newest, *(min(entry.changed_at or 0, now) for entry in entries)])


@dataclass(frozen=True)
class Cursor:
    """A place in the feed. ``str(cursor)`` is a text to keep, from which `parse` makes the same place again.

    It holds the ids that were handed out of the two minutes before: some 60 bytes each.
    """

    newest: int = 0
    """The time of the newest entry that was handed out, in epoch milliseconds."""
    seen: Mapping[str, int] = field(default_factory=dict, repr=False)
    """What was handed out and may be read again, with the time of its end."""

    @classmethod
    def beginning(cls) -> Cursor:
        """Return the place before everything that the table still holds."""
        return cls()

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read what `str` wrote; raise ValueError if it is something else."""
        try:
            content = json.loads(text)
            version, newest, seen = content["version"], content["newest"], content["seen"]
            right = version == _VERSION and isinstance(newest, int) and all(isinstance(at, int) for at in seen.values())
        except (AttributeError, KeyError, TypeError, ValueError):
            right = False
        if not right:
            raise ValueError(f"not a cursor of version {_VERSION}: it must be what str(cursor) returned")
        return cls(newest, seen)

    def __str__(self) -> str:
        content = {"version": _VERSION, "newest": self.newest, "seen": self._near()}
        return json.dumps(content, separators=(",", ":"))

    def _near(self) -> dict[str, int]:
        return {id: at for id, at in self.seen.items() if at >= self.newest - LONG_OVERLAP_MS}


def latest_cursor(table: Callable[[], Table], retry_timeout: float) -> Steps[Cursor]:
    """Return the place after everything that the feed shows now."""
    now = now_ms()
    # By the writers' clocks where they wrote something: ours may be ahead. A reader first looks as far back as `since`.
    newest = now - LONG_OVERLAP_MS
    since = newest - LONG_OVERLAP_MS
    seen: dict[str, int] = {}
    page: dict[str, Any] | None = None
    while True:
        entries, page = yield from retried(partial(_page, table, since, page), retry_timeout)
        newest = advanced(newest, entries, now)
        seen.update({entry.submission_id: entry.changed_at or 0 for entry in entries})
        if page is None:
            return Cursor(newest, seen)


def _page(
    table: Callable[[], Table], since: int, after: dict[str, Any] | None
) -> tuple[list[Record], dict[str, Any] | None]:
    return table().changes(since, after)


class Reader:
    """Reads the feed on from a cursor. `poll` makes the next request when it is time, `take` hands out what is new."""

    def __init__(
        self,
        table: Callable[[], Table],
        cursor: Cursor,
        poll_interval: float,
        retry_timeout: float,
        wanted: Callable[[str], bool] = lambda id: True,
    ) -> None:
        """Make one.

        :param table: returns the table's reader, for each request
        :param poll_interval: seconds between two polls
        :param retry_timeout: seconds for which a request is repeated that failed
        :param wanted: tells for an id whether its end is handed out
        """
        self._table = table
        self._poll_interval = poll_interval
        self._retry_timeout = retry_timeout
        self._wanted = wanted
        self._newest = cursor.newest
        self._seen = dict(cursor.seen)
        self._found: deque[Record] = deque()
        self._page: tuple[int, dict[str, Any] | None] | None = None
        """Where the poll that goes on began, and its next page."""
        self._next_poll = 0.0
        self._next_further_back = 0.0

    @property
    def cursor(self) -> Cursor:
        """The place after the last entry that was taken."""
        return Cursor(self._newest, dict(self._seen))

    def poll(self) -> Steps[None]:
        """Make one request of the feed, and read the records of what is new; pause before, if it is not time yet."""
        if self._page is None and (pause := self._next_poll - time.monotonic()) > 0:
            yield pause
        since, after = self._page or (self._begin(), None)
        # No read begins before this any more.
        self._seen = {id: at for id, at in self._seen.items() if at >= self._newest - LONG_OVERLAP_MS}
        entries, more = yield from retried(partial(_page, self._table, since, after), self._retry_timeout)
        new = {each.submission_id: each for each in entries if each.submission_id not in self._seen}
        wanted = [id for id in new if self._wanted(id)]
        # The feed has little of each. What has expired in the table meanwhile is told by what the feed has.
        full = yield from records(self._table, wanted, self._retry_timeout)
        self._page = (since, more) if more else None
        self._found.extend(replace(full.get(id, new[id]), changed_at=new[id].changed_at) for id in wanted)
        self._newest = advanced(self._newest, (new[id] for id in new.keys() - set(wanted)), now_ms())

    def take(self) -> Record | None:
        """Return the next that ended; None: poll again."""
        if not self._found:
            return None
        record = self._found.popleft()
        self._newest = advanced(self._newest, [record], now_ms())
        self._seen[record.submission_id] = record.changed_at or 0
        return record

    def _begin(self) -> int:
        """Begin a poll; return from when on it reads."""
        now = time.monotonic()
        self._next_poll = now + self._poll_interval
        overlap = SHORT_OVERLAP_MS
        if now >= self._next_further_back:
            self._next_further_back = now + LONG_OVERLAP_EVERY
            overlap = LONG_OVERLAP_MS
        since = max(self._newest - overlap, 0)
        self._page = (since, None)
        return since


class Waiting:
    """Learns how submissions end, however many, by one read of the feed for all of them."""

    def __init__(self, table: Callable[[], Table], poll_interval: float, retry_timeout: float) -> None:
        """Make one; see `Reader`."""
        self._table = table
        self._poll_interval = poll_interval
        self._retry_timeout = retry_timeout
        self._ids: set[str] = set()
        self._unread: set[str] = set()
        self._reader: Reader | None = None
        self._next_lookup = 0.0

    def add(self, submission_ids: Iterable[str]) -> None:
        """Wait for these, too."""
        new = set(submission_ids) - self._ids
        if new and not self._ids:
            # What is waited for now has not ended for the feed before now, whatever was read of it earlier.
            self._reader = None
        self._ids |= new
        self._unread |= new

    def drop(self, submission_id: str) -> None:
        """Do not wait for this one any more."""
        self._ids.discard(submission_id)
        self._unread.discard(submission_id)

    def step(self) -> Steps[tuple[list[Record], SubmissionNotFoundError | None]]:
        """Return what ended, and the error for what there is no record of; pause before, if it is not time yet."""
        reader = self._reader
        if reader is None:
            # Whatever the writers' clocks say of now.
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
