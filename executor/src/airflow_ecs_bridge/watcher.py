"""Learns what ended: one thread that owns the set of what is in flight and the place in the feed.

A poll is one Query of the feed, from a little before the newest entry seen, since an index lags and the writers' clocks
differ. What is not in flight is dropped, so an entry read twice is harmless. Between two polls there is time for what
no heartbeat waits for, a request at a time: records that somebody asked for, the feed further back, and everything in
flight by its id, a hundred a request, once in `full_scan_interval`, so that nothing depends on the feed alone. With
nothing in flight nothing is read.
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
from typing import TYPE_CHECKING, Any

from ecs_bridge._sansio import backoff, run
from ecs_bridge.feed import LONG_OVERLAP_EVERY, LONG_OVERLAP_MS, SHORT_OVERLAP_MS, advanced, now_ms
from ecs_bridge.table import BATCH_SIZE, Record, Table, records

from airflow_ecs_bridge.results import Outcome, Verdict, outcome
from airflow_ecs_bridge.threads import Service, drain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ecs_bridge.api import Tally

    from airflow_ecs_bridge.config import Settings

log = logging.getLogger(__name__)

LEAD = 0.15
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


@dataclass(frozen=True)
class _Range:
    """A part of the feed that is left to read, in epoch milliseconds, and its next page."""

    since: int
    until: int
    after: dict[str, Any] | None = None


class Watcher:
    """Other threads call `watch`, `forget`, `settle`, `lookup` and `beat`; the rest happens in its own thread."""

    def __init__(
        self,
        connect: Callable[[], Table],
        disconnect: Callable[[], None],
        settings: Settings,
        report: Callable[[Outcome], None],
        is_pending: Callable[[str], bool],
        failed_calls: Tally,
    ) -> None:
        """Make one.

        :param connect: makes the table's reader; called again after an error
        :param disconnect: called after an error, lest `connect` takes the same credentials again
        :param report: takes how a submission ended
        :param is_pending: tells whether a submission may not have reached the bridge yet
        :param failed_calls: counts errors
        """
        self._connect = connect
        self._disconnect = disconnect
        self._settings = settings
        self._report = report
        self._wishes: queue.SimpleQueue[_Watch | _Forget | _Settle | Lookup] = queue.SimpleQueue()
        # All from here on is of the thread alone, but `_rhythm`, which other threads only replace.
        self._rhythm = Rhythm()
        self._is_pending = is_pending
        self._failed_calls = failed_calls
        self._table: Table | None = None
        self._untaken: deque[_Watch | _Forget | _Settle | Lookup] = deque()
        self._lookups: deque[Lookup] = deque()
        self._in_flight: dict[str, None] = {}
        self._unsettled: dict[str, None] = {}
        self._newest_ms = 0
        self._page: tuple[int, dict[str, Any]] | None = None  # where a poll that goes on began, and goes on
        self._next_poll = 0.0
        self._durations: deque[float] = deque([0.0, 0.0], maxlen=5)  # of the last polls
        self._read_at = 0.0
        self._poll_failures = 0
        self._polled_last = False
        # Between the polls.
        self._next_spare = 0.0
        self._spare_failures = 0
        self._further_back: _Range | None = None
        self._next_further_back = 0.0
        self._sweep: list[str] = []
        self._sweep_pause = 0.0
        self._next_batch = 0.0
        self._next_sweep = 0.0
        self._missing: set[str] = set()
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

    def figures(self) -> dict[str, float]:
        """Return how much is in flight, and how old what is known of it is."""
        in_flight = len(self._in_flight)
        lag = time.monotonic() - self._read_at if in_flight else 0.0
        return {"in_flight": in_flight, "feed_lag": max(lag, 0.0)}

    # The watcher's thread

    def step(self) -> None:
        """Take what was asked for, poll when it is time, and use the time between."""
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
        """Begin to read: nothing that is waited for ended before now, whatever the writers' clocks say of now."""
        now = self._read_at = time.monotonic()
        self._newest_ms = now_ms() - LONG_OVERLAP_MS
        self._page = self._further_back = None
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
            # Even if this ends the thread: somebody waits for the answer.
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
            self._page = None
            self._hang_up()
            self._next_poll = time.monotonic() + backoff(self._poll_failures)
            log.warning("reading the ECS bridge's table failed and will be repeated: %s", error)
            return
        self._poll_failures = 0
        self._polled_last = True
        self._read_at = time.monotonic()
        self._durations.append(self._read_at - began)
        interval = self._settings.poll_interval
        self._next_poll = 0.0 if self._page else self._rhythm.next_poll(began, self._may_take(), interval)

    def _may_take(self) -> float:
        """Return the seconds that the next poll may take.

        Half more than the last ones, but for one that was slow alone: a poll that is over only after its heartbeat
        delays its results until the next.
        """
        return 1.5 * sorted(self._durations)[-2]

    def _read_feed(self) -> None:
        since, after = self._page or (self._newest_ms - SHORT_OVERLAP_MS, None)
        entries, more = self._reader().changes(since, after)
        self._page = (since, more) if more else None
        self._newest_ms = advanced(self._newest_ms, entries, now_ms())
        self._ended([entry for entry in entries if entry.submission_id in self._in_flight])

    # Between the polls

    def _spare(self, now: float) -> Callable[[], None] | None:
        """Return what there is to read, if there is time for it: always for one request, else as a poll takes."""
        fits = self._polled_last or self._next_poll - now > self._may_take()
        if self._page or now < self._next_spare or not fits:
            return None
        if self._unsettled:
            return self._read_unsettled
        if self._further_back or now >= self._next_further_back:
            return self._read_further_back
        if now >= (self._next_batch if self._sweep else self._next_sweep):
            return self._read_sweep
        return None

    def _next_work(self, now: float) -> float:
        """Return when there may be something to read between two polls."""
        times = [self._next_further_back, self._next_batch if self._sweep else self._next_sweep]
        # What is due already, and does not fit, waits for the poll.
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
            log.warning("reading the ECS bridge's table failed and will be repeated: %s", error)

    def _read_further_back(self) -> None:
        here = self._further_back
        if here is None:
            self._next_further_back = time.monotonic() + LONG_OVERLAP_EVERY
            here = _Range(self._newest_ms - LONG_OVERLAP_MS, self._newest_ms - SHORT_OVERLAP_MS)
        self._further_back = here
        entries, more = self._reader().changes(here.since, here.after, here.until)
        self._further_back = _Range(here.since, here.until, more) if more else None
        self._ended([entry for entry in entries if entry.submission_id in self._in_flight])

    def _read_sweep(self) -> None:
        """Look up the next hundred of everything in flight, evenly over `full_scan_interval`."""
        now = time.monotonic()
        if not self._sweep:
            self._sweep = list(self._in_flight)
            self._sweep_pause = self._settings.full_scan_interval / math.ceil(len(self._sweep) / BATCH_SIZE)
            # After the last batch of this one, however long it takes.
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
        # The rest in the time that is left of the interval.
        self._next_batch += self._sweep_pause

    def _look_for_missing(self, ids: set[str]) -> None:
        """Release what has no record in two sweeps: it was deleted, or the table was replaced."""
        ids = {id for id in ids if not self._is_pending(id)}
        gone = ids & self._missing
        self._missing |= ids - gone
        for submission_id in gone:
            self._tell(Outcome(submission_id, Verdict.RELEASED, "its record is no longer in the ECS bridge's table"))

    def _read_unsettled(self) -> None:
        batch = list(self._unsettled)[:BATCH_SIZE]
        found, unread = self._reader().records(batch)
        self._ended([record for record in found.values() if record.ended])
        for submission_id in set(batch) - set(unread):
            self._unsettled.pop(submission_id, None)
            if submission_id not in found:
                self._tell(Outcome(submission_id, Verdict.RELEASED, "the ECS bridge never got it"))

    # What is known

    def _ended(self, ended: list[Record]) -> None:
        # The feed has little. Read the record of a failure, and of a success that has a reason: an interruption.
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
            log.warning("why %d submissions failed could not be read: %s", len(submission_ids), error)
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
    """The scheduler's heartbeats, as far as they are regular."""

    last: float | None = None
    gaps: tuple[float, ...] = ()
    """Seconds between the last heartbeats, the newest at the end."""

    @property
    def period(self) -> float | None:
        """What to expect of the next gap; one that was late changes nothing."""
        return statistics.median_low(self.gaps) if self.gaps else None

    def beat(self, now: float) -> Rhythm:
        """Note a heartbeat."""
        return Rhythm(now, () if self.last is None else (*self.gaps[-2:], now - self.last))

    def next_poll(self, began: float, took: float, interval: float) -> float:
        """Return when to poll after a poll that began then and took so long, as the next may.

        About an interval later, so that it ends just before a heartbeat, which reports what it read: results wait for
        moments and not for half a second on average. A busy scheduler beats far more often than the interval, or
        irregularly: then it is the interval itself.
        """
        due = began + interval
        period = self.period
        if self.last is None or period is None or not interval / 2 <= period <= 3 * interval:
            return due
        lead = min(LEAD + took, period / 2)
        # The first heartbeat for which the poll is not much earlier than the interval.
        beats = (due - 0.3 * interval + LEAD - self.last) / period
        return self.last - lead + math.ceil(beats) * period
