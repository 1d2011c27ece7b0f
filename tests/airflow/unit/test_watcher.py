"""When the feed is read, how far back, and that DynamoDB itself understands the reads."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from fake_bridge import DEPLOYMENT, PATIENCE, TABLE, now_ms
from moto.server import ThreadedMotoServer
from test_executor import event, launched
from workloads import beat_until, run, task

from airflow_ecs_bridge.keys import key_of
from airflow_ecs_bridge.threads import drain
from airflow_ecs_bridge.watcher import LEAD, Lookup, Rhythm, Watcher
from ecs_bridge.api import Tally
from ecs_bridge.feed import LONG_OVERLAP_EVERY, LONG_OVERLAP_MS, SHORT_OVERLAP_MS
from ecs_bridge.table import END_OF_TIME, Record, Table


def beats(*times: float) -> Rhythm:
    rhythm = Rhythm()
    for time in times:
        rhythm = rhythm.beat(time)
    return rhythm


def test_a_poll_comes_just_before_a_regular_heartbeat():
    rhythm = beats(10.0, 11.0, 12.0)
    assert rhythm.next_poll(12.0 - LEAD, 0.0, 1.0) == pytest.approx(13.0 - LEAD)
    assert rhythm.next_poll(12.5, 0.0, 1.0) == pytest.approx(14.0 - LEAD)


@pytest.mark.parametrize("took_before", [0.0, 0.3])
def test_a_slow_poll_misses_no_heartbeat(took_before):
    rhythm = beats(10.0, 11.0, 12.0)
    assert rhythm.next_poll(12.0 - LEAD - took_before, 0.3, 1.0) == pytest.approx(13.0 - LEAD - 0.3)


def test_a_poll_that_takes_longer_than_a_heartbeat_is_not_put_before_it_began():
    assert 12.5 <= beats(10.0, 11.0, 12.0).next_poll(12.0, 5.0, 1.0) <= 13.5


def test_a_busy_scheduler_does_not_make_polls_more_frequent():
    assert beats(10.0, 10.01, 10.02).next_poll(10.02, 0.0, 1.0) == pytest.approx(11.02)


def test_a_slow_scheduler_is_not_polled_for_more_often_than_it_beats():
    rhythm = beats(0.0, 2.0, 4.0)
    assert rhythm.next_poll(4.0 - LEAD, 0.0, 1.0) == pytest.approx(6.0 - LEAD)


def test_one_late_heartbeat_does_not_change_the_rhythm():
    assert beats(10.0, 11.0, 12.0, 13.4, 14.0).period == 1.0


def test_a_rhythm_is_known_after_its_second_gap():
    assert beats(10.0, 10.01, 10.02, 11.0, 12.0).period == pytest.approx(1.0, abs=0.03)


def test_without_a_rhythm_it_is_the_interval():
    assert Rhythm().next_poll(5.0, 0.0, 1.0) == 6.0
    assert beats(0.0, 60.0).next_poll(60.0, 0.0, 1.0) == 61.0


def test_an_entry_that_the_index_shows_late_is_still_seen(executor, bridge, monkeypatch):
    monkeypatch.setattr("airflow_ecs_bridge.watcher.LONG_OVERLAP_EVERY", 0.5)
    late, early = task(executor, "late"), task(executor, "early")
    run(executor, late, early)
    launched(bridge, late, early)
    bridge.finish(early.ti.external_executor_id)
    beat_until(executor, lambda: event(executor, early))
    bridge.finish(
        late.ti.external_executor_id, changed_at=bridge.records[early.ti.external_executor_id]["changed_at"] - 60_000
    )
    beat_until(executor, lambda: event(executor, late))


def test_a_writer_s_clock_that_is_an_hour_ahead_hides_nothing(executor, bridge):
    ahead, right = task(executor, "ahead"), task(executor, "right")
    run(executor, ahead, right)
    launched(bridge, ahead, right)
    bridge.finish(
        ahead.ti.external_executor_id,
        changed_at=bridge.records[ahead.ti.external_executor_id]["created_at"] + 3_600_000,
    )
    beat_until(executor, lambda: event(executor, ahead))
    bridge.finish(right.ti.external_executor_id)
    beat_until(executor, lambda: event(executor, right))


def test_a_feed_of_several_pages_is_read_to_its_end(start, bridge, monkeypatch):
    monkeypatch.setattr("fake_bridge.PAGE", 1000)
    executor = start(parallelism=3000)
    items = [task(executor, f"t{n}") for n in range(2500)]
    run(executor, *items)
    launched(bridge, *items)
    with bridge.changed:
        for item in items:
            bridge.finish(item.ti.external_executor_id)
    beat_until(executor, lambda: len(executor.event_buffer) == 2500)
    assert not executor.running


def test_an_error_between_two_pages_is_waited_out_and_the_read_begins_anew(start, bridge, monkeypatch):
    monkeypatch.setattr("fake_bridge.PAGE", 10)
    executor = start()
    items = [task(executor, f"t{n}") for n in range(25)]
    run(executor, *items)
    launched(bridge, *items)
    error = {"status": 400, "body": {"__type": "x#ProvisionedThroughputExceededException", "message": "not now"}}
    with bridge.changed:
        for item in items:
            bridge.finish(item.ti.external_executor_id)
        bridge.faults["Query"].clear()
        bridge.calls.clear()
    bridge.wait_until(lambda: bridge.calls["Query"] >= 1)
    bridge.fail("Query", times=4, **error)
    beat_until(executor, lambda: len(executor.event_buffer) == 25)
    assert bridge.calls["Query"] < 20


def in_flight(start: Any, bridge: Any, count: int) -> Any:
    """Start an executor with so many in flight, all swept every second."""
    executor = start(parallelism=count)
    items = [task(executor, f"t{n}") for n in range(count)]
    run(executor, *items)
    launched(bridge, *items)
    return executor


def test_a_sweep_is_finished_before_the_next_however_much_is_in_flight(configure, start, bridge):
    configure(full_scan_interval="1", poll_interval="0.5")
    in_flight(start, bridge, 2500)
    bridge.latency = 0.05
    first = next(iter(bridge.records))
    bridge.looked_up.clear()

    def begins() -> list[int]:
        return [place for place, batch in enumerate(bridge.looked_up) if first in batch]

    # The first of them may have begun before everything was handed over.
    bridge.wait_until(lambda: len(begins()) >= 4)
    for begin, end in pairwise(begins()[1:]):
        assert {id for batch in bridge.looked_up[begin:end] for id in batch} == set(bridge.records)


def test_a_sweep_does_not_hold_up_the_feed(configure, start, bridge):
    configure(full_scan_interval="1", poll_interval="0.2")
    executor = in_flight(start, bridge, 1000)
    bridge.fail("BatchGetItem", times=1000, status=400, body={"__type": "x#InternalServerError", "message": "no"})
    bridge.wait_until(lambda: bridge.calls["BatchGetItem"] > 3)
    id = next(iter(bridge.records))
    bridge.finish(id)
    beat_until(executor, lambda: executor.event_buffer)


class Stepped:
    """A watcher without a thread: the test takes its steps, and only waits and reads move its clock on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, options: Any) -> None:
        self.now = 1_000.0
        self.ended: list[Record] = []
        self.ranges: list[tuple[int, int]] = []
        self.told: list[str] = []
        watcher = "airflow_ecs_bridge.watcher"
        monkeypatch.setattr(f"{watcher}.time", SimpleNamespace(monotonic=lambda: self.now))
        monkeypatch.setattr(f"{watcher}.now_ms", self.now_ms)
        monkeypatch.setattr(f"{watcher}.drain", self.drain)
        report = lambda outcome: self.told.append(outcome.submission_id)  # noqa: E731
        self.watcher = Watcher(lambda: self, lambda: None, options, report, lambda id: False, Tally())  # type: ignore[arg-type]

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def drain(self, source: Any, most: int, wait: float) -> list[Any]:
        found = drain(source, most, 0)
        if not found:
            self.now += wait
        return found

    def changes(self, since: int, after: Any = None, until: int = END_OF_TIME) -> tuple[list[Record], None]:
        """Stand in for the table."""
        self.now += 0.01
        self.ranges.append((since, until))
        return [each for each in self.ended if since <= (each.changed_at or 0) <= until], None

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.watcher.step()


