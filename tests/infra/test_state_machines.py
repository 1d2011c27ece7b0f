"""infra/state-machines.yaml: moto's interpreter of the Amazon States Language runs it with the real functions."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer
from stacks import template

from cloudformation import ACCOUNT, REGION, ResolvedTemplate
from http_server import Request, Response, Server, forward
from local_stack import LocalStack, call, until

PATH = "infra/state-machines.yaml"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/state-machines"
DEPLOYMENT = "prod"
ENDED = {"SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"}


def services(moto: str, local: LocalStack) -> Callable[[Request], Response | None]:
    """Forward the interpreter's calls: those of Lambda to the local stack, all others to moto."""

    def respond(request: Request) -> Response | None:
        if not request.path.startswith("/2015-03-31/functions/"):
            return forward(request, moto)
        # The local stack's functions have no deployment in their names.
        path = request.path.replace(f"/functions/{DEPLOYMENT}-", "/functions/")
        return forward(request, local.ready["lambda_url"], path=path)

    return respond


def definition(which: str, command: list[str]) -> str:
    """A state machine's definition as Step Functions gets it.

    CloudFormation resolves its functions to values, and serializes the definition. Only then are the substitutions
    made, in raw text, without any escapes.
    """
    parameters = {"Deployment": DEPLOYMENT, "Command": json.dumps(command)}
    properties = ResolvedTemplate(template(PATH), parameters).resources[which]
    text = properties.get("DefinitionString") or json.dumps(properties["Definition"])
    for variable, value in properties.get("DefinitionSubstitutions", {}).items():
        text = text.replace(f"${{{variable}}}", value)
    json.loads(text)
    return text


class StateMachines:
    """Both state machines, each created with its own command."""

    def __init__(self, url: str, local: LocalStack) -> None:
        keys = {"region_name": REGION, "aws_access_key_id": "x", "aws_secret_access_key": "x"}
        self.states = boto3.client("stepfunctions", endpoint_url=url, **keys)
        self.dynamodb = boto3.client("dynamodb", endpoint_url=url, **keys)
        self.local = local
        self.dynamodb.create_table(TableName="Locks", **template(PATH)["Resources"]["Locks"]["Properties"])

    def create(self, which: str, name: str, command: list[str]) -> str:
        # All waits take a second.
        text = re.sub(r'"(Seconds|IntervalSeconds)": \d+', r'"\1": 1', definition(which, command))
        return self.states.create_state_machine(name=name, definition=text, roleArn=ROLE)["stateMachineArn"]

    def start(self, machine: str, name: str) -> str:
        return self.states.start_execution(stateMachineArn=machine, name=name, input="{}")["executionArn"]

    def ended(self, execution: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            seen = self.states.describe_execution(executionArn=execution)
            return seen if seen["status"] in ENDED else None

        return until(f"{execution} has ended", look)

    def until_running(self, submission_id: str) -> None:
        """Once its execution has submitted it, it is a record."""
        until(
            f"{submission_id} is submitted",
            lambda: any(row["submission_id"] == submission_id for row in self.local.rows()),
        )
        self.local.until_state(submission_id, "running")

    def holder(self, name: str) -> str:
        return self.dynamodb.get_item(TableName="Locks", Key={"job": {"S": name}})["Item"]["submission"]["S"]


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateMachines]:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    url = "http://{}:{}".format(*moto.get_host_and_port())
    flags = {"provision-s": 0.05, "pull-s": 0.05, "teardown-s": 0.1, "reconcile-every": 2}
    environment = {"AWS_ENDPOINT_URL_SFN": url}
    call("POST", f"{url}/moto-api/config", {"stepfunctions": {"execute_state_machine": True}})
    with (
        LocalStack(tmp_path_factory.mktemp("stack"), flags, function_env=environment) as local,
        Server(services(url, local)) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        # Where the interpreter looks for AWS.
        patch.setenv("MOTO_PORT", str(server.port))
        yield StateMachines(url, local)
    moto.stop()


# Characters with a meaning in JSON, the States Language, CloudFormation or a shell.
AWKWARD = ["it's", '"', "\\", "\\n", "a, b", "{}", "${Locks}", "$.command", "é", "two\nlines", ""]


def test_default_command_makes_a_valid_definition() -> None:
    default = json.loads(template(PATH)["Parameters"]["Command"]["Default"])
    for which in ("Job", "NeverTwice"):
        assert definition(which, default)


@pytest.mark.parametrize(
    "text",
    ['["true"]', ' [ "a" ,"b" ]', '["\\\\", "\\"", "\\u00e9", "it\'s", "a, b", "{}"]', json.dumps(AWKWARD), '[""]'],
)
def test_command_accepts_a_list_of_strings(text: str) -> None:
    assert all(isinstance(word, str) for word in json.loads(text))
    assert re.fullmatch(template(PATH)["Parameters"]["Command"]["AllowedPattern"], text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "python -m etl",
        "[]",
        '["a",]',
        '["a" "b"]',
        '["a"',
        "['a']",
        "[1]",
        '"a"',
        '["a"]]',
        '["\\x"]',
        '["a\nb"]',
        '["\\u12"]',
    ],
)
def test_command_rejects_other_values(text: str) -> None:
    parameter = template(PATH)["Parameters"]["Command"]
    assert not re.fullmatch(parameter["AllowedPattern"], text)
    assert "JSON list" in parameter["ConstraintDescription"]


