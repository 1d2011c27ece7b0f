"""The command line against a stack with the real functions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from callers import run_program

from local_stack import PROGRAM, ROOT, LocalStack, until

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def cli(start: Callable[..., LocalStack]) -> Cli:
    stack = start(time_scale=20)
    return lambda *arguments: run_program(*arguments, ECS_BRIDGE_LOCAL=stack.ready_file)


def test_wait_returns_the_commands_exit_code(cli: Cli) -> None:
    answer = cli("submit", "--wait", "--id", "seven", "--", "sh", "-c", "exit 7")
    assert answer.returncode == 7, answer.stderr
    first, *changes = answer.stdout.splitlines()
    assert first == "seven"
    assert "failed" in changes[-1]
    assert "exit code 7" in changes[-1]


def test_wait_returns_0_after_success(cli: Cli) -> None:
    assert cli("submit", "--wait", "--", "true").returncode == 0


def test_wait_returns_125_without_an_exit_code(cli: Cli) -> None:
    answer = cli("submit", "--wait", "--launch-within", "0", "--id", "late", "--", "true")
    assert answer.returncode == 125, answer.stdout + answer.stderr


def test_wait_returns_126_if_the_item_is_rejected(cli: Cli) -> None:
    answer = cli("submit", "--wait", "--profile", "nobody", "--", "true")
    assert answer.returncode == 126
    assert "unknown_profile" in answer.stderr


def test_submit_reports_a_conflict(cli: Cli) -> None:
    assert cli("submit", "--wait", "--id", "twice", "--", "true").returncode == 0
    answer = cli("submit", "--id", "twice", "--", "false")
    assert (answer.returncode, "conflict" in answer.stderr) == (1, True)


def test_json_output_is_one_record_per_line(cli: Cli) -> None:
    answer = cli("submit", "--wait", "--json", "--id", "json", "--label", "a=b", "--", "true")
    records = [json.loads(line) for line in answer.stdout.splitlines()]
    assert records[-1]["state"] == "succeeded"
    assert records[-1]["labels"] == {"a": "b"}


def test_show_prints_the_record_or_an_error(cli: Cli) -> None:
    cli("submit", "--wait", "--id", "shown", "--", "sh", "-c", "exit 3")
    shown = cli("show", "shown")
    assert "exit_code" in shown.stdout
    assert json.loads(cli("show", "--json", "shown").stdout)["exit_code"] == 3
    answer = cli("show", "nobody")
    assert answer.returncode == 1
    assert 'no such submission: "nobody"' in answer.stderr


def test_ps_lists_submissions_in_flight(cli: Cli) -> None:
    cli("submit", "--id", "long", "--", "sleep", "600")
    listed = json.loads(cli("ps", "--json").stdout)
    assert [record["submission_id"] for record in listed] == ["long"]
    assert "long" in cli("ps").stdout
    assert cli("stop", "long", "--reason", "enough").returncode == 0
    until("nothing is in flight", lambda: json.loads(cli("ps", "--json").stdout) == [])
    ended = json.loads(cli("ps", "--all", "--json").stdout)
    state = {record["submission_id"]: record["state"] for record in ended}["long"]
    assert state == "cancelled"


def test_ps_lists_queued_submissions(start: Callable[..., LocalStack]) -> None:
    stack = start(reconcile_every=0)
    stack.rule(submission_id="waits", failure="RESOURCE:CPU", times=1)
    assert stack.submit({"submission_id": "waits", "command": ["true"]})[0]["state"] == "queued"
    (listed,) = json.loads(run_program("ps", "--json", ECS_BRIDGE_LOCAL=stack.ready_file).stdout)
    assert (listed["submission_id"], listed["state"]) == ("waits", "queued")
    assert not listed.keys() & {"request", "nonce", "content_hash", "rev"}


def test_missing_bridge_error_names_the_flags() -> None:
    answer = run_program("show", "x")
    assert answer.returncode == 1
    assert "--stack" in answer.stderr
    assert "--url" in answer.stderr
    answer = run_program("show", "x", ECS_BRIDGE_LOCAL="/no/such/file")
    assert "/no/such/file" in answer.stderr


def test_local_stack_is_found_at_its_default_path(tmp_path: Path) -> None:
    """As in README.md: without flags, the next command waits for the start, and Ctrl-C ends all of it."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    local = subprocess.Popen(
        [PROGRAM, "local"],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        file = tmp_path / ".local/state/ecs-bridge/local.json"
        until("it is starting", lambda: file.exists() or Path(f"{file}.starting").exists())
        answer = run_program("submit", "--wait", "--id", "found", "--", "sh", "-c", "echo seen; exit 3", HOME=tmp_path)
        assert answer.returncode == 3, answer.stderr
        assert run_program("logs", "found", HOME=tmp_path).stdout == "seen\n"
        log_dir = Path(json.loads(file.read_text())["log_dir"])
        assert log_dir.exists()
    finally:
        # The terminal sends Ctrl-C to all processes of the group.
        os.killpg(local.pid, signal.SIGINT)
        output, _ = local.communicate()
    assert local.returncode == 0
    assert "ecs-bridge submit --wait -- echo hello" in output
    assert f"press Ctrl-C or run `kill {local.pid}`" in output
    assert "rror" not in output
    assert list(file.parent.iterdir()) == []
    assert not log_dir.exists()
    answer = run_program("show", "found", HOME=tmp_path)
    assert (answer.returncode, "start `ecs-bridge local`" in answer.stderr) == (1, True)


def test_malformed_profiles_are_reported_once(tmp_path: Path) -> None:
    profiles = tmp_path / "profiles.json"
    for text, words in [
        ('{\n  "default": }\n', "line 2, column 14: expected value"),
        ("[]", "must be a JSON object"),
        ('{"default": {"run_tas": {}}}', "default.run_tas: is not a field of a profile"),
    ]:
        profiles.write_text(text)
        answer = run_program("local", "--profiles", profiles, HOME=tmp_path)
        assert answer.returncode == 1
        assert answer.stdout == ""
        assert len(answer.stderr.splitlines()) == 1, answer.stderr
        assert answer.stderr.startswith(f'ecs-bridge: profiles file "{profiles}": {words}'), answer.stderr


def test_command_reference_is_current() -> None:
    """`ECS_BRIDGE_WRITE=1` writes it."""
    page = ROOT / "docs/cli.md"
    text = run_program("markdown").stdout
    if os.environ.get("ECS_BRIDGE_WRITE"):
        page.write_text(text)
    assert page.read_text() == text
