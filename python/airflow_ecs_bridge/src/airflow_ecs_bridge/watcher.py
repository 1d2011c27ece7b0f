"""Detection of ended submissions, in one thread that owns the set of submissions in flight and the feed position.

A poll is one Query of the feed. It begins shortly before the newest known entry, because an index lags and the clocks
of the writers differ. Entries that are not in flight are ignored, so reading an entry twice is harmless. Between two
polls, the thread makes other requests, one at a time. It reads requested records, and the feed further back. Once per
`full_scan_interval`, it reads all submissions in flight by ID, up to 100 per request, so that no result depends on the
feed alone. Without submissions in flight, it reads nothing.
"""

from __future__ import annotations

import logging
import math
import queue
import statistics
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_ecs_bridge.results import Outcome, Verdict, outcome
from airflow_ecs_bridge.threads import Service, drain
from ecs_bridge._sansio import backoff, run
from ecs_bridge.feed import LONG_OVERLAP_EVERY, LONG_OVERLAP_MS, SHORT_OVERLAP_MS, Span, advanced, now_ms
from ecs_bridge.table import BATCH_SIZE, Record, Table, records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from airflow_ecs_bridge.config import Settings
    from ecs_bridge.api import Tally

log = logging.getLogger(__name__)

LEAD = 0.15
"""Seconds before the scheduler's next heartbeat at which a poll should end. The heartbeat processes the results."""

_IDLE_WAIT = 1.0


