"""Live output of containers in task logs, with one reader per log group for any number of tasks.

A round of a reader is one FilterLogEvents call for up to 100 streams, or for all streams with a common prefix if that
is cheaper. CloudWatch Logs allows 5 FilterLogEvents calls per second for each account and Region. This quota cannot be
raised (https://repost.aws/knowledge-center/cloudwatch-logs-throttling), so all readers of a Region share one `Pace`.
Lines become visible with a delay, so a round starts before the end of the last one. Each task keeps the IDs of the
events that it has shown.

This module never fails or blocks a task. A reader that cannot read logs the reason once in each task log.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import os.path
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from airflow_ecs_bridge.cloudwatch_logs import local_file, stream
from airflow_ecs_bridge.threads import Service
from ecs_bridge._sansio import backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future
    from pathlib import Path

    from airflow_ecs_bridge.aws import Aws
    from airflow_ecs_bridge.config import Settings
    from ecs_bridge.table import Record

log = logging.getLogger(__name__)

CALLS_PER_SECOND = 3.0
"""FilterLogEvents calls per second of this process in a Region. The account allows 5."""

SLOWEST = 10.0
"""Maximum interval between calls while CloudWatch Logs throttles them, in seconds."""

NAMES = 100
"""Maximum number of streams per FilterLogEvents call:
https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html"""

MOST_PAGES = 5
"""Maximum pages of a call in a round, each with up to 10,000 events or 1 MB. The next round continues there."""

MOST_EMPTY_PAGES = 50
"""The same for empty pages, which a search through many streams without new lines returns."""

SHORT_OVERLAP_MS = 8_000
"""Overlap of a round with the last one. The awslogs driver flushes every 5 seconds
(``awslogs-force-flush-interval-seconds``): https://docs.docker.com/engine/logging/drivers/awslogs/"""

LONG_OVERLAP_MS = 60_000
"""The same for one round in `LONG_EVERY`, for lines that are unusually late."""

LONG_EVERY = 30.0

PREFIX_AGAIN = 60.0
"""Seconds until a reader that found too many lines of other streams tries the common prefix again."""

SETTLE = 3.0
"""Seconds after the end of a command until its output counts as complete, if a read then returns no more lines."""

LAST = 10.0
"""Maximum wait for the last lines at the end of a task, in seconds."""

HANGS = LAST + SETTLE
"""Seconds after which the end of a task no longer waits for its reader."""

SPARED = 10.0
"""Minimum rest of a task's timeout, in seconds. The wait for lines ends before it, because the task has succeeded."""

LOOKS_BACK_MS = 60_000
"""Time before its own start from which a trigger shows lines. An earlier trigger has shown the older lines."""

SKEW_MS = 5_000
"""Tolerance for a container clock that is behind the bridge's clock, in lines before the launch."""

FIRST_LOOK, LAST_LOOK = 1.0, 10.0
"""Intervals between checks for the start of a command, in seconds. They grow with its age."""

TOGETHER = 0.1
"""Seconds that a check waits for other checks, because one request reads up to 100 records."""

LOOK_AGAIN = 60.0
"""Interval between checks for a relaunch of a running command in another container, in seconds."""

REMEMBERED = 200_000
"""Maximum number of IDs of shown events that a reader keeps for all its tasks, about 150 bytes each."""

UNWRITTEN = 20_000
"""Maximum number of lines that wait for task logs. A reader pauses until they are written."""

AT_ONCE = 100
"""Number of lines that one task writes before the other triggers of the triggerer continue."""

ENOUGH = 3
"""Number of consecutive failures, for example without credentials, after which no task waits for its last lines."""

DENIED_AGAIN, MISSING_AGAIN = 300.0, 30.0
"""Seconds until a reader retries after a denied call or a missing log group."""

_ASLEEP_AT_MOST = 30.0
_IDLE = 60.0
_LOOKUP_TIMEOUT = 30.0

