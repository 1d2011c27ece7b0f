"""A local stack for the client's tests, and what stands between a client and its stack."""

from __future__ import annotations

import http.client
import json
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ecs_bridge import Client
from local_stack import PATIENCE, LocalStack
from wire import Call, Fault, TableFaults, Wire

# Of the clients.
OPTIONS: dict[str, Any] = {"poll_interval": 0.2, "timeout": PATIENCE, "retry_timeout": PATIENCE}
FAST = {"provision-s": 0, "pull-s": 0, "teardown-s": 0, "reconcile-every": 5}

Answer = tuple[int, bytes]
Trouble = Callable[[Callable[[], Answer]], Answer | None]


def dropped(carry_out: Callable[[], Answer]) -> None:
    """The call happens, and its answer is lost."""
    carry_out()


def status(code: int, body: object) -> Trouble:
    """The call does not happen: this is answered."""
    return lambda carry_out: (code, json.dumps(body).encode())


class Gate:
    """A proxy before the function URL, which sees every call and does to the next ones what it is told."""

    def __init__(self, target: str) -> None:
        self.target = urlsplit(target).netloc
        self.calls: list[tuple[str, Any]] = []
        self.troubles: deque[Trouble] = deque()
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_POST(self) -> None:
                gate.pass_on(self)

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Gate:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def pass_on(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("content-length", 0)))
        self.calls.append((request.path, json.loads(body) if body else None))

        def carry_out() -> Answer:
            upstream = http.client.HTTPConnection(self.target, timeout=PATIENCE)
            upstream.request(request.command, request.path, body, dict(request.headers))
            answer = upstream.getresponse()
            return answer.status, answer.read()

        answer = self.troubles.popleft()(carry_out) if self.troubles else carry_out()
        if answer is None:
            request.close_connection = True
            return
        request.send_response_only(answer[0])
        request.send_header("content-type", "application/json")
        request.send_header("content-length", str(len(answer[1])))
        request.end_headers()
        request.wfile.write(answer[1])


class Unprocessed(TableFaults):
    """DynamoDB reads half of what a BatchGetItem asks for, as often as this says."""

    def __init__(self) -> None:
        super().__init__(0, 0)
        self.times = 0

    def choose(self, call: Call) -> Fault | None:
        if call.operation != "BatchGetItem" or self.times == 0:
            return None
        self.times -= 1
        return Fault.UNPROCESSED


@pytest.fixture(autouse=True)
def retry_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for answers however long a busy machine takes: what is asked again would be counted twice."""
    for bound in ("CONNECT_TIMEOUT", "READ_TIMEOUT"):
        monkeypatch.setattr(f"ecs_bridge.aws.{bound}", PATIENCE)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with LocalStack(tmp_path_factory.mktemp("stack"), FAST) as stack:
        yield stack


@pytest.fixture
def gate(stack: LocalStack) -> Iterator[Gate]:
    with Gate(stack.ready["submit_url"]) as gate:
        yield gate


@pytest.fixture
def wire(stack: LocalStack) -> Iterator[Wire]:
    """What sees the calls of DynamoDB."""
    with Wire(["dynamodb"], table_faults=Unprocessed()) as wire:
        wire.connect(stack.ready)
        yield wire


@pytest.fixture
def ready_file(stack: LocalStack, gate: Gate, wire: Wire, tmp_path: Path) -> Path:
    """The stack's, as seen through gate and wire."""
    through = {"submit_url": gate.url, "dynamodb_url": wire.environment()["AWS_ENDPOINT_URL_DYNAMODB"]}
    file = tmp_path / "ready.json"
    file.write_text(json.dumps(stack.ready | through))
    return file


@pytest.fixture
def connect(ready_file: Path) -> Iterator[Callable[..., Client]]:
    """Makes clients of the stack."""
    with ExitStack() as clients:

        def connect(**more: Any) -> Client:
            return clients.enter_context(Client(ready_file=str(ready_file), **{**OPTIONS, **more}))

        yield connect


@pytest.fixture
def client(connect: Callable[..., Client]) -> Client:
    return connect()


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """An id of this test's own."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name.removeprefix("test_"))[:50]
