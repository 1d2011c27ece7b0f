"""Daemon threads that do not die unnoticed.

Daemons rather than a ThreadPoolExecutor: the interpreter joins a pool's threads at exit, so one that hangs in a
request would keep a stopped scheduler alive.
"""

from __future__ import annotations

import logging
import queue
import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, TypeVar

from ecs_bridge._sansio import backoff

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

T = TypeVar("T")


def drain(source: queue.SimpleQueue[T], most: int, wait: float) -> list[T]:
    """Return what is in the queue, up to `most`; wait so many seconds for the first."""
    items: list[T] = []
    try:
        items.append(source.get(timeout=wait) if wait > 0 else source.get_nowait())
        while len(items) < most:
            items.append(source.get_nowait())
    except queue.Empty:
        pass
    return items


def bounded(function: Callable[[], T], seconds: float, name: str) -> T:
    """Call a function in a daemon thread of its own and wait so long for it; raise TimeoutError if it takes longer."""
    answer: Future[T] = Future()

    def call() -> None:
        try:
            answer.set_result(function())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=call, name=name, daemon=True).start()
    try:
        return answer.result(seconds)
    except FutureTimeoutError:  # before 3.11 not the same as TimeoutError
        raise TimeoutError(f"no answer within {seconds:g} s") from None


class Service:
    """Repeats `step` in a daemon thread of its own until it is stopped.

    An exception of a step is logged and waited out. Whatever ends the thread all the same (a SystemExit out of a
    library, say) is seen by the next `revive`.
    """

    def __init__(self, name: str, step: Callable[[], None]) -> None:
        self.name = name
        self._step = step
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to end after its current step; does not wait."""
        self._stop.set()

    @property
    def is_down(self) -> bool:
        """Whether the thread has died."""
        return self._thread is not None and not self._thread.is_alive() and not self._stop.is_set()

    def revive(self) -> bool:
        """Start the thread again if it died; True if it had."""
        if not self.is_down:
            return False
        log.error("thread %s died and is started again", self.name)
        self.start()
        return True

    def _run(self) -> None:
        failures = 0
        while not self._stop.is_set():
            try:
                self._step()
                failures = 0
            except Exception:
                failures += 1
                log.exception("error in thread %s", self.name)
                self._stop.wait(backoff(failures))
            except BaseException:
                log.critical("thread %s ends", self.name, exc_info=True)
                return
