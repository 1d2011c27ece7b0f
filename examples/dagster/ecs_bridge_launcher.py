"""A Dagster run launcher that starts each run as a container on Amazon ECS, through the ECS bridge.

In dagster.yaml, with the bridge found by the environment variables of ecs-bridge where the configuration does not say:

    run_launcher:
      module: ecs_bridge_launcher
      class: EcsBridgeRunLauncher
      config: { stack: ecs-bridge-prod, profile: dagster }
    run_monitoring: { enabled: true, max_resume_run_attempts: 2 }

A run is submitted under its own id, and resumed under one that has the attempt's number. So a daemon that dies and
launches or resumes a run again starts nothing twice.
"""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

from dagster import Field, Noneable, Permissive, StringSource
from dagster._core.launcher.base import CheckRunHealthResult, RunLauncher, WorkerStatus
from dagster._grpc.types import ExecuteRunArgs, ResumeRunArgs
from dagster._serdes import ConfigurableClass

from ecs_bridge import Client, State, Submission, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dagster import DagsterRun
    from dagster._core.launcher.base import LaunchRunContext, ResumeRunContext
    from dagster._serdes import ConfigurableClassData

SUBMISSION_TAG = "ecs-bridge/submission"
"""The id of a run's last submission."""

PROFILE_TAG, OVERRIDES_TAG = "ecs-bridge/profile", "ecs-bridge/overrides"
"""What a job or a run sets for itself: a profile's name; parameters of RunTask that it allows, as JSON."""

STATUS = {
    State.SUCCEEDED: WorkerStatus.SUCCESS,
    State.FAILED: WorkerStatus.FAILED,
    State.REJECTED: WorkerStatus.FAILED,
    State.EXPIRED: WorkerStatus.FAILED,
    State.CANCELLED: WorkerStatus.FAILED,
    State.LOST: WorkerStatus.FAILED,
}
"""What the ends are for Dagster; before its end a worker is running, also while it waits for capacity."""


class EcsBridgeRunLauncher(RunLauncher[Any], ConfigurableClass):
    """Submits runs to the bridge, and tells Dagster's run monitoring how their containers are."""

    def __init__(
        self,
        inst_data: ConfigurableClassData | None = None,
        *,
        stack: str | None = None,
        profile: str | None = None,
        container: str = "main",
        environment: Mapping[str, str] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        self._inst_data = inst_data
        self._profile = profile
        self._container = container
        self._environment = dict(environment or {})
        self._overrides = dict(overrides or {})
        self._stack = stack
        super().__init__()

    @cached_property
    def _bridge(self) -> Client:
        # Made at its first use: a run's container makes a launcher too, and knows of no bridge.
        return Client(stack=self._stack)

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """What dagster.yaml says."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> dict[str, Field]:
        """Return what dagster.yaml can say."""
        return {
            "stack": Field(Noneable(StringSource), is_required=False, description="The bridge's stack."),
            "profile": Field(Noneable(StringSource), is_required=False, description="None: the bridge's default."),
            "container": Field(StringSource, is_required=False, default_value="main", description="The profile's."),
            "environment": Field(Permissive(), is_required=False, description="Variables of the container."),
            "overrides": Field(Permissive(), is_required=False, description="Parameters of RunTask."),
        }

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]
    ) -> EcsBridgeRunLauncher:
        """Make one of what dagster.yaml says."""
        return cls(inst_data, **config_value)

    def dispose(self) -> None:
        """Close the connections."""
        if "_bridge" in vars(self):
            self._bridge.close()

    def launch_run(self, context: LaunchRunContext) -> None:
        """Submit a run; an error is the run's failure."""
        run = context.dagster_run
        arguments = ExecuteRunArgs(
            job_origin=_origin(context),
            run_id=run.run_id,
            instance_ref=self._instance.get_ref(),
            set_exit_code_on_failure=True,
        )
        self._submit(run, run.run_id, arguments.get_command_args())

    @property
    def supports_resume_run(self) -> bool:
        """Yes: another container goes on where one was lost."""
        return True

    def resume_run(self, context: ResumeRunContext) -> None:
        """Submit the next attempt of a run whose container failed."""
        run = context.dagster_run
        arguments = ResumeRunArgs(
            job_origin=_origin(context),
            run_id=run.run_id,
            instance_ref=self._instance.get_ref(),
            set_exit_code_on_failure=True,
        )
        self._submit(run, f"{run.run_id}-{context.resume_attempt_number}", arguments.get_command_args())

    def terminate(self, run_id: str) -> bool:
        """Ask for the stop of a run's container, which gets SIGTERM; False if it has ended."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        answer = self._bridge.stop(_submission_id(run), "the run was terminated in Dagster")
        return not (answer.state and answer.state.ended)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Yes: the bridge knows each container's end."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Return how a run's last container is."""
        id = _submission_id(run)
        record = self._bridge.get(id)
        if record is None:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"the ECS bridge has no submission {id}")
        status = STATUS.get(State(record.state), WorkerStatus.RUNNING)
        message = None if status is WorkerStatus.RUNNING else record.summary()
        return CheckRunHealthResult(status, message, transient=record.state == State.LOST, run_worker_id=id)

    def get_run_worker_debug_info(self, run: DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """Say for people how a run's last container ended, or what it waits for."""
        record = self._bridge.get(_submission_id(run))
        return None if record is None else record.summary()

    def _submit(self, run: DagsterRun, submission_id: str, command: Sequence[str]) -> None:
        # First, so that a reader of the run finds the submission by this ID.
        self._instance.add_run_tags(run.run_id, {SUBMISSION_TAG: submission_id})
        self._bridge.submit(
            Submission(
                submission_id,
                list(command),
                profile=run.tags.get(PROFILE_TAG, self._profile),
                overrides=json.loads(run.tags[OVERRIDES_TAG]) if OVERRIDES_TAG in run.tags else self._overrides,
                environment={**self._environment, "DAGSTER_RUN_JOB_NAME": run.job_name},
                container=self._container,
                labels=shortened({"job": run.job_name, "run_id": run.run_id}),
            )
        )
        self._instance.report_engine_event(f"Submitted to the ECS bridge as {submission_id}", run, cls=type(self))


def _origin(context: LaunchRunContext | ResumeRunContext) -> Any:
    origin = context.job_code_origin
    if origin is None:
        raise ValueError("the run has no code origin: launch it from a code location")
    return origin


def _submission_id(run: DagsterRun) -> str:
    return run.tags.get(SUBMISSION_TAG, run.run_id)
