"""Learns what ended: one thread that owns the set of what is in flight and the place in the feed.

Each poll is one request. Usually it is a Query of the feed from a little before the newest entry seen, since an index
lags and the writers' clocks differ; what is not in flight is dropped, so an entry read twice is harmless. Now and
then it reads further back, and once in `lookup_interval` everything in flight is looked up by its id, a hundred a
request, so that nothing depends on the feed alone. With nothing in flight nothing is read.
"""

from __future__ import annotations

import logging
import math
import queue
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_ecs_bridge.outcome import Outcome, Verdict, outcome
from airflow_ecs_bridge.table import BATCH_SIZE, Record, Table
from airflow_ecs_bridge.threads import Service, backoff, drain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_ecs_bridge.config import Settings

log = logging.getLogger(__name__)

SHORT_OVERLAP_MS = 10_000
"""How far back of the newest entry seen a poll reads: an index's usual lag is below a second."""

LONG_OVERLAP_MS = 120_000
"""How far back it reads every `LONG_OVERLAP_EVERY` seconds. Re-reading two minutes of a busy feed each second would
cost ten times as much, in read units and in this process's CPU."""

LONG_OVERLAP_EVERY = 20.0

LEAD = 0.1
"""Seconds by which a poll should be over before the scheduler's next heartbeat, which is when results are taken."""

_IDLE_WAIT = 1.0


@dataclass
class Lookup:
    """A question for records, asked by a thread that waits (a while) for the answer."""

    submission_ids: list[str]
    future: Future[dict[str, Record]] = field(default_factory=Future)


@dataclass(frozen=True)
class _Watch:
    submission_ids: list[str]


@dataclass(frozen=True)
class _Forget:
    submission_id: str


@dataclass(frozen=True)
class _Settle:
    submission_id: str


