"""Replaces the Docker SDK that the emulator's ECS starts containers with: each container is a process of this machine.

The emulator imports this package as `docker`. It has the members that the emulator's ECS uses, and no others.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import boto3
from ministack.services import sts

from docker.errors import APIError, ImageNotFound

# The tag of images that no registry has.
ABSENT = ":does-not-exist"
NETWORK = {"NetworkSettings": {"Networks": {"host": {"IPAddress": "127.0.0.1"}}}}


class Container:
    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        self.id = uuid.uuid4().hex
        self._output = Path(os.environ["CONTAINERS"]) / self.id
        path = f"{os.environ['CONTAINER_PATH']}:{os.environ['PATH']}"
        with self._output.open("wb") as output:
            # It stays in the emulator's process group, which is ended as a whole.
            self._process = subprocess.Popen(
                command, env={"PATH": path} | environment, stdout=output, stderr=subprocess.STDOUT
            )

    @property
    def status(self) -> str:
        return "running" if self._process.poll() is None else "exited"

    @property
    def attrs(self) -> dict[str, Any]:
        return NETWORK

    def reload(self) -> None:
        """Nothing is cached."""

    def wait(self) -> dict[str, int]:
        code = self._process.wait()
        return {"StatusCode": code if code >= 0 else 128 - code}

    def stop(self, timeout: float = 10) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def remove(self, **_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def logs(self, *, follow: bool = False, **_: object) -> Iterator[bytes]:
        with self._output.open("rb") as output:
            while True:
                # Checked before the read, so that no output of an ended process is missed.
                is_last = not follow or self.status == "exited"
                if chunk := output.read():
                    yield chunk
                if is_last:
                    return
                time.sleep(0.1)


class Machine:
    """Stands for the container that the emulator believes it runs in, whose address containers reach it at."""

    @property
    def attrs(self) -> dict[str, Any]:
        return NETWORK


class Containers:
    def __init__(self) -> None:
        self._all: dict[str, Container] = {}

    def run(
        self, image: str, command: list[str] | None, environment: dict[str, str], labels: dict[str, str], **_: object
    ) -> Container:
        if labels.get("ministack") != "ecs":
            raise APIError("only tasks of ECS have containers here")
        if image.endswith(ABSENT):
            raise ImageNotFound(f"{image}: not found")
        # The emulator serves containers credentials that belong to no role.
        own = {name: value for name, value in environment.items() if not name.startswith("AWS_CONTAINER_")}
        container = Container(command or ["true"], own | credentials(labels))
        self._all[container.id] = container
        return container

    def get(self, container_id: str) -> Container | Machine:
        return self._all.get(container_id) or Machine()

    def list(self, **_: object) -> list[Container]:
        return []


@cache
def client(service: str) -> Any:
    return boto3.client(service)


def credentials(labels: dict[str, str]) -> dict[str, str]:
    """A session of the task's role, with the task's id as its name."""
    family, revision = (labels[f"com.amazonaws.ecs.task-definition-{part}"] for part in ("family", "version"))
    definition = client("ecs").describe_task_definition(taskDefinition=f"{family}:{revision}")["taskDefinition"]
    url = os.environ["AWS_ENDPOINT_URL"]
    found = {"AWS_ENDPOINT_URL": url, "AWS_ENDPOINT_URL_LAMBDA": url}
    if role := definition.get("taskRoleArn"):
        task_id = labels["com.amazonaws.ecs.task-arn"].rsplit("/", 1)[1]
        session = f"{role.rsplit('/', 1)[1]}/{task_id}"
        key, secret, token = f"ASIA{task_id[-12:].upper()}", uuid.uuid4().hex, uuid.uuid4().hex
        # The role trusts ECS, which no caller of AssumeRole is. The emulator's Lambda does the same for functions.
        account = role.split(":")[4]
        sts.register_session(
            key,
            {
                "Arn": f"arn:aws:sts::{account}:assumed-role/{session}",
                "UserId": session.replace("/", ":"),
                "SecretAccessKey": secret,
                "SessionToken": token,
            },
        )
        found |= {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": token}
    return found


class Client:
    _containers = Containers()

    @property
    def containers(self) -> Containers:
        return self._containers


def from_env(**_: object) -> Client:
    return Client()
