"""A pool without function URLs, as in a private network: runners and callers invoke the functions by Lambda's API."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from conftest import Pools, profile

from local_stack import LocalStack

# The variables that template.yaml sets for FunctionUrl: false.
WITHOUT_URLS = {
    "ECS_BRIDGE_RUNNER_API_URL": "",
    "ECS_BRIDGE_RUNNER_API_FUNCTION": "runner-api",
    "ECS_BRIDGE_DIRECT_INVOCATION": "true",
}


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pools]:
    folder = tmp_path_factory.mktemp("private")
    (folder / "starts").mkdir()
    # On AWS, DNS leads a runner to the endpoint in its VPC.
    endpoint = folder / "endpoint"
    runner = ["sh", "-c", f"env > {folder}/environment; . {endpoint}; exec ecs-bridge-runner"]
    flags = {"reconcile-every": 1, "time-scale": 10, "teardown-s": 1}
    profiles = {"one": profile({"max": 1, "runner": runner, "commands_per_container": 9})}
    with LocalStack(folder / "stack", flags, profiles=profiles, function_env=WITHOUT_URLS) as stack:
        endpoint.write_text(f"export AWS_REGION=us-east-1 AWS_ENDPOINT_URL_LAMBDA={stack.ready['lambda_url']}\n")
        yield Pools(stack, folder / "starts")


def test_runner_polls_by_direct_invocation(private: Pools) -> None:
    submission = {"submission_id": "invoked", "profile": "one", "command": private.command("invoked", "exit 3")}
    answer = private.stack.invoke("submit", submission)
    assert answer["submission_id"] == "invoked"
    ended = private.ended("invoked")
    assert (ended["state"], ended["exit_code"], private.starts("invoked")) == ("failed", 3, 1)
    told = (private.folder.parent / "environment").read_text().splitlines()
    assert "ECS_BRIDGE_RUNNER_API_FUNCTION=runner-api" in told
    assert not any(line.startswith("ECS_BRIDGE_RUNNER_API_URL") for line in told)


def test_only_the_runners_token_is_accepted(private: Pools) -> None:
    private.ended(private.submit("one", ["true"]))
    [runner] = private.until_idle("one")
    told = (private.folder.parent / "environment").read_text()
    (token,) = re.findall("^ECS_BRIDGE_RUNNER_TOKEN=(.+)$", told, re.MULTILINE)
    asked = {"runner_id": runner["submission_id"], "incarnation": runner["runner"]["incarnation"]}
    assert private.stack.invoke("runner-api", asked | {"token": token})["statusCode"] == 200
    refused = private.stack.invoke("runner-api", asked | {"token": "guessed"})
    assert refused["statusCode"] == 403
    assert "no such runner" in refused["body"]
