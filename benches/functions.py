"""The programs that are measured, and the environment that they are started in."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import samples

ROOT = Path(__file__).resolve().parents[1]
# Another profile's programs can be measured too, say BENCH_PROFILE=debug.
RELEASE = ROOT / "target" / os.environ.get("BENCH_PROFILE", "release")
NAMES = ("submit", "task-state", "reconcile", "runner-api")
HELLO = str(RELEASE / "bench-hello")
PEER = [sys.executable, str(Path(__file__).parent / "peer" / "bootstrap.py")]


def rust(name: str) -> list[str]:
    return [str(RELEASE / name)]


def environment(aws_url: str, certificates: Path | None = None) -> dict[str, str]:
    """The variables that the template sets for a function, and the addresses of AWS."""
    variables = {
        "AWS_REGION": samples.REGION,
        "AWS_DEFAULT_REGION": samples.REGION,
        "AWS_ACCESS_KEY_ID": "bench",
        "AWS_SECRET_ACCESS_KEY": "bench",
        "AWS_SESSION_TOKEN": "bench" * 100,
        "AWS_ENDPOINT_URL_DYNAMODB": aws_url,
        "AWS_ENDPOINT_URL_ECS": aws_url,
        "AWS_ENDPOINT_URL_LAMBDA": aws_url,
        "ECS_BRIDGE_DEPLOYMENT": samples.DEPLOYMENT,
        "ECS_BRIDGE_TABLE": "bench",
        "ECS_BRIDGE_CLUSTER": samples.CLUSTER,
        "ECS_BRIDGE_PROFILES": json.dumps(samples.PROFILES, separators=(",", ":")),
        "ECS_BRIDGE_RECONCILE_FUNCTION": "reconcile",
        "ECS_BRIDGE_TASK_ROLES": f"arn:aws:iam::{samples.ACCOUNT}:role/*",
        "ECS_BRIDGE_RUNNER_API_URL": "http://127.0.0.1:1",
    }
    if certificates:
        variables["SSL_CERT_FILE"] = variables["AWS_CA_BUNDLE"] = str(certificates)
    return variables