class Watcher:
    """Other threads call `watch`, `forget`, `settle`, `lookup` and `beat`; the rest happens in its own thread."""

    def __init__(
        self,
        connect: Callable[[], Table],
        disconnect: Callable[[], None],
        settings: Settings,
        report: Callable[[Outcome], None],
    ) -> None:
        """Make one.

        :param connect: makes the table's reader; called again after an error
        :param disconnect: called after an error, lest `connect` takes the same credentials again
        :param report: takes how a submission ended
        """
        self._connect = connect
        self._disconnect = disconnect
        self._settings = settings
        self._report = report
        self._wishes: queue.SimpleQueue[_Watch | _Forget | _Settle | Lookup] = queue.SimpleQueue()
        # All from here on is of the thread alone, but `_rhythm`, which other threads only replace.
        self._rhythm = Rhythm()
        self._table: Table | None = None
        self._in_flight: dict[str, None] = {}
        self._unsettled: dict[str, None] = {}
        self._newest_ms = 0
        self._page: tuple[int, dict[str, Any]] | None = None  # where a read that goes on began, and goes on
        self._next_poll = 0.0
        self._next_long_overlap = 0.0
        self._next_sweep = 0.0
        self._sweep: list[str] = []
        self._swept_last = False
        self._failures = 0
        self.service = Service("ecs-bridge-watch", self.step)

    # Other threads

    def watch(self, submission_ids: Iterable[str]) -> None:
        """Report the end of these."""
        self._wishes.put(_Watch(list(submission_ids)))

    def forget(self, submission_id: str) -> None:
        """Do not report this one."""
        self._wishes.put(_Forget(submission_id))

    def settle(self, submission_id: str) -> None:
        """Read the record of this one soon: report its end, go on watching it, or release it if there is none."""
        self._wishes.put(_Settle(submission_id))

    def lookup(self, submission_ids: Iterable[str]) -> Future[dict[str, Record]]:
        """Read records consistently, as soon as possible."""
        question = Lookup(list(submission_ids))
        self._wishes.put(question)
        return question.future

    def beat(self) -> None:
        """Note a heartbeat of the scheduler."""
        self._rhythm = self._rhythm.beat(time.monotonic())

    # The watcher's thread

    def step(self) -> None:
        """Take what was asked for, and poll when it is time."""
        busy = bool(self._in_flight or self._unsettled)
        wait = min(max(self._next_poll - time.monotonic(), 0.0), _IDLE_WAIT) if busy else _IDLE_WAIT
        for wish in drain(self._wishes, 1000, wait):
            self._take(wish)
        if not (self._in_flight or self._unsettled) or time.monotonic() < self._next_poll:
            return
        began = time.monotonic()
        try:
            self._poll()
            self._failures = 0
            took = time.monotonic() - began
            self._next_poll = self._rhythm.next_poll(began, took, self._settings.poll_interval)
        except Exception as error:
            self._failures += 1
            self._page = None
            self._hang_up()
            self._next_poll = time.monotonic() + backoff(self._failures)
            log.warning("reading the ECS bridge's table failed and will be repeated: %s", error)
        if self._page:
            self._next_poll = 0.0

    def _take(self, wish: _Watch | _Forget | _Settle | Lookup) -> None:
        match wish:
            case _Watch(submission_ids):
                if not self._in_flight:
                    self._resume()
                self._in_flight.update(dict.fromkeys(submission_ids))
            case _Forget(submission_id):
                self._drop(submission_id)
            case _Settle(submission_id):
                if submission_id in self._in_flight:
                    self._unsettled[submission_id] = None
            case Lookup():
                self._answer(wish)

    def _resume(self) -> None:
        """Begin to read: nothing that is waited for ended before now, whatever the writers' clocks say of now."""
        now = time.monotonic()
        self._newest_ms = int(time.time() * 1000) - LONG_OVERLAP_MS
        self._page = None
        self._next_long_overlap = now
        self._next_sweep = now + self._settings.lookup_interval

    def _answer(self, question: Lookup) -> None:
        if not question.future.set_running_or_notify_cancel():
            return
        try:
            found: dict[str, Record] = {}
            open_ids = question.submission_ids
            tries = 0
            while open_ids:
                if tries:
                    time.sleep(backoff(tries, first=0.05, most=1.0))
                records, unread = self._reader().records(open_ids[:BATCH_SIZE])
                found.update(records)
                tries = tries + 1 if unread else 0
                open_ids = open_ids[BATCH_SIZE:] + unread
            question.future.set_result(found)
        except BaseException as error:
            # Even if this ends the thread: somebody waits for the answer.
            self._hang_up()
            question.future.set_exception(error)
            if not isinstance(error, Exception):
                raise

    def _poll(self) -> None:
        """Make one request."""
        now = time.monotonic()
        if now >= self._next_sweep:
            self._next_sweep = now + self._settings.lookup_interval
            self._sweep = list(self._in_flight)
        self._sweep = [submission_id for submission_id in self._sweep if submission_id in self._in_flight]
        if self._unsettled:
            self._read_unsettled()
        elif self._sweep and not self._swept_last and not self._page:
            # Every other poll at most, so that a large sweep does not hold up the feed.
            self._swept_last = True
            self._read_sweep()
        else:
            self._swept_last = False
            self._read_feed(now)

    def _read_feed(self, now: float) -> None:
        if self._page:
            since, after = self._page
        else:
            long = now >= self._next_long_overlap
            if long:
                self._next_long_overlap = now + LONG_OVERLAP_EVERY
            since, after = self._newest_ms - (LONG_OVERLAP_MS if long else SHORT_OVERLAP_MS), None
        records, more = self._reader().changes(since, after)
        self._page = (since, more) if more else None
        # No clock but ours takes the place in the feed beyond now, or one that is wrong would hide what follows.
        now_ms = int(time.time() * 1000)
        self._newest_ms = max([self._newest_ms, *(min(record.changed_at or 0, now_ms) for record in records)])
        self._ended([record for record in records if record.submission_id in self._in_flight])

    def _read_sweep(self) -> None:
        batch, self._sweep = self._sweep[:BATCH_SIZE], self._sweep[BATCH_SIZE:]
        records, unread = self._reader().records(batch)
        self._sweep += unread
        self._ended([record for record in records.values() if record.ended])

    def _read_unsettled(self) -> None:
        batch = list(self._unsettled)[:BATCH_SIZE]
        records, unread = self._reader().records(batch)
        self._ended([record for record in records.values() if record.ended])
        for submission_id in set(batch) - set(unread):
            self._unsettled.pop(submission_id, None)
            if submission_id not in records:
                self._tell(Outcome(submission_id, Verdict.RELEASED, "the ECS bridge never got it"))

    def _ended(self, records: list[Record]) -> None:
        # The feed has little. Read the record of a failure, and of a success that has a reason: an interruption.
        short = [r.submission_id for r in records if (r.state != "succeeded" or r.reason) and r.changed_at]
        full: dict[str, Record] = {}
        for place in range(0, len(short), BATCH_SIZE):
            full |= self._details(short[place : place + BATCH_SIZE])
        for record in records:
            self._tell(outcome(full.get(record.submission_id, record)))

    def _details(self, submission_ids: list[str]) -> dict[str, Record]:
        try:
            return self._reader().records(submission_ids)[0]
        except Exception as error:
            log.warning("why %d submissions failed could not be read: %s", len(submission_ids), error)
            return {}

    def _tell(self, result: Outcome) -> None:
        if result.submission_id in self._in_flight:
            self._drop(result.submission_id)
            self._report(result)

    def _drop(self, submission_id: str) -> None:
        self._in_flight.pop(submission_id, None)
        self._unsettled.pop(submission_id, None)

    def _reader(self) -> Table:
        if self._table is None:
            self._table = self._connect()
        return self._table

    def _hang_up(self) -> None:
        self._table = None
        self._disconnect()


@dataclass(frozen=True)
class Rhythm:
    """The scheduler's heartbeats, as far as they are regular."""

    last: float | None = None
    period: float | None = None

    def beat(self, now: float) -> Rhythm:
        """Note a heartbeat; the gap to the one before is what to expect of the next."""
        return Rhythm(now, None if self.last is None else now - self.last)

    def next_poll(self, began: float, took: float, interval: float) -> float:
        """Return when to poll after a poll that began then and took so long, as the next may.

        An interval later, put off so that it is over just before the heartbeat that follows: what is read then waits
        moments to be taken, not half a second on average, and at the price of one request a heartbeat. A scheduler
        that is busy beats far more often than the interval, or in no rhythm at all: then it is just the interval.
        """
        due = began + interval
        if self.last is None or self.period is None or not interval / 2 <= self.period <= 3 * interval:
            return due
        lead = min(LEAD + took, self.period / 2)
        # The first heartbeat that a quick poll would not come (much) too early for.
        beats = (due - 0.1 * interval + LEAD - self.last) / self.period
        return self.last - lead + math.ceil(beats) * self.period
