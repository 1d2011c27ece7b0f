"""Asks the bridge to stop submissions, from a thread of its own."""

from __future__ import annotations

import logging
import queue
import time

from airflow_ecs_bridge.client import BATCH_SIZE, BridgeClient, BridgeError
from airflow_ecs_bridge.threads import Service, backoff, drain

log = logging.getLogger(__name__)

GIVE_UP_AFTER = 900.0
"""Seconds. A container whose run is no longer wanted also learns it from Airflow, by its heartbeat."""


class Stopper:
    """The scheduler's thread calls `stop`; a stop is repeated until the bridge has taken it."""

    def __init__(self, client: BridgeClient) -> None:
        self._client = client
        self._wishes: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        # Of the thread alone: the reason of each stop not yet taken, and when to give it up.
        self._open: dict[str, tuple[str, float]] = {}
        self._failures = 0
        self.service = Service("ecs-bridge-stop", self.step)

    def stop(self, submission_id: str, reason: str) -> None:
        """Take a wish; returns at once."""
        self._wishes.put((submission_id, reason))

    def step(self) -> None:
        """Send the stops that are wanted, or wait a moment for one."""
        wait = backoff(self._failures) if self._failures else 1.0
        for submission_id, reason in drain(self._wishes, BATCH_SIZE, wait):
            self._open[submission_id] = (reason, time.monotonic() + GIVE_UP_AFTER)
        self._give_up()
        if not self._open:
            self._failures = 0
            return
        reason = next(iter(self._open.values()))[0]
        self._send([id for id, (why, _) in self._open.items() if why == reason][:BATCH_SIZE], reason)

    def _send(self, batch: list[str], reason: str) -> None:
        try:
            answers = self._client.stop(batch, reason)
        except BridgeError as error:
            self._failures += 1
            log.warning("%d stops will be repeated: %s", len(batch), error)
            return
        refused = 0
        for submission_id, answer in zip(batch, answers, strict=True):
            if answer.error_code == "unavailable":
                refused += 1
                continue
            del self._open[submission_id]
            if answer.error_code:
                log.warning("stop of submission %s: %s: %s", submission_id, answer.error_code, answer.error_message)
        self._failures = self._failures + 1 if refused else 0

    def _give_up(self) -> None:
        now = time.monotonic()
        for submission_id in [id for id, (_, until) in self._open.items() if until < now]:
            del self._open[submission_id]
            log.error("submission %s could not be stopped; it ends by itself", submission_id)