@pytest.mark.parametrize("which", ["Job", "NeverTwice"])
def test_command_reaches_its_container_unchanged(machines: StateMachines, tmp_path: Path, which: str) -> None:
    name, seen = f"awkward-{which}", tmp_path / "seen"
    command = ["sh", "-c", f"""printf '%s|' "$@" > {seen}; exit 7""", "sh", *AWKWARD]
    ended = machines.ended(machines.start(machines.create(which, name, command), name))
    assert ended["error"] == "EcsBridge.Failed", ended
    assert seen.read_text() == "".join(f"{word}|" for word in AWKWARD)


def test_execution_completes_although_every_function_is_killed(machines: StateMachines, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    machine = machines.create("Job", "waits", ["sh", "-c", f"while [ ! -e {go_on} ]; do sleep 0.05; done"])
    execution = machines.start(machine, "waits-1")
    machines.until_running("waits-1-0")
    for process in machines.local.processes():
        machines.local.kill(process["pid"])
    go_on.touch()
    ended = machines.ended(execution)
    assert ended["status"] == "SUCCEEDED", ended
    record = json.loads(ended["output"])
    assert (record["submission_id"], record["state"], record["exit_code"]) == ("waits-1-0", "succeeded", 0)
    assert [task["start_count"] for task in machines.local.tasks("waits-1-0")] == [1]


def test_failed_command_is_retried_as_another_submission(
    machines: StateMachines,
) -> None:
    machine = machines.create("Job", "fails", ["sh", "-c", "exit 7"])
    ended = machines.ended(machines.start(machine, "fails-1"))
    assert (ended["status"], ended["error"]) == ("FAILED", "EcsBridge.Failed")
    for id in ("fails-1-0", "fails-1-1"):
        # moto's interpreter gives both tries one token, so that the second ends with the answer to the first.
        assert machines.local.until_ended(id)["exit_code"] == 7
        assert [task["start_count"] for task in machines.local.tasks(id)] == [1]


def test_execution_is_skipped_while_an_earlier_command_runs(machines: StateMachines, tmp_path: Path) -> None:
    go_on = tmp_path / "go-on"
    machine = machines.create("NeverTwice", "one", ["sh", "-c", f"while [ ! -e {go_on} ]; do sleep 0.05; done"])
    first = machines.start(machine, "one-1")
    machines.until_running("one-1")
    assert machines.ended(machines.start(machine, "one-2"))["status"] == "SUCCEEDED"
    machines.states.stop_execution(executionArn=first)
    assert machines.ended(machines.start(machine, "one-3"))["status"] == "SUCCEEDED"
    assert machines.holder("one") == "one-1"
    assert not machines.local.tasks("one-2") + machines.local.tasks("one-3")
    go_on.touch()
    machines.local.until_ended("one-1")
    assert machines.ended(machines.start(machine, "one-4"))["status"] == "SUCCEEDED"
    assert machines.local.row("one-4")["exit_code"] == 0
    assert machines.holder("one") == "one-4"


def test_dead_execution_releases_the_lock_and_never_runs(machines: StateMachines) -> None:
    item = {"job": {"S": "died"}, "submission": {"S": "died-1"}}
    machines.dynamodb.put_item(TableName="Locks", Item=item)
    machine = machines.create("NeverTwice", "died", ["true"])
    assert machines.ended(machines.start(machine, "died-2"))["status"] == "SUCCEEDED"
    assert machines.local.row("died-2")["state"] == "succeeded"
    # The submission of the dead execution arrives late.
    late = machines.local.invoke("submit", {"submission_id": "died-1", "command": ["true"]})
    assert late["state"] == "cancelled"
    assert not machines.local.tasks("died-1")
