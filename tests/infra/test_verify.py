"""`ecs-bridge verify-aws` and `ecs-bridge doctor` against an account on this machine.

Every check passes on an account that behaves as documented, and fails on one that does not.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from aws import DEPLOYMENT, Account
from stacks import template

from http_server import Request, Response, Server
from local_stack import PROGRAM, call, until

PREFIX = "ecs-bridge-verify-"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    with Account(tmp_path_factory.mktemp("account")) as account:
        yield account


def verify(account: Account, folder: Path, *checks: str) -> list[dict[str, Any]]:
    """The findings of these checks, or of all."""
    only = [word for check in checks for word in ("--only", check)]
    command = ["verify-aws", "--stack", account.name, "--time-scale", "30", "--report", str(folder), "--json", *only]
    answer = account.run(*command)
    findings = json.loads(answer.stdout)
    differs = any(finding["verdict"] == "fail" for finding in findings)
    assert answer.returncode == int(differs), answer.stderr
    return findings


def verdicts(findings: list[dict[str, Any]]) -> dict[str, str]:
    return {finding["question"]: finding["verdict"] for finding in findings}


def left_over(account: Account) -> list[str]:
    """The resources whose names are those of a run."""
    rules = [rule["Name"] for rule in account.client("events").list_rules(NamePrefix=PREFIX)["Rules"]]
    queues = account.client("sqs").list_queues(QueueNamePrefix=PREFIX).get("QueueUrls", [])
    live = [task["task_arn"] for task in account.stack.tasks() if task["last_status"] != "STOPPED"]
    runners = [
        task for task in live if any(row.get("task_arn") == task and "runner" in row for row in account.stack.rows())
    ]
    return rules + queues + [task for task in live if task not in runners]


def test_documented_behavior_passes_every_check(account: Account, tmp_path: Path) -> None:
    findings = verify(account, tmp_path)
    assert {finding["verdict"] for finding in findings} <= {"ok"}, [
        finding for finding in findings if finding["verdict"] != "ok"
    ]
    assert len({finding["check"] for finding in findings}) == 18
    report = (tmp_path / "report.md").read_text()
    assert all(finding["question"] in report for finding in findings)
    told = (tmp_path / "report.json").read_text()
    assert len(json.loads(told)["events"]) > 9
    for hidden in ("0123456789abcdef0a", "exit 7", "demo-pool", account.stack.ready["cluster"].rsplit("/", 1)[1] + "/"):
        assert hidden not in told
    until("nothing is left", lambda: not left_over(account))


def test_plan_lists_every_check_without_calls(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ECS_BRIDGE_"))}
    answer = subprocess.run(
        [PROGRAM, "verify-aws", "--plan"], env=environment, capture_output=True, text=True, check=True
    )
    for word in ("dead-letters", "exit-codes", "ecs:RunTask", "iam:PassRole", "less than one dollar", "INACTIVE"):
        assert word in answer.stdout


@pytest.mark.parametrize(
    ("check", "rule"),
    [
        ("unknown-task-definition", {"error": {"code": "ClientException", "message": "no"}}),
        ("wrong-subnet", {"error": {"code": "ServerException", "message": "subnet"}}),
        ("too-much-memory", {"error": {"code": "ClientException", "message": "out of quota"}}),
        ("exit-codes", {"shapes": "no-exit-code", "times": 9}),
        (
            "cannot-pull",
            {"operation": "RegisterTaskDefinition", "error": {"code": "AccessDeniedException", "message": "no"}},
        ),
        ("stop", {"operation": "StopTask", "error": {"code": "AccessDeniedException", "message": "no"}, "times": 1000}),
    ],
)
def test_unexpected_ecs_response_fails_its_check(
    account: Account, tmp_path: Path, check: str, rule: dict[str, Any]
) -> None:
    account.stack.rule(**rule)
    try:
        findings = verify(account, tmp_path, check)
    finally:
        account.stack.drop_rules()
    assert {"fail", "unknown"} & {finding["verdict"] for finding in findings}, findings


def test_second_task_of_a_token_fails(account: Account, tmp_path: Path) -> None:
    account.stack.rule(shapes="", times=1)
    account.stack.rule(forget_token=True, times=3)
    try:
        findings = verify(account, tmp_path, "token")
    finally:
        account.stack.drop_rules()
    assert list(verdicts(findings).values()) == ["fail"] * 3, findings


def test_missing_events_before_stopped_fail(account: Account, tmp_path: Path) -> None:
    account.stack.rule(shapes="skip-states", times=3)
    found = verdicts(verify(account, tmp_path, "events"))
    assert found["the first event with the exit code"] == "fail"


def test_stopped_task_that_ecs_forgets_fails(account: Account, tmp_path: Path) -> None:
    listing = {"operation": "ListTasks", "error": {"code": "ClusterNotFoundException", "message": "no"}, "times": 99}
    account.stack.rule(**listing)
    account.stack.rule(shapes="no-exit-code", times=3)
    try:
        found = verdicts(verify(account, tmp_path, "after-the-end"))
    finally:
        account.stack.drop_rules()
    assert found["ListTasks by startedBy and STOPPED"] == "fail"
    assert found["DescribeTasks after the end"] == "fail"


def test_missing_or_unexpected_metrics_fail(account: Account, tmp_path: Path) -> None:
    cloudwatch = account.client("cloudwatch")
    misspelt = {"MetricName": "Errors", "Namespace": "AWS/Lambda", "Statistic": "Sum", "Period": 60, "Threshold": 0.0}
    misspelt |= {"EvaluationPeriods": 1, "ComparisonOperator": "GreaterThanThreshold"}
    dimensions = [{"Name": "FunctionName", "Value": "nobody"}]
    (right,) = cloudwatch.describe_alarms(AlarmNames=[f"{DEPLOYMENT}-submit-errors"])["MetricAlarms"]
    cloudwatch.put_metric_alarm(AlarmName=right["AlarmName"], Dimensions=dimensions, **misspelt)
    account.put_metric("AWS/Lambda", "Duration", 90_000.0, [{"Name": "FunctionName", "Value": "submit"}])
    account.report_start("runner-api", 4_000.0)
    try:
        found = verdicts(verify(account, tmp_path, "alarm-metrics", "durations", "cold-start"))
    finally:
        cloudwatch.put_metric_alarm(AlarmName=right["AlarmName"], Dimensions=right["Dimensions"], **misspelt)
    assert found["the metrics of prod-submit-errors"] == "fail"
    assert found["submit on average and at most"] == "fail"
    assert found["cold starts"] == "fail"
    assert found["the metrics of prod-lost"] == "ok"


def elsewhere(account: Account, **urls: str) -> dict[str, str]:
    """The environment of a person for whom parts of the account are at other addresses."""
    ready = account.stack.ready_file.parent / "elsewhere.json"
    ready.write_text(json.dumps(json.loads(account.stack.ready_file.read_text()) | urls))
    return account.environment() | {"ECS_BRIDGE_LOCAL": str(ready)}


def test_metrics_pass_without_a_pool(tmp_path: Path) -> None:
    """Nothing invokes runner-api there, so Lambda has no metrics of it. ECS answers differently on instances."""
    profiles = {"default": {"container_name": "main", "run_task": {"taskDefinition": "demo", "launchType": "EC2"}}}
    with Account(tmp_path / "plain", name="plain", idle=["runner-api"]) as account:

        def configuration(request: Request) -> Response:
            body = call("GET", account.stack.ready["lambda_url"] + request.path)
            body["Environment"]["Variables"]["ECS_BRIDGE_PROFILES"] = json.dumps(profiles)
            return Response.of_json(body)

        only = [
            word
            for check in ("alarm-metrics", "too-much-memory", "wrong-subnet", "session-name")
            for word in ("--only", check)
        ]
        command = ["verify-aws", "--stack", "plain", "--time-scale", "30", "--report", str(tmp_path), "--json", *only]
        with Server(configuration) as server:
            answer = account.run(*command, env=elsewhere(account, lambda_url=server.url))
    assert answer.returncode == 0, answer.stdout + answer.stderr
    found = verdicts(json.loads(answer.stdout))
    assert (
        found["the metrics of plain-runner-api-errors"]
        == found["the metrics of plain-runner-api-throttles"]
        == "unknown"
    )
    assert found["the metrics of plain-submit-errors"] == "ok"
    assert found["RunTask with too much memory"] == found["RunTask with an unknown subnet"] == "skipped"


def test_account_without_urls_schedule_and_rule_fails(tmp_path: Path) -> None:
    """Requests need no signature, and there is no runner API, dead-letter delivery or schedule."""
    flags = {"require-signature": False, "reconcile-every": 0}
    with Account(tmp_path / "bare", name="bare", alarms=False, **flags) as account:
        account.stack.abandoned = lambda: []  # type: ignore[method-assign]
        checks = ["url", "direct-invocation", "session-name", "alarm-metrics", "dead-letters", "schedule"]
        account.stack.rule(operation="DescribeClusters", error={"code": "ServerException", "message": "no"}, times=99)
        # Concurrently, because several of them wait for results that never come.
        with ThreadPoolExecutor() as pool:
            findings = [*pool.map(lambda check: verify(account, tmp_path / check, check), checks)]
        found = verdicts([finding for each in findings for finding in each])
    assert found["an unsigned call"] == "fail"
    assert found["submit, invoked directly"] == "fail"
    assert found["reconcile in the last 15 minutes"] == "fail"
    assert found["a command on a pool"] == "fail"
    assert found["the metrics of the alarms"] == "fail"
    assert found["an event that task-state cannot handle"] == "fail"


def test_interrupted_run_leaves_nothing_behind(account: Account, tmp_path: Path) -> None:
    def start() -> subprocess.Popen[str]:
        command = [str(PROGRAM), "verify-aws", "--stack", account.name, "--only", "events", "--only", "stop"]
        command += ["--report", str(tmp_path)]
        process = subprocess.Popen(command, env=account.environment(), text=True, stdout=-3, stderr=subprocess.PIPE)
        until("its rule is there", lambda: left_over(account))
        return process

    with start() as process:
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
        assert "interrupted" in process.stderr.read()
    until("nothing is left", lambda: not left_over(account))
    with start() as process:
        process.kill()
    assert left_over(account)
    answer = account.run("verify-aws", "--stack", account.name, "--clean")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "removed rule" in answer.stdout
    until("nothing is left", lambda: not left_over(account))


def doctor(account: Account, *arguments: str) -> dict[str, dict[str, Any]]:
    answer = account.run("doctor", "--stack", account.name, "--json", *arguments)
    findings = json.loads(answer.stdout)
    assert answer.returncode == int(any(finding["verdict"] == "fail" for finding in findings)), answer.stderr
    return {finding["check"]: finding for finding in findings}


def test_doctor_passes_a_healthy_deployment(account: Account) -> None:
    found = doctor(account)
    wrong = {what for what, finding in found.items() if finding["verdict"] != "ok"}
    # moto makes up the ids of its subnets: those of the local profiles are unknown to it.
    assert wrong == {f"subnets of {name}" for name in ("default", "sidecar", "pool")}, found
    assert "does not exist" in found["subnets of default"]["detail"]
    assert "correct them" in found["subnets of default"]["remedy"]


def test_alarms_of_a_deployment_with_same_prefix_are_ignored(account: Account) -> None:
    """More of them than CloudWatch returns on a page, and all of them come before ours."""
    cloudwatch = account.client("cloudwatch")
    settings = {"MetricName": "Errors", "Namespace": "AWS/Lambda", "Statistic": "Sum", "Period": 60, "Threshold": 0.0}
    settings |= {"EvaluationPeriods": 1, "ComparisonOperator": "GreaterThanThreshold"}
    theirs = [f"{DEPLOYMENT}-a-{number:03}" for number in range(110)]
    for name in theirs:
        cloudwatch.put_metric_alarm(AlarmName=name, **settings)
    cloudwatch.set_alarm_state(AlarmName=theirs[0], StateValue="ALARM", StateReason="x")
    try:
        found = doctor(account)["alarms"]
        verified = verdicts(verify(account, account.stack.ready_file.parent / "report", "alarm-metrics"))
    finally:
        cloudwatch.delete_alarms(AlarmNames=theirs)
    ours = [each for each in template()["Resources"].values() if each["Type"] == "AWS::CloudWatch::Alarm"]
    assert found["detail"] == f"none of {len(ours)} is in the state ALARM"
    assert len(verified) == len(ours)
    assert "the metrics of prod-runner-api-throttles" in verified


def test_doctor_accepts_dropped_runs_of_reconcile(account: Account) -> None:
    sqs, queue = account.client("sqs"), account.outputs["ReconcileDeadLettersUrl"]
    sqs.send_message(QueueUrl=queue, MessageBody="{}")
    try:
        found = doctor(account)["dead-letter messages of reconcile"]
    finally:
        sqs.purge_queue(QueueUrl=queue)
    assert found["verdict"] == "ok"
    assert found["detail"].startswith("1 dropped runs")
    assert "remedy" not in found


def test_doctor_skips_unreachable_checks_in_a_private_network(account: Account) -> None:
    """No endpoint of STS, and an endpoint of DynamoDB whose policy does not allow DescribeTable."""
    refusal = {"__type": "com.amazon.coral.service#AccessDeniedException"}
    refusal["Message"] = (
        "User: u is not authorized to perform: dynamodb:DescribeTable because no VPC endpoint policy allows it"
    )

    with Server(lambda _: Response.of_json(refusal, 400)) as server:
        # Nothing listens at STS's address.
        environment = elsewhere(account, dynamodb_url=server.url) | {"AWS_ENDPOINT_URL_STS": "http://127.0.0.1:9"}
        answer = account.run("doctor", "--stack", account.name, "--json", env=environment)
    found = {finding["check"]: finding for finding in json.loads(answer.stdout)}
    assert found["identity"]["verdict"] == "skipped"
    assert "STS cannot be reached" in found["identity"]["detail"]
    assert found["table"]["verdict"] == "skipped"
    assert "VPC endpoint policy" in found["table"]["detail"]


def test_doctor_names_each_failure_and_its_remedy(account: Account) -> None:
    events, sqs, cloudwatch = (account.client(service) for service in ("events", "sqs", "cloudwatch"))
    queue = account.outputs["EventDeadLettersUrl"]
    sqs.send_message(QueueUrl=queue, MessageBody="{}")
    events.disable_rule(Name="task-state")
    cloudwatch.set_alarm_state(AlarmName=f"{DEPLOYMENT}-lost", StateValue="ALARM", StateReason="x")
    try:
        found = doctor(account, "--table", "no-such-table", "--url", account.stack.ready["runner_api_url"])
    finally:
        sqs.purge_queue(QueueUrl=queue)
        events.enable_rule(Name="task-state")
        cloudwatch.set_alarm_state(AlarmName=f"{DEPLOYMENT}-lost", StateValue="OK", StateReason="x")
    for what in ("URL", "table", "feed", "rule", "dead-letter messages of events", "alarms"):
        assert found[what]["verdict"] == "fail", found[what]
        assert found[what]["remedy"], found[what]
    assert found["alarms"]["detail"] == f"{DEPLOYMENT}-lost"


def test_missing_or_foreign_stack_is_named(account: Account) -> None:
    environment = account.environment()
    del environment["ECS_BRIDGE_LOCAL"]
    unknown = account.run("ps", "--stack", "nobody", env=environment)
    assert unknown.returncode == 1
    assert 'cannot read the outputs of the stack "nobody": ValidationError: ' in unknown.stderr
    assert "Error {" not in unknown.stderr
    resources = {"Queue": {"Type": "AWS::SQS::Queue"}}
    body = json.dumps({"Resources": resources})
    account.client("cloudformation").create_stack(StackName="other", TemplateBody=body)
    other = account.run("ps", "--stack", "other", env=environment)
    assert other.returncode == 1
    assert 'the stack "other" has no output TableName' in other.stderr


def test_stack_outputs_locate_the_bridge(account: Account) -> None:
    environment = account.environment()
    del environment["ECS_BRIDGE_LOCAL"]
    environment["AWS_ENDPOINT_URL_DYNAMODB"] = account.stack.ready["dynamodb_url"]
    # The stack has precedence over variables that name another bridge.
    environment |= {"ECS_BRIDGE_URL": "http://127.0.0.1:9", "ECS_BRIDGE_TABLE": "another"}
    submitted = account.run(
        "submit", "--stack", account.name, "--id", "by-stack", "--wait", "--", "true", env=environment
    )
    assert submitted.returncode == 0, submitted.stderr
    listed = account.run("ps", "--all", "--stack", account.name, env=environment)
    assert "by-stack" in listed.stdout
