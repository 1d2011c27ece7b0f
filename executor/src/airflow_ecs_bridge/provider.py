"""What Airflow learns about this package through its ``apache_airflow_provider`` entry point.

The options here are the one place that says their defaults and meaning: ``config.py`` reads its defaults from
them, ``airflow config list`` prints them.
"""

from __future__ import annotations

from typing import Any

SECTION = "ecs_bridge_executor"
INTEGRATION = "ECS bridge"


def _option(
    description: str, *, type: str = "string", default: str | None = None, example: str | None = None
) -> dict[str, Any]:
    return {
        "description": description + "\n",
        "version_added": "0.1.0",
        "type": type,
        "default": default,
        "example": example,
    }


OPTIONS: dict[str, dict[str, Any]] = {
    "submit_url": _option(
        "URL of the bridge's submit function (the stack's output ``SubmitUrl``). Required, unless ``submit_function``\n"
        "is set.",
        example="https://abcdefghij.lambda-url.eu-central-1.on.aws/",
    ),
    "submit_function": _option(
        "Name or ARN of the submit function (the stack's output ``SubmitFunctionName``), to invoke it instead of\n"
        "calling its URL: in Regions and networks without function URLs. Needs ``lambda:InvokeFunction``.",
        example="prod-submit",
    ),
    "table": _option(
        "Name of the bridge's DynamoDB table (the stack's output ``TableName``). Required.",
        example="ecs-bridge-prod",
    ),
    "deployment": _option(
        "Name of the bridge's deployment (the stack's parameter ``Deployment``). Required.",
        example="prod",
    ),
    "aws_conn_id": _option(
        "The Airflow connection with the AWS credentials. Used where the Amazon provider is installed; empty, or\n"
        "without that provider, boto3 finds credentials by itself (environment, profile, task or instance role).",
        default="aws_default",
        example="aws_default",
    ),
    "region_name": _option(
        "AWS Region of the bridge. Unset: the Region in ``submit_url``, else the connection's, else boto3's.",
        example="eu-central-1",
    ),
    "check_health_on_startup": _option(
        "Ask the bridge when the scheduler starts whether it can work (URL, permissions, table, cluster, container),\n"
        "and do not start if it says no.",
        type="boolean",
        default="True",
        example="True",
    ),
    "queue_profiles": _option(
        "How a task's ``queue`` picks a profile of the bridge. ``match``: a queue that has the name of a profile\n"
        "picks it, any other queue gets the profile ``default``. ``strict``: the queue is the profile, and an\n"
        "unknown one fails the task. ``ignore``: queues mean nothing. A JSON object: these queues, and ``default``\n"
        "for all others. A task's ``executor_config={'profile': ...}`` comes before all of these.",
        default="match",
        example='{"gpu": "gpu-spot", "large": "fargate-4cpu"}',
    ),
    "allowed_profiles": _option(
        "Profiles that tasks of this Airflow, or of this team, may use, separated by commas. A task that asks for\n"
        "another one fails. Unset: all. The queue's own choice is meant too; ``default`` must be named to be used.",
        example="default, team-a-large",
    ),
    "poll_interval": _option(
        "Seconds between two reads of the feed of finished tasks. It is read only while something is in flight, and\n"
        "each read is one request, however much is in flight.",
        type="float",
        default="1.0",
        example="2.0",
    ),
    "full_scan_interval": _option(
        "Seconds in which everything in flight is looked up once, 100 tasks a request, in case the feed missed\n"
        "something.",
        type="float",
        default="300",
        example="300",
    ),
    "reconcile_interval": _option(
        "Seconds between two comparisons of what the executor holds with Airflow's database, one query each. Tries\n"
        "that Airflow has given up, since their run was cleared, marked or deleted, are stopped after the second\n"
        "comparison that misses them.",
        type="float",
        default="30",
        example="60",
    ),
    "worker_start_margin": _option(
        "Seconds that a container needs from its launch until Airflow's worker in it reports. A task's token is\n"
        "refused after it expired, so nothing is launched that has fewer than these seconds left.",
        type="float",
        default="60",
        example="120",
    ),
    "request_timeout": _option(
        "Seconds after which a request to the bridge that was not answered is given up and repeated.",
        type="float",
        default="20",
        example="20",
    ),
    "startup_timeout": _option(
        "Seconds that the health check may take when the scheduler starts.",
        type="float",
        default="15",
        example="15",
    ),
    "shutdown_timeout": _option(
        "Seconds that a scheduler which is told to stop waits until what it handed over has reached the bridge.\n"
        "What has not is adopted and submitted by the next scheduler.",
        type="float",
        default="5",
        example="5",
    ),
    "awslogs_group": _option(
        "CloudWatch log group of the containers. With it and ``awslogs_stream_prefix``, the log view of a running\n"
        "task links to its log stream and shows its last lines, and the operator shows the output as it is written.\n"
        "Needs ``logs:GetLogEvents``, and for the operator ``logs:FilterLogEvents``.",
        example="/ecs/airflow-worker",
    ),
    "awslogs_stream_prefix": _option(
        "The ``awslogs-stream-prefix`` of the container's log configuration.",
        example="airflow",
    ),
    "awslogs_region": _option(
        "AWS Region of the log group. Unset: the bridge's Region.",
        example="eu-central-1",
    ),
    "failure_log_lines": _option(
        "How many of the container's last lines the event log has of a task whose container failed. Needs\n"
        "``awslogs_group``, ``awslogs_stream_prefix`` and ``logs:GetLogEvents``; one request each. 0: none.",
        type="integer",
        default="10",
        example="10",
    ),
    "local_log_dir": _option(
        "Folder of ``ecs-bridge local --log-dir``: on a local stack, the containers' output is read from there\n"
        "instead of CloudWatch Logs.",
        example="/tmp/ecs-bridge-logs",
    ),
}


def get_provider_info() -> dict[str, Any]:
    """Describe this package to Airflow's ProvidersManager (see ``provider_info.schema.json`` in airflow-core)."""
    from airflow_ecs_bridge import __version__

    return {
        # The manager refuses a provider whose name is not its distribution's.
        "package-name": "airflow-ecs-bridge",
        "name": "ECS bridge",
        "description": "Runs Airflow tasks on Amazon ECS through the ECS bridge.",
        "versions": [__version__],
        "executors": ["airflow_ecs_bridge.EcsBridgeExecutor"],
        "integrations": [
            {"integration-name": INTEGRATION, "external-doc-url": "https://aws.amazon.com/ecs/", "tags": ["aws"]}
        ],
        "operators": [{"integration-name": INTEGRATION, "python-modules": ["airflow_ecs_bridge.operators"]}],
        "triggers": [{"integration-name": INTEGRATION, "python-modules": ["airflow_ecs_bridge.triggers"]}],
        "extra-links": ["airflow_ecs_bridge.operators.ContainerLogLink"],
        # Without it Airflow warns in every command, and imports the executor to ask for its commands.
        "cli": ["airflow_ecs_bridge.provider.get_cli_commands"],
        "config": {
            SECTION: {
                "description": "Options of EcsBridgeExecutor and EcsBridgeOperator.",
                "options": OPTIONS,
            }
        },
    }


def get_cli_commands() -> list[Any]:
    """Return the commands that this package adds to ``airflow``: none, the bridge has its own."""
    return []
