"""Live output: a reader on a clock that is stepped, against a CloudWatch Logs that counts its calls."""

from __future__ import annotations

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from fake_bridge import PATIENCE
from fake_logs import Clock, FakeLogs, refusal
from moto.server import ThreadedMotoServer

from airflow_ecs_bridge import live
from airflow_ecs_bridge.live import Follower, Live
from ecs_bridge.table import Record

ARN = "arn:aws:ecs:eu-central-1:1:task/jobs/"
TICK = 0.1


@pytest.fixture(autouse=True)
def bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    # In real seconds, where all else is stepped.
    monkeypatch.setattr(live, "HANGS", PATIENCE)


class World:
    """Readers without threads, on one clock; `pass_time` does what their threads would."""

    def __init__(self, page: int = 10_000, **options: Any) -> None:
        self.clock = Clock()
        self.logs = FakeLogs(self.clock, page)
        self.groups: dict[str, FakeLogs] = {}
        self.records: dict[str, Record] = {}
        self.lookups: list[list[str]] = []
        self.unread = 0
        """How many of the next lookups fail."""
        self.shown: dict[str, list[str]] = defaultdict(list)
        self.warned: dict[str, list[str]] = defaultdict(list)
        self.services: list[Any] = []
        self.next: dict[Any, float] = {}
        given = {"awslogs_group": "/ecs", "awslogs_stream_prefix": "app", "awslogs_region": None, "local_log_dir": None}
        settings: Any = SimpleNamespace(**{**given, **options})
        aws: Any = SimpleNamespace(client=lambda service, region, attempts: self.groups.get(region, self.logs))
        self.live = Live(aws, settings, self.lookup, self.services.append, self.clock.monotonic, self.clock.ms)

    def lookup(self, ids: Iterable[str]) -> Future[dict[str, Record]]:
        ids = list(ids)
        self.lookups.append(ids)
        answer: Future[dict[str, Record]] = Future()
        if self.unread:
            self.unread -= 1
            answer.set_exception(RuntimeError("the table did not answer"))
            return answer
        answer.set_result({id: self.records[id] for id in ids if id in self.records})
        return answer

    def runs(self, id: str, task: str | None = None, region: str = "eu-central-1", **more: Any) -> None:
        arn = ARN.replace("eu-central-1", region) + (task or id)
        more = {"launched_at": self.clock.ms(), "created_at": self.clock.ms(), **more}
        self.records[id] = Record(id, "running", task_arn=arn, container_name="main", **more)

    def ended(self, id: str, **more: Any) -> None:
        was = vars(self.records[id])
        self.records[id] = Record(**{**was, "state": "succeeded", "container_exited_at": self.clock.ms(), **more})

    def follow(self, id: str, interval: float = 2.0) -> Follower:
        return self.live.follow(id, interval, self.shown[id].append, self.warned[id].append)

    def prints(self, task: str, text: str, **more: Any) -> None:
        self.logs.write(f"app/main/{task}", text, **more)

    async def pass_time(self, seconds: float, each: Callable[[], None] = lambda: None) -> None:
        for _ in range(round(seconds / TICK)):
            self.clock.now += TICK
            each()
            await self.work()

    async def work(self) -> None:
        """Do what is due now."""
        for part in (self.live, *self.live._sources.values()):
            while self.next.get(part, 0.0) <= self.clock.now or self.woken(part):
                wait = part.step()
                # `Event.wait`, for which a thread uses it, takes no infinite time.
                assert wait < math.inf
                if wait > 0:
                    self.next[part] = self.clock.now + wait
                    break
        for _ in range(5):
            await asyncio.sleep(0)

    @staticmethod
    def woken(part: Any) -> bool:
        wakes = part._wakes if isinstance(part, Live) else part._followers.wakes
        was = wakes.is_set()
        wakes.clear()
        return was

    async def finish(self, follower: Follower, most: float = 60.0) -> float:
        """End a task; return after how many seconds it has its last lines."""
        began = self.clock.now
        waits = asyncio.create_task(follower.finish())
        await asyncio.sleep(0)
        while not waits.done():
            assert self.clock.now - began < most
            await self.pass_time(TICK)
        await waits
        return self.clock.now - began

    def texts(self, id: str) -> list[str]:
        """Return the lines in a task's log, without their times."""
        return [line.partition("] ")[2] for line in self.shown[id]]


