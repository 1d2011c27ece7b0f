"""Cold start: from the start of the process to its first request for work; and the invocations after it.

The clients are built and have made their first call by then: without TLS where the start itself is timed, as a
handshake's time is mostly the network's.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import samples
from aws_stub import Aws
from functions import HELLO, NAMES, PEER, environment, rust
from report import Report
from runtime_api import Function

from wire import Server, authority

MIB = 1024 * 1024
# Megabytes of a function's zip. The client of SQS is 0.2 of them: submit and reconcile ring the doorbells of pools.
ZIP = 2.8


def run(report: Report, samples_wanted: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tls, certificates = authority(Path(folder))
        with Server(Aws().answer, tls) as aws, Server(Aws().answer) as plain_aws:
            # One bundle of certificates, as in Lambda; a Debian has each in a file of its own besides.
            plain, variables = environment(plain_aws.url, certificates), environment(aws.url, certificates)
            commands = {"hello": [HELLO], **{name: rust(name) for name in NAMES}, "boto3": PEER}
            starts = measure(commands, plain, samples_wanted)
            hello = report.add("cold start", "hello-world in Rust", starts["hello"].seconds, "ms")
            for name in NAMES:
                peer = starts["boto3"].seconds
                own = report.add("cold start", name, starts[name].seconds, "ms", peer=peer, ratio_at_least=40)
                report.add("cold start", f"{name}, beyond hello-world", own - hello, "ms", at_most=3)
            # CPU hardly depends on what else the machine does.
            report.add("cold start", "hello-world in Rust, CPU", starts["hello"].cpu, "ms")
            for name in NAMES:
                report.add("cold start", f"{name}, CPU", starts[name].cpu, "ms", peer=starts["boto3"].cpu)
            connected = measure({name: rust(name) for name in NAMES}, variables, samples_wanted)
            for name in NAMES:
                report.add("cold start", f"{name}, CPU with TLS connections", connected[name].cpu, "ms")
                memory = connected[name].memory
                report.add("cold start", f"{name}, peak memory", memory, "MiB", peer=starts["boto3"].memory)
            for name in NAMES:
                binary, packed = sizes(Path(rust(name)[0]))
                report.add("cold start", f"{name}, binary", binary / MIB, "MiB")
                report.add("cold start", f"{name}, zip", packed / 1e6, "MB", at_most=ZIP)
            first_request(report, variables, samples_wanted)


@dataclass
class Starts:
    """Of each start: milliseconds until the first request for work, of CPU until then, and MiB at most."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)


def measure(commands: dict[str, list[str]], variables: dict[str, str], samples_wanted: int) -> dict[str, Starts]:
    starts = {name: Starts() for name in commands}
    # In turns, so that whatever else the machine does falls on all alike; the first turn fills its caches.
    for turn in range(samples_wanted + 1):
        for name, command in commands.items():
            with Function(command, variables) as function:
                seconds = function.cold_start()
                if turn:
                    starts[name].seconds.append(seconds * 1000)
                    starts[name].cpu.append(function.cpu() * 1000)
                    starts[name].memory.append(function.peak_memory())
    return starts


def first_request(report: Report, variables: dict[str, str], samples_wanted: int) -> None:
    """The first invocation, TLS included where it was not done before, and the second."""
    events = {
        "submit": [url_request(samples.submission(index)) for index in range(3)],
        "task-state": [samples.event(f"first-{index}", 3, "RUNNING") for index in range(3)],
        "reconcile": [b"{}"] * 3,
        "boto3": [samples.event(f"first-{index}", 3, "RUNNING") for index in range(3)],
    }
    commands = {**{name: rust(name) for name in NAMES}, "boto3": PEER}
    times: dict[str, list[list[float]]] = {name: [] for name in commands}
    for _ in range(samples_wanted):
        for name, command in commands.items():
            with Function(command, variables) as function:
                function.cold_start()
                times[name].append([function.invoke(event) * 1000 for event in events[name]])
    for name in NAMES:
        peers = [first for first, *_ in times["boto3"]] if name == "task-state" else None
        first = report.add("first request", f"{name}, first", [first for first, *_ in times[name]], "ms", peer=peers)
        second = report.add("first request", f"{name}, second", [second for _, second, _ in times[name]], "ms")
        report.add("first request", f"{name}, first by second", first / second, "times", at_most=2)


def url_request(item: dict[str, object]) -> bytes:
    """A function URL's event for a batch of one."""
    return json.dumps({
        "version": "2.0",
        "rawPath": "/v1/submissions",
        "rawQueryString": "",
        "headers": {"content-type": "application/json"},
        "requestContext": {
            "accountId": samples.ACCOUNT,
            "apiId": "bench",
            "domainName": "bench.lambda-url.us-east-1.on.aws",
            "domainPrefix": "bench",
            "http": {"method": "POST", "path": "/v1/submissions", "protocol": "HTTP/1.1", "sourceIp": "10.0.0.1",
                     "userAgent": "bench"},
            "requestId": "bench",
            "routeKey": "$default",
            "stage": "$default",
            "time": "12/Mar/2026:19:03:58 +0000",
            "timeEpoch": 1_772_337_609_598,
        },
        "body": json.dumps({"submissions": [item]}),
        "isBase64Encoded": False,
    }).encode()  # fmt: skip


def sizes(binary: Path) -> tuple[int, int]:
    """Bytes of a function's binary, and of the archive that is deployed."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        packed.write(binary, "bootstrap")
    return binary.stat().st_size, len(archive.getvalue())
