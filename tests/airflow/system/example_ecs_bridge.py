"""The operator's system test: a Dag, as the providers of Airflow have them, run by ``dag.test()`` on a real bridge.

The profile ``default`` must have an image with ``sh`` and allow ``overrides.cpu`` and ``overrides.memory``.
"""

from __future__ import annotations

from datetime import datetime

from airflow.sdk import DAG, setup, task, teardown

from airflow_ecs_bridge.operators import EcsBridgeOperator

DAG_ID = "example_ecs_bridge"

# Fargate's sizes: CPU units and MiB.
SIZES = {"odd": ("256", "512"), "even": ("512", "1024")}
ENDED = {"odd": "succeeded", "even": "succeeded", "nothing_to_do": "failed", "join": "succeeded"}


def submission(ti, task_id: str) -> str:
    """Return the id of the submission of the first try of a task of this run."""
    from airflow.models import TaskInstance
    from airflow.utils.session import create_session

    from airflow_ecs_bridge import commands

    with create_session() as session:
        one = session.query(TaskInstance).filter_by(run_id=ti.run_id, dag_id=ti.dag_id, task_id=task_id).one()
        return commands.submission_id(one)


with DAG(DAG_ID, schedule=None, start_date=datetime(2026, 1, 1), catchup=False, tags=["example"]) as dag:

    @setup
    @task
    def bridge_is_healthy() -> dict[str, str]:
        """Ask the bridge that the options name whether it can work."""
        from airflow_ecs_bridge.commands import Commands

        health = Commands.of_this_process().health()
        return {"deployment": health["deployment"], "table": health["table"]}

    # [START howto_operator_ecs_bridge]
    numbers = [
        EcsBridgeOperator(
            task_id=kind,
            command=["sh", "-c", f"for n in $(seq {number} 2 10); do echo $n; done"],
            overrides={"overrides": {"cpu": cpu, "memory": memory}},
        )
        for number, (kind, (cpu, memory)) in enumerate(SIZES.items(), 1)
    ]
    # [END howto_operator_ecs_bridge]

    nothing_to_do = EcsBridgeOperator(task_id="nothing_to_do", command=["sh", "-c", "exit 99"], skip_on_exit_code=99)

    join = EcsBridgeOperator(
        task_id="join",
        command=["sh", "-c", "echo {{ run_id }}"],
        deferrable=False,
        trigger_rule="none_failed",
    )

    @task
    def each_ran_once(ti=None) -> None:
        """Compare what the bridge recorded."""
        from airflow_ecs_bridge.commands import Commands

        here = Commands.of_this_process()
        records = {name: here.show(submission(ti, name)) for name in ENDED}
        assert {name: record["state"] for name, record in records.items()} == ENDED
        assert {record["attempt"] for record in records.values()} == {1}
        assert records["nothing_to_do"]["exit_code"] == 99

    @teardown
    @task
    def nothing_runs_on(ti=None) -> None:
        """Stop what a test that broke off may have left; what has ended stays as it is."""
        from airflow_ecs_bridge.commands import Commands

        for name in ENDED:
            Commands.of_this_process().stop_now(submission(ti, name), "the system test is over")

    healthy, over = bridge_is_healthy(), nothing_runs_on()
    healthy >> [*numbers, nothing_to_do] >> join >> each_ran_once() >> over
    healthy >> over


def test_run() -> None:
    """Run the Dag in this process."""
    run = dag.test()
    assert run.state == "success"
    states = {ti.task_id: ti.state for ti in run.get_task_instances()}
    assert states.pop("nothing_to_do") == "skipped"
    assert set(states.values()) == {"success"}