@pytest.fixture
def stepped(monkeypatch: pytest.MonkeyPatch) -> Stepped:
    options = SimpleNamespace(poll_interval=1.0, full_scan_interval=86_400.0)
    return Stepped(monkeypatch, options)


def test_feed_further_back_is_read_apart_from_the_polls(stepped):
    stepped.watcher.watch(["first", "stays"])
    stepped.run(5)
    newest = stepped.now_ms()
    stepped.ended.append(Record("first", "succeeded", exit_code=0, changed_at=newest))
    stepped.run(2)
    assert stepped.told == ["first"]
    stepped.ranges.clear()
    stepped.run(3 * LONG_OVERLAP_EVERY)
    polls = [since for since, until in stepped.ranges if until == END_OF_TIME]
    further_back = [each for each in stepped.ranges if each[1] != END_OF_TIME]
    assert set(polls) == {newest - SHORT_OVERLAP_MS}
    assert len(polls) == pytest.approx(3 * LONG_OVERLAP_EVERY, abs=1)
    assert further_back == [(newest - LONG_OVERLAP_MS, newest - SHORT_OVERLAP_MS)] * 3


def test_feed_is_not_read_with_nothing_in_flight(stepped):
    stepped.watcher.watch(["only"])
    stepped.run(5)
    stepped.watcher.forget("only")
    stepped.run(2)
    stepped.ranges.clear()
    stepped.run(1_000)
    assert stepped.ranges == []


