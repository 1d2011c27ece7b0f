"""What Airflow needs to use a local stack, and what a test asks of one."""

from __future__ import annotations

from local_stack import LocalStack

PROFILES = {
    "default": {
        "container_name": "main",
        "run_task": {
            "taskDefinition": "demo",
            "launchType": "FARGATE",
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"]}},
        },
        "allow_overrides": ["overrides.containerOverrides.environment", "overrides.cpu", "overrides.memory"],
    }
}
CREDENTIALS = "aws://local:local@/?region_name={region}"


def scheduler_environment(stack: LocalStack, **more: str) -> dict[str, str]:
    """Return what makes a scheduler use this stack; its credentials come from a connection of Airflow's."""
    return {
        "AIRFLOW__CORE__EXECUTOR": "airflow_ecs_bridge.EcsBridgeExecutor",
        **submit(stack),
        "AIRFLOW__ECS_BRIDGE_EXECUTOR__TABLE": stack.ready["table"],
        "AIRFLOW__ECS_BRIDGE_EXECUTOR__DEPLOYMENT": stack.ready["deployment"],
        "AIRFLOW__ECS_BRIDGE_EXECUTOR__WORKER_START_MARGIN": "10",
        "AIRFLOW_CONN_AWS_DEFAULT": CREDENTIALS.format(region=stack.ready["region"]),
        "AWS_ENDPOINT_URL_DYNAMODB": stack.ready["dynamodb_url"],
        "AWS_EC2_METADATA_DISABLED": "true",
        **more,
    }


def submit(stack: LocalStack) -> dict[str, str]:
    """Return where it submits: to submit's URL, or by invocation where it has none."""
    if url := stack.ready.get("submit_url"):
        return {"AIRFLOW__ECS_BRIDGE_EXECUTOR__SUBMIT_URL": url}
    return {
        "AIRFLOW__ECS_BRIDGE_EXECUTOR__SUBMIT_FUNCTION": stack.ready["submit_function"],
        "AWS_ENDPOINT_URL_LAMBDA": stack.ready["lambda_url"],
    }


def start_counts(stack: LocalStack, run_id: str) -> dict[str, int]:
    """Return how often each of a run's submissions had its command started."""
    ours = {row["submission_id"] for row in stack.rows() if row.get("labels", {}).get("run_id") == run_id}
    counts: dict[str, int] = dict.fromkeys(ours, 0)
    for task in stack.tasks():
        if task["submission_id"] in ours:
            counts[task["submission_id"]] += task["start_count"]
    return counts
