"""The timeline and the wait reason that `ecs-bridge show` prints, in a fixture that the Python client's tests read too.

`ECS_BRIDGE_WRITE=1 .venv/bin/python -m pytest tests/stack/local/test_progress.py` writes it from the program's output.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from callers import run_program

from local_stack import ROOT

FIXTURE = ROOT / "tests/fixtures/progress.json"
BEGIN = 1_800_000_000_000
LAUNCHED = {"created_at": BEGIN, "launched_at": BEGIN + 1_200, "runs_on": "FARGATE_SPOT", "profile": "p"}
ENDED = {
    **LAUNCHED,
    "started_at": BEGIN + 20_000,
    "container_exited_at": BEGIN + 61_200,
    "changed_at": BEGIN + 61_900,
    "stopped_at": BEGIN + 95_000,
}
POOL = {"state": "queued", "pool": "p#1", "profile": "p", "created_at": BEGIN, "due": "2"}
FAILING = {"failing_since": BEGIN, "failure": "no such image"}
ROWS: list[dict[str, Any]] = [
    {"state": "launched", **LAUNCHED},
    {"state": "failed", "exit_code": 7, "attempt": 2, "attempts": ["SpotInterruption: taken back"], **ENDED},
    {"state": "succeeded", "exit_code": 0, **ENDED},
    # The clocks of ECS and the bridge differ.
    {"state": "cancelled", **ENDED, "started_at": BEGIN + 1_000},
    # The record keeps only the last results.
    {
        "state": "lost",
        "attempt": 13,
        "attempts": ["RESOURCE:GPU", "RESOURCE:CPU"],
        "created_at": BEGIN,
        "changed_at": BEGIN,
    },
]
POOLS: list[dict[str, Any]] = [
    {},
    {"paused": True},
    FAILING,
    {"failing_since": BEGIN},
    {"paused": True, **FAILING},
    *(
        {"paused": paused, "wait_reasons": {key: {"reason": "no spec", "stuck": stuck}}, **more}
        for key, stuck, paused, more in (
            ("p#1", True, True, FAILING),
            ("p#1", False, False, FAILING),
            ("p#1", False, True, {}),
            ("p#2", True, False, {}),
        )
    ),
]


def wire(value: Any) -> dict[str, Any]:
    """Return a value in DynamoDB's format."""
    if isinstance(value, bool):
        return {"BOOL": value}
    if isinstance(value, int):
        return {"N": str(value)}
    if isinstance(value, str):
        return {"S": value}
    if isinstance(value, list):
        return {"L": [wire(each) for each in value]}
    return {"M": {name: wire(each) for name, each in value.items()}}


class Bridge(ThreadingHTTPServer):
    """The API and the table of a bridge that has one submission, and its pool."""

    row: dict[str, Any]
    pool: dict[str, Any]

    def dynamodb(self, operation: str, asked: dict[str, Any]) -> dict[str, Any]:
        row, pool = ({name: wire(each) for name, each in one.items()} for one in (self.row, self.pool))
        if operation == "GetItem":
            return {"Item": pool}
        if operation == "BatchGetItem":
            (table,) = asked["RequestItems"]
            return {"Responses": {table: [row]}, "UnprocessedKeys": {}}
        assert operation == "Query", operation
        return {"Items": [row], "Count": 1, "ScannedCount": 1}


class Handler(BaseHTTPRequestHandler):
    server: Bridge

    def do_GET(self) -> None:
        self._answer(self.server.row)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(self.server.dynamodb(self.headers["X-Amz-Target"].rpartition(".")[2], asked))

    def _answer(self, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    with Bridge(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def shown(bridge: Bridge, folder: Path, row: dict[str, Any], pool: dict[str, Any]) -> str:
    """Return what the program prints of a row."""
    bridge.row = {"submission_id": "an-id", **row}
    bridge.pool = {"submission_id": "#pool/p", **pool}
    ready, url = folder / "ready.json", f"http://127.0.0.1:{bridge.server_address[1]}"
    ready.write_text(
        json.dumps(
            {
                "submit_url": url,
                "dynamodb_url": url,
                "table": "t",
                "deployment": "prod",
                "region": "eu-west-1",
                "pid": 1,
            }
        )
    )
    done = run_program("show", "an-id", ECS_BRIDGE_LOCAL=ready)
    assert done.returncode == 0, done.stderr
    return done.stdout


def timeline(text: str) -> dict[str, Any]:
    """Return the attempts and the steps of a timeline. Each step begins with its time."""
    steps = re.findall(r"^(\d{4}-\S+Z) +(?:\+\S+ +)?(.+)$", text, re.MULTILINE)
    return {
        "attempts": re.findall(r"^attempt \d+ ended: .+$", text, re.MULTILINE),
        "timeline": [
            {"at": round(datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp() * 1000), "what": what}
            for at, what in steps
        ],
    }


def pool_wait_reason(text: str) -> str | None:
    """Return the reason behind the place in the queue, if there is one."""
    (line,) = re.findall(r"^wait\w* +(waits for a runner.*)$", text, re.MULTILINE)
    return str(line).partition("; ")[2] or None


def test_fixture_shows_what_the_program_prints(bridge: Bridge, tmp_path: Path) -> None:
    made = {
        "timelines": [{"row": row, **timeline(shown(bridge, tmp_path, row, {}))} for row in ROWS],
        "pools": [
            {"row": POOL, "pool": pool, "detail": pool_wait_reason(shown(bridge, tmp_path, POOL, pool))}
            for pool in POOLS
        ],
    }
    assert all(each["timeline"] for each in made["timelines"])
    if os.environ.get("ECS_BRIDGE_WRITE"):
        FIXTURE.write_text(json.dumps(made, indent=2) + "\n")
    assert json.loads(FIXTURE.read_text()) == made
