"""A small HTTP/1.1 server, plain or over TLS, for the ends of the wire in the benches: the Runtime API and AWS."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    # Called once the answer has been handed to the kernel.
    sent: Callable[[], None] = lambda: None


class Server:
    """Serves each connection by a thread; `answer` may block. A context manager, so that it always ends."""

    def __init__(self, answer: Callable[[Request], Answer | None], tls: ssl.SSLContext | None = None) -> None:
        self._answer = answer
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._open: set[socket.socket] = set()

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://localhost:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            self.connections += 1
            self._open.add(connection)
            with connection, connection.makefile("rb") as reader:
                while request := read(reader):
                    if (answer := self._answer(request)) is None:
                        break
                    connection.sendall(write(answer))
                    answer.sent()
        self._open.discard(connection)


def read(reader) -> Request | None:
    line = reader.readline()
    if not line:
        return None
    method, path, _ = line.decode("latin-1").split(" ", 2)
    headers: dict[str, str] = {}
    while (line := reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("transfer-encoding", "").lower() == "chunked":
        body = b""
        while size := int(reader.readline(), 16):
            body += reader.read(size)
            reader.readline()
        reader.readline()
    else:
        body = reader.read(int(headers.get("content-length", 0)))
    return Request(method, path, headers, body)


def write(answer: Answer) -> bytes:
    headers = (*answer.headers, ("content-length", str(len(answer.body))))
    head = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {answer.status} OK\r\n{head}\r\n".encode() + answer.body


def authority(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A certificate for localhost, and a file of authorities for SSL_CERT_FILE: the system's, and its issuer."""
    key, certificate, bundle = folder / "ca.key", folder / "ca.pem", folder / "bundle.pem"
    leaf_key, request, leaf = folder / "leaf.key", folder / "leaf.csr", folder / "leaf.pem"
    extensions = folder / "leaf.ext"
    extensions.write_text("subjectAltName=DNS:localhost\nbasicConstraints=critical,CA:FALSE\n")
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    for command in (
        ["req", "-x509", *curve, "-keyout", key, "-out", certificate, "-subj", "/CN=bench", "-days", "2"],
        ["req", *curve, "-keyout", leaf_key, "-out", request, "-subj", "/CN=localhost"],
        ["x509", "-req", "-in", request, "-CA", certificate, "-CAkey", key, "-CAcreateserial", "-days", "2",
         "-extfile", extensions, "-out", leaf],
    ):  # fmt: skip
        subprocess.run(["openssl", *map(str, command)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(leaf, leaf_key)
    context.set_alpn_protocols(["http/1.1"])
    # As many as a function finds in Lambda: reading them is a part of its start.
    system = Path(ssl.get_default_verify_paths().openssl_cafile)
    others = system.read_text() if system.exists() else ""
    bundle.write_text(others + certificate.read_text())
    return context, bundle
