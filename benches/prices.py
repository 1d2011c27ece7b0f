"""List prices of AWS in dollars, and what a use of the bridge adds up to.

us-east-1, x86, on demand, without free tiers, as of November 2025:
https://aws.amazon.com/dynamodb/pricing/on-demand/, https://aws.amazon.com/lambda/pricing/,
https://aws.amazon.com/cloudwatch/pricing/, https://aws.amazon.com/step-functions/pricing/
"""

from __future__ import annotations

from dataclasses import dataclass

WRITE_UNIT, READ_UNIT = 0.625e-6, 0.125e-6
STORED_GB_MONTH, BACKUP_GB_MONTH = 0.25, 0.20
INVOCATION, GB_SECOND = 0.20e-6, 0.0000166667
LOG_BYTE = 0.50e-9
SCHEDULE = 1e-6
METRIC_MONTH, ALARM_METRIC_MONTH, DASHBOARD_MONTH = 0.30, 0.10, 3.0
KEY_MONTH = 1.0
TRANSITION = 0.025e-3

DAYS_OF_A_MONTH = 30.4
# The executor reads the feed so far back, once a second; a row of the feed has so many bytes.
FEED_SECONDS, FEED_ROW = 120, 150
CHECKS_AN_HOUR = 3


@dataclass(frozen=True)
class Task:
    """What one task of under ten minutes takes, as the bench `cost` counts it."""

    write_units: float
    read_units: float
    invocations: float
    gb_seconds: float
    log_bytes: float

    @property
    def feed_units(self) -> float:
        """Reading the feed costs half a unit per 4 KB, and shows a row once a second as long as it is that far back."""
        return FEED_SECONDS * FEED_ROW / 4096 / 2

    def dollars(self) -> dict[str, float]:
        return {
            "DynamoDB, writes": self.write_units * WRITE_UNIT,
            "DynamoDB, reads": (self.read_units + self.feed_units) * READ_UNIT,
            "Lambda, invocations": self.invocations * INVOCATION,
            "Lambda, time": self.gb_seconds * GB_SECOND,
            "CloudWatch Logs": self.log_bytes * LOG_BYTE,
        }

    def total(self) -> float:
        return sum(self.dollars().values())


def hour(check_write_units: float) -> float:
    """A further hour of a task: checks, of a claim and a read each."""
    return CHECKS_AN_HOUR * (check_write_units * WRITE_UNIT + READ_UNIT)


def idle_day(queries: int, gb_seconds_a_run: float, log_bytes_a_run: float) -> float:
    """A day without submissions: reconcile every minute, and the executor's Query every second."""
    runs, polls = 24 * 60, 24 * 60 * 60
    per_run = (
        queries * READ_UNIT / 2 + INVOCATION + gb_seconds_a_run * GB_SECOND + log_bytes_a_run * LOG_BYTE + SCHEDULE
    )
    return runs * per_run + polls * READ_UNIT / 2


def polled(seconds: float) -> float:
    """A task watched by Step Functions with a function of its own: every 30 seconds two transitions (wait, look), an
    invocation and a write."""
    return seconds / 30 * (2 * TRANSITION + INVOCATION + WRITE_UNIT)


def run_task_sync() -> float:
    """A task run by `ecs:runTask.sync` of a standard workflow: start, task, end. It waits for an event."""
    return 3 * TRANSITION


# Of Airflow on Fargate, and of what it is compared with: https://aws.amazon.com/fargate/pricing/ (Linux, x86),
# https://aws.amazon.com/rds/postgresql/pricing/, https://aws.amazon.com/elasticloadbalancing/pricing/,
# https://aws.amazon.com/vpc/pricing/, https://aws.amazon.com/secrets-manager/pricing/, https://aws.amazon.com/route53/pricing/,
# https://aws.amazon.com/managed-workflows-for-apache-airflow/pricing/, https://aws.amazon.com/sqs/pricing/
VCPU_HOUR, MEMORY_GB_HOUR = 0.04048, 0.004445
DATABASE_HOUR = {"db.t4g.small": 0.032}
DATABASE_GB_MONTH = 0.115
LOAD_BALANCER_HOUR = 0.0225
PUBLIC_IPV4_HOUR = 0.005
SECRET_MONTH = 0.40
HOSTED_ZONE_MONTH = 0.50
MWAA_SMALL_HOUR, MWAA_SMALL_WORKER_HOUR, MWAA_GB_MONTH = 0.49, 0.055, 0.10
MWAA_SMALL_WORKER_TASKS = 5
SQS_REQUEST = 0.40e-6

HOURS_OF_A_MONTH = 24 * DAYS_OF_A_MONTH


def container_hour(vcpu: float, gigabytes: float) -> float:
    """A container of Fargate with a public address."""
    return vcpu * VCPU_HOUR + gigabytes * MEMORY_GB_HOUR + PUBLIC_IPV4_HOUR
