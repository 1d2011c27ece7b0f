"""Shows the output of containers in their tasks' logs while they run: one reader per log group, however many tasks.

A round of a reader is one FilterLogEvents call for up to a hundred streams, or for all streams by their common prefix
where that is cheaper. CloudWatch Logs allows 5 FilterLogEvents calls per second for each account and Region, a quota
that cannot be raised (https://repost.aws/knowledge-center/cloudwatch-logs-throttling), so all readers of a Region share
one `Pace`. Lines become visible after they were written, so a round starts before the end of the last one, and each
task keeps the ids of the events that it has shown.

Nothing here fails or blocks a task: a reader that cannot read says so once in each task's log.
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
from ecs_bridge._sansio import backoff

from airflow_ecs_bridge.cloudwatch_logs import local_file, stream
from airflow_ecs_bridge.threads import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from concurrent.futures import Future
    from pathlib import Path

    from ecs_bridge.table import Record

    from airflow_ecs_bridge.aws import Aws
    from airflow_ecs_bridge.config import Settings

log = logging.getLogger(__name__)

CALLS_PER_SECOND = 3.0
"""FilterLogEvents calls of this process in a Region, of the 5 per second that the account has."""

SLOWEST = 10.0
"""Seconds between two calls, at most, while CloudWatch Logs throttles them."""

NAMES = 100
"""Streams that one FilterLogEvents call takes at most:
https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html"""

MOST_PAGES = 5
"""Pages of a call in a round, each of up to 10,000 events or 1 MB. The next round continues from there."""

MOST_EMPTY_PAGES = 50
"""The same while they are empty, as of a search through many streams without new lines."""

SHORT_OVERLAP_MS = 8_000
"""How far a round starts before the last one. The awslogs driver sends what it has every 5 seconds
(``awslogs-force-flush-interval-seconds``): https://docs.docker.com/engine/logging/drivers/awslogs/"""

LONG_OVERLAP_MS = 60_000
"""The same for one round in `LONG_EVERY`, for lines that are later than usual."""

LONG_EVERY = 30.0

PREFIX_AGAIN = 60.0
"""Seconds after which a reader that found other streams' lines too many tries the common prefix again."""

SETTLE = 3.0
"""Seconds after the end of a command until its output is taken for complete, if a read then finds no more lines."""

LAST = 10.0
"""Seconds that the end of a task waits for its last lines at most."""

HANGS = LAST + SETTLE
"""Seconds after which the end of a task does not even wait for its reader to give up."""

SPARED = 10.0
"""Seconds that are left of a task's time, however many lines are missing: it has succeeded in time."""

LOOKS_BACK_MS = 60_000
"""How far before its own start a trigger shows lines: where it takes over, an earlier one has shown the rest."""

SKEW_MS = 5_000
"""How much earlier than its launch by the bridge's clock a container may write by its own."""

FIRST_LOOK, LAST_LOOK = 1.0, 10.0
"""Seconds between two checks whether a command has started: they become longer with its age."""

TOGETHER = 0.1
"""Seconds that a look waits for others: up to a hundred records are one request."""

LOOK_AGAIN = 60.0
"""Seconds between two checks whether a command that runs was launched again, in another container."""

REMEMBERED = 200_000
"""Ids of shown events that a reader remembers for all of its tasks, about 150 bytes each."""

UNWRITTEN = 20_000
"""Lines that wait for their tasks' logs, at most; a reader pauses until they are written."""

AT_ONCE = 100
"""Lines that one task writes before the triggerer's other triggers have their turn."""

ENOUGH = 3
"""Failures in a row after which no task waits for its last lines: without credentials, say, there are none to come."""

DENIED_AGAIN, MISSING_AGAIN = 300.0, 30.0
"""Seconds until a reader that was denied, or whose log group does not exist, tries again."""

_ASLEEP_AT_MOST = 30.0
_IDLE = 60.0
_LOOKUP_TIMEOUT = 30.0

NOT_CONFIGURED = (
    "the container's output is not shown here: set awslogs_group and awslogs_stream_prefix of [ecs_bridge_executor]"
)

_THROTTLED = frozenset({"ThrottlingException", "TooManyRequestsException", "LimitExceededException"})
_DENIED = frozenset({"AccessDeniedException", "AccessDenied", "UnauthorizedOperation"})


@dataclass(frozen=True)
class Event:
    """A line of a stream; `at` in epoch milliseconds."""

    id: str
    at: int
    message: str


class _Lines:
    """Lines on their way from a reader's thread into a task's log, in order, without blocking the task's loop."""

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
        """Add lines; from any thread."""
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
            # The loop is closed, so the task's log is too.
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
        """Write all that is left; in the loop's thread."""
        while self._lines:
            self._write(self._lines.popleft())


