"""The executor, which runs in the scheduler's thread and does no network I/O.

A heartbeat puts new jobs into the submitter's queue and reads results from another queue. Its cost depends on the
changes since the last heartbeat, and not on the number of tasks in flight. The threads do not access BaseExecutor, and
their errors are not raised here.

Submission IDs. In Airflow 3.2.2 and later, Airflow commits a new ``external_executor_id`` together with the state
QUEUED, if every configured executor supports it. The submission has the same ID, so after a crash the task instance
contains the ID. In other versions, the executor writes ahead. It creates the ID and sends it to Airflow as a RUNNING
event, which sets that column. It submits the job at the next heartbeat, after the commit.

One TaskInstanceKey can have several sequential submissions, because a deferred task that resumes is queued again with
the same try number. So `_current` contains the valid submission, and results of the others are ignored.

Airflow does not notify an executor when it abandons a try after its run was cleared, marked or deleted. `_newest`
and the database reconciler detect this. The executor then stops the try and frees its slot.
"""

from __future__ import annotations

import itertools
import logging
import queue
import time
import uuid
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf as global_conf
from airflow.executors.base_executor import BaseExecutor
from airflow.executors.executor_loader import ExecutorLoader
from airflow.utils.state import TaskInstanceState

from airflow_ecs_bridge import adoption, metrics
from airflow_ecs_bridge._versions import AIRFLOW_3, ASSIGNS_IDS, CALLBACK_WORKLOADS, PROCESSES_WORKLOADS, UUID_KEYS
from airflow_ecs_bridge.adoption import Orphan, Plan
from airflow_ecs_bridge.bridge import Bridge, LogView
from airflow_ecs_bridge.config import ConfigError, Settings
from airflow_ecs_bridge.db_reconciler import Held
from airflow_ecs_bridge.job import Job
from airflow_ecs_bridge.keys import instance_of, is_of_task, key_of
from airflow_ecs_bridge.results import Outcome, Verdict, outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future
    from typing import TypeAlias

    from airflow.models.taskinstance import TaskInstance
    from airflow.models.taskinstancekey import TaskInstanceKey

    from ecs_bridge.table import Record

    Key: TypeAlias = Any  # see keys.py; from 3.3 on also a CallbackKey

if UUID_KEYS:
    from airflow.executors.workloads.base import WorkloadType  # type: ignore[attr-defined]

log = logging.getLogger(__name__)

HEARTBEAT_LOST = "failed by Airflow, its heartbeat was missing"
CONNECTION_TEST_LATE = "abandoned by Airflow, its connection test took too long"
SUPERSEDED = "superseded, Airflow has queued its task instance again"
GIVEN_UP = "abandoned by Airflow, its task instance was cleared, marked or deleted"

LEAST_LAUNCH_TIME = 120.0
"""Minimum launch time in seconds. The executor warns at start if less time is available."""

_LOOKUP_AGAIN = 2.0
"""Delay in seconds before a failed read of adopted records is retried."""

_LOOKUP_SIZE = 1000
"""Maximum number of records per read, so that a read does not delay the feed."""


