"""The operator in a whole Airflow 3 of any version, with real triggerers, whose credentials are a connection's.

python tests/airflow/smoke_triggerer.py   # in an environment with Airflow, the Amazon provider and this package
"""

from __future__ import annotations

import sys
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "examples" / "airflow")]

DAG = """
from datetime import timedelta
from airflow.sdk import DAG
from airflow_ecs_bridge.operators import EcsBridgeOperator

with DAG("smoke", schedule=None):
    EcsBridgeOperator(task_id="plain", command=["true"])
    EcsBridgeOperator(task_id="templated", command=["echo", "{{ run_id }}"])
    EcsBridgeOperator(task_id="from_worker", command=["true"], start_from_trigger=False)
    EcsBridgeOperator(task_id="fails", command=["false"], retries=1, retry_delay=timedelta(0))
    EcsBridgeOperator.partial(task_id="mapped").expand(command=[["true"], ["true"]])
    EcsBridgeOperator(task_id="marked", command=["sleep"])
    EcsBridgeOperator(task_id="cleared", command=["sleep"])
"""

QUICK = {
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
}


def main() -> None:
    """Run the Dag; kill the triggerer on the way."""
    from airflow import __version__
    from fake_bridge import DEPLOYMENT, TABLE, FakeBridge, Server
    from local_airflow import Airflow

    bridge = FakeBridge()
    ends = threading.Event()

    def labels() -> dict[str, dict[str, str]]:
        return {each["submission_id"]: each["labels"] for batch in bridge.batches for each in batch}

    def of(task: str) -> list[str]:
        return [id for id, about in labels().items() if about["task_id"] == task and id.startswith("op-")]

    def stopped() -> set[str]:
        return {id for id, _ in bridge.stops}

    def serve() -> None:
        """End what was launched: `fails` badly, and what is marked or cleared only in its second try."""
        while not ends.wait(0.1):
            with bridge.changed:
                for id, about in labels().items():
                    if bridge.records[id]["state"] != "launched":
                        continue
                    if about["task_id"] == "fails":
                        bridge.finish(id, "failed", exit_code=3)
                    elif about["task_id"] not in ("marked", "cleared") or about["try_number"] != "1":
                        bridge.finish(id)

    with tempfile.TemporaryDirectory() as folder, Server(bridge) as server:
        dags = Path(folder) / "dags"
        dags.mkdir()
        (dags / "smoke.py").write_text(DAG)
        section = "AIRFLOW__ECS_BRIDGE_EXECUTOR__"
        environment = {
            f"{section}SUBMIT_URL": server.url,
            f"{section}TABLE": TABLE,
            f"{section}DEPLOYMENT": DEPLOYMENT,
            "AIRFLOW_CONN_AWS_DEFAULT": "aws://test:test@/?region_name=eu-central-1",
            "AWS_ENDPOINT_URL_DYNAMODB": server.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            # LocalExecutor adopts nothing: a slow scheduler that takes itself for dead would cost tries.
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "600",
            **QUICK,
        }
        threading.Thread(target=serve, daemon=True).start()
        home = Path(folder) / "home"
        with Airflow(home, dags, environment=environment) as airflow, airflow.triggerer({}) as replace:
            with airflow.scheduler({}):
                run = airflow.trigger("smoke")
                airflow.until("all are submitted", lambda: len(labels()) == 9, 300)
                replace()  # by SIGKILL
                waits = lambda: sum(ti["state"] == "deferred" for ti in airflow.task_instances(run).values())  # noqa: E731
                airflow.until("two wait", lambda: waits() == 2, 300)
                tasks = f"/api/v2/dags/smoke/dagRuns/{run}/taskInstances"
                airflow.call("PATCH", f"{tasks}/marked", {"new_state": "failed"})
                body = {"dry_run": False, "task_ids": ["cleared"], "dag_run_id": run, "only_failed": False}
                airflow.call("POST", "/api/v2/dags/smoke/clearTaskInstances", body)
                assert airflow.finish(run, 300) == "failed"
                airflow.until("both are stopped", lambda: {of("marked")[0], of("cleared")[0]} <= stopped(), 120)
            states = {key: (ti["state"], ti["try_number"]) for key, ti in airflow.task_instances(run).items()}
            assert states == {
                ("plain", -1): ("success", 1),
                ("templated", -1): ("success", 1),
                ("from_worker", -1): ("success", 1),
                ("fails", -1): ("failed", 2),
                ("mapped", 0): ("success", 1),
                ("mapped", 1): ("success", 1),
                ("marked", -1): ("failed", 1),
                ("cleared", -1): ("success", 2),
            }, states
            assert set(bridge.starts.values()) == {1}, bridge.starts
            # The first try of what was cleared; a second stop of what had ended does no harm.
            still_wanted = stopped() - {of("marked")[0], of("cleared")[0], *of("fails")}
            assert not still_wanted, [labels()[id] for id in still_wanted]
            assert "out of order" not in (home / "triggerer.log").read_text()
        ends.set()
    print(f"Airflow {__version__}: a DAG of the operator ran with a triggerer that was killed", flush=True)


if __name__ == "__main__":
    main()
