"""The client for programs with an event loop.

botocore makes the requests in a few threads of the client. Pauses and waits use no thread. An asynchronous HTTP library
would be another large dependency. aiobotocore requires one exact version of botocore, and programs such as Airflow and
Prefect select that version themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from ecs_bridge._operations import Bridge
from ecs_bridge._sansio import drive
from ecs_bridge.errors import SubmissionNotFoundError, WaitTimeoutError
from ecs_bridge.submission import check_id

if TYPE_CHECKING:
    from collections.abc import Iterable

    import boto3

    from ecs_bridge._sansio import Steps
    from ecs_bridge.api import Answer
    from ecs_bridge.feed import Cursor, Reader
    from ecs_bridge.submission import Submission
    from ecs_bridge.table import Record

T = TypeVar("T")

THREADS = 8
"""Maximum number of concurrent requests of one client, which equals its number of connections."""


class AsyncClient:
    """A client for one event loop, with the names, arguments and errors of `Client`.

    A cancelled call makes no further request. A request in progress may still reach the bridge. You can submit the same
    submission again afterwards.
    """

    def __init__(
        self,
        *,
        stack: str | None = None,
        url: str | None = None,
        function: str | None = None,
        table: str | None = None,
        deployment: str | None = None,
        region: str | None = None,
        ready_file: str | None = None,
        session: boto3.Session | None = None,
        timeout: float = 20.0,
        retry_timeout: float = 60.0,
        poll_interval: float = 1.0,
    ) -> None:
        """Create a client without making a request; see `Client`."""
        self._bridge = Bridge(
            session,
            timeout,
            retry_timeout,
            poll_interval,
            stack=stack,
            url=url,
            function=function,
            table=table,
            deployment=deployment,
            region=region,
            ready_file=ready_file,
        )
        self._pool = ThreadPoolExecutor(THREADS, "ecs-bridge")
        self._waiting = self._bridge.waiting()
        self._waiters: dict[str, list[asyncio.Future[Record]]] = {}
        self._watch: asyncio.Task[None] | None = None

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the client, and cancel all waiting calls."""
        for future in [each for all in self._waiters.values() for each in all]:
            future.cancel()
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._bridge.close()

    async def submit(self, submission: Submission) -> Answer:
        """Submit one submission; see `Client.submit`."""
        [answer] = await self.submit_many([submission])
        if answer.error:
            raise answer.error
        return answer

    async def submit_many(self, submissions: Iterable[Submission]) -> list[Answer]:
        """Submit any number of submissions; see `Client.submit_many`."""
        return await self._drive(self._bridge.submit(submissions))

    async def get(self, submission_id: str) -> Record | None:
        """Return the record of a submission, or None if the submission is unknown."""
        return await self._drive(self._bridge.get(submission_id))

    async def get_many(self, submission_ids: Iterable[str]) -> dict[str, Record]:
        """Return the records that exist; see `Client.get_many`."""
        return await self._drive(self._bridge.get_many(submission_ids))

    async def stop(self, submission_id: str, reason: str) -> Answer:
        """Request a stop; see `Client.stop`."""
        [answer] = await self.stop_many([submission_id], reason)
        if answer.error:
            raise answer.error
        return answer

    async def stop_many(self, submission_ids: Iterable[str], reason: str) -> list[Answer]:
        """Request the stop of any number of submissions; see `Client.stop_many`."""
        return await self._drive(self._bridge.stop(submission_ids, reason))

    async def wait(self, submission_ids: Iterable[str], timeout: float | None = None) -> dict[str, Record]:
        """Wait until all submissions have ended; see `Client.wait`. One read of the feed serves all waiting calls."""
        futures = {check_id(each): self._future(each) for each in dict.fromkeys(submission_ids)}
        try:
            if futures:
                await asyncio.wait(futures.values(), timeout=timeout, return_when=asyncio.FIRST_EXCEPTION)
            ended = {id: future.result() for id, future in futures.items() if future.done()}
            if left := sorted(futures.keys() - ended.keys()):
                raise WaitTimeoutError(ended, left, timeout or 0.0)
            return ended
        finally:
            for id, future in futures.items():
                self._leave(id, future)

    async def latest_cursor(self) -> Cursor:
        """Return the position in the feed after all submissions that have ended."""
        return await self._drive(self._bridge.latest_cursor())

    def stream(self, cursor: Cursor) -> AsyncFeed:
        """Follow the feed from the cursor; see `Client.stream`."""
        return AsyncFeed(self, self._bridge.reader(cursor))

    async def health(self) -> dict[str, Any]:
        """Return the health response of the bridge; raise BridgeError if the bridge is unhealthy."""
        return await self._drive(self._bridge.health())

    async def _drive(self, steps: Steps[T]) -> T:
        return await drive(steps, self._pool)

    def _future(self, submission_id: str) -> asyncio.Future[Record]:
        future: asyncio.Future[Record] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(submission_id, []).append(future)
        self._waiting.add([submission_id])
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._learn())
        return future

    def _leave(self, submission_id: str, future: asyncio.Future[Record]) -> None:
        left = [each for each in self._waiters.get(submission_id, []) if each is not future]
        if left:
            self._waiters[submission_id] = left
        elif self._waiters.pop(submission_id, None):
            self._waiting.drop(submission_id)
        if future.done() and not future.cancelled():
            future.exception()  # mark it as retrieved, even if another error was raised

    async def _learn(self) -> None:
        """Deliver results to the waiting calls until none is left."""
        try:
            while self._waiters:
                records, unknown = await self._drive(self._waiting.step())
                for record in records:
                    for future in self._waiters.pop(record.submission_id, []):
                        if not future.done():
                            future.set_result(record)
                for id in unknown.submission_ids if unknown else []:
                    self._fail(id, SubmissionNotFoundError([id]))
        except Exception as error:
            for id in list(self._waiters):
                self._waiting.drop(id)
                self._fail(id, error)

    def _fail(self, submission_id: str, error: Exception) -> None:
        for future in self._waiters.pop(submission_id, []):
            if not future.done():
                future.set_exception(error)


class AsyncFeed(AsyncIterator["Record"]):
    """An iterator over ended submissions. After an error, the next call continues at the same position."""

    def __init__(self, client: AsyncClient, reader: Reader) -> None:
        self._client = client
        self._reader = reader

    @property
    def cursor(self) -> Cursor:
        """The position after the last returned record. Save it after you have processed that record."""
        return self._reader.cursor

    async def __anext__(self) -> Record:
        while (record := self._reader.take()) is None:
            await self._client._drive(self._reader.poll())
        return record
