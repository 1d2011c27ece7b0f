"""The local stack with the release functions, and a counting proxy before DynamoDB and ECS."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import samples
from functions import NAMES, RELEASE
from proxy import Proxy
from runtime_api import cpu

PROGRAM = RELEASE / "ecs-bridge"
# Milliseconds by which ends may come onto the feed out of order.
OVERLAP = 10_000


class Stack:
    """A stack of its own; a context manager, so that it always ends."""

    def __init__(
        self,
        folder: Path,
        *,
        latency: float = 0.0,
        proxies: bool = True,
        no_limit: bool = False,
        variables: Mapping[str, object] = {},
        profiles: object = None,
        **flags: object,
    ) -> None:
        """`no_limit` lifts the bridge's launch rate. `flags` are the local stack's, `variables` its functions'."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        profiles_file = folder / "profiles.json"
        profiles_file.write_text(json.dumps(profiles or samples.PROFILES))
        base = free_ports(5)
        self.dynamodb, self.ecs = Proxy(base + 2, latency), Proxy(base + 3, latency)
        self._proxies = [self.dynamodb, self.ecs] if proxies else []
        self._ended: set[str] = set()
        self._last_end = 0
        self._ready_file = folder / "ready.json"
        self.log_dir = folder / "logs"
        self._command = [str(PROGRAM), "local", "--functions-dir", str(RELEASE), "--port-base", str(base)]
        self._command += ["--ready-file", str(self._ready_file), "--log-dir", str(self.log_dir)]
        self._command += ["--profiles", str(profiles_file), "--deployment", samples.DEPLOYMENT]
        self._command += ["--cluster", samples.CLUSTER_NAME, "--function-env", "AWS_LAMBDA_LOG_FORMAT=JSON"]
        if no_limit:
            variables = {"ECS_BRIDGE_LAUNCH_RATE": 10000, "ECS_BRIDGE_LAUNCH_BURST": 100000, **variables}
        for name, value in variables.items():
            self._command += ["--function-env", f"{name}={value}"]
        for flag, value in flags.items():
            name = f"--{flag.replace('_', '-')}"
            self._command += [name] if value is True else [name, str(value)]

    def __enter__(self) -> Self:
        for proxy, service in zip(self._proxies, ("DYNAMODB", "ECS"), strict=False):
            proxy.__enter__()
            self._command += ["--function-env", f"AWS_ENDPOINT_URL_{service}={proxy.url}"]
        with (self.folder / "local.log").open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        until = time.monotonic() + 60
        while not self._ready_file.exists():
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((self.folder / "local.log").read_text())
            time.sleep(0.02)
        self.ready: dict[str, str] = json.loads(self._ready_file.read_text())
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        for proxy in self._proxies:
            proxy.__exit__()

    def submit(self, items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return call(f"{self.ready['submit_url']}/v1/submissions", {"submissions": items})["submissions"]

    def feed(self, after: int = 0) -> dict[str, dict[str, Any]]:
        """What has ended since `after` (epoch milliseconds), by id; past the proxy, so that it is not counted."""
        found: dict[str, dict[str, Any]] = {}
        query: dict[str, Any] = {
            "TableName": self.ready["table"],
            "IndexName": "feed",
            "KeyConditionExpression": "feed = :feed AND changed_at >= :after",
            "ExpressionAttributeValues": {":feed": {"S": samples.DEPLOYMENT}, ":after": {"N": str(after)}},
        }
        while True:
            answer = call(self.ready["dynamodb_url"], query, {"x-amz-target": "DynamoDB_20120810.Query"})
            found |= {row["submission_id"]["S"]: row for row in answer["Items"]}
            if "LastEvaluatedKey" not in answer:
                return found
            query["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    def ended(self) -> int:
        """How many submissions have ended. Reads what is new since it was last asked."""
        new = self.feed(self._last_end - OVERLAP)
        self._ended |= new.keys()
        self._last_end = max([self._last_end, *(int(row["changed_at"]["N"]) for row in new.values())])
        return len(self._ended)

    def records(self) -> list[dict[str, Any]]:
        """All records, numbers as such."""
        target = {"x-amz-target": "DynamoDB_20120810.Scan"}
        scan: dict[str, Any] = {"TableName": self.ready["table"]}
        items = []
        while True:
            answer = call(self.ready["dynamodb_url"], scan, target)
            items += [item for item in answer["Items"] if "state" in item]
            if "LastEvaluatedKey" not in answer:
                break
            scan["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
        return [
            {name: int(value["N"]) if "N" in value else next(iter(value.values())) for name, value in item.items()}
            for item in items
        ]

    def until_ended(self, count: int, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self.ended() < count:
            if time.monotonic() > until:
                raise RuntimeError(f"{self.ended()} of {count} ended in {seconds:.0f} s")
            time.sleep(0.2)

    def calls(self) -> dict[str, int]:
        """ECS's calls by operation."""
        return call(f"{self.ready['ecs_url']}/_local/calls")["calls"]

    def tasks(self) -> list[dict[str, Any]]:
        return call(f"{self.ready['ecs_url']}/_local/tasks")["tasks"]

    def invocations(self) -> dict[str, dict[str, int]]:
        return call(f"{self.ready['lambda_url']}/_local/invocations")["functions"]

    def processes(self) -> list[dict[str, Any]]:
        return call(f"{self.ready['lambda_url']}/_local/processes")["processes"]

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU by function."""
        used = dict.fromkeys(NAMES, 0.0)
        for process in self.processes():
            used[process["function"]] += cpu(process["pid"])
        return used

    def memory(self) -> dict[str, float]:
        """The most MiB that a process of each function held."""
        held = dict.fromkeys(NAMES, 0.0)
        for process in self.processes():
            lines = Path(f"/proc/{process['pid']}/status").read_text().splitlines()
            peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
            held[process["function"]] = max(held[process["function"]], peak)
        return held


def call(url: str, body: object | None = None, headers: Mapping[str, str] = {}) -> Any:
    data = None if body is None else json.dumps(body).encode()
    authorization = "AWS4-HMAC-SHA256 Credential=bench/20260301/us-east-1/dynamodb/aws4_request, SignedHeaders=host, "
    all_headers = {"content-type": "application/json", **headers}
    if headers:
        all_headers |= {"authorization": authorization + "Signature=0", "content-type": "application/x-amz-json-1.0"}
        all_headers["x-amz-date"] = "20260301T000000Z"
    request = urllib.request.Request(url, data, all_headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.loads(answer.read() or b"null")


def free_ports(count: int) -> int:
    """The first of so many ports in a row that nobody listens on."""
    for base in range(21_000, 30_000, count):
        with_sockets: list[socket.socket] = []
        try:
            with_sockets += [socket.create_server(("127.0.0.1", base + offset)) for offset in range(count)]
            return base
        except OSError:
            continue
        finally:
            for each in with_sockets:
                each.close()
    raise RuntimeError("no free ports")
