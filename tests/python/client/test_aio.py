"""The same with asyncio: what only an event loop can see."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from conftest import OPTIONS, Gate, dropped

from ecs_bridge import (
    AsyncClient,
    Client,
    Cursor,
    State,
    Submission,
    SubmissionNotFoundError,
    SubmissionRejectedError,
    WaitTimeoutError,
)
from ecs_bridge.aio import THREADS
from ecs_bridge.feed import Reader
from local_stack import PATIENCE, LocalStack
from wire import Wire

Body = Callable[[AsyncClient], Coroutine[Any, Any, None]]


@pytest.fixture
def in_a_loop(ready_file: Path) -> Callable[[Body], None]:
    def run(body: Body) -> None:
        async def main() -> None:
            async with AsyncClient(ready_file=str(ready_file), **OPTIONS) as client:
                await asyncio.wait_for(body(client), PATIENCE)

        asyncio.run(main())

    return run


def test_it_has_the_names_and_arguments_of_the_other() -> None:
    def public(of: type) -> dict[str, list[str]]:
        return {
            name: list(inspect.signature(each).parameters)
            for name, each in vars(of).items()
            if callable(each) and (name == "__init__" or not name.startswith("_"))
        }

    assert public(AsyncClient) == public(Client)


def test_a_command_runs_once_though_the_answer_is_lost(
    in_a_loop: Callable[[Body], None], stack: LocalStack, gate: Gate, name: str
) -> None:
    async def body(client: AsyncClient) -> None:
        gate.troubles.append(dropped)
        await client.submit(Submission(name, ["sh", "-c", "exit 3"]))
        assert (await client.wait([name]))[name].exit_code == 3
        assert (await client.get(name)) is not None
        with pytest.raises(SubmissionRejectedError, match="conflict"):
            await client.submit(Submission(name, ["false"]))

    in_a_loop(body)
    assert [task["start_count"] for task in stack.tasks(name)] == [1]


def test_many_that_wait_share_one_read_of_the_feed(
    in_a_loop: Callable[[Body], None], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"{name}-{n}" for n in range(150)]
    readers: list[Reader] = []
    monkeypatch.setattr("ecs_bridge.feed.Reader", lambda *given: readers.append(Reader(*given)) or readers[-1])

    async def body(client: AsyncClient) -> None:
        await client.submit_many([Submission(f"{name}-{n}", ["sleep", "600"]) for n in range(2)])
        await client.stop_many(ids[2:], "only their ends are wanted")
        waits = [asyncio.create_task(client.wait([id])) for id in ids]
        await asyncio.wait(waits[2:])
        for task in waits[:2]:
            assert not task.done()
        await client.stop_many(ids[:2], "the test is over")
        ended = await asyncio.gather(*waits)
        assert {record.state for each in ended for record in each.values()} == {State.CANCELLED}
        assert len(readers) == 1
        assert threading.active_count() < THREADS + 20

    in_a_loop(body)


def test_a_wait_that_is_cancelled_asks_nothing_more(
    in_a_loop: Callable[[Body], None], stack: LocalStack, wire: Wire, name: str
) -> None:
    async def body(client: AsyncClient) -> None:
        await client.submit(Submission(name, ["sleep", "600"]))
        waiting = asyncio.create_task(client.wait([name]))
        while not any(call.operation == "Query" for call in wire.calls):
            await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert client._watch is not None
        await client._watch
        # Nothing was stopped by that, and it can be waited for again.
        assert stack.row(name)["state"] != "cancelled"
        await client.stop(name, "the test is over")
        assert (await client.wait([name]))[name].state == State.CANCELLED

    in_a_loop(body)


def test_a_submission_that_is_cancelled_while_it_is_under_way_can_be_repeated(
    in_a_loop: Callable[[Body], None], stack: LocalStack, gate: Gate, name: str
) -> None:
    arrived, go_on = threading.Event(), threading.Event()

    def slow(carry_out: Callable[[], tuple[int, bytes]]) -> tuple[int, bytes]:
        arrived.set()
        go_on.wait()
        return carry_out()

    async def body(client: AsyncClient) -> None:
        gate.troubles.append(slow)
        task = asyncio.create_task(client.submit(Submission(name, ["true"])))
        await asyncio.to_thread(arrived.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
        await client.submit(Submission(name, ["true"]))
        assert (await client.wait([name]))[name].succeeded

    in_a_loop(body)
    assert [task["start_count"] for task in stack.tasks(name)] == [1]


def test_errors_reach_those_that_they_concern_and_no_others(in_a_loop: Callable[[Body], None], name: str) -> None:
    async def body(client: AsyncClient) -> None:
        await client.submit(Submission(name, ["sleep", "600"]))
        other = asyncio.create_task(client.wait([name]))
        with pytest.raises(SubmissionNotFoundError, match="never-submitted"):
            await client.wait(["never-submitted"])
        with pytest.raises(WaitTimeoutError):
            await client.wait([name], timeout=0)
        assert not other.done()
        await client.stop(name, "the test is over")
        assert (await other)[name].state == State.CANCELLED

    in_a_loop(body)


def test_the_feed_goes_on_from_its_cursor(in_a_loop: Callable[[Body], None], name: str) -> None:
    async def body(client: AsyncClient) -> None:
        cursor = await client.latest_cursor()
        told: list[str] = []
        for n in range(3):
            await client.stop(f"{name}-{n}", "only its end is wanted")
            feed = client.stream(Cursor.parse(str(cursor)))
            told.append((await anext(feed)).submission_id)
            cursor = feed.cursor
        assert told == [f"{name}-{n}" for n in range(3)]

    in_a_loop(body)


def test_a_client_that_is_closed_lets_nobody_wait(in_a_loop: Callable[[Body], None], name: str) -> None:
    async def body(client: AsyncClient) -> None:
        await client.submit(Submission(name, ["sleep", "600"]))
        waiting = asyncio.create_task(client.wait([name]))
        await asyncio.sleep(0)
        await client.stop(name, "the test is over")
        await client.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    in_a_loop(body)
