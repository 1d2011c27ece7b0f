"""A bridge small enough to script: the HTTP API, and the two DynamoDB calls that the executor makes, on one port.

It runs nothing: a test says how each submission ends. Faults are asked for per call, calls are counted. The same
server runs as a process of its own for the bench (``python fake_bridge.py --port N --latency-ms 30``).
"""

from __future__ import annotations

import argparse
import itertools
import json
import ssl
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

TABLE = "bridge"
DEPLOYMENT = "test"
PROFILES = ("default", "large")
PATIENCE = 240.0
"""Seconds after which a wait fails, enough for a busy machine."""
PAGE = 5000  # rows of the feed in an answer; DynamoDB cuts at 1 MB


@dataclass
class Fault:
    """How one call goes wrong."""

    status: int = 500
    body: Any = field(
        default_factory=lambda: {"error": {"code": "internal", "message": "told to fail"}, "request_id": "r"}
    )
    carried_out: bool = False
    """The call happened, and only its answer is lost."""
    hang_up: bool = False
    """The connection breaks instead of an answer."""
    gate: threading.Event | None = None
    """Nothing is answered before this."""


class FakeBridge:
    """The state, and the ways for a test to look at and change it. Every method is safe from any thread."""

    def __init__(self, latency: float = 0.0) -> None:
        self.latency = latency
        self.records: dict[str, dict[str, Any]] = {}
        self.starts: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.batches: list[list[dict[str, Any]]] = []
        self.stops: list[tuple[str, str]] = []
        self.signatures: list[str] = []
        self.proxied: list[str] = []
        self.looked_up: list[list[str]] = []
        self.ranges: list[tuple[int, int]] = []
        self.faults: dict[str, deque[Fault]] = defaultdict(deque)
        self.item_errors: dict[str, deque[dict[str, str]]] = defaultdict(deque)
        self.unprocessed = 0
        self.health: dict[str, Any] = {
            "status": "ok",
            "deployment": DEPLOYMENT,
            "table": TABLE,
            "checks": [],
            "warnings": [],
            "profiles": {name: {"max_attempts": 3} for name in PROFILES},
        }
        self.unhealthy: dict[str, Any] | None = None
        self.changed = threading.Condition(threading.RLock())

    # For tests

    def wait_until(self, predicate: Callable[[], Any], timeout: float = PATIENCE) -> Any:
        """Wait until it holds; look again after every call and change."""
        with self.changed:
            assert self.changed.wait_for(predicate, timeout), "the bridge did not come to that state"

    def finish(
        self, submission_id: str, state: str = "succeeded", *, changed_at: int | None = None, **more: Any
    ) -> None:
        """End a submission."""
        with self.changed:
            record = self.records[submission_id]
            if state in ("succeeded", "failed"):
                more.setdefault("exit_code", 0 if state == "succeeded" else 1)
            record.update(more, state=state, feed=DEPLOYMENT, changed_at=changed_at or now_ms())
            self.changed.notify_all()

    def hide_from_feed(self, submission_id: str) -> None:
        """Lose an entry of the index, as no real one would for long."""
        with self.changed:
            del self.records[submission_id]["feed"]

    def fail(self, operation: str, times: int = 1, **fault: Any) -> None:
        """Make the next calls of an operation (a path, or a DynamoDB operation) fail."""
        with self.changed:
            self.faults[operation].extend(Fault(**fault) for _ in range(times))

    # The API

    def call(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        """Carry out a call of the HTTP API."""
        with self.changed:
            if (method, path) == ("POST", "/v1/submissions"):
                self.batches.append(body["submissions"])
                if not 1 <= len(body["submissions"]) <= 100:
                    return 422, error("envelope", "1 to 100 items")
                return 200, {
                    "submissions": [{"index": i, **self._submit(s)} for i, s in enumerate(body["submissions"])]
                }
            if (method, path) == ("POST", "/v1/stops"):
                return 200, {"submissions": [self._stop(id, body["reason"]) for id in body["submission_ids"]]}
            if method == "GET" and path == "/v1/health":
                return (503, self.unhealthy) if self.unhealthy else (200, self.health)
            if method == "GET" and path.startswith("/v1/submissions/"):
                record = self.records.get(path.rsplit("/", 1)[-1])
                return (
                    (200, {k: v for k, v in record.items() if k != "content"})
                    if record
                    else (404, error("not_found", "no such submission"))
                )
            return 404, error("not_found", "no such path")

    def _submit(self, item: dict[str, Any]) -> dict[str, Any]:
        id = item["submission_id"]
        answer: dict[str, Any] = {"submission_id": id}
        if self.item_errors[id]:
            return {**answer, "error": self.item_errors[id].popleft()}
        known = self.records.get(id)
        content = json.dumps([item["command"], item.get("overrides", {}), item.get("profile", "default")])
        if known is not None:
            if known["content"] not in (content, None):
                return {**answer, "state": known["state"], "error": {"code": "conflict", "message": "other content"}}
            return {**answer, "state": known["state"]}
        labels = item.get("labels", {})
        if sum(len(k.encode()) + len(v.encode()) for k, v in labels.items()) > 200:
            return {**answer, "error": {"code": "invalid", "message": "labels are too long"}}
        if item.get("profile", "default") not in PROFILES:
            return {**answer, "error": {"code": "unknown_profile", "message": "no such profile"}}
        record = {
            "submission_id": id,
            "state": "launched",
            "created_at": now_ms(),
            "content": content,
            "labels": labels,
        }
        self.records[id] = record
        if item.get("launch_deadline", now_ms() + 1_000) < now_ms():
            self.finish(id, "expired", reason="the launch deadline has passed")
        else:
            self.starts[id] += 1
            record.update(
                task_arn=f"arn:aws:ecs:eu-central-1:123456789012:task/c/{len(self.records):032x}", container_name="main"
            )
        return {**answer, "state": record["state"]}

    def _stop(self, id: str, reason: str) -> dict[str, Any]:
        self.stops.append((id, reason))
        if id not in self.records:
            self.records[id] = {"submission_id": id, "state": "cancelled", "created_at": now_ms(), "content": None}
            self.finish(id, "cancelled", reason=reason)
        return {"submission_id": id, "state": self.records[id]["state"]}

    # DynamoDB

    def dynamodb(self, operation: str, body: Any) -> tuple[int, Any]:
        """Carry out a DynamoDB call; only those of the executor are known."""
        with self.changed:
            if operation == "Query":
                values = body["ExpressionAttributeValues"]
                feed, since, until = values[":feed"]["S"], int(values[":since"]["N"]), int(values[":until"]["N"])
                self.ranges.append((since, until))
                rows = [r for r in self.records.values() if r.get("feed") == feed and since <= r["changed_at"] <= until]
                rows.sort(key=lambda r: (r["changed_at"], r["submission_id"]))
                if start := body.get("ExclusiveStartKey"):
                    after = (int(start["changed_at"]["N"]), start["submission_id"]["S"])
                    rows = [r for r in rows if (r["changed_at"], r["submission_id"]) > after]
                page = rows[:PAGE]
                columns = ("submission_id", "feed", "changed_at", "state", "exit_code", "reason")
                answer: dict[str, Any] = {"Items": [wire(row, columns) for row in page], "Count": len(page)}
                if len(rows) > len(page):
                    answer["LastEvaluatedKey"] = wire(page[-1], ("submission_id", "feed", "changed_at"))
                return 200, answer
            if operation == "BatchGetItem":
                ((table, request),) = body["RequestItems"].items()
                assert request["ConsistentRead"] is True
                keys = request["Keys"]
                cut = max(len(keys) - self.unprocessed, 0)
                self.unprocessed = 0
                columns = tuple(request["ExpressionAttributeNames"].values())
                ids = [key["submission_id"]["S"] for key in keys[:cut]]
                self.looked_up.append(ids)
                rows = [wire(self.records[id], columns) for id in ids if id in self.records]
                unprocessed = {table: {**request, "Keys": keys[cut:]}} if keys[cut:] else {}
                return 200, {"Responses": {table: rows}, "UnprocessedKeys": unprocessed}
            return 400, {"__type": "com.amazonaws.dynamodb#UnknownOperationException", "message": operation}


def wire(row: dict[str, Any], columns: tuple[str, ...]) -> dict[str, Any]:
    """Return a row as DynamoDB spells it."""
    return {c: value(row[c]) for c in columns if c in row}


def value(content: int | str | list[str] | dict[str, str]) -> dict[str, Any]:
    """Return an attribute as DynamoDB spells it."""
    match content:
        case int():
            return {"N": str(content)}
        case str():
            return {"S": content}
        case list():
            return {"L": [value(each) for each in content]}
        case dict():
            return {"M": {name: value(each) for name, each in content.items()}}


def error(code: str, message: str) -> dict[str, Any]:
    """Return the API's form of an error."""
    return {"error": {"code": code, "message": message}, "request_id": "r"}


def now_ms() -> int:
    """Return the time in epoch milliseconds."""
    return int(time.time() * 1000)


class Handler(BaseHTTPRequestHandler):
    """HTTP around a FakeBridge."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one write an answer, or Nagle and delayed ACKs cost 40 ms each
    bridge: FakeBridge

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def _serve(self) -> None:
        bridge = self.bridge
        if self.path.startswith("http://"):  # as a proxy is asked
            bridge.proxied.append(self.path)
            self.path = urlsplit(self.path).path
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(text) if text else None
        if self.path.startswith("/_control/"):
            return self._answer(200, self._control(self.path.rsplit("/", 1)[-1], body))
        operation = self.headers.get("X-Amz-Target", self.path).rsplit(".", 1)[-1]
        signature = self.headers.get("Authorization", "")
        with bridge.changed:
            bridge.calls[operation] += 1
            bridge.signatures.append(signature)
            fault = bridge.faults[operation].popleft() if bridge.faults[operation] else None
            bridge.changed.notify_all()
        if fault and fault.gate:
            fault.gate.wait()
        if bridge.latency:
            time.sleep(bridge.latency)
        if fault and not fault.carried_out:
            return self._answer(fault.status, fault.body, hang_up=fault.hang_up)
        service = "dynamodb" if "X-Amz-Target" in self.headers else "lambda"
        if f"/{service}/aws4_request" not in signature:
            return self._answer(403, {"Message": "Forbidden"})
        if service == "dynamodb":
            status, answer = bridge.dynamodb(operation, body)
        elif self.path.startswith("/2015-03-31/functions/"):
            return self._answer_invocation(body)
        else:
            status, answer = bridge.call(self.command, self.path, body)
        with bridge.changed:
            bridge.changed.notify_all()
        if fault:
            return self._answer(fault.status, fault.body, hang_up=fault.hang_up)
        return self._answer(status, answer)

    def _answer_invocation(self, payload: Any) -> None:
        """Answer Lambda's Invoke: what the HTTP API answers with 200, or an error of the function."""
        if "submissions" in payload:
            call = ("POST", "/v1/submissions", payload)
        elif "submission_ids" in payload:
            call = ("POST", "/v1/stops", payload)
        else:
            asked = payload.get("submission_id")
            call = ("GET", f"/v1/submissions/{asked}" if asked else "/v1/health", None)
        status, answer = self.bridge.call(*call)
        if status == 200:
            return self._answer(200, answer)
        told = answer["error"]
        error = {"errorType": told["code"], "errorMessage": told["message"]}
        return self._answer(200, error, headers={"X-Amz-Function-Error": "Unhandled"})

    def _control(self, command: str, body: Any) -> Any:
        bridge = self.bridge
        with bridge.changed:
            if command == "reset":
                bridge.calls.clear()
                bridge.batches.clear()
                bridge.signatures.clear()
            elif command == "clear":
                bridge.records.clear()
            elif command.startswith("latency?ms="):
                bridge.latency = float(command.partition("=")[2]) / 1000
            elif command == "start":
                for record in bridge.records.values():
                    if record["state"] == "launched":
                        record["state"] = "running"
            elif command.startswith("finish"):
                live = (id for id, record in bridge.records.items() if record["state"] in ("launched", "running"))
                for id in list(itertools.islice(live, int(command.partition("=")[2] or len(bridge.records)))):
                    bridge.finish(id)
            return {"calls": dict(bridge.calls), "records": len(bridge.records)}

    def _answer(self, status: int, body: Any, *, hang_up: bool = False, headers: dict[str, str] | None = None) -> None:
        if hang_up:
            self.close_connection = True
            return
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


class Server:
    """A FakeBridge on a port of the loopback."""

    def __init__(self, bridge: FakeBridge, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        handler = type("BoundHandler", (Handler,), {"bridge": bridge})
        self._http = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._http.daemon_threads = True
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self._http.server_address[1]}"
        if tls:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)

    def __enter__(self) -> Server:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def serve(self) -> None:
        """Serve until killed."""
        self._http.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency-ms", type=float, default=0)
    arguments = parser.parse_args()
    server = Server(FakeBridge(arguments.latency_ms / 1000), arguments.port)
    print(server.url, flush=True)
    server.serve()
