"""As much of ECS as AwsEcsExecutor calls: RunTask, DescribeTasks, StopTask. Nothing runs; latency and counts only.

``python ecs_stub.py``, prints its URL. ``POST /_control/reset`` zeroes the counts, ``/_control/latency?ms=30`` sets
the latency, ``/_control/clear`` forgets the tasks.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

CLUSTER = "arn:aws:ecs:us-east-1:123456789012:cluster/airflow"

tasks: dict[str, dict[str, Any]] = {}
calls: Counter[str] = Counter()
described: set[str] = set()
lock = threading.Lock()
latency = 0.0


def run_task(request: dict[str, Any]) -> dict[str, Any]:
    """Return a task shaped like a Fargate task that runs."""
    arn = f"{CLUSTER.replace(':cluster/', ':task/')}/{uuid.uuid4().hex}"
    container = {
        "containerArn": f"{arn}/c",
        "taskArn": arn,
        "name": request["overrides"]["containerOverrides"][0]["name"],
        "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/airflow:3",
        "lastStatus": "RUNNING",
        "networkInterfaces": [{"attachmentId": str(uuid.uuid4()), "privateIpv4Address": "10.0.0.10"}],
        "cpu": "0",
    }
    tasks[arn] = {
        "taskArn": arn,
        "clusterArn": CLUSTER,
        "taskDefinitionArn": "arn:aws:ecs:us-east-1:123456789012:task-definition/airflow:1",
        "lastStatus": "RUNNING",
        "desiredStatus": "RUNNING",
        "createdAt": time.time(),
        "startedAt": time.time(),
        "launchType": "FARGATE",
        "platformVersion": "1.4.0",
        "cpu": "1024",
        "memory": "2048",
        "version": 3,
        "availabilityZone": "us-east-1a",
        "connectivity": "CONNECTED",
        "overrides": request["overrides"],
        "containers": [container],
        "attachments": [{"id": str(uuid.uuid4()), "type": "ElasticNetworkInterface", "status": "ATTACHED"}],
    }
    return {"tasks": [tasks[arn]], "failures": []}


def answer(operation: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Carry out one call."""
    if operation == "RunTask":
        return 200, run_task(request)
    if operation == "DescribeTasks":
        described.update(request["tasks"])
        known = [tasks[arn] for arn in request["tasks"] if arn in tasks]
        missing = [{"arn": arn, "reason": "MISSING"} for arn in request["tasks"] if arn not in tasks]
        return 200, {"tasks": known, "failures": missing}
    # The peer's health check stops a task that cannot exist, and expects an error.
    return 400, {"__type": "InvalidParameterException", "message": "The referenced task was not found."}


class Handler(BaseHTTPRequestHandler):
    """ECS's JSON protocol."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one write an answer

    def do_POST(self) -> None:
        """Answer a call, or a control request."""
        global latency
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        if url.path.startswith("/_control/"):
            with lock:
                command = url.path.rsplit("/", 1)[-1]
                if command == "reset":
                    calls.clear()
                elif command == "clear":
                    tasks.clear()
                elif command == "latency":
                    latency = float(parse_qs(url.query)["ms"][0]) / 1000
                status, result = 200, {"calls": dict(calls), "records": len(tasks), "described": len(described)}
        else:
            operation = self.headers["X-Amz-Target"].rsplit(".", 1)[-1]
            if latency:
                time.sleep(latency)
            with lock:
                calls[operation] += 1
                status, result = answer(operation, json.loads(text))
        data = json.dumps(result).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()
