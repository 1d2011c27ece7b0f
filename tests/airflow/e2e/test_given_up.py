"""Runs that are cleared, marked failed, or deleted while their tasks wait for a launch."""

from __future__ import annotations

from stacks import scheduler_environment, start_counts

LINES = sorted(
    [f"works {n} works" for n in range(3)] + ["nap -1 before the nap", "nap -1 after the nap", "last -1 last 6"]
)
NO_LAUNCH = {"times": 100_000, "error": {"code": "ThrottlingException", "message": "Rate exceeded"}}


def test_tries_that_were_given_up_while_queued_never_launch_and_hold_no_slot(airflow, make_stack):
    # As many slots as the three runs need together.
    options = {"AIRFLOW__CORE__PARALLELISM": "12", "AIRFLOW__ECS_BRIDGE_EXECUTOR__RECONCILE_INTERVAL": "2"}
    with make_stack() as stack, airflow.scheduler(scheduler_environment(stack, **options)):
        stack.rule(**NO_LAUNCH)
        cleared, marked, deleted = runs = [airflow.trigger("crash") for _ in range(3)]

        def queued(run: str) -> set[str]:
            tis = airflow.task_instances(run).values()
            return {ti["external_executor_id"] for ti in tis if ti["state"] == "queued"}

        def all_are_with_the_bridge() -> set[str] | None:
            ids = set().union(*map(queued, runs))
            known = {row["submission_id"] for row in stack.rows()}
            return ids if len(ids) == 12 and ids <= known else None

        dead = airflow.until("all wait for a launch", all_are_with_the_bridge)
        path = "/api/v2/dags/crash/dagRuns"
        for run in (marked, deleted):
            airflow.call("PATCH", f"{path}/{run}", {"state": "failed"})
        airflow.call("DELETE", f"{path}/{deleted}")
        airflow.call("POST", f"{path}/{cleared}/clear", {"dry_run": False, "only_failed": False})

        def are_over() -> bool:
            return {row["submission_id"] for row in stack.rows() if row["state"] == "cancelled"} >= dead

        airflow.until("all of them are cancelled", are_over)
        stack.drop_rules()
        assert airflow.finish(cleared) == "success"
        assert airflow.lines(cleared) == LINES
        counts = start_counts(stack, cleared)
        assert {count for id, count in counts.items() if id not in dead} == {1}
        assert [task for task in stack.tasks() if task["submission_id"] in dead] == []
