"""Submit jobs to the bridge, in separate threads.

A call contains up to 100 jobs and 4 MiB, and it is sent immediately. The next batch collects during the call. A job is
retried with the same ID and the same content until the bridge responds or the launch deadline passes. The bridge
remembers IDs, so a retry never runs a command twice.
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

from airflow_ecs_bridge.config import DEFAULT_PROFILE
from airflow_ecs_bridge.previous_tries import NotYet
from airflow_ecs_bridge.results import Outcome, Verdict
from airflow_ecs_bridge.threads import Service, drain
from ecs_bridge._sansio import backoff
from ecs_bridge.api import BATCH_SIZE, Answer, BridgeClient, parts
from ecs_bridge.errors import BridgeError, ErrorKind, InvalidSubmissionError
from ecs_bridge.state import TERMINAL

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
    ErrorKind.BAD_REQUEST: "the bridge rejected the request",
    ErrorKind.TRANSIENT: "the bridge is unreachable or throttled",
}


class Submitter:
    """The scheduler's thread calls `put`, `revoke` and `flush`. All other work happens in the submitter's threads."""

    def __init__(
        self,
        client: BridgeClient,
        settings: Settings,
        report: Callable[[Outcome], None],
        settle: Callable[[str], None],
        patches: Callable[[Job], int] = lambda job: 0,
    ) -> None:
        """Create a submitter.

        :param patches: returns the number of used ``by_try`` patches of a job; it may raise to be called again
        :param report: receives jobs that can never be submitted, and accepted jobs that request a report
        :param settle: receives IDs whose records must be read, because they have ended or may not exist
        """
        self._client = client
        self._settings = settings
        self._report = report
        self._settle = settle
        self._patches = patches
        # Jobs from `put` until a response. Each change is a single dict operation.
        self._pending: dict[str, Job] = {}
        self._new: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._retries: list[tuple[float, int, Job]] = []
        self._order = itertools.count()
        self._lock = threading.Lock()  # of the retries; the scheduler's thread never acquires it
        self._not_profiles: dict[str, float] = {}
        self.services = [Service(f"ecs-bridge-submit-{n}", self.step) for n in range(THREADS)]

    # The scheduler's thread

    def put(self, job: Job) -> None:
        """Queue a job without waiting."""
        self._pending[job.submission_id] = job
        self._new.put(job)

    def revoke(self, submission_id: str) -> None:
        """Remove a job, so that it is not sent (again)."""
        self._pending.pop(submission_id, None)

    def flush(self, timeout: float) -> int:
        """Wait until all jobs have a response, and return the number of remaining jobs."""
        give_up = time.monotonic() + timeout
        while self._pending and time.monotonic() < give_up:
            time.sleep(0.02)
        return len(self._pending)

    # Any thread

    def figures(self) -> dict[str, float]:
        """Return the number and the age of pending jobs."""
        jobs = list(self._pending.copy().values())
        oldest = min((job.queued_at for job in jobs), default=None)
        return {
            "pending": len(jobs),
            "retrying": sum(job.failures > 0 for job in jobs),
            "oldest_pending": 0.0 if oldest is None else max(time.time() - oldest, 0.0),
        }

    def holds(self, submission_id: str) -> bool:
        """Return whether a job has no response yet."""
        return submission_id in self._pending

    # The submitter's threads

    def step(self) -> None:
        """Send one batch, or wait for one."""
        batch = self._take()
        if batch:
            unanswered = {job.submission_id: job for job in batch}
            try:
                self._send(batch, unanswered)
            finally:
                # After any error, jobs without a response are sent again.
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
                log.exception("could not submit %s; will retry", job.submission_id)
                continue
            if body.get("launch_deadline", float("inf")) <= time.time() * 1000:
                # The bridge may have accepted a call that timed out, and only the table shows it.
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
            # This failure is permanent, because it involves no I/O. The message may quote secrets.
            where = "".join(traceback.format_tb(error.__traceback__))
            log.error("could not build submission %s: %s\n%s", job.submission_id, type(error).__name__, where)
            raise InvalidSubmissionError(
                f"invalid executor_config: {type(error).__name__}; see the scheduler log"
            ) from None

    def _call(self, jobs: list[Job], unanswered: dict[str, Job]) -> None:
        try:
            answers = self._client.submit([job.body for job in jobs if job.body is not None])
        except BridgeError as error:
            if error.kind is not ErrorKind.BAD_REQUEST:
                log.warning(
                    "%d submissions to the ECS bridge failed; will retry: %s (%s)",
                    len(jobs),
                    error,
                    _HINTS[error.kind],
                )
            elif len(jobs) > 1:
                # The batch is too large or contains an invalid job. Halving isolates that job and sends the others.
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
            # The queue is not a profile, and the bridge recorded nothing. The job is built again without it.
            self._not_profiles[job.guessed_profile] = time.monotonic() + _FORGET_GUESS_AFTER
            job.body = None
            self._new.put(job)
            del unanswered[job.submission_id]
        elif code in ("invalid", "unknown_profile", "override_not_allowed"):
            self._refuse(job, f"{code}: {answer.error_message}", unanswered)
        elif code is None or code == "conflict":
            # A conflict is the same run, submitted earlier with another token. It is watched as usual.
            self._done(job, unanswered)
            if job.announce:
                self._report(Outcome(job.submission_id, Verdict.ACCEPTED))
            if answer.state in TERMINAL:
                self._settle(job.submission_id)
        elif code != "unavailable":
            log.warning("submission %s: the ECS bridge returned %s; retrying", job.submission_id, code)

    def _refuse(self, job: Job, reason: str, unanswered: dict[str, Job]) -> None:
        self._done(job, unanswered)
        self._report(Outcome(job.submission_id, Verdict.FAILED, f"not submitted to the ECS bridge: {reason}"))

    def _done(self, job: Job, unanswered: dict[str, Job]) -> None:
        del unanswered[job.submission_id]
        self._pending.pop(job.submission_id, None)

    def _check_profile(self, body: dict[str, Any]) -> None:
        allowed, profile = self._settings.allowed_profiles, body.get("profile", DEFAULT_PROFILE)
        if allowed is not None and profile not in allowed:
            raise InvalidSubmissionError(
                f"profile {profile!r} is not allowed; add it to [ecs_bridge_executor] allowed_profiles"
            )

    def _profile(self, job: Job) -> str | None:
        profile = self._settings.queue_profiles.profile(job.queue)
        if profile and self._not_profiles.get(profile, 0.0) > time.monotonic():
            return None
        return profile
