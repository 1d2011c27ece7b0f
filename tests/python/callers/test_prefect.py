"""The worker of examples/prefect, with Prefect's own server, on the local stack."""

from __future__ import annotations

import asyncio
import os
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import BIN, EXAMPLES, free_port, kill, process

from local_stack import PATIENCE, LocalStack, until

POOL = "bridge"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, stack: LocalStack) -> Iterator[dict[str, str]]:
    """A server of Prefect, by the variables that its clients have."""
    home, port = tmp_path_factory.mktemp("prefect"), free_port()
    # The settings of a test's own Prefect; of this process too, before it imports it.
    os.environ |= {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
        "PREFECT_CLIENT_CSRF_SUPPORT_ENABLED": "false",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
    }
    environment = os.environ | {"ECS_BRIDGE_LOCAL": str(stack.ready_file)}
    server = [
        BIN / "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-ui",
        "--no-services",
    ]
    with process(home / "server.log", environment, *server) as started:

        def is_up() -> bool:
            assert started.poll() is None, (home / "server.log").read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/health", timeout=5) as answer:
                    return bool(answer.status == 200)
            except OSError:
                return False

        until("the server is up", is_up)
        yield environment


def with_client(ask: Callable[[Any], Awaitable[Any]]) -> Any:
    """Ask the server something."""
    from prefect.client.orchestration import get_client

    async def main() -> Any:
        async with get_client() as client:
            return await ask(client)

    return asyncio.run(main())


def test_a_worker_that_is_killed_leaves_nothing_undone_and_starts_nothing_twice(
    environment: dict[str, str], stack: LocalStack, tmp_path: Path
) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.states import Pending

    worker = [BIN / "python", EXAMPLES / "prefect" / "ecs_bridge_worker.py", POOL]
    log = tmp_path / "worker.log"

    async def deploy(client: Any) -> Any:
        import ecs_bridge_worker
        from flows import patient

        template = ecs_bridge_worker.EcsBridgeWorker.get_default_base_job_template()
        await client.create_work_pool(WorkPoolCreate(name=POOL, type="ecs-bridge", base_job_template=template))
        return await client.create_deployment(
            flow_id=await client.create_flow(patient),
            name="patient",
            work_pool_name=POOL,
            path=str(Path(__file__).parent),
            entrypoint="flows.py:patient",
            job_variables={"overrides": {"overrides": {"memory": "1024"}}},
        )

    deployment = with_client(deploy)

    def begin(name: str, **more: Any) -> tuple[Path, str]:
        folder = tmp_path / name
        folder.mkdir()
        given = {"parameters": {"folder": str(folder)}, "name": name, **more}
        run = with_client(lambda client: client.create_flow_run_from_deployment(deployment, **given))
        return folder, str(run.id)

    def until_state(run: str, name: str) -> None:
        async def look(client: Any) -> None:
            while (await client.read_flow_run(run)).state_name != name:
                await asyncio.sleep(0.5)

        with_client(lambda client: asyncio.wait_for(look(client), PATIENCE))

    def starts(folder: Path) -> str:
        file = folder / "starts"
        return file.read_text() if file.exists() else ""

    with process(log, environment, *worker) as first:
        folder, running = begin("running")
        until("it runs", lambda: starts(folder), every=0.2)
        kill(first)
    # What a worker leaves that dies after it has taken a flow run, and before it submits it.
    other, pending = begin("pending", state=Pending())
    [task] = stack.tasks(f"{running}-0")
    assert task["last_status"] == "RUNNING"
    stack.act(task, "spot-interruption")
    (other / "go").touch()
    with process(log, environment, *worker):
        until_state(pending, "Completed")
        until_state(running, "Crashed")
    assert (starts(folder), starts(other)) == ("started\n", "started\n")
    for run in (running, pending):
        assert [task["start_count"] for task in stack.tasks(f"{run}-0")] == [1]
        assert stack.row(f"{run}-0")["memory"] == 1024


def test_a_flow_run_that_is_cancelled_before_it_runs_has_its_container_stopped(
    environment: dict[str, str], stack: LocalStack
) -> None:
    from ecs_bridge_worker import EcsBridgeJobConfiguration, EcsBridgeWorker
    from prefect.exceptions import InfrastructureNotFound

    from ecs_bridge import AsyncClient, Submission

    async def main() -> None:
        worker = EcsBridgeWorker(work_pool_name=POOL)
        async with AsyncClient(ready_file=str(stack.ready_file)) as worker.bridge:
            await worker.bridge.submit(Submission("cancelled-0", ["sleep", "600"]))
            await worker.kill_infrastructure("cancelled-0", EcsBridgeJobConfiguration())
            record = (await worker.bridge.wait(["cancelled-0"]))["cancelled-0"]
            assert record.state == "cancelled"
            with pytest.raises(InfrastructureNotFound, match="is cancelled already"):
                await worker.kill_infrastructure("cancelled-0", EcsBridgeJobConfiguration())

    asyncio.run(main())