class EcsBridgeExecutor(BaseExecutor):
    """An executor that runs every task instance as a container on Amazon ECS, through the ECS bridge."""

    supports_multi_team = True
    if UUID_KEYS:
        executor_queues: dict[WorkloadType, dict[Key, Any]]
        supported_workload_types = frozenset(
            {WorkloadType.EXECUTE_TASK, WorkloadType.EXECUTE_CALLBACK, WorkloadType.TEST_CONNECTION}
        )
        supports_task_instance_uuid = True
    else:
        supports_callbacks = CALLBACK_WORKLOADS
    pre_assigns_external_executor_id = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not PROCESSES_WORKLOADS:  # these versions have no teams
            self.conf = global_conf  # type: ignore[assignment]
        # The constructor starts nothing, because commands and the API server create instances without starting them.
        self._bridge: Bridge | None = None
        self._ids_are_assigned = False
        self._current: dict[Key, str] = {}
        self._keys: dict[str, Key] = {}
        self._instances: dict[Key, tuple[Any, ...]] = {}
        """The task instance of each tracked key; see `keys.instance_of`."""
        self._newest: dict[tuple[Any, ...], Key] = {}
        """The key of the last try of each tracked task instance, by the key that all its tries share."""
        self._results: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._unsaved_events: list[Any] = []
        self._weights: dict[Key, int] = {}
        # Jobs whose ID is written ahead, in this heartbeat and in the previous one.
        self._announced: list[Job] = []
        self._committed: list[Job] = []
        # Adopted task instances whose records are not read yet.
        self._orphans: dict[str, Orphan] = {}
        self._orphan_lookup: tuple[list[str], Future[dict[str, Record]]] | None = None
        self._next_orphan_lookup = 0.0

    @cached_property
    def settings(self) -> Settings:
        """The options, parsed at the first use."""
        return Settings.from_conf(self.conf)

    @cached_property
    def _log_view(self) -> LogView:
        return LogView(self.settings)

    # Lifecycle

    def start(self) -> None:
        """Check the options and the health of the bridge, and start the threads; raise if the bridge is unhealthy."""
        bridge = Bridge(self.settings, self._results.put, getattr(self, "team_name", None))
        if self.settings.check_health_on_startup:
            bridge.check_health()
        self._check_times()
        self._ids_are_assigned = self._airflow_assigns_ids()
        bridge.start()
        self._bridge = bridge
        log.info("Started executor on the ECS bridge %s", self.settings.bridge)

    def _check_times(self) -> None:
        """Warn if Airflow considers tasks stuck before a launch is likely to succeed."""
        queued = global_conf.getfloat("scheduler", "task_queued_timeout")
        left = queued - self.settings.worker_start_margin
        if left < LEAST_LAUNCH_TIME:
            log.warning(
                "[scheduler] task_queued_timeout is %g s and [ecs_bridge_executor] worker_start_margin %g s: "
                "only %g s remain to launch a task, which is less than %g s. If capacity is unavailable, Airflow fails "
                "the task after %g s. Increase task_queued_timeout",
                queued,
                self.settings.worker_start_margin,
                max(left, 0),
                LEAST_LAUNCH_TIME,
                queued * (1 + global_conf.getint("scheduler", "num_stuck_in_queued_retries", fallback=2)),
            )

    def end(self) -> None:
        """Wait up to `shutdown_timeout` seconds for submissions to reach the bridge. Containers keep running."""
        bridge, self._bridge = self._bridge, None
        if bridge is None:
            return
        if left := bridge.submitter.flush(self.settings.shutdown_timeout):
            log.warning("%d submissions did not reach the ECS bridge; the next scheduler will adopt them", left)
        bridge.stop()

    def terminate(self) -> None:
        """Stop immediately. Containers keep running, and the next scheduler adopts them."""
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            bridge.stop()

    def sync(self) -> None:
        """Submit jobs that were written ahead, and process results. Airflow calls it at every heartbeat."""
        if self._bridge is None:
            return
        try:
            self._bridge.beat()
            if not self._task_event_logs:
                self._unsaved_events.clear()
            self._hand_over(self._committed)
            self._committed, self._announced = self._announced, []
            self._bury_the_dead()
            if self._orphans:
                self._settle_orphans()
            while True:
                self._ended(self._results.get_nowait())
        except queue.Empty:
            pass
        except Exception:
            # An exception in a heartbeat would end the scheduler.
            log.exception("heartbeat of the ECS bridge executor failed")

    def debug_dump(self) -> None:
        """Log the state of the executor. The scheduler calls it on SIGUSR2."""
        super().debug_dump()  # type: ignore[no-untyped-call]
        try:
            if self._bridge is not None:
                log.info("ECS bridge: %s", self._bridge.dump())
                log.info(
                    "ECS bridge: %d adopted task instances without a record yet, %d results not reported yet",
                    len(self._orphans),
                    self._results.qsize(),
                )
                lines = (f"{id} {key}" for id, key in self._keys.copy().items())
                log.info("ECS bridge: submissions (%d)\n\t%s", len(self._keys), "\n\t".join(lines))
        except Exception:
            log.exception("could not log the state of the executor")

    # New work

    def queue_workload(self, workload: Any, session: Any) -> None:
        """Queue a workload until a slot is free (Airflow 3)."""
        if PROCESSES_WORKLOADS:
            super().queue_workload(workload, session)
        else:
            self._waiting_tasks[key_of(workload.ti)] = workload
        try:
            if hasattr(workload, "ti"):
                self._supersede(key_of(workload.ti), instance_of(workload.ti))
        except Exception:
            log.exception("could not stop an earlier try")

    def _process_workloads(self, workload_items: Sequence[Any]) -> None:
        """Remove workloads from Airflow's queues, and submit them (Airflow 3)."""
        ready = []
        for workload in workload_items:
            try:
                ready += self._jobs(workload)
            except Exception:
                # Airflow handles it later as a task stuck in queued.
                log.exception("could not process a workload")
        self._hand_over(ready)

    def _jobs(self, workload: Any) -> list[Job]:
        """Process a workload, and return its job unless its ID must be committed first."""
        if hasattr(workload, "callback"):
            key, id = workload.key, str(workload.callback.id)
            waiting = self.executor_queues[WorkloadType.EXECUTE_CALLBACK] if UUID_KEYS else self.queued_callbacks
            waiting.pop(key, None)
            # A callback is queued once and never changes its ID, so nothing must be written ahead.
            self._track(key, id, None)
            return [Job(id, {"callback_id": id}, workload=workload, announce=True)]
        if hasattr(workload, "connection_test_id"):
            # The same as for a callback. Its worker reports the result itself.
            key, id = workload.key, str(workload.connection_test_id)
            self.executor_queues[WorkloadType.TEST_CONNECTION].pop(key, None)
            self._track(key, id, None)
            return [Job(id, {"connection_test_id": id}, queue=workload.queue, workload=workload)]
        ti = workload.ti
        key = key_of(ti)
        self._waiting_tasks.pop(key, None)
        assigned = ti.external_executor_id if self._ids_are_assigned else None
        job = Job(
            assigned or str(uuid.uuid4()),
            _subject(ti),
            queue=ti.queue,
            executor_config=ti.executor_config,
            workload=workload,
            weight=ti.priority_weight,
        )
        if not assigned:
            self._announce(key, job, instance_of(ti))
            return []
        self._track(key, assigned, instance_of(ti))
        return [job]

    @property
    def _waiting_tasks(self) -> dict[Key, Any]:
        """The task instances that wait for a slot, by key."""
        return self.executor_queues[WorkloadType.EXECUTE_TASK] if UUID_KEYS else self.queued_tasks

    def _process_tasks(self, task_tuples: list[Any]) -> None:
        """Store the weights, which `execute_async` does not receive, and submit the commands (Airflow 2)."""
        waiting: dict[Key, Any] = self._waiting_tasks
        self._weights = {key: waiting[key][1] for key, *_ in task_tuples}
        super()._process_tasks(task_tuples)  # type: ignore[misc]

    def execute_async(
        self, key: TaskInstanceKey, command: list[str], queue: str | None = None, executor_config: Any = None
    ) -> None:
        """Process a command (Airflow 2)."""
        job = Job(
            str(uuid.uuid4()),
            _subject(key),
            queue=queue,
            executor_config=executor_config,
            command=command,
            lifetime=global_conf.getfloat("scheduler", "task_queued_timeout"),
            weight=self._weights.pop(key, 1),
        )
        self._announce(key, job, instance_of(key))

    def _announce(self, key: Key, job: Job, instance: tuple[Any, ...] | None) -> None:
        """Write the ID ahead. Airflow commits it with this heartbeat's events, and the next one submits the job."""
        self._track(key, job.submission_id, instance)
        self.running_state(key, job.submission_id)
        self._announced.append(job)

    def _hand_over(self, jobs: list[Job]) -> None:
        if not jobs or self._bridge is None:
            return
        # Jobs that were revoked after the announcement are no longer current.
        jobs = [job for job in jobs if job.submission_id in self._keys]
        self._bridge.watcher.watch([job.submission_id for job in jobs])
        for job in jobs:
            self._bridge.submitter.put(job)

    def _track(self, key: Key, submission_id: str, instance: tuple[Any, ...] | None) -> None:
        """Track the submission of a key. `instance` is the task instance, or None for a callback."""
        if instance is not None:
            self._supersede(key, instance)
        earlier = self._current.get(key)
        if earlier not in (None, submission_id):
            # For example, the earlier run of a deferred task, whose worker may not have exited yet.
            self._keys.pop(earlier, None)
            self._abandon(earlier, SUPERSEDED)
        self._current[key] = submission_id
        self._keys[submission_id] = key
        self.running.add(key)

    def _supersede(self, key: Key, instance: tuple[Any, ...]) -> None:
        """Abandon the earlier try of a task instance that is queued again."""
        earlier = self._newest.get(instance)
        self._newest[instance] = key
        self._instances[key] = instance
        if earlier not in (None, key):
            self._waiting_tasks.pop(earlier, None)
            self._release(earlier, SUPERSEDED)

    def _bury_the_dead(self) -> None:
        """Abandon tasks that are no longer queued or running in Airflow's database."""
        if self._bridge is None or self.job_id is None:
            return
        reconciler = self._bridge.db_reconciler
        for dead in reconciler.dead():
            for submission_id in dead.tracked:
                # A deferred task that resumes may wait for a slot under the same key. It stays active.
                if (key := self._keys.get(submission_id)) is not None:
                    self._release(key, GIVEN_UP)
            for key, workload in dead.waiting:
                if self._waiting_tasks.get(key) is workload:
                    del self._waiting_tasks[key]
                    self._forget_try(key)
        if reconciler.due():
            reconciler.compare(Held(self._keys.copy(), self._waiting_tasks.copy()))

    def _release(self, key: Key, reason: str) -> None:
        """Stop and forget a try that Airflow has abandoned, and free its slot."""
        self.running.discard(key)
        if submission_id := self._untrack(key):
            log.info("Stopping submission %s of %s: %s", submission_id, key, reason)
            self._abandon(submission_id, reason)

    def _abandon(self, submission_id: str, reason: str) -> None:
        if self._bridge is None:
            return
        self._bridge.submitter.revoke(submission_id)
        self._bridge.watcher.forget(submission_id)
        self._bridge.stopper.abandon(submission_id, reason)

    def _airflow_assigns_ids(self) -> bool:
        """Return whether the ID of every workload is new and committed.

        If not all configured executors request IDs, Airflow (3.3.2) keeps an earlier run's ID for some ways of naming
        an executor. ``dag.test`` (without a job) assigns no ID.
        """
        if not ASSIGNS_IDS or self.job_id is None:
            return False
        classes = [ExecutorLoader.import_executor_cls(name)[0] for name in ExecutorLoader.get_executor_names()]
        return all(each.pre_assigns_external_executor_id for each in classes)

    # Results

    def _ended(self, result: Outcome) -> None:
        key = self._keys.get(result.submission_id)
        if key is None or self._current.get(key) != result.submission_id:
            return
        if result.submission_id in self._orphans:
            return  # its record is being read and decides the result
        if result.verdict is Verdict.ACCEPTED:
            self.running_state(key)
            return
        if result.verdict is Verdict.WAITING:
            self._log_event("ecs_bridge.waiting", key, result.info)
            return
        self._untrack(key)
        if key in self._waiting_tasks:
            # The earlier run of a deferred task that is queued again. An event would make Airflow fail the queued task.
            # The slot is freed, because the queued task may wait for it.
            self.running.discard(key)
        elif result.verdict is Verdict.SUCCEEDED:
            if result.info:
                log.warning("%s was interrupted: %s", key, result.info)
                self._log_event("ecs_bridge.interrupted", key, result.info)
            self.success(key)
        elif result.verdict is Verdict.FAILED or not is_of_task(key):
            # A callback that was not launched is also a failure, because Airflow does not queue it again.
            log.warning("%s failed: %s", key, result.info)
            self._log_event("ecs_bridge.failed", key, result.info)
            self.fail(key, result.info)
        else:
            log.warning("%s was not launched; Airflow will reschedule or fail it: %s", key, result.info)
            self._log_event("ecs_bridge.not_launched", key, result.info)
            self.running.discard(key)

    def _log_event(self, event: str, key: Key, text: str | None) -> None:
        """Write into the event log. A failure does not affect the report of the result."""
        try:
            self.log_task_event(event=event, extra=text or "", ti_key=key)
        except Exception:
            log.exception("could not write the event log of %s", key)

    def log_task_event(self, *, event: str, extra: str, ti_key: Key) -> None:
        """Write into a task instance's event log.

        The scheduler saves these with ``bulk_save_objects(log_records.popleft() for ...)``. SQLAlchemy has only weak
        references to the objects while it sorts. Rows without another reference are saved empty, which fails (seen in
        Airflow 3.3.2). So this class keeps references until the rows are saved.
        """
        before = len(self._task_event_logs)
        super().log_task_event(event=event, extra=extra, ti_key=ti_key)
        self._unsaved_events += list(self._task_event_logs)[before:]

    def _untrack(self, key: Key) -> str | None:
        submission_id = self._current.pop(key, None)
        if submission_id is not None:
            self._keys.pop(submission_id, None)
            self._orphans.pop(submission_id, None)
        self._forget_try(key)
        return submission_id

    def _forget_try(self, key: Key) -> None:
        """Remove the state of a try that is no longer tracked."""
        if key in self._current or key in self._waiting_tasks:
            return
        instance = self._instances.pop(key, None)
        if instance is not None and self._newest.get(instance) == key:
            del self._newest[instance]

    def change_state(self, key: Key, state: Any, info: Any = None, remove_running: bool = True) -> None:
        """Change the state of a task. The scheduler also calls it with FAILED when a heartbeat is missing."""
        if state == TaskInstanceState.FAILED:
            # The executor's own failures are no longer tracked, so this stops only tasks that Airflow itself fails.
            self._stop(key, HEARTBEAT_LOST)
        super().change_state(key, state, info, remove_running)

    def revoke_task(self, *, ti: TaskInstance) -> None:
        """Stop a task instance that is stuck in queued, and forget it."""
        try:
            key = key_of(ti)
            self._waiting_tasks.pop(key, None)
            self.running.discard(key)
            self._stop(key, adoption.REVOKED, adoption.submission_id_of(ti.external_executor_id))
        except Exception:
            log.exception("could not revoke a task instance")

    def fail_connection_test(self, key: Key) -> None:
        """Stop a connection test that has taken too long (Airflow 3.4)."""
        super().fail_connection_test(key)
        self._stop(key, CONNECTION_TEST_LATE)

    def cleanup_stuck_queued_tasks(self, tis: list[TaskInstance]) -> list[str]:
        """Stop and fail task instances that are stuck in queued (Airflow 2.10 before 2.10.5)."""
        for ti in tis:
            self.revoke_task(ti=ti)
            self.fail(key_of(ti))
        return [repr(ti) for ti in tis]

    def _stop(self, key: Key, reason: str, otherwise: str | None = None) -> None:
        submission_id = self._untrack(key) or otherwise
        if submission_id is None or self._bridge is None:
            return
        self._bridge.submitter.revoke(submission_id)
        self._bridge.watcher.forget(submission_id)
        # Also if it was never sent, because the bridge then rejects a submission that arrives later.
        self._bridge.stopper.stop(submission_id, reason)

    # Adoption

    def try_adopt_task_instances(self, tis: Sequence[TaskInstance]) -> Sequence[TaskInstance]:
        """Adopt the task instances of a dead scheduler, and return those that Airflow must reset.

        Task instances with an ID are adopted immediately. Their records are read in the background, and a later
        heartbeat decides about them.
        """
        if self._bridge is None or not tis:
            return tis
        with metrics.adoption(getattr(self, "team_name", None)):
            refused = [ti for ti in tis if not self._adopt(ti)]
        log.info("Adopted %d of %d task instances", len(tis) - len(refused), len(tis))
        return refused

    def _orphan(self, ti: TaskInstance) -> Orphan:
        queued = ti.state == TaskInstanceState.QUEUED
        queued_ms = None
        if queued and ti.queued_dttm and not self._ids_are_assigned:  # so the ID may belong to an earlier run
            queued_ms = int(ti.queued_dttm.timestamp() * 1000)
        submission_id = adoption.submission_id_of(ti.external_executor_id)
        return Orphan(
            key=key_of(ti),
            instance=instance_of(ti),
            submission_id=submission_id,
            queued=queued,
            foreign=bool(ti.external_executor_id) and submission_id is None,
            queued_ms=queued_ms,
        )

    def _adopt(self, ti: TaskInstance) -> bool:
        try:
            orphan = self._orphan(ti)
            if orphan.foreign or (not orphan.queued and not orphan.submission_id):
                return False
            if orphan.queued:
                orphan.job = self._rebuild(ti, orphan.submission_id or str(uuid.uuid4()))
            if orphan.submission_id is None:
                return self._carry_out(adoption.judge(orphan, None), orphan, None)
            if self._bridge is not None:
                # Watch before the read, so that the result is either in the read or in the feed after it.
                self._bridge.watcher.watch([orphan.submission_id])
            self._track(orphan.key, orphan.submission_id, orphan.instance)
            self._orphans[orphan.submission_id] = orphan
            return True
        except Exception:
            log.exception("could not adopt task instance %s", getattr(ti, "key", ti))
            return False

    def _carry_out(self, plan: Plan, orphan: Orphan, record: Record | None) -> bool:
        """Execute a plan, and return False if Airflow must reset the task instance."""
        if plan is Plan.SUBMIT and orphan.job:
            self._track(orphan.key, orphan.job.submission_id, orphan.instance)
            self._hand_over([orphan.job])
        elif plan is Plan.SUBMIT_ANEW and orphan.job:
            orphan.job.submission_id = str(uuid.uuid4())
            self._announce(orphan.key, orphan.job, orphan.instance)
        elif plan is Plan.WATCH and orphan.submission_id:
            self._track(orphan.key, orphan.submission_id, orphan.instance)
        elif plan is Plan.REPORT and record:
            self._track(orphan.key, record.submission_id, orphan.instance)
            self._results.put(outcome(record, self.settings))
        elif plan is Plan.LEAVE:
            self._untrack(orphan.key)
            self.running.discard(orphan.key)
        else:
            return False
        return True

    def _settle_orphans(self) -> None:
        """Read the records of adopted task instances, and process the ones that were read."""
        if self._orphan_lookup is None:
            if time.monotonic() >= self._next_orphan_lookup and self._bridge:
                ids = list(itertools.islice(self._orphans, _LOOKUP_SIZE))
                self._orphan_lookup = ids, self._bridge.watcher.lookup(ids)
            return
        ids, answer = self._orphan_lookup
        if not answer.done():
            return
        self._orphan_lookup = None
        if (error := answer.exception()) is not None:
            self._next_orphan_lookup = time.monotonic() + _LOOKUP_AGAIN
            log.warning("could not read the records of %d adopted task instances; will retry: %s", len(ids), error)
            return
        records = answer.result()
        for submission_id in ids:
            orphan = self._orphans.pop(submission_id, None)
            if orphan is None:
                continue  # revoked, or superseded
            record = records.get(submission_id)
            if not self._carry_out(adoption.judge(orphan, record), orphan, record):
                # It is running in Airflow and unknown to the bridge. Airflow will detect its missing heartbeat.
                self._untrack(orphan.key)
                self.running.discard(orphan.key)

    def _rebuild(self, ti: TaskInstance, submission_id: str) -> Job:
        """Create the job of a task instance in the same way as the scheduler."""
        job = Job(
            submission_id,
            _subject(ti),
            queue=ti.queue,
            executor_config=ti.executor_config,
            weight=1 if ti.priority_weight is None else ti.priority_weight,
        )
        if AIRFLOW_3:
            from airflow.executors import workloads

            job.workload = workloads.ExecuteTask.make(ti, generator=self.jwt_generator)
        else:
            job.command = ti.command_as_list(local=True, pool=ti.pool)
            job.lifetime = global_conf.getfloat("scheduler", "task_queued_timeout")
            job.queued_at = ti.queued_dttm.timestamp() if ti.queued_dttm else time.time()
        return job

    # The log view

    def get_task_log(self, ti: TaskInstance, try_number: int) -> tuple[list[str], list[str]]:
        """Return the state of a running task in the bridge, and the last lines of its container.

        The API server calls it, on an instance that is never started.
        """
        try:
            lines, output = self._log_view.tail(ti.external_executor_id)
        except ConfigError as error:
            return [str(error)], []
        return lines, ["\n".join(output)] if output and not _has_log_file(ti, try_number) else []

    def get_streaming_task_log(self, ti: TaskInstance, try_number: int) -> tuple[list[str], list[Iterator[str]]]:
        """Return the same with all lines of the container, page by page (Airflow 3.4)."""
        try:
            lines, output = self._log_view.stream(ti.external_executor_id)
        except ConfigError as error:
            return [str(error)], []
        return lines, [] if _has_log_file(ti, try_number) else [output]


def _has_log_file(ti: TaskInstance, try_number: int) -> bool:
    """Return whether the task log is on a disk that this API server shares with the worker, and shows anyway."""
    try:
        from airflow.utils.log.log_reader import TaskLogReader

        handler = TaskLogReader().log_handler
        log_file = Path(handler.local_base, handler._render_filename(ti, try_number))
        return any(log_file.parent.glob(f"{log_file.name}*"))
    except Exception:
        # Without Airflow's own handler, a duplicate line is better than a missing line.
        log.debug("could not check for a task log on a shared disk", exc_info=True)
        return False


def _subject(ti: Any) -> dict[str, str]:
    """Return the labels of a submission for a task instance or its key."""
    subject = {
        "dag_id": ti.dag_id,
        "task_id": ti.task_id,
        "run_id": ti.run_id,
        "try_number": str(ti.try_number),
    }
    if ti.map_index >= 0:
        subject["map_index"] = str(ti.map_index)
    return subject