class Follower:
    """A task whose container's output is shown. A trigger makes one in its event loop, and ends or closes it."""

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
        # Of the thread that looks at records.
        self.look_at = self.began + FIRST_LOOK
        self.place: tuple[Any, ...] | None = None
        self.source: Source | None = None
        # Of the reader's thread, once it has a source.
        self.stream = ""
        self.is_pooled = False
        self.begin_ms = 0
        self.until_ms: int | None = None
        self.read_to: int | None = None
        self.is_behind = False
        self.seen: dict[str, int] = {}
        self.floor = 0
        self.held: list[tuple[int, str]] = []
        """Lines that are not passed on yet, and their times."""
        self.took = 0
        self.offset = 0
        # The last read: since when, and until when at the latest.
        self.settles_at: float | None = None
        self.gives_up_at = math.inf
        self.is_closed = False
        self._warned: str | None = None

    async def finish(self, seconds_left: float | None = None) -> None:
        """Wait, `LAST` seconds at most, until the last lines of a command that has ended are written.

        :param seconds_left: until Airflow takes the trigger for too late
        """
        self._live.end(self)
        longest = HANGS
        if seconds_left is not None:
            longest = min(longest, max(seconds_left - SPARED, 0.0))
        try:
            # The reader ends it itself; this bounds a reader that hangs in a call.
            await asyncio.wait_for(self._complete.wait(), longest)
        except asyncio.TimeoutError:  # before 3.11 not the same as TimeoutError
            pass
        finally:
            self.close()
        self._warnings.flush()
        self.lines.flush()

    def close(self) -> None:
        """Read no more for this task."""
        self._live.forget(self)

    def warn(self, reason: str) -> None:
        """Say in the task's log why it has no output there, once; from any thread."""
        if self._warned != reason:
            self._warned = reason
            self._warnings.put([reason])

    def done(self) -> None:
        """All lines are there, or no more are waited for; from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._complete.set)
        except RuntimeError:
            log.debug("the loop that waited for the output of %s is closed", self.submission_id)

    def start_ms(self, overlap: int) -> int:
        """Return where the next read of its stream starts."""
        if self.read_to is None:
            return self.begin_ms
        return max(self.begin_ms, self.read_to if self.is_behind else self.read_to - overlap)

    @property
    def is_ending(self) -> bool:
        """Whether its command has ended."""
        return self.gives_up_at < math.inf

    def take(self, event: Event) -> None:
        """Keep a line, if it is new."""
        if event.at >= max(self.begin_ms, self.floor) and event.id not in self.seen:
            self.seen[event.id] = event.at
            self.took += 1
            self.held.append((event.at, f"[{_time(event.at)}] {event.message.rstrip()}"))

    def pass_on(self) -> None:
        """Hand the lines that were kept to the task's log, without those of a runner's next command."""
        held, self.held, until = self.held, [], self.until_ms
        self.lines.put([text for at, text in held if until is None or at <= until])

    def has_read(self, until_ms: int, most: int, is_behind: bool) -> None:
        """Note how far its stream is read, and forget what no later read can find again.

        :param is_behind: there is more that can be read already
        """
        self.read_to, self.is_behind = until_ms, is_behind
        self.floor = max(self.floor, until_ms - LONG_OVERLAP_MS)
        if len(self.seen) > most:
            # Rather lose a late line than remember without bound: nothing before these is shown any more.
            self.floor = max(self.floor, sorted(self.seen.values())[-most])
        self.seen = {id: at for id, at in self.seen.items() if at >= self.floor}


class Source(ABC):
    """A place that streams are read from, in its own thread."""

    def __init__(self, service: str) -> None:
        self._followers = _Followers()
        self.service = Service(service, lambda: self._followers.wait_for(self.step))

    def add(self, follower: Follower) -> None:
        """Read for a task."""
        self._followers.add(follower)

    def remove(self, follower: Follower) -> None:
        """Read for it no more."""
        self._followers.remove(follower)

    def wake(self) -> None:
        """Check the tasks again: one has ended."""
        self._followers.wakes.set()

    @abstractmethod
    def step(self) -> float:
        """Make one call at most; return the seconds until the next step."""


class Pace:
    """When the next call may be made: readers take turns, and throttling slows all of them down."""

    def __init__(self, per_second: float) -> None:
        self._least = self._pause = 1 / per_second
        self._next = -math.inf
        self._lock = threading.Lock()

    def reserve(self, now: float) -> float:
        """Return when the caller may make one call. In the order of the callers, so that none waits for ever."""
        with self._lock:
            at = max(now, self._next)
            self._next = at + self._pause
            return at

    def slow_down(self, now: float) -> None:
        """Make fewer calls: one was throttled."""
        with self._lock:
            self._pause = min(self._pause * 2, SLOWEST)
            self._next = max(self._next, now + self._pause)

    def speed_up(self) -> None:
        """Make more calls again, slowly: one was answered."""
        with self._lock:
            self._pause = max(self._pause * 0.9, self._least)


class _Followers:
    """The tasks of a reader; other threads add and remove them."""

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
        """Make a step when the last one said, or when there is news."""
        self.wakes.wait(self._pause)
        # Before the step, so that what comes during it is seen by the next.
        self.wakes.clear()
        self._pause = step()


@dataclass
class _Request:
    """One FilterLogEvents call and its further pages."""

    streams: dict[str, list[Follower]]
    prefix: str | None
    """None: by the streams' names."""
    start_ms: int
    took: dict[Follower, int] = field(default_factory=dict)
    """How many lines each task had before."""
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
    """The reader of a log group of CloudWatch Logs."""

    def __init__(
        self,
        name: str,
        connect: Callable[[], Any],
        pace: Pace,
        lookup: Callable[[Iterable[str]], Future[dict[str, Record]]],
        monotonic: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        """Make one.

        :param connect: makes the client of CloudWatch Logs; called again after an error
        :param pace: of the Region
        :param lookup: reads records: a line of a runner's container is a command's own only while that still runs
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
        """Why nothing can be read."""
        self._trouble: str | None = None
        """What has failed again and again."""
        self._exist: set[str] = set()
        self._doubted = NAMES
        """How many streams that may not exist are asked for at once: one that does not fails the whole call."""
        self._asleep: dict[str, tuple[float, float]] = {}
        """Streams that do not exist yet: until when they are left out, and for how long."""
        self._loud: set[str] = set()
        """Streams that kept others of their call waiting: each has a call of its own."""
        self._prefix_cost = 1.0
        self._prefix_again = math.inf

    def step(self) -> float:
        """Make one call at most; return the seconds until the next step."""
        now = self._monotonic()
        followers = self._followers.all()
        self._give_up(followers, now)
        if not followers:
            self._round.clear()
            return _IDLE
        # Whatever a call waits for, no task waits for it longer than it may.
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
        """Return when the next round is due: by the shortest interval, or because an ended task waits for it."""
        regular = self._began + min(each.interval for each in followers)
        ending = [each.settles_at for each in followers if each.settles_at is not None]
        # Not again for one whose read has just begun.
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
            # By the prefix of their names no stream is missed, whether it exists or not.
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
        # An answer may be empty, and have a token for the next part of what is searched.
        goes_on = request.pages < (MOST_PAGES if request.newest_ms > request.start_ms else MOST_EMPTY_PAGES)
        if request.token and goes_on:
            # Behind the round's other calls, so that a busy stream keeps none of them waiting.
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
            # Events come in the order of their times, so all before the newest are read.
            read_to = request.began_ms if is_whole else max(request.newest_ms, request.start_ms)
            each.has_read(read_to, most_ids, is_behind=not is_whole)
            if not is_whole or each.settles_at is None or request.began < each.settles_at:
                continue
            if each.took > request.took.get(each, 0) and now < each.gives_up_at:
                each.settles_at = now + SETTLE / 3  # there may be more
            elif not each.held:
                each.done()

    def _failed(self, request: _Request, error: Exception, now: float) -> None:
        answer = getattr(error, "response", {}).get("Error", {}) if isinstance(error, ClientError) else {}
        code, words = answer.get("Code", ""), str(answer.get("Message", ""))
        if code in _THROTTLED or "rate exceeded" in words.lower():
            self._pace.slow_down(now)
            self._round.appendleft(request)
        elif code in _DENIED:
            self._off(f"it may not read the log group {self._name}: allow logs:FilterLogEvents on it", DENIED_AGAIN)
        elif code == "ResourceNotFoundException" and request.prefix is None and "log group" not in words:
            self._missing(request, now)
        elif code == "ResourceNotFoundException":
            self._off(f"the log group {self._name} does not exist (check awslogs_region)", MISSING_AGAIN)
        elif code == "InvalidParameterException" and request.token is None and request.prefix is not None:
            self._prefix_cost, self._prefix_again = math.inf, math.inf
        else:
            self._failures += 1
            self._client = None
            self._round.clear()
            self._not_before = now + backoff(self._failures)
            if self._failures == ENOUGH:
                self._trouble = f"the container's output could not be read, and is tried again: {error}"
            level = logging.WARNING if self._failures == 1 else logging.DEBUG
            log.log(level, "reading the log group %s failed and will be repeated: %s", self._name, error)

    def _missing(self, request: _Request, now: float) -> None:
        """Narrow down which of the streams does not exist yet: its container has written nothing."""
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
                # There is nothing to wait for, unless the stream is about to come.
                if each.settles_at is not None and now >= each.settles_at:
                    each.done()

    def _off(self, reason: str, seconds: float) -> None:
        if self._reason is None:
            log.warning("containers' output is not shown in tasks' logs: %s", reason)
        self._reason = f"the container's output is not shown here: {reason}"
        self._client = None  # other credentials may be there by then
        self._round.clear()
        self._not_before = self._monotonic() + seconds
        self._give_up(self._followers.all(), self._monotonic())

    def _confirm(self, followers: list[Follower]) -> None:
        """Pass on what commands on runners wrote.

        The runner's next command writes into the same stream, but it is taken only after this one's end is recorded.
        So a line that was read before a record that still runs is this command's; else its record tells the end.
        """
        doubtful = [each for each in followers if each.held and each.settles_at is None]
        ended = [each for each in followers if each.held and each.settles_at is not None]
        if doubtful:
            try:
                records = self._lookup([each.submission_id for each in doubtful]).result(_LOOKUP_TIMEOUT)
            except Exception as error:
                # Whoever reads the table for results says so too, and louder.
                log.debug("whether %d commands still run could not be read: %s", len(doubtful), error)
                records = {}
            for each in doubtful:
                record = records.get(each.submission_id)
                # What has ended waits for the trigger to say so: its record has the end of its time.
                if record is not None and not record.ended:
                    each.pass_on()
        for each in ended:
            each.pass_on()


class Files(Source):
    """The reader of a local stack's folder, which has a file per container."""

    def __init__(self) -> None:
        super().__init__("ecs-bridge-live-files")
        self._read: dict[str, int] = {}

    def add(self, follower: Follower) -> None:
        """Read for a task; of a runner's container, from where the command before it was read to."""
        follower.offset = self._read.get(follower.stream, 0) if follower.is_pooled else 0
        super().add(follower)

    def step(self) -> float:
        """Read all files once; return the seconds until the next step."""
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
    """Return whole lines of a file from a place on, and the place after them."""
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
    """Finds where the output of each task is, and gives it to the reader of that place."""

    def __init__(
        self,
        aws: Aws,
        settings: Settings,
        lookup: Callable[[Iterable[str]], Future[dict[str, Record]]],
        start: Callable[[Service], None],
        monotonic: Callable[[], float] = time.monotonic,
        now_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        """Make one; it starts a thread with the first task.

        :param lookup: reads records by their ids
        :param start: starts a thread, and keeps it alive
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
        """Show the output of a submission from now on; in the event loop of its task.

        :param interval: seconds between two reads
        :param write: takes a line, in the loop and the context of the caller
        :param warn: takes why there are none
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
        """Read the last lines of a task whose command has ended."""
        now = self.monotonic()
        follower.gives_up_at = now + LAST
        follower.look_at = -math.inf
        self._wakes.set()

    def forget(self, follower: Follower) -> None:
        """Read no more for a task."""
        follower.is_closed = True
        with self._lock:
            self._followers.pop(follower, None)
        if (source := follower.source) is not None:
            source.remove(follower)

    def _step(self) -> None:
        if self._wakes.wait(self._pause):
            time.sleep(TOGETHER)
        # Before the step, so that what comes during it is seen by the next.
        self._wakes.clear()
        self._pause = self.step()

    def step(self) -> float:
        """Look at the records that are due; return the seconds until the next step."""
        now = self.monotonic()
        with self._lock:
            due = [each for each in self._followers if each.look_at <= now]
        if due:
            self._look(due, now)
        with self._lock:
            times = [each.look_at for each in self._followers]
        return max(min(times, default=now + _IDLE) - self.monotonic(), TOGETHER)

    def _look(self, due: list[Follower], now: float) -> None:
        # A command that ends from here on is looked at again: what is read now may be from before its end.
        ending = {each for each in due if each.is_ending}
        try:
            records = self._lookup([each.submission_id for each in due]).result(_LOOKUP_TIMEOUT)
        except Exception as error:
            # Whoever reads the table for results says so too, and louder.
            log.debug("where the output of %d tasks is could not be read: %s", len(due), error)
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
            follower.done()  # it has had no container
            return
        if record is not None and follower.is_pooled and record.container_exited_at is not None:
            follower.until_ms = record.container_exited_at
        follower.settles_at = now + SETTLE
        follower.source.wake()

    def _place(self, follower: Follower, record: Record) -> None:
        """Give a task to the reader of its container's stream, and to another one if it was launched again."""
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
        if follower.is_closed:  # meanwhile, in its own thread
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
    """Return the time of a line as EcsRunTaskOperator writes it."""
    at = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    return f"{at:%Y-%m-%d %H:%M:%S},{milliseconds % 1000:03}"
