"""Procedures of several requests, independent of their driver.

A procedure is a generator. It yields each request as a function and each pause in seconds, and it receives the result
of each request. `run` drives it in the caller's thread. `drive` drives it in an event loop, where a pause blocks no
thread and a cancellation takes effect immediately.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar

from ecs_bridge.errors import HINTS, BridgeError, ErrorKind

if TYPE_CHECKING:
    from concurrent.futures import Executor

T = TypeVar("T")

Step = Callable[[], Any] | float
Steps = Generator[Step, Any, T]
"""A procedure that returns a T."""


def backoff(failures: int, first: float = 0.5, most: float = 30.0) -> float:
    """Return the delay in seconds after consecutive failures. The delay doubles up to a maximum, with jitter."""
    return min(most, first * 2.0 ** min(failures - 1, 16)) * random.uniform(0.5, 1.0)


def retried(request: Callable[[], T], retry_timeout: float) -> Steps[T]:
    """Make a request, and retry transient errors for up to `retry_timeout` seconds.

    :raises BridgeError: the last error, with a hint
    """
    give_up = time.monotonic() + retry_timeout
    failures = 0
    while True:
        try:
            result: T = yield request
            return result
        except BridgeError as error:
            failures += 1
            pause = backoff(failures)
            if error.kind is not ErrorKind.TRANSIENT or time.monotonic() + pause > give_up:
                error.args = (f"{error} ({HINTS[error.kind]})",)
                raise
        yield pause


def run(steps: Steps[T]) -> T:
    """Run the steps of a procedure in this thread."""
    try:
        step = next(steps)
        while True:
            try:
                result = None
                if callable(step):
                    result = step()
                else:
                    time.sleep(step)
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        steps.close()


async def drive(steps: Steps[T], pool: Executor) -> T:
    """Run the steps of a procedure in this event loop. Its requests run in the threads of the pool."""
    loop = asyncio.get_running_loop()
    try:
        step = next(steps)
        while True:
            try:
                result = await (loop.run_in_executor(pool, step) if callable(step) else asyncio.sleep(step))
            except Exception as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        steps.close()
