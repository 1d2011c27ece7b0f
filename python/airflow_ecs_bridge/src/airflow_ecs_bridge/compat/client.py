"""The part of boto3's ECS client that EcsRunTaskOperator uses, on the bridge.

Each method returns what ECS would return, as far as the operator reads it. RunTask becomes a submission, and
DescribeTasks and the waiter read its record. The waits run in a thread of the operator's process, with the process's
reader of the feed.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
import time
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

from botocore.exceptions import WaiterError

from airflow_ecs_bridge import commands, xcom
from ecs_bridge.errors import InvalidSubmissionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_ecs_bridge.commands import Commands, End

FIRST_LOOK, LAST_LOOK = 0.5, 10.0
"""Interval between checks for the launch of a submission, in seconds. It grows with the age of the submission."""

LOOKUP_TIMEOUT = 30.0

SLICE = 30.0
"""Seconds between checks of the threads of this process, during a wait."""

OUTPUT_EVERY = 5.0
"""Interval between checks for the complete output of an ended command, in seconds."""

TERMINAL = frozenset({"succeeded", "failed", "rejected", "expired", "cancelled", "lost"})

OWN = frozenset({"startedBy", "clientToken", "count"})
"""Parameters of RunTask that the bridge sets. They are no parameters of the operator."""


def main_container(overrides: Any) -> tuple[str, list[str]]:
    """Return the name and the command of the container with a command; raise ValueError if there is not exactly one."""
    containers = overrides.get("containerOverrides") if isinstance(overrides, dict) else None
    commanded = [each for each in containers or [] if isinstance(each, dict) and each.get("command")]
    if not commanded:
        raise ValueError(
            "missing command in overrides: the bridge runs the command of one container; set it, for example to the "
            "CMD of the image: overrides={'containerOverrides': [{'name': 'main', 'command': ['python', 'etl.py']}]}"
        )
    if len(commanded) > 1:
        names = ", ".join(repr(each.get("name")) for each in commanded)
        raise ValueError(
            f"invalid overrides: commands of several containers ({names}); only the profile's container can have one; "
            "set the commands of the other containers in the task definition"
        )
    name, command = commanded[0].get("name"), commanded[0]["command"]
    if not isinstance(name, str) or not name:
        raise ValueError("invalid overrides: the containerOverrides entry with the command must have a name")
    return name, command


def submission(request: dict[str, Any], from_profile: frozenset[str] = frozenset()) -> tuple[list[str], dict[str, Any]]:
    """Return the command and the overrides of a submission for a RunTask request.

    The container stays in the overrides by its name. A profile with another container then rejects the submission
    instead of running the command there.

    :param from_profile: parameters that the profile determines
    """
    name, command = main_container(request.get("overrides"))
    kept = {key: value for key, value in request.items() if key not in OWN | from_profile and value not in (None, "")}
    containers = [
        {key: value for key, value in each.items() if key != "command"} if each.get("name") == name else each
        for each in request["overrides"]["containerOverrides"]
    ]
    kept["overrides"] = {**request["overrides"], "containerOverrides": containers}
    return list(command) if isinstance(command, list | tuple) else command, kept


def has_ended(record: dict[str, Any]) -> bool:
    """Return whether a record is in a terminal state."""
    return record.get("state") in TERMINAL


def reason_of(record: dict[str, Any]) -> str:
    """Return why a submission ended, with its ID and the advice of the bridge."""
    facts = [f"ECS bridge state {record.get('state')}", record.get("reason")]
    if advice := record.get("advice"):
        facts.append(f"what to do: {advice}")
    id = record.get("submission_id")
    facts.append(f"submission {id} (ecs-bridge show {id})")
    return ", ".join(str(fact) for fact in facts if fact)


def failures_of(record: dict[str, Any]) -> list[dict[str, str]]:
    """Return the failures of RunTask for a submission that never had a task."""
    return [
        {
            "arn": "",
            "reason": reason_of(record),
            "detail": str(record.get("reason") or ""),
        }
    ]


def task_of(record: dict[str, Any], cluster: str | None) -> dict[str, Any]:
    """Return a record as a task of DescribeTasks. Unknown members are absent."""
    state = str(record.get("state"))
    status = {
        "launching": "PROVISIONING",
        "launched": "PENDING",
        "running": "RUNNING",
    }.get(state, "STOPPED")
    container = {
        "name": record.get("container_name"),
        "lastStatus": status,
        "exitCode": record.get("exit_code"),
        "reason": record.get("reason") if record.get("exit_code") is None and status == "STOPPED" else None,
    }
    task = {
        "taskArn": record.get("task_arn"),
        "clusterArn": cluster,
        "lastStatus": status,
        "stopCode": record.get("stop_code"),
        "stoppedReason": record.get("stopped_reason") or (record.get("reason") if status == "STOPPED" else None),
        "containers": [{key: value for key, value in container.items() if value is not None}],
        "submissionId": record.get("submission_id"),
    }
    return {key: value for key, value in task.items() if value is not None}


class Run:
    """One submission that a worker waits for, in a thread with its own event loop."""

    def __init__(self, here: Commands, body: dict[str, Any], say: Callable[[str], None]) -> None:
        self.id: str = body["submission_id"]
        self._here = here
        self._end: Future[End] = Future()
        self._cancel: Callable[[], None] = lambda: None
        self._begun = threading.Event()
        # In the context of the caller, which has the log of its task.
        run = contextvars.copy_context().run
        self._thread = threading.Thread(
            target=run,
            args=(self._wait_for_end, body, say),
            name="ecs-bridge-run",
            daemon=True,
        )
        self._thread.start()
        self._begun.wait(SLICE)

    def launched(self) -> dict[str, Any]:
        """Wait until the submission has a task or has ended, and return its record."""
        began = time.monotonic()
        while True:
            age = time.monotonic() - began
            if self._has_ended_within(min(max(age / 10, FIRST_LOOK), LAST_LOOK)):
                return self._record()
            if (record := launch_of(self._here, self.id)) is not None:
                return record
            self._here.revive()

    def ended(self, seconds: float) -> bool:
        """Wait until the submission has ended; return False if it has not after this time."""
        until = time.monotonic() + seconds
        while not self._has_ended_within(min(max(until - time.monotonic(), 0.0), SLICE)):
            if time.monotonic() >= until:
                return False
            self._here.revive()
        return True

    def close(self) -> None:
        """End the thread, without stopping the submission."""
        self._cancel()

    def _has_ended_within(self, seconds: float) -> bool:
        done, _ = wait([self._end], seconds)
        if done:
            self._end.result()  # an error of the wait
        return bool(done)

    def _record(self) -> dict[str, Any]:
        end = self._end.result()
        if end.record:
            return end.record
        try:
            return read(self._here, self.id)
        except xcom.NoResult as error:
            # A submission that the bridge did not accept has no record.
            if end.succeeded or getattr(error.__cause__, "status", None) != 404:
                raise
            return not_accepted(self.id, end.info)

    def _wait_for_end(self, body: dict[str, Any], say: Callable[[str], None]) -> None:
        async def main() -> End:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()

            def cancel() -> None:
                if task is not None and not loop.is_closed():
                    with contextlib.suppress(RuntimeError):  # it is closed in the meantime
                        loop.call_soon_threadsafe(task.cancel)

            self._cancel = cancel
            self._begun.set()
            return await self._here.run(body, 0, say)

        try:
            self._end.set_result(asyncio.run(main()))
        except BaseException as error:
            self._end.set_exception(error)
        finally:
            self._begun.set()


def not_accepted(id: str, reason: str) -> dict[str, Any]:
    """Return the record of a submission that the bridge did not accept."""
    return {"submission_id": id, "state": "rejected", "reason": reason}


def launch_of(here: Commands, id: str) -> dict[str, Any] | None:
    """Return the record of a submission that has a task or has ended, or None if it waits or cannot be read now."""
    try:
        found = here._watcher.lookup([id]).result(LOOKUP_TIMEOUT).get(id)
    except Exception:  # the watcher logs it
        return None
    if found is None or not (found.task_arn or found.ended):
        return None
    return read(here, id)


def read(here: Commands, id: str) -> dict[str, Any]:
    """Read a record through the API; raise NoResult if it does not exist, or after repeated failures."""
    return here._show_patiently(id)


class BridgeEcs:
    """The client of one operator. It has the methods of the provider's ``EcsProtocol``."""

    def __init__(self, here: Callable[[], Commands], say: Callable[[str], None]) -> None:
        """Create a client.

        :param here: returns the threads and clients of this process
        :param say: receives wait reasons
        """
        self._here = here
        self._say = say
        self.submission_id: str | None = None
        """The submission of this try."""
        self.item: Callable[[dict[str, Any]], dict[str, Any]] | None = None
        """Makes the item of a submission from a RunTask request."""
        self.awaits_output = False
        """Whether the waiter also waits until the output of the container is complete, as ECS's STOPPED does."""
        self._run: Run | None = None

    def run_task(self, **request: Any) -> dict[str, Any]:
        """Submit, and wait until ECS has a task. A repeat finds the same task."""
        if self.item is None:
            raise RuntimeError("the submission of this operator is unknown; call execute first")
        body = self.item(request)
        self._run = Run(self._here(), body, self._say)
        record = self._run.launched()
        if not record.get("task_arn"):
            self.close()
            return {"tasks": [], "failures": failures_of(record)}
        return {"tasks": [task_of(record, request.get("cluster"))], "failures": []}

    def describe_tasks(self, *, cluster: str | None = None, tasks: list[str]) -> dict[str, Any]:
        """Return the task of this try's submission. A lost task is MISSING, as in ECS."""
        record = read(self._here(), self._id())
        if record.get("state") == "lost":
            return {
                "tasks": [],
                "failures": [{"arn": tasks[0], "reason": "MISSING", "detail": reason_of(record)}],
            }
        return {"tasks": [task_of(record, cluster)], "failures": []}

    def stop_task(self, *, cluster: str | None = None, task: str | None = None, reason: str = "") -> dict[str, Any]:
        """Stop this try's submission, and wait for the response of the bridge."""
        id = self._id()
        self._here().stop_now(id, reason)
        return {
            "task": {
                "taskArn": task,
                "clusterArn": cluster,
                "submissionId": id,
                "desiredStatus": "STOPPED",
            }
        }

    def get_waiter(self, name: str) -> BridgeWaiter:
        """Return the waiter ``tasks_stopped``."""
        if name != "tasks_stopped":
            raise NotImplementedError(f"the bridge has no waiter {name!r}; it has tasks_stopped")
        return BridgeWaiter(self)

    def list_tasks(self, **_: Any) -> dict[str, Any]:
        """Return no task: run_task finds the task of the try itself."""
        return {"taskArns": []}

    def describe_task_definition(self, taskDefinition: str) -> dict[str, Any]:
        """Raise, because only the bridge reads task definitions."""
        raise NotImplementedError("the bridge reads task definitions itself; see GET /v1/health")

    def wait(self, seconds: float) -> None:
        """Wait until the submission has ended; raise WaiterError otherwise, as ECS's waiter does."""
        run = self._run
        if run is None:
            raise RuntimeError("no submission to wait for; call run_task first")
        try:
            if not run.ended(seconds):
                raise WaiterError("TasksStopped", "Max attempts exceeded", {"submissionId": run.id})
            if self.awaits_output:
                await_output(self._here(), run.id)
        finally:
            run.close()

    def close(self) -> None:
        """End the wait without stopping the submission."""
        if self._run is not None:
            self._run.close()

    def _id(self) -> str:
        if self.submission_id is None:
            raise RuntimeError("the submission of this operator is unknown; call execute first")
        return self.submission_id