NOT_CONFIGURED = "container output not shown: set awslogs_group and awslogs_stream_prefix in [ecs_bridge_executor]"

_THROTTLED = frozenset({"ThrottlingException", "TooManyRequestsException", "LimitExceededException"})
_DENIED = frozenset({"AccessDeniedException", "AccessDenied", "UnauthorizedOperation"})


@dataclass(frozen=True)
class Event:
    """A line of a stream. `at` is in epoch milliseconds."""

    id: str
    at: int
    message: str


class _Lines:
    """Lines from a reader's thread to a task log, in order and without blocking the loop of the task."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._lines: deque[str] = deque()
        self._is_scheduled = self._is_closed = False
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._lines)

    def put(self, lines: list[str]) -> None:
        """Add lines, from any thread."""
        with self._lock:
            if self._is_closed:
                return
            self._lines.extend(lines)
            if self._is_scheduled or not self._lines:
                return
            self._is_scheduled = True
        try:
            self._loop.call_soon_threadsafe(self._some, context=self._context)
        except RuntimeError:
            # The loop is closed, so the task log is closed too.
            with self._lock:
                self._is_closed = True
                self._lines.clear()

    def _some(self) -> None:
        for _ in range(AT_ONCE):
            with self._lock:
                if not self._lines:
                    self._is_scheduled = False
                    return
                line = self._lines.popleft()
            self._write(line)
        self._loop.call_soon(self._some, context=self._context)

    def flush(self) -> None:
        """Write all remaining lines, in the loop's thread."""
        while self._lines:
            self._write(self._lines.popleft())


