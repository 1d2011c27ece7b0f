"""Daemon threads that are restarted after they die.

They are daemons instead of a ThreadPoolExecutor, because the interpreter joins the threads of a pool at exit. A thread
that hangs in a request would then keep a stopped scheduler alive.
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
    from collections.abc import Callable, Iterable, Iterator

log = logging.getLogger(__name__)

T = TypeVar("T")


def drain(source: queue.SimpleQueue[T], most: int, wait: float) -> list[T]:
    """Return up to `most` items of the queue. Wait up to `wait` seconds for the first."""
    items: list[T] = []
    try:
        items.append(source.get(timeout=wait) if wait > 0 else source.get_nowait())
        while len(items) < most:
            items.append(source.get_nowait())
    except queue.Empty:
        pass
    return items


def bounded(function: Callable[[], T], seconds: float, name: str) -> T:
    """Call a function in a separate daemon thread; raise TimeoutError if it takes longer than `seconds`."""
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
        raise TimeoutError(f"no response within {seconds:g} s") from None


class Service:
    """A daemon thread that repeats `step` until it is stopped.

    An exception of a step is logged, and the next step is delayed. If the thread ends for another reason, such as a
    SystemExit of a library, the next `revive` restarts it.
    """

    def __init__(self, name: str, step: Callable[[], None]) -> None:
        self.name = name
        self._step = step
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def ensure(self) -> None:
        """Start the thread if it was not started yet or has died."""
        if self._thread is None:
            self.start()
        self.revive()

    def stop(self) -> None:
        """Stop the thread after its current step, without waiting."""
        self._stop.set()

    @property
    def is_down(self) -> bool:
        """True if the thread has died."""
        return self._thread is not None and not self._thread.is_alive() and not self._stop.is_set()

    def revive(self) -> bool:
        """Restart the thread if it died, and return whether it had died."""
        if not self.is_down:
            return False
        log.error("thread %s died; restarting it", self.name)
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
                log.exception("step of thread %s failed", self.name)
                self._stop.wait(backoff(failures))
            except BaseException:
                log.critical("thread %s ended", self.name, exc_info=True)
                return


class Services:
    """Threads that are started, restarted and stopped together."""

    def __init__(self, services: Iterable[Service]) -> None:
        self._services = list(services)
        self._is_started = False

    def __iter__(self) -> Iterator[Service]:
        return iter(self._services)

    def add(self, service: Service) -> None:
        """Add a thread, and start it if the others are started."""
        self._services.append(service)
        if self._is_started:
            service.start()

    def start(self) -> None:
        """Start the threads."""
        self._is_started = True
        for service in self._services:
            service.start()

    def stop(self) -> None:
        """Stop the threads without waiting for them, because they are daemons."""
        for service in self._services:
            service.stop()

    def revive(self) -> None:
        """Restart dead threads."""
        for service in self._services:
            service.revive()

    def down(self) -> list[str]:
        """Return the names of dead threads."""
        return [service.name for service in self._services if service.is_down]
