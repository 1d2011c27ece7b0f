"""The feed: each end is handed out once, whatever the index shows late and however often its reader dies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, cast

import pytest

from ecs_bridge import Client, Cursor, Record, State, Submission
from ecs_bridge._sansio import run
from ecs_bridge.feed import LONG_OVERLAP_MS, Reader
from local_stack import LocalStack
from wire import Wire


def until(feed: Iterator[Record], last: str) -> list[str]:
    """Take from a feed until this one ends; return their ids."""
    ids = []
    for record in feed:
        ids.append(record.submission_id)
        if ids[-1] == last:
            break
    return ids


def end(client: Client, *ids: str) -> None:
    """Let these end, without containers."""
    client.stop_many(ids, "only their ends are wanted")


def test_what_ends_is_told_whole_and_in_order(client: Client, name: str) -> None:
    feed = client.stream(client.latest_cursor())
    client.submit(Submission(name, ["sh", "-c", "exit 4"], labels={"team": "data"}))
    record = next(feed)
    assert (record.submission_id, record.exit_code, record.labels) == (name, 4, {"team": "data"})
    assert record.changed_at
    assert record.container_name


def test_from_now_on_nothing_is_told_that_ended_before(client: Client, name: str) -> None:
    end(client, f"{name}-before")
    cursor = client.latest_cursor()
    end(client, f"{name}-after")
    assert until(client.stream(cursor), f"{name}-after") == [f"{name}-after"]


def test_a_cursor_goes_on_after_a_restart_and_each_end_is_told_once(connect: Callable[..., Client], name: str) -> None:
    client = connect()
    cursor = client.latest_cursor()
    end(client, *(f"{name}-{n}" for n in range(150)))
    told: list[str] = []
    for most in (1, 49, 70, 30):
        # A process that dies after each of these has nothing but the text.
        feed = connect().stream(Cursor.parse(str(cursor)))
        told += [record.submission_id for record in islice(feed, most)]
        cursor = feed.cursor
    assert sorted(told) == sorted(f"{name}-{n}" for n in range(150))
    end(client, f"{name}-last")
    assert until(connect().stream(Cursor.parse(str(cursor))), f"{name}-last") == [f"{name}-last"]


def test_from_the_beginning_all_is_told_page_by_page(client: Client, stack: LocalStack, name: str) -> None:
    end(client, name)
    told = until(client.stream(Cursor.beginning()), name)
    assert len(told) == len(set(told))
    ended = {row["submission_id"] for row in stack.rows() if row.get("feed")}
    assert ended - set(told) == set()


def test_an_end_that_the_index_shows_a_minute_late_is_told(client: Client, stack: LocalStack, name: str) -> None:
    feed = client.stream(client.latest_cursor())
    end(client, f"{name}-1")
    assert until(feed, f"{name}-1") == [f"{name}-1"]
    late = {**stack.row(f"{name}-1"), "submission_id": f"{name}-2"}
    late["changed_at"] -= LONG_OVERLAP_MS // 2
    stack.table.put_item(Item=late)
    # The next look further back is that of a reader that begins again.
    assert until(client.stream(Cursor.parse(str(feed.cursor))), f"{name}-2") == [f"{name}-2"]


def test_a_clock_that_is_wrong_hides_nothing(client: Client, stack: LocalStack, name: str) -> None:
    feed = client.stream(client.latest_cursor())
    end(client, f"{name}-1")
    assert until(feed, f"{name}-1") == [f"{name}-1"]
    ahead = {**stack.row(f"{name}-1"), "submission_id": f"{name}-2"}
    ahead["changed_at"] += 3_600_000
    stack.table.put_item(Item=ahead)
    try:
        assert until(feed, f"{name}-2") == [f"{name}-2"]
        end(client, f"{name}-3")
        assert until(feed, f"{name}-3") == [f"{name}-3"]
        assert feed.cursor.newest <= time.time() * 1000
        assert f"{name}-2" in Cursor.parse(str(feed.cursor)).seen
    finally:
        stack.table.delete_item(Key={"submission_id": f"{name}-2"})


def test_a_table_that_cannot_be_read_for_a_while_loses_nothing(client: Client, wire: Wire, name: str) -> None:
    feed = client.stream(client.latest_cursor())
    end(client, name)
    left = iter(range(4))
    wire.fails = lambda call: call.operation == "Query" and next(left, None) is not None
    assert until(feed, name) == [name]
    assert next(left, None) is None


def test_what_the_feed_never_shows_is_found_by_its_id(
    client: Client, stack: LocalStack, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecs_bridge.feed.LOOKUP_EVERY", 0.5)
    client.submit(Submission(name, ["sleep", "600"]))
    stack.until_state(name, "running")
    row = {**stack.row(name), "state": "lost"}
    real = row["rev"]

    def vanish() -> None:
        stack.table.put_item(Item={**row, "rev": real + 1000})

    vanish()
    assert client.wait([name])[name].state == "lost"
    stack.table.put_item(Item={**row, "state": "running", "rev": real + 2000})
    client.stop(name, "the test is over")


def test_a_cursor_holds_two_minutes_however_long_the_feed_is() -> None:
    minutes = 60_000

    class Pages:
        """An end a minute, ten a page."""

        def changes(
            self, since: int, after: dict[str, Any] | None, until: int
        ) -> tuple[list[Record], dict[str, Any] | None]:
            first = after["n"] if after else 1
            page = [Record(f"id-{n}", State.SUCCEEDED, changed_at=n * minutes) for n in range(first, first + 10)]
            return page, {"n": first + 10} if first < 91 else None

        def records(self, ids: list[str]) -> tuple[dict[str, Record], list[str]]:
            return {}, []

    reader = Reader(cast("Any", Pages), Cursor.beginning(), poll_interval=1.0, retry_timeout=0)
    told = []
    while len(told) < 100:
        run(reader.poll())
        assert len(reader.cursor.seen) < 15
        told += [record.submission_id for record in iter(reader.take, None)]
    assert told == [f"id-{n}" for n in range(1, 101)]
    assert list(Cursor.parse(str(reader.cursor)).seen) == ["id-98", "id-99", "id-100"]


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 2, "newest": 1, "seen": {}}', "yesterday"])
def test_what_is_no_cursor_is_told(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid cursor: must be the text of .*version 1"):
        Cursor.parse(text)
