"""Executor and operator under any Airflow from 2.10 on: five tasks through a fake bridge, as a scheduler would drive
them, and a command that a trigger waits for. From Airflow 3 on also a whole Airflow, see smoke_triggerer.py.

python tests/airflow/smoke.py 3.0.6 3.1.8 3.2.1 2.10.5   # each in an environment of its own, made by uv
python tests/airflow/smoke.py                            # in this one
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
UV = ROOT / ".venv-uv" / "bin" / "uv"


def configure(home: str, url: str) -> None:
    """Configure Airflow before its first import."""
    from fake_bridge import DEPLOYMENT, TABLE

    section = "AIRFLOW__ECS_BRIDGE_EXECUTOR__"
    os.environ.update(
        {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "airflow_ecs_bridge.EcsBridgeExecutor",
            "AIRFLOW__API_AUTH__JWT_SECRET": "only for this, but long enough for HS512 " * 3,
            "_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK": "1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_ENDPOINT_URL_DYNAMODB": url,
            f"{section}SUBMIT_URL": url,
            f"{section}TABLE": TABLE,
            f"{section}DEPLOYMENT": DEPLOYMENT,
            f"{section}REGION_NAME": "eu-central-1",
            f"{section}AWS_CONN_ID": "",
            f"{section}POLL_INTERVAL": "0.1",
        }
    )


def queue(executor: Any, number: int) -> Any:
    """Queue a task as this version's scheduler does; return its key."""
    from airflow_ecs_bridge.keys import key_of

    try:
        from airflow.executors import workloads
    except ImportError:  # Airflow 2
        from airflow.models.taskinstancekey import TaskInstanceKey

        key = TaskInstanceKey("orders", f"t{number}", "manual__1", 1, -1)
        executor.execute_async(key, ["true"], "default", {})
        executor.running.add(key)
        return key
    model = getattr(workloads, "TaskInstanceDTO", workloads.TaskInstance)
    id = uuid.uuid4()
    fields = {
        "id": id,
        "dag_version_id": uuid.uuid4(),
        "dag_id": "orders",
        "task_id": f"t{number}",
        "run_id": "manual__1",
    }
    fields |= {"try_number": 1, "map_index": -1, "pool_slots": 1, "queue": "default", "priority_weight": 1}
    ti = model(**{name: value for name, value in fields.items() if name in model.model_fields})
    workload = workloads.ExecuteTask(
        ti=ti,
        dag_rel_path="orders.py",
        token=executor.jwt_generator.generate({"sub": str(id)}),
        log_path="orders.log",
        bundle_info=workloads.BundleInfo(name="dags-folder"),
    )
    executor.queue_workload(workload, session=None)
    return key_of(ti)


def smoke() -> None:
    """Run the five."""
    from fake_bridge import FakeBridge, Server

    bridge = FakeBridge()
    with tempfile.TemporaryDirectory() as home, Server(bridge) as server:
        configure(home, server.url)
        import airflow
        from airflow.executors.executor_loader import ExecutorLoader
        from airflow.utils.state import TaskInstanceState

        executor: Any = ExecutorLoader.get_default_executor()
        executor.job_id = 1
        executor.start()
        keys = {queue(executor, number) for number in range(5)}
        ended: dict[Any, Any] = {}
        give_up = time.monotonic() + 60
        while len(ended) < 5:
            assert time.monotonic() < give_up, "not all five ended"
            executor.heartbeat()
            events = executor.get_event_buffer()
            ended |= {key: state for key, (state, _) in events.items() if state != TaskInstanceState.RUNNING}
            for record in list(bridge.records.values()):
                if record["state"] == "launched":
                    bridge.finish(record["submission_id"])
            time.sleep(0.05)
        executor.end()
        assert ended == dict.fromkeys(keys, TaskInstanceState.SUCCESS), ended
        assert list(bridge.starts.values()) == [1] * 5
        assert not executor.running
        event = asyncio.run(triggered(bridge))
        assert event.payload["succeeded"], event.payload
        assert bridge.starts["op-1"] == 1
        told = page()
        name = type(executor).__name__
        print(
            f"Airflow {airflow.__version__}: five tasks ran through {name}, a command by its trigger, {told}",
            flush=True,
        )


async def triggered(bridge: Any) -> Any:
    """Make an operator as a Dag does, and let its trigger wait for the end."""
    from airflow_ecs_bridge.operators import EcsBridgeOperator
    from airflow_ecs_bridge.triggers import EcsBridgeTrigger

    operator = EcsBridgeOperator(task_id="command", command=["true"])
    if operator.start_from_trigger:
        assert operator.start_trigger_args.trigger_cls.endswith(".EcsBridgeTrigger")
    waiting = asyncio.create_task(anext(EcsBridgeTrigger(operator.command, submission_id="op-1").run()))
    while "op-1" not in bridge.records:
        await asyncio.sleep(0.05)
    bridge.finish("op-1")
    return await asyncio.wait_for(waiting, 60)


def page() -> str:
    """Ask the page in the UI for its data, as nobody and as an admin, where this Airflow has such pages."""
    from airflow import __version__

    from airflow_ecs_bridge.ui.plugin import plugin

    if tuple(map(int, __version__.split(".")[:2])) < (3, 1):
        assert plugin is None
        return "no page"
    from airflow.api_fastapi.app import create_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from airflow.models import import_all_models
    from airflow.models.base import Base
    from airflow.settings import engine
    from fastapi.testclient import TestClient

    from airflow_ecs_bridge.ui.queries import Reader, Snapshot

    import_all_models()
    Base.metadata.create_all(engine)
    Reader.read = lambda reader: Snapshot(read_at=1, since=0)  # type: ignore[method-assign]
    [app] = plugin().fastapi_apps
    client = TestClient(app["app"])
    token = create_auth_manager().generate_jwt(SimpleAuthManagerUser(username="someone", role="admin"))
    assert client.get("/api/overview").status_code == 401
    answer = client.get("/api/overview", headers={"Cookie": f"_token={token}"})
    assert (answer.status_code, answer.json()["in_flight"]["total"]) == (200, 0), answer.text
    path = "/api/task-instance?dag_id=d&run_id=r&task_id=t"
    assert client.get(path, headers={"Cookie": f"_token={token}"}).status_code == 404
    return "the page answers"


def smoke_version(version: str) -> None:
    """Run the five under another Airflow."""
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "venv" / "bin" / "python"
        subprocess.run([UV, "venv", "--quiet", "--python", "3.11", python.parents[1]], check=True)
        packages = [
            f"apache-airflow=={version}",
            "apache-airflow-providers-amazon",
            "--editable",
            ROOT / "python/ecs_bridge",
        ]
        # A beta of Airflow wants betas of its parts.
        beta = ["--prerelease=allow"] if not version.replace(".", "").isdecimal() else []
        packages += ["--editable", f"{ROOT / 'python/airflow_ecs_bridge'}"]
        subprocess.run([UV, "pip", "install", "--quiet", *beta, "--python", python, *packages], check=True)
        subprocess.run([python, __file__], check=True)
        if not version.startswith("2."):
            subprocess.run([python, Path(__file__).with_name("smoke_triggerer.py")], check=True)


if __name__ == "__main__":
    for each in sys.argv[1:]:
        smoke_version(each)
    if not sys.argv[1:]:
        smoke()
