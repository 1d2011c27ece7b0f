"""The threads of executor, triggerer and UI plugin."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from fake_bridge import PATIENCE

from airflow_ecs_bridge.threads import Service, Services


class Work:
    """A step that notes its calls, and ends its thread where it is told to."""

    def __init__(self, name: str = "of-the-test") -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.dies = False
        self.service = Service(name, self.step)

    def step(self) -> None:
        self.begun.release()
        self.go.acquire()
        if self.dies:
            raise SystemExit

    def until_begun(self) -> None:
        assert self.begun.acquire(timeout=PATIENCE)

    def die(self) -> None:
        self.dies = True
        self.go.release()
        thread = self.service._thread
        assert thread is not None
        thread.join(PATIENCE)
        self.dies = False


@pytest.fixture
def work() -> Iterator[Work]:
    made = Work()
    yield made
    made.service.stop()
    made.go.release()


def test_thread_added_after_the_start_is_started(work: Work):
    services = Services([])
    services.start()
    services.add(work.service)
    work.until_begun()
    assert list(services) == [work.service]


def test_thread_added_before_the_start_waits_for_it(work: Work):
    services = Services([])
    services.add(work.service)
    assert work.service._thread is None
    services.start()
    work.until_begun()


def test_dead_thread_is_named_until_it_is_revived(work: Work):
    services = Services([work.service])
    services.start()
    work.until_begun()
    assert services.down() == []
    work.die()
    assert services.down() == ["of-the-test"]
    services.revive()
    work.until_begun()
    assert services.down() == []


def test_stopped_threads_are_not_down(work: Work):
    services = Services([work.service])
    services.start()
    work.until_begun()
    services.stop()
    work.die()
    assert services.down() == []
    services.revive()
    assert not work.begun.acquire(blocking=False)


def test_thread_on_demand_is_started_once_and_again_after_its_death(work: Work):
    work.service.ensure()
    work.until_begun()
    work.service.ensure()
    assert not work.begun.acquire(blocking=False)
    work.die()
    work.service.ensure()
    work.until_begun()
