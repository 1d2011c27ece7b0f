"""A local HTTP server that calls a function for each request, and forwards requests to another server."""

from __future__ import annotations

import http.client
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

from local_stack import PATIENCE

# Headers of one connection, and those that the next server sets itself.
PER_CONNECTION = {"connection", "content-length", "host", "transfer-encoding"}


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    # The names are case-insensitive.
    headers: Message
    body: bytes
    client_port: int


@dataclass(frozen=True)
class Response:
    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of_json(cls, value: object, status: int = 200) -> Response:
        return cls(json.dumps(value).encode(), status, (("content-type", "application/json"),))


class Server:
    """A server on 127.0.0.1; a context manager. Its URL is valid before it serves.

    `respond` runs on a thread per connection. If it returns None, the connection breaks without a response.
    """

    def __init__(self, respond: Callable[[Request], Response | None]) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body leave together. Otherwise, the second segment waits for an acknowledgement.
            wbufsize = -1

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                request = Request(self.command, self.path, self.headers, body, self.client_address[1])
                response = respond(request)
                if response is None:
                    self.close_connection = True
                    return
                self.send_response_only(response.status)
                for name, value in response.headers:
                    self.send_header(name, value)
                self.send_header("content-length", str(len(response.body)))
                self.end_headers()
                self.wfile.write(response.body)

            do_DELETE = do_GET = do_POST = do_PUT = handle_any

            def log_message(self, *_: object) -> None:
                pass

        class Threads(ThreadingHTTPServer):
            def handle_error(self, *client: Any) -> None:
                # Clients that are killed break their connections.
                if not isinstance(sys.exception(), ConnectionError):
                    super().handle_error(*client)

        self._server = Threads(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def forward(request: Request, url: str, *, path: str | None = None, body: bytes | None = None) -> Response | None:
    """Send a request to the server of a URL, and return its response, or None if it gave none."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)
    headers = {name: value for name, value in request.headers.items() if name.lower() not in PER_CONNECTION}
    try:
        connection.request(
            request.method,
            request.path if path is None else path,
            request.body if body is None else body,
            headers,
        )
        response = connection.getresponse()
        content = response.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    kept = tuple((name, value) for name, value in response.getheaders() if name.lower() not in PER_CONNECTION)
    return Response(content, response.status, kept)
