"""A cache that shares one reading between all browsers. Concurrent requests wait for the same reading."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

from airflow_ecs_bridge.threads import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

T = TypeVar("T")

MOST = 256
"""Maximum number of cached values."""


class Shared(Generic[T]):
    """A cache with its own thread, so that a slow table blocks no thread of the API server."""

    def __init__(self, seconds: float) -> None:
        """Create a cache that keeps a value or an error for `seconds` after the reading."""
        self._seconds = seconds
        self._lock = threading.Lock()
        self._known: dict[Hashable, tuple[Future[T], float]] = {}
        self._asked: queue.SimpleQueue[tuple[Hashable, Future[T], Callable[[], T]]] = queue.SimpleQueue()
        self._service = Service("ecs-bridge-ui", self._answer)

    async def get(self, key: Hashable, read: Callable[[], T]) -> T:
        """Return the value of a key, or raise the error of its reading."""
        # The shield protects the shared reading from a browser that disconnects.
        return await asyncio.shield(asyncio.wrap_future(self._future(key, read)))

    def _future(self, key: Hashable, read: Callable[[], T]) -> Future[T]:
        now = time.monotonic()
        with self._lock:
            fresh = {k: (f, until) for k, (f, until) in self._known.items() if not f.done() or until > now}
            self._known = dict(list(fresh.items())[-MOST:])
            if key not in self._known:
                future: Future[T] = Future()
                self._known[key] = (future, float("inf"))
                self._asked.put((key, future, read))
                self._service.ensure()
            return self._known[key][0]

    def _answer(self) -> None:
        key, future, read = self._asked.get()
        try:
            value = read()
        except BaseException as error:
            self._expire(key, future)
            future.set_exception(error)
        else:
            self._expire(key, future)
            future.set_result(value)

    def _expire(self, key: Hashable, future: Future[T]) -> None:
        """Start the TTL now, before the value is returned, so that it always expires."""
        with self._lock:
            if key in self._known and self._known[key][0] is future:
                self._known[key] = (future, time.monotonic() + self._seconds)