def test_a_submission_whose_record_is_gone_for_two_sweeps_frees_its_slot(configure, start, bridge):
    configure(full_scan_interval="1")
    executor = in_flight(start, bridge, 2)
    gone, stays = bridge.records
    with bridge.changed:
        bridge.looked_up.clear()
        del bridge.records[gone]
    beat_until(executor, lambda: len(executor.running) == 1)
    assert sum(gone in batch for batch in bridge.looked_up) == 2
    (text,) = [log.extra for log in executor._task_event_logs]
    assert "no longer exists in the ECS bridge's table" in text
    assert executor.event_buffer == {}
    bridge.finish(stays)
    beat_until(executor, lambda: not executor.running)


def test_what_has_not_reached_the_bridge_yet_is_not_missed(configure, start, bridge):
    configure(full_scan_interval="1")
    executor = start()
    bridge.fail("/v1/submissions", times=1000, status=503)
    run(executor, item := task(executor))
    id = item.ti.external_executor_id
    bridge.wait_until(lambda: sum(id in batch for batch in bridge.looked_up) >= 3)
    executor.heartbeat()
    assert key_of(item.ti) in executor.running
    with bridge.changed:
        bridge.faults["/v1/submissions"].clear()
    launched(bridge, item)


def test_records_that_are_asked_for_do_not_hold_up_the_feed(executor, bridge):
    run(executor, item := task(executor), other := task(executor, "other"))
    launched(bridge, item, other)
    watcher = executor._bridge.watcher
    bridge.fail("BatchGetItem", times=1000, status=400, body={"__type": "x#InternalServerError", "message": "not now"})
    watcher.settle(other.ti.external_executor_id)
    bridge.wait_until(lambda: bridge.calls["BatchGetItem"] > 3)
    bridge.finish(item.ti.external_executor_id)
    beat_until(executor, lambda: event(executor, item))


def test_what_was_asked_of_a_thread_that_dies_is_kept(executor, bridge, monkeypatch, caplog):
    watcher = executor._bridge.watcher
    read, deaths = watcher._reader, []

    def die_once() -> Table:
        if not deaths:
            deaths.append(1)
            raise SystemExit("out of some library")
        return read()

    item = task(executor)
    bridge.call(
        "POST",
        "/v1/submissions",
        {"submissions": [{"submission_id": item.ti.external_executor_id, "command": ["true"]}]},
    )
    monkeypatch.setattr(watcher, "_reader", die_once)
    # Taken together: the lookup ends the thread, and what was asked for after it is still to be done.
    questions = [Lookup(["an-id"]), Lookup(["another"])]
    watcher._untaken.extend(questions)
    watcher.watch([item.ti.external_executor_id])
    with pytest.raises(SystemExit):
        questions[0].future.result(PATIENCE)
    executor._track(key_of(item.ti), item.ti.external_executor_id, None)
    bridge.finish(item.ti.external_executor_id)
    beat_until(executor, lambda: event(executor, item))
    assert questions[1].future.result(PATIENCE) == {}


