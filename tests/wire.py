"""Between the functions and AWS: a proxy that sees every call, and can let a function die at one of them."""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

SERVICES = ("dynamodb", "ecs", "lambda")
# What changes something beyond the function's process.
EFFECTS = {"PutItem", "UpdateItem", "RunTask", "StopTask", "Invoke"}


@dataclass(frozen=True)
class Call:
    """One call of a function, as it went over the wire."""

    operation: str
    at: float
    body: dict[str, Any]


@dataclass
class Cut:
    """The effect at which a function is to die, and whether that effect still happens."""

    pid: int
    nth: int
    happens: bool
    kill: Callable[[], object]
    seen: int = 0
    made: bool = False


class Wire:
    """Three proxies, one for each service; a context manager. Endpoints are known at once, targets once the stack is."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.targets: dict[str, str] = {}
        self.cut: Cut | None = None
        # Calls that are answered with an internal error, and not passed on.
        self.fails: Callable[[Call], bool] = lambda _: False
        self.changing = threading.Lock()
        self.servers = {service: self.server(service) for service in SERVICES}

    def server(self, service: str) -> ThreadingHTTPServer:
        wire = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                wire.pass_on(service, self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """A function that dies breaks its connections."""

        return Server(("127.0.0.1", 0), Handler)

    def __enter__(self) -> Self:
        for server in self.servers.values():
            threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers.values():
            server.shutdown()
            server.server_close()

    def environment(self) -> dict[str, str]:
        """What makes a function call this instead."""
        return {
            f"AWS_ENDPOINT_URL_{service.upper()}": f"http://127.0.0.1:{server.server_port}"
            for service, server in self.servers.items()
        }

    def connect(self, ready: dict[str, str]) -> None:
        """Tells where the stack is that all is passed on to."""
        self.targets = {service: ready[f"{service}_url"] for service in SERVICES}

    def pass_on(self, service: str, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers.get("content-length", 0)))
        operation = request.headers.get("x-amz-target", "Lambda.Invoke").rsplit(".", 1)[1]
        call = Call(operation, time.time(), json.loads(body or b"{}"))
        self.calls.append(call)
        if self.fails(call):
            content = json.dumps({"__type": "InternalServerError", "message": "asked to fail"}).encode()
            request.send_response(500)
            request.send_header("content-length", str(len(content)))
            request.end_headers()
            request.wfile.write(content)
            return None
        cut = self.is_cut(operation, request.client_address[1])
        if cut and not cut.happens:
            return self.die(cut, request)
        upstream = http.client.HTTPConnection(urlsplit(self.targets[service]).netloc, timeout=60)
        try:
            upstream.request("POST", request.path, body, dict(request.headers))
            answer = upstream.getresponse()
            content = answer.read()
        except (http.client.HTTPException, OSError):
            # The stack gave no answer: neither does this.
            request.close_connection = True
            return None
        finally:
            upstream.close()
        if cut:
            return self.die(cut, request)
        request.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "connection", "transfer-encoding"):
                request.send_header(name, value)
        request.send_header("content-length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    def is_cut(self, operation: str, port: int) -> Cut | None:
        with self.changing:
            if self.cut is None or self.cut.made or operation not in EFFECTS or not has_socket(self.cut.pid, port):
                return None
            self.cut.seen += 1
            self.cut.made = self.cut.seen == self.cut.nth
            return self.cut if self.cut.made else None

    @staticmethod
    def die(cut: Cut, request: BaseHTTPRequestHandler) -> None:
        cut.kill()
        request.close_connection = True


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
