"""The commands that people run, against the local stack."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from api import Stack
from local_stack import PROGRAM

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(stack: Stack) -> Run:
    environment = os.environ | {"ECS_BRIDGE_READY_FILE": str(stack.ready_file)}

    def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run([PROGRAM, *arguments], env=environment, capture_output=True, text=True, timeout=240, **more)

    return run


def submit(stack: Stack, id: str, command: list[str], **more: object) -> None:
    [answer] = stack.submit({"submission_id": id, "command": command, **more})
    assert "error" not in answer


def test_wait_ends_with_the_last_and_its_exit_code_tells_how(stack: Stack, run: Run) -> None:
    submit(stack, "waited-0", ["true"])
    submit(stack, "waited-3", ["sh", "-c", "exit 3"])
    well, badly, unknown = run("wait", "waited-0"), run("wait", "waited-0", "waited-3"), run("wait", "no-such-id")
    assert (well.returncode, badly.returncode, unknown.returncode) == (0, 1, 126)
    assert "waited-3 failed" in badly.stdout and "exit code 3" in badly.stdout
    assert "no submission no-such-id" in unknown.stderr
    assert json.loads(run("wait", "waited-3", "--json").stdout)["waited-3"]["exit_code"] == 3


def test_wait_gives_up_when_the_time_is_over(stack: Stack, run: Run) -> None:
    submit(stack, "long", ["sleep", "600"])
    assert run("wait", "long", "--timeout", "1s").returncode == 124
    stack.stop("long")


def test_show_has_a_timeline_and_what_to_do(stack: Stack, run: Run) -> None:
    submit(stack, "shown-127", ["sh", "-c", "exit 127"])
    stack.until_ended("shown-127")
    shown = run("show", "shown-127").stdout
    for words in ("submitted", "launched on ", "exited with 127", "recorded as failed", "The image has no such command."):
        assert words in shown, shown


def test_ps_lists_what_is_asked_for(stack: Stack, run: Run) -> None:
    for id, label in [("listed-a", "etl"), ("listed-b", "other")]:
        submit(stack, id, ["sleep", "600"], labels={"dag_id": label})
        stack.until_state(id, "running")

    def listed(*flags: str) -> set[str]:
        return {record["submission_id"] for record in json.loads(run("ps", "--json", *flags).stdout)}

    assert {"listed-a", "listed-b"} <= listed("--state", "running", "--profile", "default")
    assert listed("--label", "dag_id=etl") == {"listed-a"}
    assert not listed("--label", "dag_id=etl", "--older", "1h")
    assert "listed-a" not in listed("--state", "queued") | listed("--profile", "other")
    assert not listed("--label", "dag_id=etl", "--state", "queued")
    stack.stop("listed-a", "listed-b")


def test_watch_lists_anew(stack: Stack, run: Run) -> None:
    environment = os.environ | {"ECS_BRIDGE_READY_FILE": str(stack.ready_file)}
    command = [PROGRAM, "ps", "--all", "--watch", "1"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as watch:
        assert watch.stdout
        screens = 0
        while screens < 2:
            screens += watch.stdout.readline().startswith(b"\x1b[2J")
        watch.kill()


def test_a_file_is_submitted_once_however_often(stack: Stack, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    lines: list[dict[str, object]] = [{"command": ["sh", "-c", ": of a file"]}] * 130
    lines += [{"command": ["true"], "submission_id": "named", "labels": {"from": "line"}}]
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    before = len(stack.rows())
    first = run("submit", "--file", str(file), "--label", "from=flag", "--wait")
    assert (first.returncode, first.stderr) == (0, "")
    assert "131 accepted" in first.stdout and "0 refused" in first.stdout
    again = run("submit", "--file", "-", "--label", "from=flag", input=file.read_text())
    assert "131 accepted (131 succeeded), 0 refused" in again.stdout
    assert len(stack.rows()) == before + 131
    assert stack.row("named")["labels"] == {"from": "line"}


def test_a_file_with_a_line_that_is_no_submission_submits_nothing(stack: Stack, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text('{"command": ["true"], "submission_id": "not-submitted"}\n{"comand": ["true"]}\nnonsense\n')
    answer = run("submit", "--file", str(file))
    assert answer.returncode == 1
    assert "nothing was submitted: line 2: command is required: a list of strings; line 3: " in answer.stderr
    assert run("show", "not-submitted").returncode == 1


def test_lines_that_the_bridge_refuses_are_named(stack: Stack, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text('{"command": ["true"], "submission_id": "good-line"}\n{"command": ["true"], "profile": "nobody"}\n')
    answer = run("submit", "--file", str(file))
    assert answer.returncode == 1
    assert "line 2 (" in answer.stdout and "no such profile" in answer.stdout and "1 accepted" in answer.stdout
    stack.until_ended("good-line")


def test_a_shell_and_man_know_every_command(run: Run, tmp_path: Path) -> None:
    script = run("completions", "bash").stdout
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert checked.returncode == 0 and "ecs-bridge" in script and "stats" in script
    assert run("man", "--dir", str(tmp_path / "man")).returncode == 0
    pages = {path.name for path in (tmp_path / "man").iterdir()}
    assert {"ecs-bridge.1", "ecs-bridge-submit.1", "ecs-bridge-wait.1"} <= pages


def test_the_function_is_invoked_where_it_is_named(stack: Stack, run: Run, tmp_path: Path) -> None:
    ready = {name: value for name, value in stack.ready.items() if not name.startswith("submit_")}
    (tmp_path / "ready.json").write_text(json.dumps(ready))
    where = ["--ready-file", str(tmp_path / "ready.json"), "--function", "submit"]
    answer = run("submit", "--id", "invoked", "--wait", *where, "--", "sh", "-c", "exit 3")
    assert (answer.returncode, answer.stderr) == (3, "")
    assert json.loads(run("show", "invoked", "--json", *where).stdout)["exit_code"] == 3
    unknown = run("show", "never-heard-of", *where)
    assert (unknown.returncode, unknown.stderr) == (1, "ecs-bridge: no submission never-heard-of\n")
    refused = run("submit", "--id", "refused", "--profile", "nobody", *where, "--", "true")
    assert refused.returncode == 1 and "no such profile" in refused.stderr
    assert run("stop", "invoked", *where).returncode == 0


def test_logs_shows_the_last_lines_and_follows(stack: Stack, run: Run) -> None:
    submit(stack, "talks", ["sh", "-c", "for i in 1 2 3; do echo line $i; done; sleep 1; echo the end"])
    followed = run("logs", "talks", "--follow")
    assert (followed.returncode, followed.stdout.splitlines()) == (0, ["line 1", "line 2", "line 3", "the end"])
    assert run("logs", "talks", "--tail", "1").stdout == "the end\n"
    assert json.loads(run("logs", "talks", "--tail", "1", "--json").stdout)["message"] == "the end"
    assert run("logs", "nobody").stderr == "ecs-bridge: no submission nobody\n"


def test_logs_of_what_never_ran_says_so(stack: Stack, run: Run) -> None:
    stack.stop("never-ran")
    answer = run("logs", "never-ran")
    assert answer.returncode == 1 and "never-ran has no container yet: it is cancelled" in answer.stderr


def test_doctor_looks_at_what_a_local_stack_has(stack: Stack, run: Run) -> None:
    answer = run("doctor")
    assert answer.returncode == 0
    for words in ("ok           table: active", "ok           profile default", "not checked  rule: a local stack has none"):
        assert words in answer.stdout, answer.stdout


def test_without_a_bridge_the_error_says_what_to_set() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ECS_BRIDGE_")}
    answer = subprocess.run([PROGRAM, "wait", "x"], env=environment, capture_output=True, text=True)
    assert answer.returncode == 126
    assert "the bridge's URL is not set: use --url, ECS_BRIDGE_URL" in answer.stderr
