"""One reading for all browsers: a value is kept for seconds, and while it is read anew everybody waits for the same."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

T = TypeVar("T")

MOST = 256
"""Values that are kept at once."""


class Shared(Generic[T]):
    """Reads in one thread of its own, so that a slow table takes none of the API server's."""

    def __init__(self, seconds: float) -> None:
        """Make one; a value, or an error, is kept for so many seconds after it was read."""
        self._seconds = seconds
        self._lock = threading.Lock()
        self._known: dict[Hashable, tuple[Future[T], float]] = {}
        self._asked: queue.SimpleQueue[tuple[Hashable, Future[T], Callable[[], T]]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def get(self, key: Hashable, read: Callable[[], T]) -> T:
        """Return the value of a key, or raise what reading it raised."""
        # The shield: a browser that goes away cancels its own wait, and not the others' reading.
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
                if self._thread is None:
                    # A daemon: the API server does not wait for it when it ends.
                    self._thread = threading.Thread(target=self._answer, name="ecs-bridge-page", daemon=True)
                    self._thread.start()
            return self._known[key][0]

    def _answer(self) -> None:
        while True:
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
        """Let it grow old from now on: before anybody has it, so that whoever asks next does not get it for ever."""
        with self._lock:
            if key in self._known and self._known[key][0] is future:
                self._known[key] = (future, time.monotonic() + self._seconds)
