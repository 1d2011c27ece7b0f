"""Fixtures: an empty AWS account, the bridge in it, and a recording of the functions' calls."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pytest
import stacks
import walk
from emulator import Emulator
from moto import mock_aws


@contextmanager
def account() -> Iterator[None]:
    """An account in moto, with the functions' code in a bucket."""
    with mock_aws():
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as archive:
            archive.writestr("bootstrap", "")
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket=stacks.CODE_BUCKET)
        s3.put_object(Bucket=stacks.CODE_BUCKET, Key=stacks.CODE_KEY, Body=code.getvalue())
        yield


@pytest.fixture
def aws() -> Iterator[None]:
    with account():
        yield


@pytest.fixture(scope="module")
def stack() -> Iterator[stacks.Stack]:
    """The bridge with every option but further clusters, on the cluster of the recording."""
    options = {"ClusterArn": walk.CLUSTER_ARN, "MoreClusterArns": ""}
    with account():
        yield stacks.Stack(stacks.packaged(), stacks.EVERY_OPTION | options)


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulated account with a release in its bucket."""
    with Emulator(tmp_path_factory.mktemp("emulator")) as emulator:
        emulator.release("1/")
        yield emulator


@pytest.fixture(scope="session")
def example(emulator: Emulator) -> dict[str, str]:
    """Deploys infra/example.yaml and returns the parameters of a bridge for it."""
    template = emulator.upload("example.json", stacks.template("infra/example.yaml"))
    return json.loads(emulator.deploy("example", template, {})["Parameters"])


@pytest.fixture(scope="session")
def recording(tmp_path_factory: pytest.TempPathFactory) -> walk.Recording:
    return walk.record(tmp_path_factory.mktemp("recorded"))
