"""Calls that no recording contains: those that AWS makes as a role, and those that must be denied."""

from __future__ import annotations

from policies import Call, Context
from stacks import EVERY_OPTION

from cloudformation import ACCOUNT, REGION, arn

KEY = EVERY_OPTION["KmsKeyArn"]
VOLUMES_ROLE = EVERY_OPTION["InfrastructureRoleArns"]
FUNCTIONS = ("submit", "task-state", "reconcile", "runner-api")


def via(service: str) -> Context:
    return {"kms:ViaService": f"{service}.{REGION}.amazonaws.com"}


def calls_by_aws(deployment: str, event_queue: str, reconcile_queue: str) -> list[Call]:
    """The calls of Lambda and EventBridge Scheduler as these roles, with a key and in a VPC."""
    calls = []
    for function in FUNCTIONS:
        stream = arn("logs", f"log-group:/aws/lambda/{deployment}-{function}:log-stream:2026/01/01/[$LATEST]ab")
        calls += [Call(function, f"logs:{action}", stream) for action in ("CreateLogStream", "PutLogEvents")]
        # https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions
        calls += [
            Call(function, f"ec2:{action}", "*")
            for action in (
                "AssignPrivateIpAddresses",
                "CreateNetworkInterface",
                "DeleteNetworkInterface",
                "DescribeNetworkInterfaces",
                "DescribeSubnets",
                "UnassignPrivateIpAddresses",
            )
        ]
        # The functions' variables, and the table: DynamoDB decrypts as the caller that reads or writes it.
        calls += [Call(function, "kms:Decrypt", KEY, via(service)) for service in ("lambda", "dynamodb")]
    calls += [Call(role, "kms:Decrypt", KEY, via("dynamodb")) for role in ("executor", "page")]
    for role, queue in (("task-state", event_queue), ("reconcile", reconcile_queue), ("schedule", reconcile_queue)):
        calls.append(Call(role, "sqs:SendMessage", queue))
        # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html
        calls += [Call(role, f"kms:{action}", KEY, via("sqs")) for action in ("Decrypt", "GenerateDataKey")]
    # RunTask passes the role of a managed EBS volume to ECS itself.
    passed: Context = {"iam:PassedToService": "ecs.amazonaws.com"}
    calls += [Call(role, "iam:PassRole", VOLUMES_ROLE, passed) for role in ("submit", "reconcile")]
    calls.append(Call("schedule", "lambda:InvokeFunction", arn("lambda", f"function:{deployment}-reconcile")))
    return calls


def doorbell_calls(deployment: str) -> list[Call]:
    """The calls of a runner, and those for an idle or unused pool."""
    queue = arn("sqs", f"ecs-bridge-pool-0123456789ab-{deployment}")
    calls = [Call("reconcile", f"sqs:{action}", queue) for action in ("DeleteQueue", "SendMessage")]
    return [*calls, Call("runner", "sqs:ReceiveMessage", queue)]


