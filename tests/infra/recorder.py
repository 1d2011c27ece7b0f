"""A proxy that records the calls of functions to the local stack, and the calls that IAM would check for them.

The functions are started through scripts that put `http://PROXY/FUNCTION/SERVICE/UPSTREAM` where the local stack put
`http://UPSTREAM`, so that the proxy knows who calls what. The binaries are the real ones.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from policies import Call

from cloudformation import arn
from http_server import Request, Response, Server, forward

# IAM's names of the services, and the names in the SDK's variables.
SERVICES = {
    "dynamodb": "DYNAMODB",
    "ecs": "ECS",
    "lambda": "LAMBDA",
    "states": "SFN",
    "events": "EVENTBRIDGE",
    "sqs": "SQS",
}


@dataclass(frozen=True)
class Exchange:
    """A request and its response."""

    caller: str
    service: str
    operation: str
    request: dict[str, Any]
    status: int
    answer: dict[str, Any]


class Recorder(Server):
    """The proxy."""

    def __init__(self) -> None:
        super().__init__(self._pass_on)
        self.exchanges: list[Exchange] = []
        self._lock = threading.Lock()

    def seen(self, caller: str, operation: str) -> bool:
        """Whether this caller made such a call."""
        with self._lock:
            return any((e.caller, e.operation) == (caller, operation) for e in self.exchanges)

    def address(self, caller: str, service: str, upstream: str) -> str:
        """The address at which `caller` reaches `upstream` through the proxy."""
        return f"{self.url}/{caller}/{service}/{upstream}"

    def wrap(self, binaries: Path, folder: Path, functions: tuple[str, ...]) -> None:
        """Puts scripts into `folder` that start the functions with the proxy between."""
        for function in functions:
            lines = ["#!/bin/sh"]
            for service, name in SERVICES.items():
                variable = f"AWS_ENDPOINT_URL_{name}"
                lines.append(f'export {variable}="{self.address(function, service, "")}${{{variable}#http://}}"')
            lines.append(f'exec "{binaries / function}"')
            script = folder / function
            script.write_text("\n".join(lines) + "\n")
            script.chmod(0o755)

    def _pass_on(self, request: Request) -> Response | None:
        # boto3 leaves out the slash after an endpoint with a path.
        _, caller, service, upstream, path = f"{request.path}/".split("/", 4)
        path = path.removesuffix("/")
        response = forward(request, f"http://{upstream}", path=f"/{path}")
        if response is None:
            return None
        operation = request.headers["X-Amz-Target"].split(".")[-1] if service != "lambda" else unquote(path)
        asked, answered = json.loads(request.body or b"{}"), _json(response.body)
        exchange = Exchange(caller, service, operation, asked, response.status, answered)
        with self._lock:
            self.exchanges.append(exchange)
        return response


def _json(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def checked_calls(exchange: Exchange, table: str, deployment: str, roles: dict[str, list[str]]) -> Iterator[Call]:
    """The calls that IAM would check for an exchange. `roles` has those of each task definition."""
    request, who = exchange.request, exchange.caller
    match exchange.service:
        case "dynamodb":
            yield from _dynamodb(exchange, table)
        case "lambda":
            name = re.fullmatch(r"2015-03-31/functions/([^/]+)/invocations", exchange.operation)
            assert name, exchange.operation
            yield Call(who, "lambda:InvokeFunction", arn("lambda", f"function:{deployment}-{name[1]}"))
        case "states":
            yield Call(who, f"states:{exchange.operation}", "*")
        case "events":
            for entry in request["Entries"]:
                yield Call(who, f"events:{exchange.operation}", arn("events", f"event-bus/{entry['EventBusName']}"))
        case "sqs":
            # The deployment of the local stack has another name.
            name = (request.get("QueueName") or request["QueueUrl"].rsplit("/", 1)[1]).rsplit("-", 1)[0]
            yield Call(who, f"sqs:{exchange.operation.removesuffix('Batch')}", arn("sqs", f"{name}-{deployment}"))
        case "ecs":
            cluster = request.get("cluster", "")
            held: dict[str, str | list[str]] = {"ecs:cluster": cluster}
            action = f"ecs:{exchange.operation}"
            match exchange.operation:
                case "RunTask":
                    yield from _run_task(exchange, held, roles)
                case "StopTask":
                    yield Call(who, action, request["task"], held)
                case "DescribeTasks":
                    yield from (Call(who, action, task, held) for task in request["tasks"])
                case "ListTasks":
                    yield Call(who, action, "*", held)
                case "DescribeClusters":
                    yield from (Call(who, action, cluster) for cluster in request["clusters"])
                case "DescribeTaskDefinition":
                    yield Call(who, action, "*")
                case other:
                    raise NotImplementedError(other)


def _dynamodb(exchange: Exchange, table: str) -> Iterator[Call]:
    request = exchange.request
    tables = request["RequestItems"] if exchange.operation == "BatchGetItem" else {request["TableName"]: request}
    for options in tables.values():
        names = options.get("ExpressionAttributeNames", {})
        # A path names its first attribute.
        first = (path.partition(".")[0] for path in options.get("ProjectionExpression", "").split(", ") if path)
        projected = [names.get(name, name) for name in first]
        context: dict[str, str | list[str]] = {
            "dynamodb:Select": "SPECIFIC_ATTRIBUTES" if projected else "ALL_ATTRIBUTES"
        }
        if projected:
            context["dynamodb:Attributes"] = projected
        if exchange.operation == "BatchGetItem":
            context["dynamodb:LeadingKeys"] = [key["submission_id"]["S"] for key in options["Keys"]]
        resource = arn("dynamodb", f"table/{table}")
        if "IndexName" in request:
            resource += f"/index/{request['IndexName']}"
        yield Call(exchange.caller, f"dynamodb:{exchange.operation}", resource, context)


def _run_task(exchange: Exchange, held: dict[str, str | list[str]], roles: dict[str, list[str]]) -> Iterator[Call]:
    request, who = exchange.request, exchange.caller
    family = request["taskDefinition"].split("/")[-1].split(":")[0]
    # Without a revision, ECS asks about the one that it picked.
    yield Call(who, "ecs:RunTask", arn("ecs", f"task-definition/{family}:1"), held)
    overrides = request.get("overrides", {})
    passed = [overrides[member] for member in ("taskRoleArn", "executionRoleArn") if member in overrides]
    for role in roles[family] + passed:
        yield Call(who, "iam:PassRole", role, {"iam:PassedToService": "ecs-tasks.amazonaws.com"})
    if request.get("tags"):
        for task in exchange.answer.get("tasks", []):
            yield Call(who, "ecs:TagResource", task["taskArn"], {"ecs:CreateAction": "RunTask"})