def stepped(test: Callable[[World], Any], **options: Any) -> World:
    world = World(**options)
    asyncio.run(test(world))
    return world


def test_a_thousand_tasks_share_few_calls_and_each_has_its_lines_once_and_in_order():
    written: dict[str, list[str]] = defaultdict(list)
    late: list[float] = []

    async def test(world: World) -> None:
        ids = [f"op-{number}" for number in range(1_000)]
        for id in ids:
            world.runs(id)
            world.logs.streams.add(f"app/main/{id}")
        followers = [world.follow(id) for id in ids]
        await world.pass_time(5)
        world.logs.calls.clear()
        began = world.clock.now
        number = 0
        unseen: dict[str, float] = {}

        def some_print() -> None:
            nonlocal number
            for id in ids[number % 10 :: 10]:
                written[id].append(f"line {number}")
                world.prints(id, written[id][-1])
                unseen.setdefault(id, world.clock.now)
            number += 1

        def look() -> None:
            for id in list(unseen):
                if len(world.shown[id]) == len(written[id]):
                    late.append(world.clock.now - unseen.pop(id))

        for _ in range(100):
            some_print()
            await world.pass_time(0.3, look)
            look()
        await world.pass_time(3, look)
        rounds = (world.clock.now - began) / 2.0
        assert not unseen
        # One call a round: by the prefix that the streams have in common.
        assert len(world.logs.calls) <= rounds + 1
        assert {call["prefix"] for call in world.logs.calls} == {"app/main/op-"}
        for follower in followers[:3]:
            await world.finish(follower)

    world = stepped(test)
    assert {id: world.texts(id) for id in written} == written
    assert max(late) <= 2.0 + 3 * TICK
    # Looked at in hundreds, and seldom once they run.
    assert len(world.lookups) < 20


def test_a_hundred_tasks_are_asked_for_by_name_and_never_more_at_once():
    async def test(world: World) -> None:
        for number in range(100):
            world.runs(f"op-{number}")
            world.prints(f"op-{number}", "hello")
            world.follow(f"op-{number}")
        world.prints("of-another", "not shown")
        await world.pass_time(20)

    world = stepped(test)
    assert all(len(call["names"]) == 100 for call in world.logs.calls)
    assert len(world.logs.calls) <= 11
    assert all(world.texts(f"op-{number}") == ["hello"] for number in range(100))


def test_where_others_write_more_the_streams_are_named_at_a_bounded_rate():
    async def test(world: World) -> None:
        for number in range(500):
            world.runs(f"op-{number}")
            world.logs.streams.add(f"app/main/op-{number}")
            world.follow(f"op-{number}")

        def others() -> None:
            for number in range(100):
                world.prints(f"op-of-others-{number}", "noise")

        await world.pass_time(10, others)
        before = len(world.logs.calls)
        world.prints("op-7", "mine")
        await world.pass_time(20, others)
        calls = world.logs.calls[before:]
        assert sum(call["names"] is not None for call in calls) > 3 * sum(call["prefix"] is not None for call in calls)

    world = stepped(test, page=1_000)
    assert world.texts("op-7") == ["mine"]
    pauses = [later - earlier for earlier, later in zip(world.logs.called_at, world.logs.called_at[3:], strict=False)]
    assert min(pauses) >= 3 / live.CALLS_PER_SECOND - 2 * TICK


@pytest.mark.parametrize("count", [3, 120])
def test_streams_that_do_not_exist_yet_hold_up_no_other(count: int):
    async def test(world: World) -> None:
        for number in range(count):
            world.runs(f"op-{number}")
            world.follow(f"op-{number}")
        world.prints("op-1", "first")
        await world.pass_time(30)
        assert world.texts("op-1") == ["first"]
        assert len(world.logs.calls) < 50
        world.prints("op-0", "late")
        world.prints("op-1", "second")
        await world.pass_time(live._ASLEEP_AT_MOST + 3)

    world = stepped(test)
    assert world.texts("op-0") == ["late"]
    assert world.texts("op-1") == ["first", "second"]


def test_late_lines_are_shown_once_when_they_arrive():
    async def test(world: World) -> None:
        world.runs("op-1")
        world.follow("op-1")
        world.prints("op-1", "soon", visible_after=1)
        world.prints("op-1", "late", visible_after=7)
        world.prints("op-1", "very late", visible_after=25)
        await world.pass_time(100)

    world = stepped(test)
    assert world.texts("op-1") == ["soon", "late", "very late"]