def denied_calls(deployment: str, table: str, cluster: str, task_definition: str, role: str) -> list[Call]:
    """The calls that each role must be denied. Each differs by one detail from an allowed one."""
    table_arn = arn("dynamodb", f"table/{table}")
    name = cluster.split("/")[-1]
    task, foreign_task = (arn("ecs", f"task/{of}/0123456789abcdef0123456789abcdef") for of in (name, f"{name}-2"))
    held: Context = {"ecs:cluster": cluster}
    foreign: Context = {"ecs:cluster": f"{cluster}-2"}
    to_tasks: Context = {"iam:PassedToService": "ecs-tasks.amazonaws.com"}
    from_code: Context = {"lambda:SourceFunctionArn": arn("lambda", f"function:{deployment}-submit")}
    everything: Context = {"dynamodb:Select": "ALL_ATTRIBUTES"}
    calls = [
        Call(who, f"sqs:{action}", arn("sqs", f"ecs-bridge-pool-0123456789ab-{queue}"))
        for who in (*FUNCTIONS, "runner")
        for action in ("CreateQueue", "DeleteQueue", "PurgeQueue", "ReceiveMessage", "SendMessage")
        # Of other deployments, whose names begin or end alike.
        for queue in (f"x-{deployment}", f"{deployment}-2", f"0123456789ab-{deployment}")
    ]

    for who in FUNCTIONS:
        calls += [
            Call(who, "dynamodb:DeleteItem", table_arn),
            Call(who, "dynamodb:Scan", table_arn),
            Call(who, "dynamodb:DeleteTable", table_arn),
            Call(who, "dynamodb:GetItem", table_arn + "-2"),
            Call(who, "dynamodb:Query", table_arn + "/index/feed"),
            Call(who, "ecs:StopTask", foreign_task, foreign),
            # A task ARN of the old short form, in another cluster.
            Call(who, "ecs:StopTask", task, foreign),
            Call(who, "ecs:RunTask", task_definition.replace("task-definition/", "task-definition/x-"), held),
            Call(who, "ecs:RunTask", task_definition, foreign),
            Call(who, "ecs:RegisterTaskDefinition", "*"),
            Call(who, "ecs:ExecuteCommand", task, held),
            Call(who, "ecs:ListTasks", "*", foreign),
            Call(who, "ecs:DescribeTasks", task, foreign),
            Call(who, "ecs:TagResource", task, {"ecs:CreateAction": "CreateService"}),
            Call(who, "ecs:TagResource", task),
            Call(who, "ecs:TagResource", foreign_task, {"ecs:CreateAction": "RunTask"}),
            Call(who, "iam:PassRole", role + "-admin", to_tasks),
            Call(who, "iam:PassRole", role, {"iam:PassedToService": "lambda.amazonaws.com"}),
            Call(who, "iam:PassRole", role, {"iam:PassedToService": "ecs.amazonaws.com"}),
            Call(who, "iam:PassRole", VOLUMES_ROLE, to_tasks),
            Call(who, "sts:AssumeRole", role),
            Call(who, "lambda:InvokeFunction", arn("lambda", "function:somebody-elses")),
            Call(who, "lambda:UpdateFunctionCode", arn("lambda", f"function:{deployment}-{who}")),
            Call(who, "lambda:GetFunctionConfiguration", arn("lambda", f"function:{deployment}-{who}")),
            Call(who, "sqs:ReceiveMessage", arn("sqs", "test-EventDeadLetters")),
            Call(who, "sqs:SendMessage", arn("sqs", "somebody-elses")),
            Call(who, "logs:CreateLogGroup", arn("logs", "log-group:new")),
            Call(who, "logs:PutLogEvents", arn("logs", f"log-group:/aws/lambda/{deployment}-other:log-stream:a")),
            Call(who, "logs:GetLogEvents", arn("logs", f"log-group:/aws/lambda/{deployment}-{who}:log-stream:a")),
            Call(who, "ec2:CreateNetworkInterface", "*", from_code),
            Call(who, "ec2:DescribeSubnets", "*", from_code),
            Call(who, "kms:Decrypt", KEY),
            Call(who, "kms:Decrypt", KEY, via("s3")),
            Call(who, "kms:Decrypt", KEY[:-1] + "0", via("dynamodb")),
            Call(who, "kms:ScheduleKeyDeletion", KEY, via("dynamodb")),
            Call(who, "kms:GenerateDataKey", KEY),
            Call(who, "states:StartExecution", arn("states", "stateMachine:nightly")),
            Call(who, "states:SendTaskHeartbeat", "*"),
            Call(who, "events:PutEvents", arn("events", "event-bus/others")),
            Call(who, "events:PutRule", arn("events", "rule/any")),
            Call(who, "secretsmanager:GetSecretValue", arn("secretsmanager", "secret:db")),
            Call(who, "s3:GetObject", "arn:aws:s3:::bucket/key"),
        ]
    # Calls that only other functions may make.
    calls += [
        Call("submit", "dynamodb:Query", table_arn + "/index/due"),
        Call("submit", "dynamodb:BatchGetItem", table_arn),
        Call("submit", "ecs:ListTasks", "*", held),
        Call("submit", "states:SendTaskSuccess", "*"),
        Call("submit", "events:PutEvents", arn("events", "event-bus/default")),
        Call("submit", "sqs:SendMessage", arn("sqs", "test-EventDeadLetters")),
        Call("submit", "kms:GenerateDataKey", KEY, via("sqs")),
        Call("submit", "ecs:DescribeClusters", f"{cluster}-2"),
        Call("submit", "lambda:InvokeFunction", arn("lambda", f"function:{deployment}-task-state")),
        Call("task-state", "dynamodb:PutItem", table_arn),
        Call("task-state", "dynamodb:BatchGetItem", table_arn),
        Call("task-state", "dynamodb:Query", table_arn + "/index/due"),
        Call("task-state", "ecs:RunTask", task_definition, held),
        Call("task-state", "ecs:DescribeTasks", task, held),
        Call("task-state", "ecs:ListTasks", "*", held),
        Call("task-state", "iam:PassRole", role, to_tasks),
        Call("task-state", "lambda:InvokeFunction", arn("lambda", f"function:{deployment}-submit")),
        Call("runner-api", "dynamodb:PutItem", table_arn),
        Call("runner-api", "dynamodb:BatchGetItem", table_arn),
        Call("runner-api", "dynamodb:Query", table_arn + "/index/due"),
        Call("runner-api", "ecs:RunTask", task_definition, held),
        Call("runner-api", "ecs:StopTask", task, held),
        Call("runner-api", "iam:PassRole", role, to_tasks),
        Call("runner-api", "lambda:InvokeFunction", arn("lambda", f"function:{deployment}-submit")),
        Call("submit", "dynamodb:Query", table_arn + "/index/pool"),
        Call("task-state", "dynamodb:Query", table_arn + "/index/pool"),
        Call("reconcile", "ecs:DescribeTaskDefinition", "*"),
        Call("reconcile", "ecs:DescribeClusters", cluster),
        Call("reconcile", "lambda:InvokeFunction", arn("lambda", f"function:{deployment}-reconcile")),
        Call("schedule", "lambda:InvokeFunction", arn("lambda", f"function:{deployment}-submit")),
        Call("schedule", "sqs:SendMessage", arn("sqs", "test-EventDeadLetters")),
        Call("schedule", "kms:GenerateDataKey", KEY),
        Call("schedule", "kms:Decrypt", KEY, via("dynamodb")),
        Call("schedule", "dynamodb:GetItem", table_arn),
    ]
    submit, work = (arn("lambda", f"function:{deployment}-{function}") for function in ("submit", "runner-api"))
    signed: Context = {"lambda:FunctionUrlAuthType": "AWS_IAM"}
    calls += [
        # A runner's token alone is not enough for work, and nothing is for submit.
        Call("runner", "lambda:InvokeFunction", work),
        Call("runner", "lambda:InvokeFunction", work, {"lambda:InvokedViaFunctionUrl": "false"}),
        Call("runner", "lambda:InvokeFunctionUrl", work, {"lambda:FunctionUrlAuthType": "NONE"}),
        Call("runner", "lambda:InvokeFunctionUrl", submit, signed),
        Call("runner", "lambda:InvokeFunction", submit, {"lambda:InvokedViaFunctionUrl": "true"}),
        Call("runner", "dynamodb:GetItem", table_arn),
        Call("executor", "lambda:InvokeFunctionUrl", work, signed),
        Call("executor", "dynamodb:Query", table_arn + "/index/pool"),
        # Without the URL, which checks the request.
        Call("executor", "lambda:InvokeFunction", submit),
        Call("executor", "lambda:InvokeFunction", submit, {"lambda:InvokedViaFunctionUrl": "false"}),
        Call("executor", "lambda:InvokeFunctionUrl", submit, {"lambda:FunctionUrlAuthType": "NONE"}),
        Call(
            "executor",
            "lambda:InvokeFunctionUrl",
            arn("lambda", f"function:{deployment}-reconcile"),
            {"lambda:FunctionUrlAuthType": "AWS_IAM"},
        ),
        Call("executor", "dynamodb:Query", table_arn),
        Call("executor", "dynamodb:Query", table_arn + "/index/due"),
        Call("executor", "dynamodb:GetItem", table_arn),
        Call("executor", "dynamodb:Scan", table_arn),
        Call("executor", "dynamodb:PutItem", table_arn),
        Call("executor", "dynamodb:UpdateItem", table_arn),
        Call("executor", "dynamodb:BatchGetItem", table_arn, everything),
        Call(
            "executor",
            "dynamodb:BatchGetItem",
            table_arn,
            {"dynamodb:Select": "SPECIFIC_ATTRIBUTES", "dynamodb:Attributes": ["submission_id", "request"]},
        ),
        Call("executor", "ecs:RunTask", task_definition, held),
        Call("executor", "ecs:StopTask", task, held),
        Call("executor", "ecs:DescribeTasks", task, held),
        Call("executor", "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/etl-task", to_tasks),
        Call("executor", "kms:Decrypt", KEY),
        Call("page", "dynamodb:BatchGetItem", table_arn, everything),
        Call(
            "page",
            "dynamodb:BatchGetItem",
            table_arn,
            {**everything, "dynamodb:LeadingKeys": ["#launch-rate", "etl-1"]},
        ),
        Call(
            "page",
            "dynamodb:BatchGetItem",
            table_arn,
            {
                "dynamodb:Select": "SPECIFIC_ATTRIBUTES",
                "dynamodb:Attributes": ["submission_id", "request"],
                "dynamodb:LeadingKeys": ["etl-1"],
            },
        ),
        Call("page", "dynamodb:Query", table_arn),
        Call("page", "dynamodb:Scan", table_arn),
        Call("page", "dynamodb:UpdateItem", table_arn),
        Call("page", "lambda:InvokeFunctionUrl", submit, signed),
        Call("page", "kms:Decrypt", KEY),
    ]
    return calls
