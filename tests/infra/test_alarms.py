"""Each alarm fires in the outage that it is for, and none does on a day without one."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from cloudwatch import ALARMS, FURTHER_POINTS, Metrics, breaches, calculated
from stacks import PARAMETERS

DAY = 24 * 60
# When the outage begins, and how long it lasts at most until its alarm is expected.
NOON, AT_MOST = 12 * 60, 60
DEPLOYMENT = PARAMETERS["Deployment"]
FUNCTIONS = ("submit", "task-state", "runner-api", "reconcile")


def ours(metrics: Metrics, metric: str, minute: int, *values: float, **dimensions: str) -> None:
    metrics.put("EcsBridge", metric, minute, *values, Deployment=DEPLOYMENT, **dimensions)


def of_function(metrics: Metrics, metric: str, minute: int, *values: float, function: str) -> None:
    metrics.put("AWS/Lambda", metric, minute, *values, FunctionName=f"{DEPLOYMENT}-{function}")


def healthy_day() -> Metrics:
    """Two hundred tasks a minute by day and none by night, with the small faults that no one should be called for."""
    metrics, chance = Metrics(DAY), random.Random(7)
    for minute in range(DAY):
        tasks = 200 if 6 * 60 <= minute < 22 * 60 else 0
        ours(metrics, "OverdueChecks", minute, 0)
        ours(metrics, "QueueDepth", minute, tasks * chance.random())
        ours(metrics, "QueueAge", minute, 300 * chance.random() if tasks else 0)
        # A Spot profile without capacity for ten minutes.
        ours(metrics, "ProfilesWithoutCapacity", minute, float(minute in range(900, 910)))
        ours(metrics, "ReconciledSubmissions", minute, float(chance.random() < 0.2) if tasks else 0)
        ours(metrics, "PoolsFailing", minute, 0)
        ours(metrics, "StuckInPools", minute, 0)
        of_function(metrics, "Invocations", minute, *[1] * (1 + tasks // 50), function="reconcile")
        for function in FUNCTIONS:
            of_function(metrics, "Errors", minute, 0, function=function)
        if not tasks:
            continue
        ours(metrics, "SubmissionsEnded", minute, *[1] * (tasks - 5), State="succeeded")
        ours(metrics, "SubmissionsEnded", minute, *[1] * 5, State="failed")
        of_function(
            metrics, "AsyncEventAge", minute, *[chance.expovariate(1 / 300) for _ in range(20)], function=FUNCTIONS[1]
        )
        for function in ("submit", "runner-api"):
            of_function(metrics, "Url5xxCount", minute, 0, function=function)
        for function in FUNCTIONS[:3]:
            of_function(metrics, "Invocations", minute, *[1] * tasks, function=function)
            of_function(metrics, "Throttles", minute, 0, function=function)
    # One answer of 503, one throttled call, one throttled write, at different times.
    of_function(metrics, "Url5xxCount", 700, 1, function="submit")
    of_function(metrics, "Throttles", 800, 1, function="submit")
    of_function(metrics, "Throttles", 820, 1, function="task-state")
    metrics.put("AWS/DynamoDB", "WriteThrottleEvents", 850, 3, TableName="Table")
    # An event that Lambda had to send three times.
    of_function(metrics, "AsyncEventAge", 1000, 190_000, function="task-state")
    # Six tasks at night, of which reconcile found two out.
    ours(metrics, "SubmissionsEnded", 120, *[1] * 6, State="succeeded")
    ours(metrics, "ReconciledSubmissions", 121, 2)
    # A run of reconcile that failed at once is seen by its own alarm alone: not on this day.
    return metrics


def every_minute(put: Callable[[Metrics, int], None]) -> Callable[[Metrics], None]:
    def outage(metrics: Metrics) -> None:
        for minute in range(NOON, DAY):
            put(metrics, minute)

    return outage


def lambda_fault(metric: str, function: str, value: float = 5) -> Callable[[Metrics], None]:
    return every_minute(lambda metrics, minute: of_function(metrics, metric, minute, value, function=function))


def own_fault(metric: str, value: float = 5, **dimensions: str) -> Callable[[Metrics], None]:
    return every_minute(lambda metrics, minute: ours(metrics, metric, minute, value, **dimensions))


def throttled(metric: str, **index: str) -> Callable[[Metrics], None]:
    return every_minute(
        lambda metrics, minute: metrics.put("AWS/DynamoDB", metric, minute, 40, TableName="Table", **index)
    )


def no_runs(metrics: Metrics) -> None:
    """The schedule is disabled: nothing runs, so nothing is written."""
    for metric in ("Invocations", "Errors"):
        metrics.drop("AWS/Lambda", metric, NOON, FunctionName=f"{DEPLOYMENT}-reconcile")


def only_failures(metrics: Metrics) -> None:
    metrics.drop("AWS/Lambda", "Invocations", NOON, FunctionName=f"{DEPLOYMENT}-reconcile")
    for minute in range(NOON, DAY):
        for metric in ("Invocations", "Errors"):
            of_function(metrics, metric, minute, 1, function="reconcile")


def no_events(tasks: float) -> Callable[[Metrics], None]:
    """The rule is disabled: all that ends is found out by reconcile, at so many tasks a minute."""

    def outage(metrics: Metrics) -> None:
        for state in ("succeeded", "failed"):
            metrics.drop("EcsBridge", "SubmissionsEnded", NOON, Deployment=DEPLOYMENT, State=state)
        for minute in range(NOON, DAY):
            if minute % (1 / min(tasks, 1)) < 1:
                ours(metrics, "SubmissionsEnded", minute, max(tasks, 1), State="succeeded")
                ours(metrics, "ReconciledSubmissions", minute, max(tasks, 1))

    return outage


OUTAGES: list[tuple[str, str, Callable[[Metrics], None]]] = [
    ("DeadLettersAlarm", "letters wait", every_minute(lambda metrics, minute: metrics.put(
        "AWS/SQS", "ApproximateNumberOfMessagesVisible", minute, 1, QueueName="EventDeadLetters"))),
    ("DeadLettersLostAlarm", "the rule cannot write a letter", every_minute(lambda metrics, minute: metrics.put(
        "AWS/Events", "InvocationsFailedToBeSentToDlq", minute, 1, RuleName=f"{DEPLOYMENT}-task-state-change"))),
    ("DeadLettersLostAlarm", "Lambda cannot write", lambda_fault("DestinationDeliveryFailures", "task-state")),
    ("SubmitErrorsAlarm", "submit does not start", lambda_fault("Errors", "submit")),
    ("SubmitUrlAlarm", "DynamoDB is unavailable", lambda_fault("Url5xxCount", "submit")),
    ("TaskStateErrorsAlarm", "task-state fails", lambda_fault("Errors", "task-state")),
    ("RunnerApiErrorsAlarm", "runner-api does not start", lambda_fault("Errors", "runner-api")),
    ("RunnerApiUrlAlarm", "DynamoDB is unavailable", lambda_fault("Url5xxCount", "runner-api")),
    ("RunnerApiThrottlesAlarm", "no concurrency for work", lambda_fault("Throttles", "runner-api")),
    ("PoolsFailingAlarm", "the image lacks the runner", own_fault("PoolsFailing", 1)),
    ("PoolsStuckAlarm", "a pool's row has lost a key", own_fault("StuckInPools", 1)),
    ("RunnersRefusedAlarm", "a task role is not in the list", own_fault("RunnersRefused", 1)),
    ("UnusableEventsAlarm", "events have no status", own_fault("UnusableEvents", 1)),
    ("ReconcileErrorsAlarm", "reconcile fails now and then", lambda_fault("Errors", "reconcile", 1)),
    ("SubmitThrottlesAlarm", "no concurrency for submit", lambda_fault("Throttles", "submit")),
    ("TaskStateThrottlesAlarm", "no concurrency for task-state", lambda_fault("Throttles", "task-state")),
    ("EventAgeAlarm", "events wait for hours", lambda_fault("AsyncEventAge", "task-state", 3_600_000)),
    ("ReconcileStalledAlarm", "the schedule is disabled", no_runs),
    ("ReconcileStalledAlarm", "every run fails", only_failures),
    ("TableThrottlesAlarm", "writes to the table", throttled("WriteThrottleEvents")),
    ("TableThrottlesAlarm", "writes to feed", throttled("WriteThrottleEvents", GlobalSecondaryIndexName="feed")),
    ("TableThrottlesAlarm", "writes to due", throttled("WriteThrottleEvents", GlobalSecondaryIndexName="due")),
    ("TableThrottlesAlarm", "writes to pool", throttled("WriteThrottleEvents", GlobalSecondaryIndexName="pool")),
    ("TableThrottlesAlarm", "reads of pool", throttled("ReadThrottleEvents", GlobalSecondaryIndexName="pool")),
    ("TableThrottlesAlarm", "reads of the table", throttled("ReadThrottleEvents")),
    ("TableThrottlesAlarm", "reads of feed", throttled("ReadThrottleEvents", GlobalSecondaryIndexName="feed")),
    ("TableThrottlesAlarm", "reads of due", throttled("ReadThrottleEvents", GlobalSecondaryIndexName="due")),
    ("ChecksOverdueAlarm", "reconcile cannot keep up", own_fault("OverdueChecks")),
    ("QueueAgeAlarm", "more is submitted than launched", own_fault("QueueAge", 1000)),
    ("ProfilesWithoutCapacityAlarm", "no capacity for a profile", own_fault("ProfilesWithoutCapacity", 1)),
    ("MissedEventsAlarm", "no events at 200 tasks a minute", no_events(200)),
    ("MissedEventsAlarm", "no events at 15 tasks an hour", no_events(0.25)),
    ("OrphanTasksAlarm", "a task of an ended submission", own_fault("Anomalies", 1, Kind="orphan_task")),
    ("OrphanTasksAlarm", "a second task of an attempt", own_fault("Anomalies", 1, Kind="second_task")),
    ("NotificationsFailedAlarm", "a bus was deleted", own_fault("Anomalies", 1, Kind="notifications_failed")),
    ("IllegalChangesAlarm", "a decision breaks the table of states", own_fault("Anomalies", 1, Kind="illegal_change")),
    ("AccessDeniedAlarm", "the role lacks a statement", own_fault("Anomalies", 1, Kind="access_denied")),
    ("RejectedAlarm", "the task definition is gone", own_fault("SubmissionsEnded", 1, State="rejected")),
    ("LostAlarm", "ECS forgot a task", own_fault("SubmissionsEnded", 1, State="lost")),
]  # fmt: skip


@pytest.mark.parametrize("alarm", ALARMS)
def test_alarm_stays_off_on_a_healthy_day(alarm: str) -> None:
    assert healthy_day().alarm(alarm) == []


@pytest.mark.parametrize(("alarm", "outage"), [pytest.param(a, o, id=f"{a}-{name}") for a, name, o in OUTAGES])
def test_alarm_fires_within_an_hour_of_its_outage(alarm: str, outage: Callable[[Metrics], None]) -> None:
    metrics = healthy_day()
    outage(metrics)
    (fired,) = metrics.alarm(alarm)
    assert NOON < fired <= NOON + AT_MOST


@pytest.mark.parametrize("further", [0, FURTHER_POINTS])
@pytest.mark.parametrize("outage", [no_runs, only_failures])
def test_stalled_reconcile_keeps_its_alarm_on(further: int, outage: Callable[[Metrics], None]) -> None:
    """Also once all that CloudWatch retrieves is missing, and if it retrieves no more than the evaluation periods."""
    metrics = healthy_day()
    outage(metrics)
    (fired,) = metrics.alarm("ReconcileStalledAlarm", further)
    assert NOON + 5 <= fired <= NOON + 7
    # Runs that succeed again turn it off, for good.
    for minute in range(NOON + 120, DAY):
        metrics.drop("AWS/Lambda", "Errors", minute, FunctionName=f"{DEPLOYMENT}-reconcile")
        of_function(metrics, "Errors", minute, 0, function="reconcile")
        of_function(metrics, "Invocations", minute, 1, function="reconcile")
    assert metrics.alarm("ReconcileStalledAlarm", further) == [fired]


@pytest.mark.parametrize("alarm", ALARMS)
def test_alarm_stays_off_during_a_first_deployment(alarm: str) -> None:
    """An alarm is created with no data of its metrics; the first run of reconcile comes minutes later."""
    metrics = Metrics(60)
    for minute in range(12, 60):
        of_function(metrics, "Invocations", minute, 1, function="reconcile")
        of_function(metrics, "Errors", minute, 0, function="reconcile")
    assert metrics.alarm(alarm) == [] == metrics.alarm(alarm, 0)


def test_stalled_alarm_fires_if_reconcile_never_succeeds() -> None:
    metrics = Metrics(60)
    for minute in range(12, 60):
        for metric in ("Invocations", "Errors"):
            of_function(metrics, metric, minute, 1, function="reconcile")
    assert metrics.alarm("ReconcileStalledAlarm") == [12 + 5]


def test_every_alarm_has_an_outage() -> None:
    assert {alarm for alarm, _, _ in OUTAGES} == set(ALARMS)


def test_missed_events_alarm_tolerates_a_few_late_events() -> None:
    """A hundred late events in fifteen minutes, of three thousand."""
    metrics = healthy_day()
    for minute in range(NOON, 22 * 60):
        ours(metrics, "ReconciledSubmissions", minute, 7)
    assert metrics.alarm("MissedEventsAlarm") == []


# --- The evaluator itself, by the examples of CloudWatch's documentation -----------------------

THREE = {"EvaluationPeriods": 3, "DatapointsToAlarm": 3, "ComparisonOperator": "GreaterThanThreshold", "Threshold": 0}
X, o, _ = 1.0, 0.0, None


@pytest.mark.parametrize(
    ("points", "breaching", "not_breaching"),
    [
        ([o, _, X, _, X], False, False),
        ([_, _, _, _, o], False, False),
        ([_, _, _, _, _], True, False),
        ([o, X, X, _, X], True, True),
        ([_, _, X, _, _], True, False),
    ],
)
def test_missing_data_counts_as_documented(points: list[float | None], breaching: bool, not_breaching: bool) -> None:
    assert len(points) == THREE["EvaluationPeriods"] + FURTHER_POINTS
    assert breaches(THREE | {"TreatMissingData": "breaching"}, points) is breaching
    assert breaches(THREE | {"TreatMissingData": "notBreaching"}, points) is not_breaching


@pytest.mark.parametrize(
    ("points", "kept"),
    [([o, _, X, _, X], False), ([_, _, _, _, o], False), ([_, _, _, _, _], True), ([_, _, X, _, _], True)],
)
def test_ignored_missing_data_keeps_the_state(points: list[float | None], kept: bool) -> None:
    ignoring = THREE | {"TreatMissingData": "ignore"}
    assert breaches(ignoring, points, was=True) is kept
    assert not breaches(ignoring, points, was=False)
    assert breaches(ignoring, [o, X, X, _, X], was=False)


def test_metric_math_keeps_missing_points_missing() -> None:
    named = {"a": [1.0, None, 3.0], "b": [1.0, 1.0, 0.0]}
    assert calculated("a + b", named) == [2, None, 3]
    assert calculated("FILL(a, 0) + b", named) == [2, 1, 3]
    assert calculated("a / b", named) == [1, None, None]
    assert calculated("IF(b > 0, a, 7)", named) == [1, None, 7]
    assert calculated("RUNNING_SUM(FILL(a, 0))", named) == [1, 1, 4]
    assert calculated("(a > 2) / (RUNNING_SUM(FILL(a, 0)) > 1)", named) == [None, None, 1]