@dataclass
class Lookup:
    """A request for records, from a thread that waits for the response."""

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
    """Other threads call `watch`, `forget`, `settle`, `lookup` and `beat`. All other work happens in its own thread."""

    def __init__(
        self,
        connect: Callable[[], Table],
        disconnect: Callable[[], None],
        settings: Settings,
        report: Callable[[Outcome], None],
        is_pending: Callable[[str], bool],
        failed_calls: Tally,
    ) -> None:
        """Create a watcher.

        :param connect: creates the reader of the table; called again after an error
        :param disconnect: called after an error, so that `connect` reloads the credentials
        :param report: receives the outcome of a submission
        :param is_pending: returns whether a submission may not have reached the bridge yet
        :param failed_calls: counts errors
        """
        self._connect = connect
        self._disconnect = disconnect
        self._settings = settings
        self._report = report
        self._wishes: queue.SimpleQueue[_Watch | _Forget | _Settle | Lookup] = queue.SimpleQueue()
        # Only the watcher's thread uses the following attributes, except for `_rhythm`, which other threads replace.
        self._rhythm = Rhythm()
        self._is_pending = is_pending
        self._failed_calls = failed_calls
        self._table: Table | None = None
        self._untaken: deque[_Watch | _Forget | _Settle | Lookup] = deque()
        self._lookups: deque[Lookup] = deque()
        self._in_flight: dict[str, None] = {}
        self._unsettled: dict[str, None] = {}
        self._newest_ms = 0
        self._rest: Span | None = None  # of the current poll
        self._next_poll = 0.0
        self._durations: deque[float] = deque([0.0, 0.0], maxlen=5)  # of the last polls
        self._read_at = 0.0
        self._poll_failures = 0
        self._polled_last = False
        # Between the polls.
        self._next_spare = 0.0
        self._spare_failures = 0
        self._further_back: Span | None = None
        self._next_further_back = 0.0
        self._sweep: list[str] = []
        self._sweep_pause = 0.0
        self._next_batch = 0.0
        self._next_sweep = 0.0
        self._missing: set[str] = set()
        self.service = Service("ecs-bridge-watch", self.step)

    # Other threads

    def watch(self, submission_ids: Iterable[str]) -> None:
        """Report the outcomes of these submissions."""
        self._wishes.put(_Watch(list(submission_ids)))

    def forget(self, submission_id: str) -> None:
        """Stop watching a submission."""
        self._wishes.put(_Forget(submission_id))

    def settle(self, submission_id: str) -> None:
        """Read the record of a submission soon. Report its outcome, keep watching it, or release it."""
        self._wishes.put(_Settle(submission_id))

    def lookup(self, submission_ids: Iterable[str]) -> Future[dict[str, Record]]:
        """Read records consistently, as soon as possible."""
        question = Lookup(list(submission_ids))
        self._wishes.put(question)
        return question.future

    def beat(self) -> None:
        """Record a heartbeat of the scheduler."""
        self._rhythm = self._rhythm.beat(time.monotonic())

    def figures(self) -> dict[str, float]:
        """Return the number of submissions in flight, and the age of the last read."""
        in_flight = len(self._in_flight)
        lag = time.monotonic() - self._read_at if in_flight else 0.0
        return {"in_flight": in_flight, "feed_lag": max(lag, 0.0)}

    # The watcher's thread

    def step(self) -> None:
        """Process requests, poll when a poll is due, and use the time between polls."""
        self._untaken.extend(drain(self._wishes, 1000, self._wait(time.monotonic())))
        while self._untaken:
            self._take(self._untaken.popleft())
        while self._lookups:
            self._answer(self._lookups.popleft())
        if not self._in_flight:
            return
        began = time.monotonic()
        if began >= self._next_poll:
            self._poll(began)
        elif (read := self._spare(began)) is not None:
            self._use_time_between(read)

    def _wait(self, now: float) -> float:
        if self._untaken or self._lookups:
            return 0.0
        if not self._in_flight:
            return _IDLE_WAIT
        if self._spare(now) is not None:
            return 0.0
        return min(max(min(self._next_poll, self._next_work(now)) - now, 0.0), _IDLE_WAIT)

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
                self._lookups.append(wish)

    def _resume(self) -> None:
        """Start reading. Watched submissions end after now, even if the clocks of the writers are behind."""
        now = self._read_at = time.monotonic()
        self._newest_ms = now_ms() - LONG_OVERLAP_MS
        self._rest = self._further_back = None
        self._next_further_back = now + LONG_OVERLAP_EVERY
        self._sweep = []
        self._next_sweep = now + self._settings.full_scan_interval
        self._missing.clear()

    def _answer(self, question: Lookup) -> None:
        if not question.future.set_running_or_notify_cancel():
            return
        try:
            question.future.set_result(run(records(self._reader, question.submission_ids)))
        except BaseException as error:
            # Even if this error ends the thread, because a caller waits for the response.
            self._hang_up()
            question.future.set_exception(error)
            if not isinstance(error, Exception):
                raise

    # Polls

    def _poll(self, began: float) -> None:
        """Make one request of the feed."""
        try:
            self._read_feed()
        except Exception as error:
            self._poll_failures += 1
            self._rest = None
            self._hang_up()
            self._next_poll = time.monotonic() + backoff(self._poll_failures)
            log.warning("read of the ECS bridge's table failed; will retry: %s", error)
            return
        self._poll_failures = 0
        self._polled_last = True
        self._read_at = time.monotonic()
        self._durations.append(self._read_at - began)
        interval = self._settings.poll_interval
        self._next_poll = 0.0 if self._rest else self._rhythm.next_poll(began, self._may_take(), interval)

    def _may_take(self) -> float:
        """Return the expected duration of the next poll in seconds.

        It is 1.5 times the duration of the last polls, without a single slow one. A poll that ends after its heartbeat
        delays its results until the next heartbeat.
        """
        return 1.5 * sorted(self._durations)[-2]

    def _read_feed(self) -> None:
        span = self._rest or Span(self._newest_ms - SHORT_OVERLAP_MS)
        entries, self._rest = span.read(self._reader())
        self._newest_ms = advanced(self._newest_ms, entries, now_ms())
        self._ended([entry for entry in entries if entry.submission_id in self._in_flight])

    # Between the polls

    def _spare(self, now: float) -> Callable[[], None] | None:
        """Return the next read between polls, if time is available. One read is always allowed after a poll."""
        fits = self._polled_last or self._next_poll - now > self._may_take()
        if self._rest or now < self._next_spare or not fits:
            return None
        if self._unsettled:
            return self._read_unsettled
        if self._further_back or now >= self._next_further_back:
            return self._read_further_back
        if now >= (self._next_batch if self._sweep else self._next_sweep):
            return self._read_sweep
        return None

    def _next_work(self, now: float) -> float:
        """Return the time of the next possible read between polls."""
        times = [self._next_further_back, self._next_batch if self._sweep else self._next_sweep]
        # A read that is due but does not fit waits for the poll.
        return max(min((each for each in times if each > now), default=self._next_poll), self._next_spare)

    def _use_time_between(self, read: Callable[[], None]) -> None:
        self._polled_last = False
        try:
            read()
            self._spare_failures = 0
        except Exception as error:
            self._spare_failures += 1
            self._hang_up()
            self._next_spare = time.monotonic() + backoff(self._spare_failures)
            log.warning("read of the ECS bridge's table failed; will retry: %s", error)

    def _read_further_back(self) -> None:
        if self._further_back is None:
            self._next_further_back = time.monotonic() + LONG_OVERLAP_EVERY
            self._further_back = Span(self._newest_ms - LONG_OVERLAP_MS, self._newest_ms - SHORT_OVERLAP_MS)
        entries, self._further_back = self._further_back.read(self._reader())
        self._ended([entry for entry in entries if entry.submission_id in self._in_flight])

    def _read_sweep(self) -> None:
        """Read the next 100 submissions in flight, spread evenly over `full_scan_interval`."""
        now = time.monotonic()
        if not self._sweep:
            self._sweep = list(self._in_flight)
            self._sweep_pause = self._settings.full_scan_interval / math.ceil(len(self._sweep) / BATCH_SIZE)
            # After the last batch of this sweep.
            self._next_sweep = now + self._settings.full_scan_interval
            self._next_batch = now
        batch = [id for id in self._sweep[:BATCH_SIZE] if id in self._in_flight]
        if batch:
            found, unread = self._reader().records(batch)
            self._look_for_missing(set(batch) - set(unread) - found.keys())
            self._missing -= found.keys()
            self._sweep += unread
            self._ended([record for record in found.values() if record.ended])
        del self._sweep[:BATCH_SIZE]
        # The other batches are spread over the rest of the interval.
        self._next_batch += self._sweep_pause

    def _look_for_missing(self, ids: set[str]) -> None:
        """Release submissions without a record in two sweeps, because they were deleted or the table was replaced."""
        ids = {id for id in ids if not self._is_pending(id)}
        gone = ids & self._missing
        self._missing |= ids - gone
        for submission_id in gone:
            self._tell(
                Outcome(submission_id, Verdict.RELEASED, "its record no longer exists in the ECS bridge's table")
            )

    def _read_unsettled(self) -> None:
        batch = list(self._unsettled)[:BATCH_SIZE]
        found, unread = self._reader().records(batch)
        self._ended([record for record in found.values() if record.ended])
        for submission_id in set(batch) - set(unread):
            self._unsettled.pop(submission_id, None)
            if submission_id not in found:
                self._tell(Outcome(submission_id, Verdict.RELEASED, "the ECS bridge never received it"))

    # What is known

    def _ended(self, ended: list[Record]) -> None:
        # The feed has few attributes. Read the record of a failure, and of a success with a reason (an interruption).
        short = [r.submission_id for r in ended if (r.state != "succeeded" or r.reason) and r.changed_at]
        full: dict[str, Record] = {}
        for place in range(0, len(short), BATCH_SIZE):
            full |= self._details(short[place : place + BATCH_SIZE])
        for record in ended:
            self._tell(outcome(full.get(record.submission_id, record), self._settings))

    def _details(self, submission_ids: list[str]) -> dict[str, Record]:
        try:
            return self._reader().records(submission_ids)[0]
        except Exception as error:
            log.warning("could not read why %d submissions failed: %s", len(submission_ids), error)
            return {}

    def _tell(self, result: Outcome) -> None:
        if result.submission_id in self._in_flight:
            self._drop(result.submission_id)
            self._report(result)

    def _drop(self, submission_id: str) -> None:
        self._in_flight.pop(submission_id, None)
        self._unsettled.pop(submission_id, None)
        self._missing.discard(submission_id)

    def _reader(self) -> Table:
        if self._table is None:
            self._table = self._connect()
        return self._table

    def _hang_up(self) -> None:
        self._failed_calls.add()
        self._table = None
        self._disconnect()


@dataclass(frozen=True)
class Rhythm:
    """The rhythm of the scheduler's heartbeats."""

    last: float | None = None
    gaps: tuple[float, ...] = ()
    """Seconds between the last heartbeats, newest last."""

    @property
    def period(self) -> float | None:
        """The expected gap. A single late heartbeat does not change it."""
        return statistics.median_low(self.gaps) if self.gaps else None

    def beat(self, now: float) -> Rhythm:
        """Record a heartbeat."""
        return Rhythm(now, () if self.last is None else (*self.gaps[-2:], now - self.last))

    def next_poll(self, began: float, took: float, interval: float) -> float:
        """Return the time of the next poll, from the start of the last poll and the expected duration.

        The next poll is about one interval later and ends just before a heartbeat, which reports its results. So
        results do not wait half a second on average. If heartbeats are irregular or much more frequent than the
        interval, the next poll is exactly one interval later.
        """
        due = began + interval
        period = self.period
        if self.last is None or period is None or not interval / 2 <= period <= 3 * interval:
            return due
        lead = min(LEAD + took, period / 2)
        # The first heartbeat for which the poll is not much earlier than the interval.
        beats = (due - 0.3 * interval + LEAD - self.last) / period
        return self.last - lead + math.ceil(beats) * period