def test_lines_of_the_same_millisecond_are_all_shown():
    async def test(world: World) -> None:
        world.runs("op-1")
        world.follow("op-1")
        await world.pass_time(5)
        at = world.clock.ms()
        for number in range(50):
            world.prints("op-1", f"{number}", at=at, visible_after=0 if number < 25 else 4)
        await world.pass_time(10)

    assert stepped(test).texts("op-1") == [str(number) for number in range(50)]


def test_throttled_calls_become_fewer_and_lose_nothing():
    async def test(world: World) -> None:
        world.runs("op-1")
        world.follow("op-1")
        await world.pass_time(5)
        world.logs.always = refusal("ThrottlingException", "Rate exceeded")
        before = len(world.logs.calls)
        world.prints("op-1", "meanwhile")
        await world.pass_time(120)
        assert len(world.logs.calls) - before <= 120 / live.SLOWEST + 6
        world.logs.always = None
        await world.pass_time(live.SLOWEST + 3)
        assert world.texts("op-1") == ["meanwhile"]
        world.prints("op-1", "again")
        await world.pass_time(60)

    world = stepped(test)
    assert world.texts("op-1") == ["meanwhile", "again"]
    assert not world.warned["op-1"]


def test_a_denied_call_is_one_warning_and_delays_no_end(caplog: pytest.LogCaptureFixture):
    async def test(world: World) -> None:
        world.logs.always = refusal("AccessDeniedException")
        for number in range(3):
            world.runs(f"op-{number}")
        followers = [world.follow(f"op-{number}") for number in range(2)]
        await world.pass_time(200)
        assert len(world.logs.calls) == 1
        assert await world.finish(followers[0]) <= 1
        # Also of a task that comes later.
        later = world.follow("op-2")
        await world.pass_time(5)
        assert await world.finish(later) <= 1
        # Once it is allowed, it needs no other triggerer.
        world.logs.always = None
        world.prints("op-1", "allowed")
        await world.pass_time(live.DENIED_AGAIN)

    world = stepped(test)
    for number in range(3):
        (warning,) = world.warned[f"op-{number}"]
        assert "allow logs:FilterLogEvents" in warning
    assert sum("allow logs:FilterLogEvents" in record.getMessage() for record in caplog.records) == 1
    assert world.texts("op-1") == ["allowed"]


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="https://logs"),
        refusal("InternalFailure"),
        refusal("ServiceUnavailableException"),
        refusal("ExpiredTokenException"),
        ValueError("a bug"),
    ],
)
def test_what_fails_is_repeated(error: Exception):
    async def test(world: World) -> None:
        world.runs("op-1")
        world.follow("op-1")
        world.prints("op-1", "hello")
        world.logs.errors += [error] * 3
        await world.pass_time(60)

    assert stepped(test).texts("op-1") == ["hello"]


def test_a_log_group_that_does_not_exist_is_said_and_found_once_it_does():
    async def test(world: World) -> None:
        world.logs.always = refusal("ResourceNotFoundException", "The specified log group does not exist.")
        world.runs("op-1")
        world.follow("op-1")
        await world.pass_time(10)
        world.logs.always = None
        world.prints("op-1", "hello")
        await world.pass_time(live.MISSING_AGAIN + 1)

    world = stepped(test)
    assert ["does not exist" in text for text in world.warned["op-1"]] == [True]
    assert world.texts("op-1") == ["hello"]


def test_the_last_lines_are_read_before_the_task_ends():
    async def test(world: World) -> None:
        world.runs("op-1")
        follower = world.follow("op-1")
        await world.pass_time(7)
        world.prints("op-1", "near the end", visible_after=1.5)
        world.prints("op-1", "the end", visible_after=2.9)
        world.ended("op-1")
        assert await world.finish(follower) < live.LAST

    assert stepped(test).texts("op-1") == ["near the end", "the end"]


def test_a_command_that_ended_before_it_was_seen_to_run_has_its_lines():
    async def test(world: World) -> None:
        follower = world.follow("op-1")
        world.runs("op-1")
        world.prints("op-1", "quick")
        world.ended("op-1")
        assert await world.finish(follower) < live.LAST

    assert stepped(test).texts("op-1") == ["quick"]


