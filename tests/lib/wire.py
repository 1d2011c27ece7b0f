"""A proxy between the functions and AWS: it sees every call, and makes calls fail."""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Self

from http_server import Request, Response, Server, forward
from local_stack import PROGRAM

SERVICES = ("dynamodb", "ecs", "lambda")
# Calls that write one item.
WRITES = {"PutItem", "UpdateItem"}
# Calls that change something outside of the function's process.
EFFECTS = WRITES | {"RunTask", "StopTask", "Invoke", "SendTaskSuccess", "SendTaskFailure", "PutEvents"}


class Fault(Enum):
    """How a call fails.

    The codes are those of "Error handling with DynamoDB" in its Developer Guide. TransactionInProgressException is not
    among them: only TransactWriteItems returns it, and the bridge calls no such operation.
    """

    DIES_BEFORE = "the function dies before the call"
    DIES_AFTER = "the function dies after the call, without the answer"
    ANSWER_LOST = "answer lost"
    INTERNAL_ERROR = "InternalServerError"
    INTERNAL_ERROR_AFTER = "InternalServerError, though it was done"
    THROTTLED = "ThrottlingException"
    NO_THROUGHPUT = "ProvisionedThroughputExceededException"
    CONFLICT = "TransactionConflictException"
    UNPROCESSED = "UnprocessedKeys"


# Status, error code and message of the calls that DynamoDB refuses. The SDK retries all but a conflict.
REFUSALS = {
    Fault.INTERNAL_ERROR: (500, "com.amazonaws.dynamodb.v20120810#InternalServerError", "Internal server error"),
    Fault.THROTTLED: (
        400,
        "com.amazon.coral.availability#ThrottlingException",
        "Rate of requests exceeds the allowed throughput.",
    ),
    Fault.NO_THROUGHPUT: (
        400,
        "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException",
        "The level of configured provisioned throughput for the table was exceeded.",
    ),
    Fault.CONFLICT: (
        400,
        "com.amazonaws.dynamodb.v20120810#TransactionConflictException",
        "Transaction is ongoing for the item",
    ),
}
REFUSALS[Fault.INTERNAL_ERROR_AFTER] = REFUSALS[Fault.INTERNAL_ERROR]
# Faults of calls that DynamoDB carries out.
DONE = {Fault.DIES_AFTER, Fault.ANSWER_LOST, Fault.INTERNAL_ERROR_AFTER, Fault.UNPROCESSED}
DEATHS = {Fault.DIES_BEFORE, Fault.DIES_AFTER}


@dataclass(frozen=True)
class Call:
    """One call of a function, as it went over the wire."""

    operation: str
    at: float
    body: dict[str, Any]


@dataclass
class Cut:
    """The `nth` effect of a process, from 1, which is to fail. Deaths count all effects, other faults only writes."""

    pid: int
    nth: int
    fault: Fault
    kill: Callable[[], object]
    seen: int = 0
    made: bool = False

    def counts(self, operation: str) -> bool:
        return operation in (EFFECTS if self.fault in DEATHS else WRITES)


class TableFaults:
    """Faults of DynamoDB at random: this share of the calls, evenly of all kinds that the operation can have."""

    ANY = (Fault.ANSWER_LOST, Fault.INTERNAL_ERROR, Fault.INTERNAL_ERROR_AFTER, Fault.THROTTLED, Fault.NO_THROUGHPUT)

    def __init__(self, share: float, seed: object) -> None:
        self.share = share
        self.chance = random.Random(f"table/{seed}")
        self.counts: Counter[str] = Counter()
        self.choosing = threading.Lock()

    def choose(self, call: Call) -> Fault | None:
        kinds = list(self.ANY)
        if call.operation in WRITES:
            kinds.append(Fault.CONFLICT)
        if call.operation == "BatchGetItem":
            # A part of several keys, as often as all the others together: the call is a rare one.
            kinds += [Fault.UNPROCESSED] * len(kinds) if len(wanted_keys(call.body)[1]) > 1 else []
        with self.choosing:
            if self.chance.random() >= self.share:
                return None
            fault = self.chance.choice(kinds)
            self.counts[fault.value] += 1
            return fault


class History:
    """Every version of every record, as the table accepted it: a file of JSON objects, in no order."""

    def __init__(self, file: Path) -> None:
        self.output = file.open("w")
        self.writing = threading.Lock()

    @staticmethod
    def asks(call: Call) -> dict[str, Any]:
        """The call, changed to return the whole new row."""
        return {**call.body, "ReturnValues": "ALL_NEW"} if call.operation == "UpdateItem" else call.body

    def add(self, call: Call, answer: dict[str, Any]) -> None:
        row = call.body["Item"] if call.operation == "PutItem" else answer["Attributes"]
        if not row["submission_id"]["S"].startswith("#"):
            with self.writing:
                self.output.write(json.dumps(row) + "\n")

    def close(self) -> None:
        with self.writing:
            self.output.close()

    def replay(self, functions_env: Path, logs: list[Path], *flags: str) -> list[str]:
        """Replays every write, once closed, through the real decision on the inputs that are logged at `DEBUG`; returns
        what is wrong."""
        variables = dict(line.split("=", 1) for line in functions_env.read_text().splitlines())
        command = [PROGRAM.with_name("ecs-bridge-replay"), *flags, self.output.name, *logs]
        replay = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        print(replay.stdout.partition("\n")[0])
        return [] if replay.returncode == 0 else [replay.stdout + replay.stderr]


