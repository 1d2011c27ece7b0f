"""Generated requests, valid and invalid: every response matches the description of the API."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from api import Stack
from local_stack import ROOT

HERE = Path(__file__).parent
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")


@pytest.fixture(scope="module")
def stack(start: Callable[..., Stack]) -> Stack:
    """One whose commands are imitated, whatever they are, and that takes signed requests only."""
    return start({"simulate": True, "require-signature": True, "processes": 2})


# submit accepts a call with an invalid item, and returns the error in the place of the item.
BY_ITEM = ["--exclude-checks", "negative_data_rejection"]


@pytest.mark.parametrize(
    ("file", "url", "more"),
    [("docs/openapi.yaml", "submit_url", BY_ITEM), ("tests/fixtures/runner-api.yaml", "runner_api_url", [])],
)
def test_every_response_matches_the_description(
    stack: Stack, tmp_path: Path, file: str, url: str, more: list[str]
) -> None:
    schema: dict[str, Any] = yaml.safe_load((ROOT / file).read_text())
    # Every request is signed, because an unsigned one never reaches the function.
    schema.pop("security", None)
    (tmp_path / "openapi.yaml").write_text(yaml.safe_dump(schema))
    command = [
        SCHEMATHESIS,
        "run",
        "openapi.yaml",
        "--url",
        stack.ready[url],
        "--generation-deterministic",
        "--no-color",
    ]
    command += ["--max-examples", "20", "--phases", "coverage,fuzzing", "--max-time", "10", *more]
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "signing", "PYTHONPATH": f"{HERE}:{ROOT / 'tests/lib'}"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-6_000:]
    assert "generated" in done.stdout
