"""Many callers at once, while the functions' processes die: nothing hangs, and no invocation goes astray."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from local_stack import LocalStack, until

CALLERS = 20
EACH = 100
# Submissions between two deaths, so that a slow machine sees no more of them than a quick one.
ONE_DEATH_IN = 50


class Killer:
    """Kills the busiest process of a function whenever so many submissions were accepted."""

    def __init__(self, stack: LocalStack) -> None:
        self.stack = stack
        self.accepted = 0
        self.killed = 0
        self.lock = Lock()

    def count(self) -> None:
        """One more was accepted."""
        with self.lock:
            self.accepted += 1
            if self.accepted % ONE_DEATH_IN == 0:
                busiest = max(self.stack.processes(), key=lambda process: process["invocations"])
                self.killed += self.stack.kill(busiest["pid"])


def submit(stack: LocalStack, submission_id: str) -> int:
    """Submits until it is accepted; how often the process died under it."""
    died = 0
    while True:
        try:
            (item,) = stack.submit({"submission_id": submission_id, "command": ["true"]})
        except urllib.error.HTTPError as error:
            assert error.code == 502, error.read()
            died += 1
        else:
            assert "error" not in item, item
            return died


def test_two_thousand_submissions_by_twenty_callers_survive_the_death_of_processes(
    start: Callable[..., LocalStack],
) -> None:
    # Retries after a second or two instead of minutes; reconcile is not asked for its help.
    stack = start(simulate=True, time_scale=60, reconcile_every=0)
    killer = Killer(stack)

    def caller(number: int) -> int:
        died = 0
        for each in range(EACH):
            died += submit(stack, f"{number}-{each}")
            killer.count()
        return died

    with ThreadPoolExecutor(CALLERS) as threads:
        died = sum(threads.map(caller, range(CALLERS)))
    assert killer.killed > 0
    assert died <= killer.killed, "a call failed though no process died under it"

    def all_is_quiet() -> bool:
        return all(
            counts["events_pending"] == counts["waiting"] == 0 for counts in stack.invocations().values()
        ) and all(task["last_status"] == "STOPPED" for task in stack.tasks())

    until("all tasks have ended and all events are delivered", all_is_quiet, seconds=600, every=1)
    counts = stack.invocations()["task-state"]
    assert counts["abandoned"] == 0
    assert counts["invocations"] >= stack.faults()["events_matched"]
    started = [task["submission_id"] for task in stack.tasks() if task["start_count"]]
    assert len(started) == len(set(started)), "a command was started twice"