class Wire:
    """A proxy per service; a context manager. Its endpoints are known at once, its targets once the stack is up."""

    def __init__(
        self,
        services: Iterable[str] = SERVICES,
        *,
        table_faults: TableFaults | None = None,
        history: History | None = None,
    ) -> None:
        # A long run with a history would only fill the memory with calls.
        self.calls: list[Call] = []
        self.targets: dict[str, str] = {}
        self.cut: Cut | None = None
        # Calls that are answered with an internal error, and not passed on.
        self.fails: Callable[[Call], bool] = lambda _: False
        self.table_faults = table_faults
        self.history = history
        self.changing = threading.Lock()
        self.servers = {service: Server(partial(self.pass_on, service)) for service in services}

    def __enter__(self) -> Self:
        with ExitStack() as parts:
            for server in self.servers.values():
                parts.enter_context(server)
            self._parts = parts.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.close()
        if self.history:
            self.history.close()

    def environment(self) -> dict[str, str]:
        """The variables by which a function calls this proxy instead of AWS."""
        # The stack answers for Step Functions and EventBridge at the address of ECS.
        names = {"ecs": ("ecs", "sfn", "eventbridge")}
        return {
            f"AWS_ENDPOINT_URL_{name.upper()}": server.url
            for service, server in self.servers.items()
            for name in names.get(service, (service,))
        }

    def connect(self, ready: dict[str, str]) -> None:
        """Names the stack that calls are passed on to."""
        self.targets = {service: ready[f"{service}_url"] for service in self.servers}

    def pass_on(self, service: str, request: Request) -> Response | None:
        operation = request.headers.get("x-amz-target", "Lambda.Invoke").rsplit(".", 1)[1]
        call = Call(operation, time.time(), json.loads(request.body or b"{}"))
        if self.history is None:
            self.calls.append(call)
        cut = self.is_cut(operation, request.client_port)
        fault = cut.fault if cut else self.choose(service, call)
        response: Response | None = None
        if fault is None or fault in DONE:
            response = self.carry_out(service, request, call, fault)
            if response is None:
                return None
        if cut and fault in DEATHS:
            cut.kill()
        if fault in DEATHS or fault is Fault.ANSWER_LOST:
            return None
        if fault in REFUSALS:
            status, code, message = REFUSALS[fault]
            return Response.of_json({"__type": code, "message": message}, status)
        return response

    def choose(self, service: str, call: Call) -> Fault | None:
        if self.fails(call):
            return Fault.INTERNAL_ERROR
        return self.table_faults.choose(call) if self.table_faults and service == "dynamodb" else None

    def carry_out(self, service: str, request: Request, call: Call, fault: Fault | None) -> Response | None:
        """Send the call to the stack, and return the stack's response."""
        is_write = self.history is not None and call.operation in WRITES
        asked, left = call.body, None
        if fault is Fault.UNPROCESSED:
            asked, left = split_keys(call.body)
        if self.history and is_write:
            asked = self.history.asks(call)
        # The local stack checks no signature, so a changed body needs no new one.
        body = request.body if asked is call.body else json.dumps(asked).encode()
        response = forward(request, self.targets[service], body=body)
        if response and response.status == 200 and self.history and is_write:
            self.history.add(call, json.loads(response.body))
        if response and response.status == 200 and left:
            content = json.dumps({**json.loads(response.body), "UnprocessedKeys": left}).encode()
            kept = tuple(header for header in response.headers if header[0].lower() != "x-amz-crc32")
            response = replace(response, body=content, headers=kept)
        return response

    def is_cut(self, operation: str, port: int) -> Cut | None:
        with self.changing:
            cut = self.cut
            if cut is None or cut.made or not cut.counts(operation) or not has_socket(cut.pid, port):
                return None
            cut.seen += 1
            cut.made = cut.seen == cut.nth
            return cut if cut.made else None


def wanted_keys(body: dict[str, Any]) -> tuple[str, list[Any]]:
    """The table and the keys of a BatchGetItem. The bridge reads one table."""
    [(table, wanted)] = body["RequestItems"].items()
    return table, wanted["Keys"]


def split_keys(body: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A BatchGetItem for half of its keys, and the `UnprocessedKeys` of its answer."""
    table, keys = wanted_keys(body)
    half = len(keys) // 2
    asked, left = ({table: {**body["RequestItems"][table], "Keys": part}} for part in (keys[:half], keys[half:]))
    return {**body, "RequestItems": asked}, left


def has_socket(pid: int, port: int) -> bool:
    """Whether this process has the connection that comes from this port."""
    local = f"0100007F:{port:04X}"
    inodes = {row.split()[9] for row in Path("/proc/net/tcp").read_text().splitlines()[1:] if row.split()[1] == local}
    try:
        targets = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except FileNotFoundError:
        # It, or one of its files, has just been closed.
        return False
    return any(f"socket:[{inode}]" in targets for inode in inodes)