@pytest.mark.parametrize("records", [{}, {"op-1": Record("op-1", "rejected")}])
def test_a_command_without_a_container_waits_for_nothing(records: dict[str, Record]):
    async def test(world: World) -> None:
        follower = world.follow("op-1")
        world.records |= records
        assert await world.finish(follower) <= 2 * TICK

    assert not stepped(test).logs.calls


@pytest.mark.parametrize("fault", ["throttled", "broken", "unread"])
def test_the_end_of_a_task_waits_for_its_last_lines_for_a_bounded_time(fault: str):
    async def test(world: World) -> None:
        world.runs("op-1")
        follower = world.follow("op-1")
        await world.pass_time(5)
        world.ended("op-1")
        match fault:
            case "throttled":
                world.logs.always = refusal("ThrottlingException")
            case "broken":
                world.logs.always = EndpointConnectionError(endpoint_url="https://logs")
            case "unread":
                world.unread = 1_000
        assert await world.finish(follower) <= live.LAST + 2

    stepped(test)


def test_the_end_of_a_task_does_not_wait_for_what_has_failed_before():
    async def test(world: World) -> None:
        world.logs.always = EndpointConnectionError(endpoint_url="https://logs")
        world.runs("op-1")
        follower = world.follow("op-1")
        await world.pass_time(60)
        world.ended("op-1")
        assert await world.finish(follower) <= 1

    assert ["could not read" in text for text in stepped(test).warned["op-1"]] == [True]


def test_a_search_with_empty_answers_is_continued():
    async def test(world: World) -> None:
        world.runs("op-1")
        world.prints("op-1", "found")
        world.logs.empty_pages = 12
        world.follow("op-1")
        await world.pass_time(15)
        assert world.texts("op-1") == ["found"]
        world.prints("op-1", "and again")
        await world.pass_time(15)

    assert stepped(test).texts("op-1") == ["found", "and again"]


def test_ids_are_forgotten_while_a_reader_is_behind():
    async def test(world: World) -> None:
        world.runs("op-1")
        follower = world.follow("op-1")
        for number in range(3_000):
            world.prints("op-1", f"{number}")
            world.clock.now += 0.1
        world.clock.now -= 10
        most = 0

        def look() -> None:
            nonlocal most
            most = max(most, len(follower.seen))

        await world.pass_time(60, look)
        assert most < 1_500

    world = stepped(test, page=50)
    assert world.texts("op-1") == [str(number) for number in range(3_000)]


def test_a_reader_that_was_frozen_goes_on_where_it_stopped():
    async def test(world: World) -> None:
        world.runs("op-1")
        world.follow("op-1")
        for number in range(100):
            world.prints("op-1", f"{number}")
            if number % 20 == 10:
                world.clock.now += 300  # and nothing was done
            await world.pass_time(1)
        await world.pass_time(3)

    assert stepped(test).texts("op-1") == [str(number) for number in range(100)]


def test_a_trigger_that_takes_over_shows_the_last_minute_alone():
    async def test(world: World) -> None:
        world.runs("op-1")
        for number in range(600):
            world.prints("op-1", f"{number}")
            world.clock.now += 1
        world.follow("op-1")
        await world.pass_time(5)

    assert stepped(test).texts("op-1") == [str(number) for number in range(540, 600)]


def test_of_a_runner_s_container_only_the_command_s_own_lines_are_shown():
    async def test(world: World) -> None:
        world.prints("runner", "of the command before")
        world.clock.now += 1
        world.runs("op-1", "runner", runner_id="r-1", started_at=world.clock.ms())
        world.prints("runner", "one")
        first = world.follow("op-1")
        await world.pass_time(4)
        assert world.texts("op-1") == ["one"]
        world.prints("runner", "two")
        # It ends, and its trigger has not heard of that when the next command writes.
        world.ended("op-1")
        world.clock.now += 0.05
        world.runs("op-2", "runner", runner_id="r-1", started_at=world.clock.ms())
        second = world.follow("op-2")
        world.prints("runner", "of the next")
        await world.pass_time(5)
        assert world.texts("op-1") == ["one"]
        await world.finish(first)
        assert world.texts("op-1") == ["one", "two"]
        world.ended("op-2")
        await world.finish(second)

    assert stepped(test).texts("op-2") == ["of the next"]


