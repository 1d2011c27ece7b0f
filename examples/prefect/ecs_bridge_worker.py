"""A Prefect worker that runs flow runs as containers on Amazon ECS, through the ECS bridge.

    python ecs_bridge_worker.py POOL      # finds the bridge by the environment variables of ecs-bridge

A flow run is submitted under an id made of its own id and its run count. So wherever a worker dies,
nothing is in doubt: the next one submits what is pending again, which starts nothing twice, and waits for what runs.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from typing import TYPE_CHECKING, Any

from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import InfrastructureNotFound
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult
from pydantic import Field

from ecs_bridge import AsyncClient, Submission, SubmissionNotFoundError, SubmissionRejectedError, shortened

if TYPE_CHECKING:
    import anyio.abc
    from prefect.client.schemas.objects import FlowRun

    from ecs_bridge import Record

PATIENCE = 900.0
"""Seconds for which the bridge may be unreachable before a flow run is reported as crashed."""

PAGE = 200
"""Flow runs that the API returns at most in an answer."""

OF_THE_WORKER = {"PREFECT__WORKER_ID", "PREFECT__WORKER_NAME"}
"""Variables that would make the same flow run another submission when another worker submits it."""


class EcsBridgeJobConfiguration(BaseJobConfiguration):
    """What a flow run's submission is made of."""

    profile: str | None = Field(default=None)
    container: str = Field(default="main")
    overrides: dict[str, Any] = Field(default_factory=dict)
    priority: int | None = Field(default=None)

    def submission(self, submission_id: str, flow_run: FlowRun) -> Submission:
        """Return the submission of a flow run; the same, whichever worker makes it."""
        return Submission(
            submission_id,
            shlex.split(self.command or ""),
            profile=self.profile,
            overrides=self.overrides,
            environment={name: value or "" for name, value in self.env.items() if name not in OF_THE_WORKER},
            container=self.container,
            labels=shortened({"flow_run": flow_run.name, "flow_run_id": str(flow_run.id)}),
            priority=self.priority,
        )


class EcsBridgeVariables(BaseVariables):
    """What a work pool and its deployments can set."""

    profile: str | None = Field(default=None, description="The bridge's profile. None: its default.")
    container: str = Field(default="main", description="The name of the profile's container.")
    overrides: dict[str, Any] = Field(
        default_factory=dict,
        description='Parameters of RunTask that the profile allows: {"overrides": {"memory": "8192"}}.',
    )
    priority: int | None = Field(default=None, ge=0, le=999, description="The smaller, the earlier. None: 500.")


class EcsBridgeWorkerResult(BaseWorkerResult):
    """How a flow run's container ended."""