class Follower:
    """A task with live container output. A trigger creates it in its event loop, and finishes or closes it."""

    def __init__(
        self,
        live: Live,
        submission_id: str,
        interval: float,
        write: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self._live = live
        self.submission_id = submission_id
        self.interval = interval
        self.lines = _Lines(write)
        self._warnings = _Lines(warn)
        self._complete = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.began = live.monotonic()
        self.since_ms = live.now_ms() - LOOKS_BACK_MS
        # Used only by the thread that reads records.
        self.look_at = self.began + FIRST_LOOK
        self.place: tuple[Any, ...] | None = None
        self.source: Source | None = None
        # Used only by the reader's thread, after the source is set.
        self.stream = ""
        self.is_pooled = False
        self.begin_ms = 0
        self.until_ms: int | None = None
        self.read_to: int | None = None
        self.is_behind = False
        self.seen: dict[str, int] = {}
        self.floor = 0
        self.held: list[tuple[int, str]] = []
        """Lines that are not written yet, with their times."""
        self.took = 0
        self.offset = 0
        # The last read, with its start time and its latest end time.
        self.settles_at: float | None = None
        self.gives_up_at = math.inf
        self.is_closed = False
        self._warned: str | None = None

    async def finish(self, seconds_left: float | None = None) -> None:
        """Wait up to `LAST` seconds until the last lines of an ended command are written.

        :param seconds_left: seconds until Airflow's timeout of the trigger
        """
        self._live.end(self)
        longest = HANGS
        if seconds_left is not None:
            longest = min(longest, max(seconds_left - SPARED, 0.0))
        try:
            # The reader ends it itself. This timeout is for a reader that hangs in a call.
            await asyncio.wait_for(self._complete.wait(), longest)
        except asyncio.TimeoutError:  # before 3.11 not the same as TimeoutError
            pass
        finally:
            self.close()
        self._warnings.flush()
        self.lines.flush()

    def close(self) -> None:
        """Stop reading for this task."""
        self._live.forget(self)

    def warn(self, reason: str) -> None:
        """Log in the task log why its output is missing, once per reason and from any thread."""
        if self._warned != reason:
            self._warned = reason
            self._warnings.put([reason])

    def done(self) -> None:
        """End the wait for lines, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._complete.set)
        except RuntimeError:
            log.debug("the loop that waited for the output of %s is closed", self.submission_id)

    def start_ms(self, overlap: int) -> int:
        """Return the start of the next read of its stream."""
        if self.read_to is None:
            return self.begin_ms
        return max(self.begin_ms, self.read_to if self.is_behind else self.read_to - overlap)

    @property
    def is_ending(self) -> bool:
        """True if its command has ended."""
        return self.gives_up_at < math.inf

    def take(self, event: Event) -> None:
        """Store a line if it is new."""
        if event.at >= max(self.begin_ms, self.floor) and event.id not in self.seen:
            self.seen[event.id] = event.at
            self.took += 1
            self.held.append((event.at, f"[{_time(event.at)}] {event.message.rstrip()}"))

    def pass_on(self) -> None:
        """Write the stored lines to the task log, without the lines of a runner's next command."""
        held, self.held, until = self.held, [], self.until_ms
        self.lines.put([text for at, text in held if until is None or at <= until])

    def has_read(self, until_ms: int, most: int, is_behind: bool) -> None:
        """Record the read position of its stream, and forget IDs that no later read can return.

        :param is_behind: whether more lines are already available
        """
        self.read_to, self.is_behind = until_ms, is_behind
        self.floor = max(self.floor, until_ms - LONG_OVERLAP_MS)
        if len(self.seen) > most:
            # Losing a late line is better than unbounded memory. Earlier lines are no longer shown.
            self.floor = max(self.floor, sorted(self.seen.values())[-most])
        self.seen = {id: at for id, at in self.seen.items() if at >= self.floor}


class Source(ABC):
    """A reader of streams with its own thread."""

    def __init__(self, service: str) -> None:
        self._followers = _Followers()
        self.service = Service(service, lambda: self._followers.wait_for(self.step))

    def add(self, follower: Follower) -> None:
        """Start reading for a task."""
        self._followers.add(follower)

    def remove(self, follower: Follower) -> None:
        """Stop reading for a task."""
        self._followers.remove(follower)

    def wake(self) -> None:
        """Check the tasks again, because one has ended."""
        self._followers.wakes.set()

    @abstractmethod
    def step(self) -> float:
        """Make up to one call, and return the seconds until the next step."""


class Pace:
    """The rate limit of calls. Readers take turns, and throttling slows all of them down."""

    def __init__(self, per_second: float) -> None:
        self._least = self._pause = 1 / per_second
        self._next = -math.inf
        self._lock = threading.Lock()

    def reserve(self, now: float) -> float:
        """Return the time at which the caller may make one call. Callers are served in order, so none starves."""
        with self._lock:
            at = max(now, self._next)
            self._next = at + self._pause
            return at

    def slow_down(self, now: float) -> None:
        """Slow down after a throttled call."""
        with self._lock:
            self._pause = min(self._pause * 2, SLOWEST)
            self._next = max(self._next, now + self._pause)

    def speed_up(self) -> None:
        """Speed up gradually after a successful call."""
        with self._lock:
            self._pause = max(self._pause * 0.9, self._least)


class _Followers:
    """The tasks of a reader. Other threads add and remove them."""

    def __init__(self) -> None:
        self._all: dict[Follower, None] = {}
        self._lock = threading.Lock()
        self._pause = 0.0
        self.wakes = threading.Event()

    def add(self, follower: Follower) -> None:
        with self._lock:
            self._all[follower] = None
        self.wakes.set()

    def remove(self, follower: Follower) -> None:
        with self._lock:
            self._all.pop(follower, None)

    def all(self) -> list[Follower]:
        with self._lock:
            return list(self._all)

    def wait_for(self, step: Callable[[], float]) -> None:
        """Run a step when it is due or after a change."""
        self.wakes.wait(self._pause)
        # Before the step, so that the next step handles changes during this one.
        self.wakes.clear()
        self._pause = step()


@dataclass
class _Request:
    """One FilterLogEvents call and its further pages."""

    streams: dict[str, list[Follower]]
    prefix: str | None
    """The prefix of stream names. None selects streams by name."""
    start_ms: int
    took: dict[Follower, int] = field(default_factory=dict)
    """The number of earlier lines of each task."""
    began: float = 0.0
    began_ms: int = 0
    token: str | None = None
    pages: int = 0
    events: dict[str, int] = field(default_factory=dict)
    """The number of events by stream."""
    newest_ms: int = 0

    @property
    def followers(self) -> Iterable[Follower]:
        return (follower for each in self.streams.values() for follower in each)

    def arguments(self, group: str) -> dict[str, Any]:
        arguments: dict[str, Any] = {"logGroupName": group, "startTime": self.start_ms}
        if self.prefix is None:
            arguments["logStreamNames"] = list(self.streams)
        elif self.prefix:
            arguments["logStreamNamePrefix"] = self.prefix
        if self.token:
            arguments["nextToken"] = self.token
        return arguments


class LogGroup(Source):
    """The reader of a log group in CloudWatch Logs."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Any],
        pace: Pace,
        lookup: Callable[[Iterable[str]], Future[dict[str, Record]]],
        monotonic: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        """Create a reader.

        :param connect: creates the client of CloudWatch Logs; called again after an error
        :param pace: rate limit of the Region
        :param lookup: reads records; a line of a runner belongs to a command only while the command runs
        """
        super().__init__("ecs-bridge-live-group")
        self._name = name
        self._connect = connect
        self._pace = pace
        self._lookup = lookup
        self._monotonic = monotonic
        self._now_ms = now_ms
        self._client: Any = None
        self._round: deque[_Request] = deque()
        self._slot: float | None = None
        self._began = -math.inf
        self._next_long = 0.0
        self._not_before = 0.0
        self._failures = 0
        self._reason: str | None = None
        """The reason why nothing can be read."""
        self._trouble: str | None = None
        """The reason of repeated failures."""
        self._exist: set[str] = set()
        self._doubted = NAMES
        """Maximum number of possibly missing streams per call. One missing stream fails the whole call."""
        self._asleep: dict[str, tuple[float, float]] = {}
        """Streams that do not exist yet, with the end and the length of their pause."""
        self._loud: set[str] = set()
        """Streams that delayed others of their call. Each has its own call."""
        self._prefix_cost = 1.0
        self._prefix_again = math.inf

    def step(self) -> float:
        """Make up to one call, and return the seconds until the next step."""
        now = self._monotonic()
        followers = self._followers.all()
        self._give_up(followers, now)
        if not followers:
            self._round.clear()
            return _IDLE
        # A slow call must not delay a task longer than allowed.
        longest = min((each.gives_up_at for each in followers if each.gives_up_at > now), default=math.inf) - now
        return min(self._read(followers, now), longest)

    def _read(self, followers: list[Follower], now: float) -> float:
        if now < self._not_before:
            return self._not_before - now
        self._confirm(followers)
        if sum(len(each.lines) + len(each.held) for each in followers) > UNWRITTEN:
            return 0.1
        if not self._round:
            if (due := self._due(followers)) > now:
                return due - now
            self._began = now
            self._round.extend(self._plan(followers, now))
            if not self._round:
                return min(each.interval for each in followers)
        if self._slot is None:
            self._slot = self._pace.reserve(now)
        if self._slot > now:
            return self._slot - now
        self._slot = None
        self._call(self._round.popleft(), now)
        self._confirm(followers)
        return 0.0

    def _give_up(self, followers: list[Follower], now: float) -> None:
        for each in followers:
            if reason := self._reason or self._trouble:
                each.warn(reason)
            if each.settles_at is not None and (self._reason or self._failures >= ENOUGH or each.gives_up_at <= now):
                each.pass_on()
                each.done()

    def _due(self, followers: list[Follower]) -> float:
        """Return the time of the next round, from the shortest interval or for an ended task."""
        regular = self._began + min(each.interval for each in followers)
        ending = [each.settles_at for each in followers if each.settles_at is not None]
        # Not again for a task whose read has just begun.
        return min([regular, *(max(at, self._began + SETTLE / 3) for at in ending)])

    def _plan(self, followers: list[Follower], now: float) -> list[_Request]:
        is_long = now >= self._next_long
        if is_long:
            self._next_long = now + LONG_EVERY
        overlap = LONG_OVERLAP_MS if is_long else SHORT_OVERLAP_MS
        streams: dict[str, list[Follower]] = {}
        for each in followers:
            streams.setdefault(each.stream, []).append(each)
        self._exist.intersection_update(streams)
        self._loud.intersection_update(streams)
        self._asleep = {name: until for name, until in self._asleep.items() if name in streams}
        ending = {each.stream for each in followers if each.settles_at is not None}
        awake = [name for name in streams if name in ending or self._asleep.get(name, (0.0, 0.0))[0] <= now]
        quiet = [name for name in awake if name in self._exist and name not in self._loud]
        doubtful = [name for name in awake if name not in self._exist and name not in self._loud]
        batches = [[name] for name in awake if name in self._loud]
        batches += [quiet[at : at + NAMES] for at in range(0, len(quiet), NAMES)]
        batches += [doubtful[at : at + self._doubted] for at in range(0, len(doubtful), self._doubted)]
        if now >= self._prefix_again:
            self._prefix_cost, self._prefix_again = 1.0, math.inf
        if len(batches) > self._prefix_cost:
            # A prefix covers all streams, even if some do not exist.
            prefix = os.path.commonprefix(list(streams))  # noqa: RUF071
            return [self._request(streams, prefix, overlap)]
        return [self._request({name: streams[name] for name in batch}, None, overlap) for batch in batches]

    def _request(self, streams: dict[str, list[Follower]], prefix: str | None, overlap: int) -> _Request:
        start = min(each.start_ms(overlap) for followers in streams.values() for each in followers)
        return _Request(streams, prefix, start)

    def _call(self, request: _Request, now: float) -> None:
        if not request.pages:
            request.began, request.began_ms = now, self._now_ms()
            request.took = {each: each.took for each in request.followers}
        try:
            if self._client is None:
                self._client = self._connect()
            answer = self._client.filter_log_events(**request.arguments(self._name))
        except Exception as error:
            self._failed(request, error, now)
            return
        self._failures = 0
        self._reason = self._trouble = None
        self._pace.speed_up()
        request.pages += 1
        for found in answer.get("events", []):
            at, name = int(found["timestamp"]), found["logStreamName"]
            event = Event(found["eventId"], at, found["message"])
            request.newest_ms = max(request.newest_ms, at)
            request.events[name] = request.events.get(name, 0) + 1
            self._exist.add(name)
            for each in request.streams.get(name, ()):
                each.take(event)
        for each in request.followers:
            if not each.is_pooled:
                each.pass_on()
        if request.prefix is None:
            self._exist.update(request.streams)
            for name in request.streams:
                self._asleep.pop(name, None)
            self._doubted = min(self._doubted * 2, NAMES)
        request.token = answer.get("nextToken")
        # A response may be empty and still contain a token for the next part of the search.
        goes_on = request.pages < (MOST_PAGES if request.newest_ms > request.start_ms else MOST_EMPTY_PAGES)
        if request.token and goes_on:
            # After the other calls of the round, so that a busy stream does not delay them.
            self._round.append(request)
            return
        self._is_read(request, now)

    def _is_read(self, request: _Request, now: float) -> None:
        is_whole = request.token is None
        if request.prefix is not None:
            self._prefix_cost = float(request.pages) if is_whole else math.inf
            self._prefix_again = now + PREFIX_AGAIN
        elif not is_whole and len(request.streams) > 1:
            most = max(request.events, key=lambda name: request.events[name], default=None)
            if most in request.streams:
                self._loud.add(most)
        most_ids = max(REMEMBERED // max(len(self._followers.all()), 1), 100)
        for each in request.followers:
            # Events are sorted by time, so all events before the newest are read.
            read_to = request.began_ms if is_whole else max(request.newest_ms, request.start_ms)
            each.has_read(read_to, most_ids, is_behind=not is_whole)
            if not is_whole or each.settles_at is None or request.began < each.settles_at:
                continue
            if each.took > request.took.get(each, 0) and now < each.gives_up_at:
                each.settles_at = now + SETTLE / 3  # more lines may follow
            elif not each.held:
                each.done()

    def _failed(self, request: _Request, error: Exception, now: float) -> None:
        answer = getattr(error, "response", {}).get("Error", {}) if isinstance(error, ClientError) else {}
        code, words = answer.get("Code", ""), str(answer.get("Message", ""))
        if code in _THROTTLED or "rate exceeded" in words.lower():
            self._pace.slow_down(now)
            self._round.appendleft(request)
        elif code in _DENIED:
            self._off(f"access to the log group {self._name} denied; allow logs:FilterLogEvents on it", DENIED_AGAIN)
        elif code == "ResourceNotFoundException" and request.prefix is None and "log group" not in words:
            self._missing(request, now)
        elif code == "ResourceNotFoundException":
            self._off(
                f"the log group {self._name} does not exist; check awslogs_group and awslogs_region", MISSING_AGAIN
            )
        elif code == "InvalidParameterException" and request.token is None and request.prefix is not None:
            self._prefix_cost, self._prefix_again = math.inf, math.inf
        else:
            self._failures += 1
            self._client = None
            self._round.clear()
            self._not_before = now + backoff(self._failures)
            if self._failures == ENOUGH:
                self._trouble = f"could not read the container output; will retry: {error}"
            level = logging.WARNING if self._failures == 1 else logging.DEBUG
            log.log(level, "read of the log group %s failed; will retry: %s", self._name, error)

    def _missing(self, request: _Request, now: float) -> None:
        """Find the stream that does not exist yet, because its container has not written anything."""
        self._exist -= request.streams.keys()
        if len(request.streams) > 1:
            self._doubted = max(min(self._doubted, len(request.streams)) // 2, 1)
            half = list(request.streams)[: len(request.streams) // 2]
            rest = {name: each for name, each in request.streams.items() if name not in half}
            for part in (rest, {name: request.streams[name] for name in half}):
                self._round.appendleft(_Request(part, None, request.start_ms))
            return
        for name, followers in request.streams.items():
            pause = min(self._asleep.get(name, (0.0, 1.0))[1] * 2, _ASLEEP_AT_MOST)
            self._asleep[name] = (now + pause, pause)
            for each in followers:
                # The task does not wait, unless the stream may appear soon.
                if each.settles_at is not None and now >= each.settles_at:
                    each.done()

    def _off(self, reason: str, seconds: float) -> None:
        if self._reason is None:
            log.warning("container output not shown in task logs: %s", reason)
        self._reason = f"container output not shown: {reason}"
        self._client = None  # the credentials may change until then
        self._round.clear()
        self._not_before = self._monotonic() + seconds
        self._give_up(self._followers.all(), self._monotonic())

    def _confirm(self, followers: list[Follower]) -> None:
        """Write the lines of commands on runners.

        The runner's next command writes into the same stream, but it starts only after this one's result is recorded.
        So a line that was read while the record is running belongs to this command. Otherwise, the record has the end.
        """
        doubtful = [each for each in followers if each.held and each.settles_at is None]
        ended = [each for each in followers if each.held and each.settles_at is not None]
        if doubtful:
            try:
                records = self._lookup([each.submission_id for each in doubtful]).result(_LOOKUP_TIMEOUT)
            except Exception as error:
                # The watcher logs the same failure at a higher level.
                log.debug("could not read whether %d commands are still running: %s", len(doubtful), error)
                records = {}
            for each in doubtful:
                record = records.get(each.submission_id)
                # An ended command waits for its trigger, because its record contains its end time.
                if record is not None and not record.ended:
                    each.pass_on()
        for each in ended:
            each.pass_on()


class Files(Source):
    """The reader of a local stack's folder, with one file per container."""

    def __init__(self) -> None:
        super().__init__("ecs-bridge-live-files")
        self._read: dict[str, int] = {}

    def add(self, follower: Follower) -> None:
        """Start reading for a task. For a runner's container, start after the lines of the previous command."""
        follower.offset = self._read.get(follower.stream, 0) if follower.is_pooled else 0
        super().add(follower)

    def step(self) -> float:
        """Read all files once, and return the seconds until the next step."""
        followers = self._followers.all()
        if not followers:
            return _IDLE
        for each in followers:
            is_last = each.settles_at is not None
            lines, each.offset = _lines_after(each.stream, each.offset, is_last)
            self._read[each.stream] = each.offset
            each.lines.put(lines)
            if is_last:
                each.done()
        return min(each.interval for each in followers)


def _lines_after(path: str, offset: int, with_last: bool) -> tuple[list[str], int]:
    """Return complete lines of a file from a position, and the position after them."""
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            content = file.read()
    except FileNotFoundError:
        return [], offset
    if not with_last:
        content = content[: content.rfind(b"\n") + 1]
    return content.decode(errors="replace").splitlines(), offset + len(content)


class Live:
    """A dispatcher that finds the output of each task and assigns the task to a reader."""

    def __init__(
        self,
        aws: Aws,
        settings: Settings,
        lookup: Callable[[Iterable[str]], Future[dict[str, Record]]],
        start: Callable[[Service], None],
        monotonic: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        """Create a dispatcher. The first task starts a thread.

        :param lookup: reads records by ID
        :param start: starts a thread and keeps it alive
        """
        self._aws = aws
        self._settings = settings
        self._lookup = lookup
        self._start = start
        self.monotonic = monotonic
        self.now_ms = now_ms
        self._lock = threading.Lock()
        self._followers: dict[Follower, None] = {}
        self._sources: dict[tuple[Any, ...], Source] = {}
        self._paces: dict[str, Pace] = {}
        self._wakes = threading.Event()
        self._pause = 0.0
        self._service: Service | None = None

    def follow(
        self, submission_id: str, interval: float, write: Callable[[str], None], warn: Callable[[str], None]
    ) -> Follower:
        """Start to show the output of a submission, in the event loop of its task.

        :param interval: interval between reads, in seconds
        :param write: receives a line, in the loop and the context of the caller
        :param warn: receives the reason of missing output
        """
        follower = Follower(self, submission_id, interval, write, warn)
        with self._lock:
            self._followers[follower] = None
            if self._service is None:
                self._service = Service("ecs-bridge-live", self._step)
                self._start(self._service)
        self._wakes.set()
        return follower

    def end(self, follower: Follower) -> None:
        """Read the last lines of a task with an ended command."""
        now = self.monotonic()
        follower.gives_up_at = now + LAST
        follower.look_at = -math.inf
        self._wakes.set()

    def forget(self, follower: Follower) -> None:
        """Stop reading for a task."""
        follower.is_closed = True
        with self._lock:
            self._followers.pop(follower, None)
        if (source := follower.source) is not None:
            source.remove(follower)

    def _step(self) -> None:
        if self._wakes.wait(self._pause):
            time.sleep(TOGETHER)
        # Before the step, so that the next step handles changes during this one.
        self._wakes.clear()
        self._pause = self.step()

    def step(self) -> float:
        """Read the records that are due, and return the seconds until the next step."""
        now = self.monotonic()
        with self._lock:
            due = [each for each in self._followers if each.look_at <= now]
        if due:
            self._look(due, now)
        with self._lock:
            times = [each.look_at for each in self._followers]
        return max(min([*times, now + _IDLE]) - self.monotonic(), TOGETHER)

    def _look(self, due: list[Follower], now: float) -> None:
        # A command that ends from now on is checked again, because this read may be from before its end.
        ending = {each for each in due if each.is_ending}
        try:
            records = self._lookup([each.submission_id for each in due]).result(_LOOKUP_TIMEOUT)
        except Exception as error:
            # The watcher logs the same failure at a higher level.
            log.debug("could not find the output of %d tasks: %s", len(due), error)
            for each in due:
                each.look_at = now + FIRST_LOOK
                if each.gives_up_at <= now:
                    each.done()
            return
        for each in due:
            record = records.get(each.submission_id)
            if record is not None and (record.ended or record.state == "running"):
                self._place(each, record)
            if each in ending:
                self._end(each, record, now)
                each.look_at = math.inf
            elif not each.is_ending:
                age = now - each.began
                soon = min(max(age / 20, FIRST_LOOK), LAST_LOOK)
                each.look_at = now + (soon if each.source is None else LOOK_AGAIN)

    def _end(self, follower: Follower, record: Record | None, now: float) -> None:
        if follower.source is None:
            follower.done()  # it never had a container
            return
        if record is not None and follower.is_pooled and record.container_exited_at is not None:
            follower.until_ms = record.container_exited_at
        follower.settles_at = now + SETTLE
        follower.source.wake()

    def _place(self, follower: Follower, record: Record) -> None:
        """Assign a task to the reader of its stream, and to another reader after a relaunch."""
        found = {"task_arn": record.task_arn, "container_name": record.container_name}
        where: str | Path | None
        if folder := self._settings.local_log_dir:
            key: tuple[Any, ...] = ("files", folder)
            where = local_file(found, self._settings)
        else:
            place = stream(found, self._settings)
            if place is None or record.task_arn is None:
                return
            region = self._settings.awslogs_region or record.task_arn.split(":")[3]
            key, where = (place[0], region), place[1]
        pooled_from = record.started_at if record.runner_id else None
        if where is None or (record.runner_id and pooled_from is None):
            return
        place_of = (*key, where, pooled_from)
        if follower.place == place_of or follower.is_closed:
            return
        if follower.source is not None:
            follower.source.remove(follower)
        follower.place, follower.stream = place_of, str(where)
        follower.is_pooled = bool(record.runner_id)
        begin = pooled_from if pooled_from is not None else (record.launched_at or record.created_at or 0) - SKEW_MS
        follower.begin_ms = max(begin, follower.since_ms)
        follower.until_ms = record.container_exited_at if follower.is_pooled and record.ended else None
        follower.read_to, follower.is_behind, follower.floor, follower.seen = None, False, 0, {}
        source = self._source(key)
        follower.source = source
        source.add(follower)
        if follower.is_closed:  # it was closed in the meantime, in its own thread
            source.remove(follower)

    def _source(self, key: tuple[Any, ...]) -> Source:
        if (source := self._sources.get(key)) is not None:
            return source
        if key[0] == "files":
            files = Files()
            self._start(files.service)
            self._sources[key] = files
            return files
        group, region = key
        pace = self._paces.setdefault(region, Pace(CALLS_PER_SECOND))
        made = LogGroup(
            group, lambda: self._aws.client("logs", region, attempts=1), pace, self._lookup, self.monotonic, self.now_ms
        )
        self._start(made.service)
        self._sources[key] = made
        return made


def _time(milliseconds: int) -> str:
    """Return the time of a line in the format of EcsRunTaskOperator."""
    at = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    return f"{at:%Y-%m-%d %H:%M:%S},{milliseconds % 1000:03}"