@pytest.mark.parametrize("hours", [-1, 1])
def test_clocks_that_differ_by_an_hour_delay_results_but_lose_none(start, configure, bridge, hours):
    configure(full_scan_interval="1")
    executor = start()
    run(executor, item := task(executor))
    launched(bridge, item)
    bridge.finish(item.ti.external_executor_id, changed_at=now_ms() + hours * 3_600_000)
    beat_until(executor, lambda: event(executor, item))


def test_a_lookup_is_answered_though_its_thread_dies(executor, monkeypatch):
    watcher = executor._bridge.watcher
    monkeypatch.setattr(watcher, "_reader", lambda: (_ for _ in ()).throw(SystemExit("out of some library")))
    with pytest.raises(SystemExit):
        watcher.lookup(["an-id"]).result(PATIENCE)


def test_what_the_watcher_remembers_is_what_is_in_flight(executor, bridge):
    watcher = executor._bridge.watcher
    for n in range(3):
        items = [task(executor, f"t{n}-{m}") for m in range(100)]
        run(executor, *items)
        launched(bridge, *items)
        for item in items:
            bridge.finish(item.ti.external_executor_id)
        beat_until(executor, lambda: not executor.running)
    assert not watcher._in_flight
    assert not watcher._unsettled
    assert not executor._current
    assert not executor._keys
    assert not executor._bridge.submitter._pending


@pytest.fixture(scope="module")
def dynamodb() -> Iterator[Any]:
    """DynamoDB as others emulate it, with the bridge's table."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    client = boto3.client(
        "dynamodb",
        endpoint_url=f"http://{host}:{port}",
        region_name="eu-central-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_table(
        TableName=TABLE,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[
            {"AttributeName": "submission_id", "AttributeType": "S"},
            {"AttributeName": "feed", "AttributeType": "S"},
            {"AttributeName": "changed_at", "AttributeType": "N"},
        ],
        KeySchema=[{"AttributeName": "submission_id", "KeyType": "HASH"}],
        GlobalSecondaryIndexes=[
            {
                "IndexName": "feed",
                "KeySchema": [
                    {"AttributeName": "feed", "KeyType": "HASH"},
                    {"AttributeName": "changed_at", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": ["state", "exit_code", "reason"]},
            }
        ],
    )
    yield client
    server.stop()


def put(dynamodb: Any, submission_id: str, **attributes: str | int) -> None:
    row = {"submission_id": submission_id, **attributes}
    item = {name: {"N": str(value)} if isinstance(value, int) else {"S": value} for name, value in row.items()}
    dynamodb.put_item(TableName=TABLE, Item=item)


def test_dynamodb_understands_the_reads(dynamodb):
    put(dynamodb, "a", state="succeeded", exit_code=0, feed=DEPLOYMENT, changed_at=100, created_at=50)
    put(dynamodb, "b", state="failed", exit_code=137, stop_code="X", feed=DEPLOYMENT, changed_at=200, created_at=60)
    put(dynamodb, "c", state="running", created_at=70)
    put(dynamodb, "d", state="failed", feed="another", changed_at=200, created_at=60)
    table = Table(dynamodb, TABLE, DEPLOYMENT)
    records, more = table.changes(0)
    assert [(r.submission_id, r.state, r.exit_code, r.changed_at) for r in records] == [
        ("a", "succeeded", 0, 100),
        ("b", "failed", 137, 200),
    ]
    assert more is None
    assert [r.submission_id for r in table.changes(101)[0]] == ["b"]
    assert [r.submission_id for r in table.changes(0, None, 199)[0]] == ["a"]
    found, unread = table.records(["b", "c", "nowhere", "b"])
    assert unread == []
    assert found.keys() == {"b", "c"}
    assert (found["b"].stop_code, found["b"].ended, found["c"].ended, found["c"].created_at) == ("X", True, False, 70)
