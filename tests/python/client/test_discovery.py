"""How the bridge is found."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ecs_bridge import BridgeError, Client, ConfigError, Submission
from ecs_bridge.discovery import VARIABLES, Where

URL = "https://abcdefghij.lambda-url.eu-central-1.on.aws"
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:prod-submit"
OUTPUTS = {"SubmitUrl": URL + "/", "TableName": "bridge", "DeploymentName": "prod", "SubmitFunctionName": "prod-submit"}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)


def test_the_environment_is_that_of_the_program() -> None:
    sources = (Path(__file__).parents[3] / "programs/cli/src").rglob("*.rs")
    program = "".join(source.read_text() for source in sources)
    for variable in VARIABLES.values():
        assert f"[env: {variable}]" in program


def test_arguments_go_before_the_ready_file_and_that_before_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "ready.json"
    file.write_text(json.dumps({"table": "of-the-file", "deployment": "of-the-file", "region": "eu-west-3", "pid": 1}))
    environment = {"ECS_BRIDGE_LOCAL": str(file), "ECS_BRIDGE_DEPLOYMENT": "of-the-environment"}
    where = Where.find({**environment, "ECS_BRIDGE_URL": URL + "/"}, table="of-an-argument")
    assert (where.table, where.deployment, where.url, where.region) == (
        "of-an-argument",
        "of-the-file",
        URL,
        "eu-west-3",
    )


def test_the_region_is_that_of_the_url_or_of_the_function() -> None:
    assert Where.find({}, url=URL).region == "eu-central-1"
    assert Where.find({}, function=ARN).region == "eu-west-1"
    assert Where.find({}, function="prod-submit").region is None


def test_a_function_of_the_environment_is_invoked_unless_a_url_is_passed() -> None:
    environment = {"ECS_BRIDGE_FUNCTION": ARN, "ECS_BRIDGE_URL": URL}
    assert Where.find(environment).function == ARN
    assert Where.find(environment, url=URL).function is None


def test_a_stacks_outputs_go_before_the_environment_and_after_arguments() -> None:
    where = Where.find({"ECS_BRIDGE_STACK": "prod", "ECS_BRIDGE_TABLE": "old"}, deployment="mine")
    found = where.with_outputs(OUTPUTS)
    assert (found.url, found.table, found.deployment, found.function) == (URL, "bridge", "mine", None)


def test_a_stack_without_a_function_url_is_invoked() -> None:
    outputs = {name: value for name, value in OUTPUTS.items() if name != "SubmitUrl"}
    assert Where.find({}, stack="prod").with_outputs(outputs).function == "prod-submit"


def test_another_stack_is_told() -> None:
    with pytest.raises(ConfigError, match="invalid stack 'prod': the output TableName is missing"):
        Where.find({}, stack="prod").with_outputs({"Bucket": "b"})


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        Client(url="ftp://x", deployment="no such name", ready_file=str(tmp_path / "none"))
    for words in ("must be an http or https URL", "must be 1 to 32", "ecs-bridge local --ready-file"):
        assert words in str(raised.value)


def test_a_bridge_that_nothing_names_is_told_how_to_name_it() -> None:
    with pytest.raises(ConfigError, match=r"pass stack, or url \(or function\), table and deployment, or set ECS_"):
        Client()


def test_a_table_that_is_not_known_is_told_where_it_is_needed() -> None:
    client = Client(url="http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="cannot find the table: pass table or stack, or set ECS_BRIDGE_TABLE"):
        client.get_many(["an-id"])


@pytest.mark.parametrize("wrong", [{"timeout": 0}, {"retry_timeout": -1}, {"poll_interval": float("nan")}], ids=str)
def test_times_that_cannot_be_are_told(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        Client(url=URL, **wrong)  # type: ignore[arg-type]


@pytest.fixture
def cloudformation(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """CloudFormation, as far as DescribeStacks; the outputs can be changed."""
    outputs = dict(OUTPUTS)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            members = "".join(
                f"<member><OutputKey>{key}</OutputKey><OutputValue>{value}</OutputValue></member>"
                for key, value in outputs.items()
            )
            body = (
                '<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/">'
                "<DescribeStacksResult><Stacks><member><StackName>prod</StackName>"
                f"<Outputs>{members}</Outputs></member></Stacks></DescribeStacksResult></DescribeStacksResponse>"
            ).encode()
            self.send_response(200)
            self.send_header("content-type", "text/xml")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDFORMATION", f"http://127.0.0.1:{server.server_port}")
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "test")
    yield outputs
    server.shutdown()
    server.server_close()


def test_a_stack_is_read_at_the_first_request(cloudformation: dict[str, str]) -> None:
    # Nothing listens there, so that it is seen where the request goes.
    cloudformation["SubmitUrl"] = "http://127.0.0.1:9"
    client = Client(stack="prod", region="eu-central-1", retry_timeout=0)
    with pytest.raises(BridgeError, match=r"POST http://127.0.0.1:9/v1/submissions: EndpointConnectionError"):
        client.submit(Submission("an-id", ["true"]))
