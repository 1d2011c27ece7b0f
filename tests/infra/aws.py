"""A whole account on this machine: ECS, Lambda and DynamoDB of the local stack, the rest of AWS by moto's server, and
what EventBridge and Lambda do between them."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import boto3
import cbor2
from moto.server import ThreadedMotoServer
from stacks import PARAMETERS, packaged

from cloudformation import REGION, ResolvedTemplate, rewritten
from http_server import Request, Response, Server
from local_stack import PROGRAM, LocalStack

DEPLOYMENT = "prod"
# As the SDKs call the services in the names of their variables.
SERVICES = ["CLOUDFORMATION", "CLOUDWATCH", "CLOUDWATCH_LOGS", "EC2", "EVENTBRIDGE", "SQS", "STS"]
FUNCTIONS = ("submit", "task-state", "reconcile", "runner-api")
FLAGS: dict[str, object] = {
    "require-signature": True,
    "provision-s": 0.05,
    "pull-s": 0.05,
    "teardown-s": 0.3,
    "time-scale": 60,
    "reconcile-every": 2,
}


class Account:
    """An account; a context manager. All share moto's account, so each has its own deployment and stack."""

    def __init__(
        self,
        folder: Path,
        *,
        name: str = DEPLOYMENT,
        alarms: bool = True,
        idle: Sequence[str] = (),
        **flags: object,
    ) -> None:
        """`idle`: functions that nothing invokes, of which Lambda has no metrics."""
        self.name, self.alarms = name, alarms
        # Metrics are all accounts', so those of an idle function need a name that no other has.
        self.functions = {short: f"{name}-{short}" if short in idle else short for short in FUNCTIONS}
        self.idle = [self.functions[short] for short in idle]
        self.stack = LocalStack(folder, FLAGS | {"deployment": name} | flags)

    def __enter__(self) -> Self:
        with ExitStack() as parts:
            server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
            server.start()
            parts.callback(server.stop)
            self.url = "http://{}:{}".format(*server.get_host_and_port())
            self.cloudwatch_url = parts.enter_context(Server(self.cloudwatch)).url
            parts.enter_context(self.stack)
            self.deploy()
            ended = threading.Event()
            pump = threading.Thread(target=self.deliver, args=(ended,))
            pump.start()
            parts.callback(lambda: (ended.set(), pump.join()))
            self.parts = parts.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.parts.close()

    def client(self, service: str) -> Any:
        return boto3.client(service, endpoint_url=self.url, region_name=REGION)

    def deploy(self) -> None:
        """The stack's outputs, queues, rule, alarms and log groups."""
        ready = self.stack.ready
        # The stand-in calls its functions by these names.
        values = {
            "SubmitUrl": ready["submit_url"],
            "TableName": ready["table"],
            "DeploymentName": self.name,
            "Region": REGION,
            "SubmitFunctionName": "submit",
            "TaskStateFunctionName": "task-state",
            "ReconcileFunctionName": "reconcile" if self.alarms else "not-scheduled",
            "RunnerApiFunctionName": self.functions["runner-api"],
        }
        outputs: dict[str, Any] = {name: {"Value": value} for name, value in values.items()}
        resources = {}
        for queue in ("EventDeadLetters", "ReconcileDeadLetters"):
            resources[queue] = {"Type": "AWS::SQS::Queue"}
            outputs[f"{queue}Url"] = {"Value": {"Ref": queue}}
        self.client("cloudformation").create_stack(
            StackName=self.name, TemplateBody=json.dumps({"Resources": resources, "Outputs": outputs})
        )
        stack = self.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"][0]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        events = self.client("events")
        events.put_rule(Name="task-state", EventPattern=json.dumps({"source": ["not.delivered.by.moto"]}))
        self.task_state_arn = f"arn:aws:lambda:{REGION}:123456789012:function:task-state"
        queue_arn = f"arn:aws:sqs:{REGION}:123456789012:events"
        target = {"Id": "task-state", "Arn": self.task_state_arn, "DeadLetterConfig": {"Arn": queue_arn}}
        events.put_targets(Rule="task-state", Targets=[target])
        for alarm in self.resolved_alarms():
            self.put_alarm(alarm)
        for function in set(self.functions.values()) - set(self.idle):
            for name, value in (("Duration", 7.0), ("Invocations", 3.0)):
                self.put_metric("AWS/Lambda", name, value, [{"Name": "FunctionName", "Value": function}])
            group = f"/aws/lambda/{function}"
            if not self.client("logs").describe_log_groups(logGroupNamePrefix=group)["logGroups"]:
                self.client("logs").create_log_group(logGroupName=group)
        self.report_start("submit", 21.5 if self.alarms else 22.5)

    def put_alarm(self, alarm: dict[str, Any]) -> None:
        known = ["AlarmName", "Namespace", "MetricName", "Dimensions", "Metrics", "Statistic", "ExtendedStatistic"]
        known += ["Period", "EvaluationPeriods", "Threshold", "ComparisonOperator", "TreatMissingData"]
        given = {name: alarm[name] for name in known if name in alarm}
        # CloudFormation converts parameters, which are text, to the types of properties.
        self.client("cloudwatch").put_metric_alarm(**given | {"Threshold": float(alarm["Threshold"])})
        stats = [metric["MetricStat"]["Metric"] for metric in alarm.get("Metrics", []) if "MetricStat" in metric]
        for metric in stats or [alarm]:
            if not any(dimension["Value"] in self.idle for dimension in metric["Dimensions"]):
                self.put_metric(metric["Namespace"], metric["MetricName"], 0.0, metric["Dimensions"])

    def put_metric(self, namespace: str, name: str, value: float, dimensions: list[dict[str, str]]) -> None:
        data = [{"MetricName": name, "Value": value, "Dimensions": dimensions}]
        self.client("cloudwatch").put_metric_data(Namespace=namespace, MetricData=data)

    def report_start(self, function: str, millis: float) -> None:
        """Write Lambda's log line of a cold start, as with SystemLogLevel INFO."""
        logs, group = self.client("logs"), f"/aws/lambda/{function}"
        stream = f"start-{self.name}-{millis}"
        logs.create_log_stream(logGroupName=group, logStreamName=stream)
        report = {"type": "platform.report", "record": {"metrics": {"initDurationMs": millis, "durationMs": 3.0}}}
        event = {"timestamp": int(time.time() * 1_000), "message": json.dumps(report)}
        logs.put_log_events(logGroupName=group, logStreamName=stream, logEvents=[event])

    def deliver(self, ended: threading.Event) -> None:
        """Deliver ECS's events to all other rules, and abandoned invocations to the dead-letter queue."""
        events, sqs = self.client("events"), self.client("sqs")
        told: set[str] = set()
        dead = 0
        while not ended.wait(0.1):
            for event in self.stack.events():
                if event["id"] not in told:
                    told.add(event["id"])
                    entry = {"Source": event["source"], "DetailType": event["detail-type"], "Time": event["time"]}
                    entry |= {"Detail": json.dumps(event["detail"]), "Resources": event["resources"]}
                    events.put_events(Entries=[entry])
            abandoned = self.stack.abandoned()
            for event in abandoned[dead:]:
                sqs.send_message(QueueUrl=self.outputs["EventDeadLettersUrl"], MessageBody=json.dumps(event))
            dead = len(abandoned)

    def resolved_alarms(self) -> list[dict[str, Any]]:
        """The alarms of the template, on the functions as they are called here."""
        names = {f"{self.name}-{short}": here for short, here in self.functions.items()}
        resolved = ResolvedTemplate(packaged(), PARAMETERS | {"Deployment": self.name})
        alarms = resolved.of_type("AWS::CloudWatch::Alarm").values() if self.alarms else ()
        return rewritten(list(alarms), lambda node: names.get(node, node) if isinstance(node, str) else node)

    def cloudwatch(self, request: Request) -> Response:
        """Translate Smithy's RPC v2 CBOR for moto: `POST /service/NAME/operation/OPERATION`."""
        operation = request.path.rsplit("/", 1)[1]
        answer = self.client("cloudwatch")._make_api_call(operation, cbor2.loads(request.body))
        answer.pop("ResponseMetadata")
        headers = (("smithy-protocol", "rpc-v2-cbor"), ("content-type", "application/cbor"))
        return Response(cbor2.dumps(answer, datetime_as_timestamp=True), headers=headers)

    def environment(self) -> dict[str, str]:
        """The variables of a logged-in user."""
        own = {f"AWS_ENDPOINT_URL_{service}": self.url for service in SERVICES}
        # The SDK for Rust speaks a protocol to it that moto does not know.
        own["AWS_ENDPOINT_URL_CLOUDWATCH"] = self.cloudwatch_url
        own |= {"AWS_REGION": REGION, "ECS_BRIDGE_LOCAL": str(self.stack.ready_file)}
        own |= {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
        return os.environ | own

    def run(self, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        command = [str(PROGRAM), *arguments]
        options = {"env": self.environment(), "capture_output": True, "text": True, "timeout": 300} | more
        return subprocess.run(command, check=False, **options)
