"""Hands jobs to the bridge, from threads of its own.

What is there goes out at once, up to a hundred and 4 MiB a call; while a call is under way the next batch gathers by
itself.
A job is sent again, always with the same id and the same content, until the bridge has answered for it or its launch
deadline has passed. Since the bridge knows an id it has seen, a repeat never runs anything twice.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import queue
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

from ecs_bridge._sansio import backoff
from ecs_bridge.api import BATCH_SIZE, Answer, BridgeClient, parts
from ecs_bridge.errors import BridgeError, ErrorKind, InvalidSubmissionError
from ecs_bridge.state import TERMINAL

from airflow_ecs_bridge.config import DEFAULT_PROFILE
from airflow_ecs_bridge.previous_tries import NotYet
from airflow_ecs_bridge.results import Outcome, Verdict
from airflow_ecs_bridge.threads import Service, drain

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ecs_bridge.config import Settings
    from airflow_ecs_bridge.job import Job

log = logging.getLogger(__name__)

THREADS = 4
_WAIT = 1.0
_FORGET_GUESS_AFTER = 600.0

_HINTS = {
    ErrorKind.CREDENTIALS: "check the connection, lambda:InvokeFunctionUrl and lambda:InvokeFunction",
    ErrorKind.CONFIGURATION: "check [ecs_bridge_executor] submit_url",
    ErrorKind.BAD_REQUEST: "the bridge refuses the request itself",
    ErrorKind.TRANSIENT: "the bridge was not reached, or asks to wait",
}


class Submitter:
    """The scheduler's thread calls `put`, `revoke` and `flush`; everything else happens in the threads."""

    def __init__(
        self,
        client: BridgeClient,
        settings: Settings,
        report: Callable[[Outcome], None],
        settle: Callable[[str], None],
        patches: Callable[[Job], int] = lambda job: 0,
    ) -> None:
        """Make one.

        :param patches: returns how many patches of a job's ``by_try`` are left behind; may raise to be asked again
        :param report: takes what can never be submitted, and what was accepted where its job asks for that
        :param settle: takes an id whose record must be read: it ended already, or it is not known if it exists
        """
        self._client = client
        self._settings = settings
        self._report = report
        self._settle = settle
        self._patches = patches
        # Jobs from `put` until they are answered for. Each change is a single dict operation.
        self._pending: dict[str, Job] = {}
        self._new: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._retries: list[tuple[float, int, Job]] = []
        self._order = itertools.count()
        self._lock = threading.Lock()  # of the retries; never taken by the scheduler's thread
        self._not_profiles: dict[str, float] = {}
        self.services = [Service(f"ecs-bridge-submit-{n}", self.step) for n in range(THREADS)]

    # The scheduler's thread

    def put(self, job: Job) -> None:
        """Take a job; returns at once."""
        self._pending[job.submission_id] = job
        self._new.put(job)

    def revoke(self, submission_id: str) -> None:
        """Do not send this one (again)."""
        self._pending.pop(submission_id, None)

    def flush(self, timeout: float) -> int:
        """Wait until all that was put is answered for; return how many are not."""
        give_up = time.monotonic() + timeout
        while self._pending and time.monotonic() < give_up:
            time.sleep(0.02)
        return len(self._pending)

    # Any thread

    def figures(self) -> dict[str, float]:
        """Return how much is pending, and for how long."""
        jobs = list(self._pending.copy().values())
        oldest = min((job.queued_at for job in jobs), default=None)
        return {
            "pending": len(jobs),
            "retrying": sum(job.failures > 0 for job in jobs),
            "oldest_pending": 0.0 if oldest is None else max(time.time() - oldest, 0.0),
        }

    def holds(self, submission_id: str) -> bool:
        """Tell whether the bridge has not answered for this one yet."""
        return submission_id in self._pending

    # The submitter's threads

    def step(self) -> None:
        """Send one batch, or wait a moment for one."""
        batch = self._take()
        if batch:
            unanswered = {job.submission_id: job for job in batch}
            try:
                self._send(batch, unanswered)
            finally:
                # Whatever went wrong, in our own code too: what is not answered for is sent again.
                for job in unanswered.values():
                    self._again(job)

    def _take(self) -> list[Job]:
        batch: list[Job] = []
        now = time.monotonic()
        with self._lock:
            while self._retries and self._retries[0][0] <= now and len(batch) < BATCH_SIZE:
                batch.append(heapq.heappop(self._retries)[2])
            wait = min(_WAIT, self._retries[0][0] - now) if self._retries else _WAIT
        batch += drain(self._new, BATCH_SIZE - len(batch), 0 if batch else wait)
        return [job for job in batch if job.submission_id in self._pending]

    def _again(self, job: Job) -> None:
        if job.submission_id not in self._pending:
            return
        job.failures += 1
        with self._lock:
            heapq.heappush(self._retries, (time.monotonic() + backoff(job.failures), next(self._order), job))

    def _send(self, batch: list[Job], unanswered: dict[str, Job]) -> None:
        ready = []
        for job in batch:
            try:
                body = job.body or self._build(job, self._patches(job))
                self._check_profile(body)
            except InvalidSubmissionError as error:
                self._refuse(job, str(error), unanswered)
                continue
            except NotYet:
                continue
            except Exception:
                log.exception("submission %s cannot be made now, trying again", job.submission_id)
                continue
            if body.get("launch_deadline", float("inf")) <= time.time() * 1000:
                # A call that timed out may have been accepted all the same: only the table knows.
                self._done(job, unanswered)
                self._settle(job.submission_id)
                continue
            ready.append(job)
        for part in parts(ready, lambda job: job.size):
            self._call(part, unanswered)

    def _build(self, job: Job, patches: int) -> dict[str, Any]:
        profile = self._profile(job)
        try:
            return job.build(profile, self._settings.worker_start_margin, patches)
        except InvalidSubmissionError:
            raise
        except Exception as error:
            # What fails here fails each time: it asks nobody. The message may quote what is secret.
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("submission %s cannot be made: %s\n%s", job.submission_id, type(error).__name__, where)
            raise InvalidSubmissionError(
                f"its executor_config cannot be used ({type(error).__name__}; the scheduler's log has more)"
            ) from None

    def _call(self, jobs: list[Job], unanswered: dict[str, Job]) -> None:
        try:
            answers = self._client.submit([job.body for job in jobs if job.body is not None])
        except BridgeError as error:
            if error.kind is not ErrorKind.BAD_REQUEST:
                log.warning(
                    "%d submissions to the ECS bridge will be repeated: %s (%s)",
                    len(jobs),
                    error,
                    _HINTS[error.kind],
                )
            elif len(jobs) > 1:
                # Too large, or spoilt by one: halving finds the one, and lets the others through.
                half = len(jobs) // 2
                self._call(jobs[:half], unanswered)
                self._call(jobs[half:], unanswered)
            else:
                self._refuse(jobs[0], str(error), unanswered)
            return
        for job, answer in zip(jobs, answers, strict=True):
            self._answered(job, answer, unanswered)

    def _answered(self, job: Job, answer: Answer, unanswered: dict[str, Job]) -> None:
        code = answer.error_code
        if code == "unknown_profile" and job.guessed_profile and self._settings.queue_profiles.mode == "match":
            # The queue is no profile's name after all; nothing was recorded for the id. Built anew without it.
            self._not_profiles[job.guessed_profile] = time.monotonic() + _FORGET_GUESS_AFTER
            job.body = None
            self._new.put(job)
            del unanswered[job.submission_id]
        elif code in ("invalid", "unknown_profile", "override_not_allowed"):
            self._refuse(job, f"{code}: {answer.error_message}", unanswered)
        elif code is None or code == "conflict":
            # A conflict is this very run, submitted before with another token: watched like any other.
            self._done(job, unanswered)
            if job.announce:
                self._report(Outcome(job.submission_id, Verdict.ACCEPTED))
            if answer.state in TERMINAL:
                self._settle(job.submission_id)
        elif code != "unavailable":
            log.warning("submission %s: the ECS bridge says %s, trying again", job.submission_id, code)

    def _refuse(self, job: Job, reason: str, unanswered: dict[str, Job]) -> None:
        self._done(job, unanswered)
        self._report(Outcome(job.submission_id, Verdict.FAILED, f"not submitted to the ECS bridge: {reason}"))

    def _done(self, job: Job, unanswered: dict[str, Job]) -> None:
        del unanswered[job.submission_id]
        self._pending.pop(job.submission_id, None)

    def _check_profile(self, body: dict[str, Any]) -> None:
        allowed, profile = self._settings.allowed_profiles, body.get("profile", DEFAULT_PROFILE)
        if allowed is not None and profile not in allowed:
            raise InvalidSubmissionError(f"profile {profile} is not in [ecs_bridge_executor] allowed_profiles")

    def _profile(self, job: Job) -> str | None:
        profile = self._settings.queue_profiles.profile(job.queue)
        if profile and self._not_profiles.get(profile, 0.0) > time.monotonic():
            return None
        return profile