def test_a_record_from_before_the_end_does_not_end_a_runner_s_command():
    async def test(world: World) -> None:
        world.runs("op-1", "runner", runner_id="r-1", started_at=world.clock.ms())
        world.prints("runner", "one")
        follower = world.follow("op-1")
        await world.pass_time(3)
        # The end comes while the record is being read.
        lookup = world.live._lookup

        def slow(ids: Iterable[str]) -> Future[dict[str, Record]]:
            answer = lookup(ids)
            world.ended("op-1")
            world.clock.now += 0.05
            world.prints("runner", "of the next")
            world.live._lookup = lookup
            world.live.end(follower)
            return answer

        world.live._lookup = slow
        follower.look_at = world.next[world.live] = 0
        await world.pass_time(TICK)
        await world.finish(follower)

    assert stepped(test).texts("op-1") == ["one"]


def test_lines_of_a_runner_wait_until_its_record_is_read():
    async def test(world: World) -> None:
        world.runs("op-1", "runner", runner_id="r-1", started_at=world.clock.ms())
        world.follow("op-1")
        await world.pass_time(3)
        world.unread = 3
        world.prints("runner", "one")
        await world.pass_time(15)

    assert stepped(test).texts("op-1") == ["one"]


def test_a_command_that_is_launched_again_is_followed_to_its_next_container():
    async def test(world: World) -> None:
        world.runs("op-1", "first")
        follower = world.follow("op-1")
        world.prints("first", "interrupted")
        await world.pass_time(10)
        world.runs("op-1", "second")
        world.prints("second", "well")
        await world.pass_time(live.LOOK_AGAIN + 3)
        world.ended("op-1")
        await world.finish(follower)

    assert stepped(test).texts("op-1") == ["interrupted", "well"]


def test_a_chatty_task_keeps_no_other_waiting_and_all_its_lines_arrive():
    waited: list[float] = []

    async def test(world: World) -> None:
        for number in range(50):
            world.runs(f"op-{number}")
            world.logs.streams.add(f"app/main/op-{number}")
            world.follow(f"op-{number}")
        await world.pass_time(5)
        for number in range(5_000):
            world.prints("op-0", f"{number}")
            world.clock.now += 0.0002
        for _ in range(20):
            world.prints("op-1", "quiet")
            seen, began = len(world.shown["op-1"]), world.clock.now
            while len(world.shown["op-1"]) == seen:
                await world.pass_time(TICK)
            waited.append(world.clock.now - began)
        await world.pass_time(60)
        world.logs.calls.clear()
        await world.pass_time(60)
        assert len(world.logs.calls) <= 2 * 60 / 2 + 2

    world = stepped(test, page=100)
    assert world.texts("op-0") == [str(number) for number in range(5_000)]
    # But for the first round, in which it was found to be chatty.
    assert max(waited[3:]) <= 2 * 2.0 + 1.0


def test_log_groups_take_turns():
    async def test(world: World) -> None:
        regions = [f"eu-west-{number}" for number in range(3)]
        world.groups = {region: FakeLogs(world.clock) for region in regions}
        for region in regions:
            for number in range(3):
                id = f"op-{region}-{number}"
                world.runs(id, region=region)
                world.groups[region].write(f"app/main/{id}", f"of {region}")
                world.follow(id)
        await world.pass_time(10)

    world = stepped(test, awslogs_region=None)
    assert {id: texts for id in world.shown if (texts := world.texts(id)) != [f"of {id[3:-2]}"]} == {}


def test_readers_of_a_region_share_its_calls_and_none_starves():
    pace = live.Pace(3.0)
    times: dict[str, list[float]] = {"busy": [], "calm": []}
    slots: dict[str, float | None] = {"busy": None, "calm": None}
    now = 0.0
    while now < 30:
        for name in slots:
            if slots[name] is None:
                slots[name] = pace.reserve(now)
            if slots[name] <= now:
                times[name].append(now)
                slots[name] = None
        now += 0.05
    assert abs(len(times["busy"]) - len(times["calm"])) <= 1
    assert len(times["busy"]) + len(times["calm"]) <= 30 * 3 + 1


def test_ids_are_not_remembered_without_bound(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "REMEMBERED", 200)

    async def test(world: World) -> None:
        world.runs("op-1")
        follower = world.follow("op-1")
        for number in range(400):
            world.prints("op-1", f"{number}")
            await world.pass_time(TICK)
        await world.pass_time(5)
        assert len(follower.seen) <= 220

    assert stepped(test).texts("op-1") == [str(number) for number in range(400)]


