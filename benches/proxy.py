"""A proxy before one service of the local stack: counts its requests, what they cost, and how many are under way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass
class Seen:
    """What went by."""

    calls: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    writes: Counter[str] = field(default_factory=Counter)
    write_units: Counter[str] = field(default_factory=Counter)
    read_units: Counter[str] = field(default_factory=Counter)
    under_way: int = 0
    most_under_way: int = 0


class Proxy:
    """Passes requests on to `upstream`, `latency` seconds later. A context manager.

    A request to DynamoDB is made to ask for the capacity that it consumed, which changes nothing else about it. Its
    signature is then wrong, which the local stack does not look at. A failed condition is charged as a write of one
    unit, as DynamoDB tells nothing of its size.
    """

    def __init__(self, upstream_port: int, latency: float = 0.0) -> None:
        self.seen = Seen()
        self._upstream_port = upstream_port
        self._latency = latency
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._serve, "127.0.0.1", 0, limit=16 * 1024 * 1024), self._loop
        ).result()
        self._server = server
        self.port: int = server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        async def end() -> None:
            self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        # Both ends of the stack come and go; what a broken connection means is for the functions to find out.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while message := await read(reader):
                head, body = message
                if upstream is None:
                    upstream = await asyncio.open_connection("127.0.0.1", self._upstream_port, limit=16 * 1024 * 1024)
                answer = await self._pass_on(head, body, upstream)
                writer.write(answer)
                await writer.drain()
        for end in (writer, *(upstream or ())[1:]):
            end.close()

    async def _pass_on(
        self, head: str, body: bytes, upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    ) -> bytes:
        seen = self.seen
        target = re.search(r"^x-amz-target: *(\w+)\.(\w+)", head, re.IGNORECASE | re.MULTILINE)
        service, operation = target.groups() if target else ("", head.split(" ", 1)[0])
        if service.startswith("DynamoDB"):
            body = body.rstrip()[:-1] + b',"ReturnConsumedCapacity":"INDEXES"}'
        seen.calls[operation] += 1
        seen.under_way += 1
        seen.most_under_way = max(seen.most_under_way, seen.under_way)
        try:
            if self._latency:
                await asyncio.sleep(self._latency)
            reader, writer = upstream
            writer.write(with_length(head, len(body)) + body)
            await writer.drain()
            message = await read(reader)
        finally:
            seen.under_way -= 1
        if message is None:
            raise ConnectionError
        head, answer = message
        if service.startswith("DynamoDB"):
            self._count(operation, json.loads(body), json.loads(answer))
        elif not head.startswith("HTTP/1.1 200"):
            seen.errors[json.loads(answer).get("__type", "?").rpartition("#")[2]] += 1
        return head.encode("latin-1") + answer

    def _count(self, operation: str, request: dict[str, Any], answer: dict[str, Any]) -> None:
        seen = self.seen
        what = purpose(operation, request)
        if error := answer.get("__type"):
            seen.errors[error.rpartition("#")[2]] += 1
            if error.endswith("ConditionalCheckFailedException"):
                seen.write_units[f"{what}, condition failed"] += 1
            return
        consumed = answer.get("ConsumedCapacity", [])
        for capacity in consumed if isinstance(consumed, list) else [consumed]:
            if operation in ("PutItem", "UpdateItem"):
                seen.writes[what] += 1
                seen.write_units[what] += capacity["CapacityUnits"]
            else:
                seen.read_units[what] += capacity["CapacityUnits"]


def purpose(operation: str, request: dict[str, Any]) -> str:
    """What a request is for, as ARCHITECTURE.md defines them."""
    if operation == "PutItem":
        return f"create as {request['Item']['state']['S']}"
    if operation == "UpdateItem":
        if request["Key"]["submission_id"]["S"].startswith("#"):
            return "launch tokens"
        values = request["ExpressionAttributeValues"]
        if state := values.get(":state"):
            return f"to {state['S']}"
        return "fill in" if ":check_at" not in values else "claim"
    if operation == "Query":
        return f"Query {request['IndexName']}"
    return operation


async def read(reader: asyncio.StreamReader) -> tuple[str, bytes] | None:
    """One message: its head, and its body by its length."""
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    length = re.search(r"^content-length: *(\d+)", head, re.IGNORECASE | re.MULTILINE)
    return head, await reader.readexactly(int(length[1])) if length else b""


def with_length(head: str, length: int) -> bytes:
    head = re.sub(r"^(content-length: *)\d+", rf"\g<1>{length}", head, flags=re.IGNORECASE | re.MULTILINE)
    return head.encode("latin-1")