class EcsBridgeWorker(BaseWorker[EcsBridgeJobConfiguration, EcsBridgeVariables, EcsBridgeWorkerResult]):
    """Submits flow runs to the bridge, and reports those as crashed whose containers failed."""

    type = "ecs-bridge"
    job_configuration = EcsBridgeJobConfiguration
    job_configuration_variables = EcsBridgeVariables
    _description = "Run flow runs as containers on Amazon ECS, each started once, through the ECS bridge."
    _display_name = "ECS bridge"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.bridge: AsyncClient | None = None
        self._adopted: list[asyncio.Task[None]] | None = None

    async def setup(self) -> None:
        """Start."""
        self.bridge = AsyncClient(retry_timeout=PATIENCE)
        await super().setup()

    async def teardown(self, *exc_info: Any) -> None:
        """Stop waiting; what runs goes on."""
        for task in self._adopted or []:
            task.cancel()
        if self.bridge:
            await self.bridge.close()
        await super().teardown(*exc_info)

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Submit what is scheduled; the first time also take on what a worker before has left."""
        if self._adopted is None:
            # Those of a worker that lives, too: both wait for the same end, and tell the same.
            self._adopted = [asyncio.create_task(self._adopt(flow_run)) for flow_run in await self._unfinished()]
        return await super().get_and_submit_flow_runs()

    async def run(
        self,
        flow_run: FlowRun,
        configuration: EcsBridgeJobConfiguration,
        task_status: anyio.abc.TaskStatus[str] | None = None,
    ) -> EcsBridgeWorkerResult:
        """Submit a flow run and wait for its container's end."""
        assert self.bridge, "the worker is set up"
        submission_id = id_of(flow_run, flow_run.run_count)
        try:
            await self.bridge.submit(configuration.submission(submission_id, flow_run))
        except SubmissionRejectedError as error:
            # The pool or the deployment was changed after it was first submitted, and that submission counts.
            if error.code != "conflict":
                raise
        if task_status is not None:
            task_status.started(submission_id)
        return await self._result(flow_run, submission_id)

    async def _result(self, flow_run: FlowRun, submission_id: str) -> EcsBridgeWorkerResult:
        assert self.bridge, "the worker is set up"
        record = (await self.bridge.wait([submission_id]))[submission_id]
        if not record.succeeded:
            self.get_flow_run_logger(flow_run).error(record.summary())
        return EcsBridgeWorkerResult(identifier=submission_id, status_code=status_code(record))

    async def kill_infrastructure(
        self, infrastructure_pid: str, configuration: EcsBridgeJobConfiguration, grace_seconds: int = 30
    ) -> None:
        """Stop a flow run's container; ECS gives it its task definition's stopTimeout."""
        assert self.bridge, "the worker is set up"
        answer = await self.bridge.stop(infrastructure_pid, "the flow run was cancelled")
        if answer.state and answer.state.ended:
            raise InfrastructureNotFound(f"submission {infrastructure_pid} is {answer.state} already")

    async def _unfinished(self) -> list[FlowRun]:
        """Return the pool's flow runs that a worker has taken, and that have not ended."""
        states = FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING])
        found: list[FlowRun] = []
        while len(found) % PAGE == 0:
            page = await self.client.read_flow_runs(
                work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[self.work_pool.name])),
                flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=states)),
                limit=PAGE,
                offset=len(found),
            )
            found += page
            if not page:
                break
        return found

    async def _last_submission(self, flow_run: FlowRun) -> str:
        """Return the id of the submission in which a flow run runs; it also counts the retries within a container."""
        assert self.bridge, "the worker is set up"
        ids = [id_of(flow_run, count) for count in range(flow_run.run_count + 1)]
        found = await self.bridge.get_many(ids)
        return next((id for id in reversed(ids) if id in found), ids[0])

    async def _adopt(self, flow_run: FlowRun) -> None:
        logger = self.get_flow_run_logger(flow_run)
        logger.info("Worker '%s' takes on flow run '%s'", self.name, flow_run.name)
        try:
            if flow_run.state and flow_run.state.is_running():
                result = await self._result(flow_run, await self._last_submission(flow_run))
            else:
                configuration = await self.job_configuration.resolve_for_flow_run(
                    flow_run,
                    client=self.client,
                    work_pool=self.work_pool,
                    worker_name=self.name,
                    worker_id=self.backend_id,
                )
                result = await self.run(flow_run, configuration)
        except SubmissionNotFoundError as error:
            await self._propose_crashed_state(flow_run, str(error))
        except Exception:
            logger.exception("Flow run '%s' could not be taken on", flow_run.name)
        else:
            if result.status_code:
                await self._propose_crashed_state(flow_run, f"The container ended with {result.status_code}")


def id_of(flow_run: FlowRun, run_count: int) -> str:
    """Return the id of the submission of a flow run that had begun to run so often before it was submitted."""
    return f"{flow_run.id}-{run_count}"


def status_code(record: Record) -> int:
    """Return the exit code, or -1 for a flow run that has none: it never started, or its container is lost."""
    if record.succeeded:
        return 0
    return record.exit_code or -1


if __name__ == "__main__":
    asyncio.run(EcsBridgeWorker(work_pool_name=sys.argv[1]).start())