def test_a_reader_waits_until_lines_are_written(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live, "UNWRITTEN", 50)
    monkeypatch.setattr(live, "AT_ONCE", 1)

    async def test(world: World) -> None:
        world.runs("op-1")
        follower = world.follow("op-1")
        for number in range(300):
            world.prints("op-1", f"{number}")
        most = 0

        def look() -> None:
            nonlocal most
            most = max(most, len(follower.lines))

        await world.pass_time(60, look)
        before = len(world.logs.calls)
        assert most <= 300
        await world.pass_time(60, look)
        assert len(world.logs.calls) - before < 40

    assert stepped(test).texts("op-1") == [str(number) for number in range(300)]


def test_a_closed_task_is_read_for_no_longer():
    async def test(world: World) -> None:
        world.runs("op-1")
        follower = world.follow("op-1")
        await world.pass_time(5)
        follower.close()
        before = len(world.logs.calls)
        await world.pass_time(100)
        assert len(world.logs.calls) == before
        assert not world.live._followers

    stepped(test)


def test_a_loop_that_is_gone_costs_no_memory():
    world = World()

    async def test() -> Follower:
        return world.follow("op-1")

    follower = asyncio.run(test())
    for _ in range(3):
        follower.lines.put(["nobody reads this"])
    assert len(follower.lines) == 0
    follower.done()


def test_a_task_that_is_almost_late_waits_for_no_line():
    async def test(world: World) -> None:
        world.runs("op-1")
        follower = world.follow("op-1")
        world.prints("op-1", "shown")
        await world.pass_time(5)
        world.ended("op-1")
        await follower.finish(seconds_left=live.SPARED)

    assert stepped(test).texts("op-1") == ["shown"]


def test_events_of_a_real_client_are_read(monkeypatch: pytest.MonkeyPatch):
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    logs = boto3.client("logs", region_name="eu-central-1", endpoint_url=f"http://{host}:{port}")
    base = int(time.time() * 1000) - 1_000_000
    monkeypatch.setattr(Clock, "ms", lambda self: base + round(self.now * 1000))
    try:
        logs.create_log_group(logGroupName="/ecs")

        async def test(world: World) -> None:
            world.groups["eu-central-1"] = logs
            ids = [f"op-{number}" for number in range(120)]
            for id in ids:
                world.runs(id)
                world.follow(id)
                logs.create_log_stream(logGroupName="/ecs", logStreamName=f"app/main/{id}")
                events = [{"timestamp": world.clock.ms(), "message": f"{id} {number}"} for number in range(2)]
                logs.put_log_events(logGroupName="/ecs", logStreamName=f"app/main/{id}", logEvents=events)
            await world.pass_time(10)
            assert {id: world.texts(id) for id in ids} == {id: [f"{id} 0", f"{id} 1"] for id in ids}

        stepped(test)
    finally:
        server.stop()


def test_a_local_stack_s_output_is_read_from_its_folder(tmp_path: Path):
    async def test(world: World) -> None:
        file = tmp_path / "abc-main.log"
        world.runs("op-1", "abc")
        follower = world.follow("op-1")
        await world.pass_time(3)
        file.write_text("one\ntwo\nthr")
        await world.pass_time(3)
        assert world.shown["op-1"] == ["one", "two"]
        file.write_text("one\ntwo\nthree\nfour")
        world.ended("op-1")
        await world.finish(follower)

    world = stepped(test, local_log_dir=str(tmp_path))
    assert world.shown["op-1"] == ["one", "two", "three", "four"]


def test_commands_of_one_local_runner_share_its_file(tmp_path: Path):
    async def test(world: World) -> None:
        file = tmp_path / "abc-main.log"
        world.runs("op-1", "abc", runner_id="r", started_at=1)
        first = world.follow("op-1")
        file.write_text("one\n")
        await world.pass_time(3)
        world.ended("op-1")
        await world.finish(first)
        world.runs("op-2", "abc", runner_id="r", started_at=2)
        file.write_text("one\ntwo\n")
        second = world.follow("op-2")
        world.ended("op-2")
        await world.finish(second)

    world = stepped(test, local_log_dir=str(tmp_path))
    assert (world.shown["op-1"], world.shown["op-2"]) == (["one"], ["two"])
