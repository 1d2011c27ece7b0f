"""Provider information for Airflow, through the entry point ``apache_airflow_provider``.

The options here define all defaults and descriptions. ``config.py`` reads the defaults, and ``airflow config list``
prints both.
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
        "version_added": "0.2.0",
        "type": type,
        "default": default,
        "example": example,
    }


OPTIONS: dict[str, dict[str, Any]] = {
    "submit_url": _option(
        "URL of the bridge's submit function (stack output ``SubmitUrl``). Required unless ``submit_function`` is set.",
        example="https://abcdefghij.lambda-url.eu-central-1.on.aws/",
    ),
    "submit_function": _option(
        "Name or ARN of the submit function (stack output ``SubmitFunctionName``), to invoke it instead of calling\n"
        "its URL. Use it in Regions and networks without function URLs. Requires ``lambda:InvokeFunction``.",
        example="prod-submit",
    ),
    "table": _option(
        "Name of the bridge's DynamoDB table (stack output ``TableName``). Required.",
        example="ecs-bridge-prod",
    ),
    "deployment": _option(
        "Name of the bridge's deployment (stack parameter ``Deployment``). Required.",
        example="prod",
    ),
    "aws_conn_id": _option(
        "Airflow connection with the AWS credentials. Requires the Amazon provider. If the option is empty or the\n"
        "provider is missing, boto3 finds credentials itself (environment, profile, task or instance role).",
        default="aws_default",
        example="aws_default",
    ),
    "region_name": _option(
        "AWS Region of the bridge. Defaults to the Region in ``submit_url``, then of the connection, then of boto3.",
        example="eu-central-1",
    ),
    "check_health_on_startup": _option(
        "Check the bridge when the scheduler starts (URL, permissions, table, cluster, container), and refuse to\n"
        "start if the check fails.",
        type="boolean",
        default="True",
        example="True",
    ),
    "queue_profiles": _option(
        "Selection of a profile by the ``queue`` of a task. With ``match``, a queue selects the profile of the same\n"
        "name, and other queues use ``default``. With ``strict``, the queue is the profile, and an unknown profile\n"
        "fails the task. With ``ignore``, the queue is not used. A JSON object maps queues to profiles, and other\n"
        "queues use ``default``. ``executor_config={'profile': ...}`` of a task overrides this option.",
        default="match",
        example='{"gpu": "gpu-spot", "large": "fargate-4cpu"}',
    ),
    "allowed_profiles": _option(
        "Profiles that tasks of this Airflow or this team may use, separated by commas. Other profiles fail the task.\n"
        "Unset allows all profiles. This also applies to profiles selected by queue. List ``default`` explicitly to\n"
        "allow it.",
        example="default, team-a-large",
    ),
    "poll_interval": _option(
        "Interval between reads of the feed of ended submissions, in seconds. The executor reads the feed only while\n"
        "tasks are in flight. Each read is one request for any number of tasks.",
        type="float",
        default="1.0",
        example="2.0",
    ),
    "full_scan_interval": _option(
        "Interval in which the executor reads the records of all tasks in flight once, in seconds. Each request reads\n"
        "up to 100 records. It finds results that the feed missed.",
        type="float",
        default="300",
        example="300",
    ),
    "reconcile_interval": _option(
        "Interval between reconciliations of the executor's tasks with Airflow's database, in seconds, one query\n"
        "each. If the run of a task was cleared, marked or deleted, the executor stops the try after two\n"
        "reconciliations without it.",
        type="float",
        default="30",
        example="60",
    ),
    "worker_start_margin": _option(
        "Time that a container needs from its launch until its Airflow worker reports, in seconds. Airflow rejects an\n"
        "expired task token, so the executor does not launch a task with less time left.",
        type="float",
        default="60",
        example="120",
    ),
    "request_timeout": _option(
        "Timeout of a request to the bridge, in seconds. Timed-out requests are retried.",
        type="float",
        default="20",
        example="20",
    ),
    "startup_timeout": _option(
        "Timeout of the health check at the start of the scheduler, in seconds.",
        type="float",
        default="15",
        example="15",
    ),
    "shutdown_timeout": _option(
        "Shutdown timeout in seconds. A stopping scheduler waits up to this time for queued submissions to reach the\n"
        "bridge. The next scheduler adopts and submits the others.",
        type="float",
        default="5",
        example="5",
    ),
    "awslogs_group": _option(
        "CloudWatch log group of the containers. If ``awslogs_stream_prefix`` is also set, the log view of a running\n"
        "task links to its log stream and shows its last lines, and the operator shows live output. Requires\n"
        "``logs:GetLogEvents``, and ``logs:FilterLogEvents`` for the operator.",
        example="/ecs/airflow-worker",
    ),
    "awslogs_stream_prefix": _option(
        "Value of ``awslogs-stream-prefix`` in the log configuration of the container.",
        example="airflow",
    ),
    "awslogs_region": _option(
        "AWS Region of the log group. Defaults to the Region of the bridge.",
        example="eu-central-1",
    ),
    "failure_log_lines": _option(
        "Number of container lines that the event log shows for a failed task. Requires ``awslogs_group``,\n"
        "``awslogs_stream_prefix`` and ``logs:GetLogEvents``, with one request per failure. 0 disables it.",
        type="integer",
        default="10",
        example="10",
    ),
    "local_log_dir": _option(
        "Folder of ``ecs-bridge local --log-dir``. On a local stack, the container output is read from it instead of\n"
        "CloudWatch Logs.",
        example="/tmp/ecs-bridge-logs",
    ),
}


def get_provider_info() -> dict[str, Any]:
    """Describe this package to Airflow's ProvidersManager (see ``provider_info.schema.json`` in airflow-core)."""
    from airflow_ecs_bridge import __version__

    return {
        # The manager rejects a provider whose name differs from its distribution.
        "package-name": "airflow-ecs-bridge",
        "name": "ECS bridge",
        "description": "Runs Airflow tasks on Amazon ECS through the ECS bridge.",
        "versions": [__version__],
        "executors": ["airflow_ecs_bridge.EcsBridgeExecutor"],
        "integrations": [
            {"integration-name": INTEGRATION, "external-doc-url": "https://aws.amazon.com/ecs/", "tags": ["aws"]}
        ],
        "operators": [
            {
                "integration-name": INTEGRATION,
                "python-modules": ["airflow_ecs_bridge.operators", "airflow_ecs_bridge.compat"],
            }
        ],
        "triggers": [
            {
                "integration-name": INTEGRATION,
                "python-modules": ["airflow_ecs_bridge.triggers", "airflow_ecs_bridge.compat.trigger"],
            }
        ],
        "extra-links": ["airflow_ecs_bridge.operators.ContainerLogLink"],
        # Without this entry, Airflow warns in every command and imports the executor to find its commands.
        "cli": ["airflow_ecs_bridge.provider.get_cli_commands"],
        "config": {
            SECTION: {
                "description": "Options of EcsBridgeExecutor and EcsBridgeOperator.",
                "options": OPTIONS,
            }
        },
    }


def get_cli_commands() -> list[Any]:
    """Return the commands that this package adds to ``airflow``, which are none, because the bridge has its own CLI."""
    return []