class BridgeWaiter:
    """The waiter ``tasks_stopped``. It waits for the result as an event, so ``Delay`` causes no calls."""

    def __init__(self, client: BridgeEcs) -> None:
        self._client = client

    def wait(
        self,
        *,
        cluster: str,
        tasks: list[str],
        WaiterConfig: dict[str, Any] | None = None,
    ) -> None:
        """Wait up to ``Delay`` times ``MaxAttempts`` seconds."""
        config = WaiterConfig or {}
        self._client.wait(float(config.get("Delay", 6)) * float(config.get("MaxAttempts", 100)))


def output_is_missing(record: dict[str, Any]) -> bool:
    """Return whether the container of an ended submission may still send output."""
    return bool(record.get("task_arn")) and not xcom.is_complete(record, time.time())


def await_output(here: Commands, id: str) -> None:
    """Wait until the container of an ended submission has sent its output: until STOPPED, or half a minute."""
    for _ in range(xcom.MOST_LOOKS):
        if not output_is_missing(read(here, id)):
            return
        time.sleep(OUTPUT_EVERY)


def item_of(
    ti: Any,
    request: dict[str, Any],
    *,
    profile: str,
    priority: int | None,
    from_profile: frozenset[str],
) -> dict[str, Any]:
    """Return the item of a try's submission; raise InvalidSubmissionError if it is invalid."""
    try:
        command, overrides = submission(request, from_profile)
    except ValueError as error:
        raise InvalidSubmissionError(str(error)) from None
    return commands.item(
        commands.submission_id(ti),
        command,
        profile=profile,
        overrides=overrides,
        priority=priority,
        about=commands.subject(ti),
    )
