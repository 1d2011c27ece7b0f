"""The commands of the CLI against the local stack."""

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
    environment = os.environ | {"ECS_BRIDGE_LOCAL": str(stack.ready_file)}

    def run(*arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM, *arguments], env=environment, capture_output=True, text=True, timeout=240, **more
        )

    return run


def submit(stack: Stack, id: str, command: list[str], **more: object) -> None:
    [answer] = stack.submit({"submission_id": id, "command": command, **more})
    assert "error" not in answer


def test_wait_returns_the_result_of_several_submissions(stack: Stack, run: Run) -> None:
    submit(stack, "waited-0", ["true"])
    submit(stack, "waited-3", ["sh", "-c", "exit 3"])
    well, badly, unknown = run("wait", "waited-0"), run("wait", "waited-0", "waited-3"), run("wait", "no-such-id")
    assert (well.returncode, badly.returncode, unknown.returncode) == (0, 1, 126)
    assert "waited-3 failed" in badly.stdout
    assert "exit code 3" in badly.stdout
    assert 'no such submission: "no-such-id"' in unknown.stderr
    assert json.loads(run("wait", "waited-3", "--json").stdout)["waited-3"]["exit_code"] == 3


def test_wait_returns_124_after_its_timeout(stack: Stack, run: Run) -> None:
    submit(stack, "long", ["sleep", "600"])
    assert run("wait", "long", "--timeout", "1s").returncode == 124
    stack.stop("long")


def test_show_displays_timeline_and_advice(stack: Stack, run: Run) -> None:
    submit(stack, "shown-127", ["sh", "-c", "exit 127"])
    stack.until_ended("shown-127")
    shown = run("show", "shown-127").stdout
    for words in (
        "submitted",
        "launched on ",
        "exited with 127",
        "recorded as failed",
        "The image has no such command.",
    ):
        assert words in shown, shown


def test_ps_filters_by_state_profile_and_label(stack: Stack, run: Run) -> None:
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


def test_ps_watch_redraws_the_screen(stack: Stack, run: Run) -> None:
    environment = os.environ | {"ECS_BRIDGE_LOCAL": str(stack.ready_file)}
    command = [PROGRAM, "ps", "--all", "--watch", "1"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as watch:
        assert watch.stdout
        screens = 0
        while screens < 2:
            screens += watch.stdout.readline().startswith(b"\x1b[2J")
        watch.kill()


def test_file_submitted_again_creates_no_submission(stack: Stack, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    lines: list[dict[str, object]] = [{"command": ["sh", "-c", ": of a file"]}] * 130
    lines += [{"command": ["true"], "submission_id": "named", "labels": {"from": "line"}}]
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    before = len(stack.rows())
    first = run("submit", "--file", str(file), "--label", "from=flag", "--wait")
    assert (first.returncode, first.stderr) == (0, "")
    assert "131 accepted" in first.stdout
    assert "0 refused" in first.stdout
    again = run("submit", "--file", "-", "--label", "from=flag", input=file.read_text())
    assert "131 accepted (131 succeeded), 0 refused" in again.stdout
    assert len(stack.rows()) == before + 131
    assert stack.row("named")["labels"] == {"from": "line"}


def test_file_with_an_invalid_line_submits_nothing(stack: Stack, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text('{"command": ["true"], "submission_id": "not-submitted"}\n{"comand": ["true"]}\nnonsense\n')
    answer = run("submit", "--file", str(file))
    assert answer.returncode == 1
    assert "nothing was submitted: line 2: command is required: a list of strings; line 3: " in answer.stderr
    assert run("show", "not-submitted").returncode == 1


def test_rejected_lines_are_named(stack: Stack, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text('{"command": ["true"], "submission_id": "good-line"}\n{"command": ["true"], "profile": "nobody"}\n')
    answer = run("submit", "--file", str(file))
    assert answer.returncode == 1
    assert "line 2 (" in answer.stdout
    assert "no such profile" in answer.stdout
    assert "1 accepted" in answer.stdout
    stack.until_ended("good-line")


def test_completions_and_man_pages_have_every_command(run: Run, tmp_path: Path) -> None:
    script = run("completions", "bash").stdout
    checked = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert checked.returncode == 0
    assert "ecs-bridge" in script
    assert "stats" in script
    assert run("man", "--dir", str(tmp_path / "man")).returncode == 0
    pages = {path.name for path in (tmp_path / "man").iterdir()}
    assert {"ecs-bridge.1", "ecs-bridge-submit.1", "ecs-bridge-wait.1", "ecs-bridge-pool-set.1"} <= pages
    page = (tmp_path / "man/ecs-bridge-submit.1").read_text().replace("\\-", "-")
    assert "[--profile <NAME>] [--id <ID>] [--label <KEY=VALUE>]..." in page
    assert "[-- <COMMAND>...]" in page


def test_completions_end_when_the_reader_closes_the_pipe() -> None:
    command = f"{PROGRAM} completions bash | head -1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode in (0, 141)


def test_function_flag_invokes_the_function(stack: Stack, run: Run, tmp_path: Path) -> None:
    ready = {name: value for name, value in stack.ready.items() if not name.startswith("submit_")}
    (tmp_path / "ready.json").write_text(json.dumps(ready))
    where = ["--local", str(tmp_path / "ready.json"), "--function", "submit"]
    answer = run("submit", "--id", "invoked", "--wait", *where, "--", "sh", "-c", "exit 3")
    assert (answer.returncode, answer.stderr) == (3, "")
    assert json.loads(run("show", "invoked", "--json", *where).stdout)["exit_code"] == 3
    unknown = run("show", "never-heard-of", *where)
    assert (unknown.returncode, unknown.stderr) == (
        1,
        'ecs-bridge: no such submission: "never-heard-of"; `ecs-bridge ps --all` lists submissions\n',
    )
    refused = run("submit", "--id", "refused", "--profile", "nobody", *where, "--", "true")
    assert refused.returncode == 1
    assert "no such profile" in refused.stderr
    assert run("stop", "invoked", *where).returncode == 0


def test_logs_follows_and_tails_the_output(stack: Stack, run: Run) -> None:
    submit(stack, "talks", ["sh", "-c", "for i in 1 2 3; do echo line $i; done; sleep 1; echo the end"])
    followed = run("logs", "talks", "--follow")
    assert (followed.returncode, followed.stdout.splitlines()) == (0, ["line 1", "line 2", "line 3", "the end"])
    assert run("logs", "talks", "--tail", "1").stdout == "the end\n"
    assert json.loads(run("logs", "talks", "--tail", "1", "--json").stdout)["message"] == "the end"
    assert 'no such submission: "nobody"' in run("logs", "nobody").stderr


def test_logs_reports_a_submission_without_container(stack: Stack, run: Run) -> None:
    stack.stop("never-ran")
    answer = run("logs", "never-ran")
    assert answer.returncode == 1
    assert '"never-ran" has no container: its state is cancelled' in answer.stderr


def test_doctor_checks_a_local_stack(stack: Stack, run: Run) -> None:
    answer = run("doctor")
    assert answer.returncode == 0
    for words in ("ok       table: active", "ok       profile default", "skipped  rule: a local stack has none"):
        assert words in answer.stdout, answer.stdout


def test_missing_bridge_error_names_the_variable() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ECS_BRIDGE_")}
    environment |= {"HOME": "/nonexistent", "XDG_STATE_HOME": ""}
    answer = subprocess.run([PROGRAM, "wait", "x"], env=environment, capture_output=True, text=True)
    assert answer.returncode == 126
    assert "cannot find the URL of the bridge: pass --stack NAME or --url URL, or set ECS_BRIDGE_URL" in answer.stderr


def test_stop_of_an_unknown_id_fails_without_tombstone(run: Run) -> None:
    words = 'no such submission: "stop-unknown"; the bridge cancels a submission with this id if it arrives later'
    answer = run("stop", "stop-unknown")
    assert (answer.returncode, words in answer.stderr) == (1, True)
    assert run("submit", "--id", "stop-unknown", "--", "true").stdout == "stop-unknown cancelled\n"
    answer = run("stop", "stop-unknown-too", "--tombstone")
    assert (answer.returncode, "no such submission" in answer.stdout, answer.stderr) == (0, True, "")


def test_stop_of_a_running_submission_is_a_request(stack: Stack, run: Run) -> None:
    submit(stack, "stop-running", ["sleep", "600"])
    stack.until_state("stop-running", "running")
    answer = run("stop", "stop-running", "--wait")
    assert answer.returncode == 0
    requested, ended = answer.stdout.splitlines()
    assert requested == "stop-running stop requested; its state is running"
    assert ended.startswith("stop-running cancelled, ")
    assert run("stop", "stop-running").stdout == "stop-running cancelled\n"
    submit(stack, "stop-late", ["true"])
    stack.until_ended("stop-late")
    assert run("stop", "stop-late").stdout == "stop-late had already ended: succeeded\n"


def test_commands_accept_unambiguous_short_ids(stack: Stack, run: Run) -> None:
    ids = ["5f0e0c5e-1111-4a53-9a3e-5c7d8e9f0a1b", "5f0e0c5e-1112-4a53-9a3e-5c7d8e9f0a1b"]
    for id in ids:
        submit(stack, id, ["sleep", "600"], labels={"dag_id": "short", "task_id": "ids"})
        stack.until_state(id, "running")
    table = run("ps", "--label", "dag_id=short").stdout
    shown = [line.split()[:3] for line in table.splitlines()[1:]]
    assert sorted(shown) == [["5f0e0c5e-1111", "default", "short.ids"], ["5f0e0c5e-1112", "default", "short.ids"]]
    assert ids[0] in run("ps", "--wide").stdout
    assert ids[0] in run("show", "5f0e0c5e-1111").stdout
    ambiguous = run("stop", "5f0e0c5e")
    assert ambiguous.returncode == 1
    assert all(id in ambiguous.stderr for id in ids)
    assert run("stop", "5f0e0c5e-1111", "5f0e0c5e-1112").stdout.startswith(ids[0])
    assert run("wait", "5f0e0c5e-1111").returncode == 1
    assert run("logs", "5f0e0c5e-1111").returncode == 0


def test_ps_fits_100_columns(stack: Stack, run: Run) -> None:
    submit(stack, "wide-" + "x" * 40, ["sh", "-c", "exit 3"], labels={"label": "y" * 150})
    stack.until_ended("wide-" + "x" * 40)
    table = run("ps", "--all").stdout
    assert "wide-xxx" in table
    assert "default" in table
    assert "…" in table
    assert max(map(len, table.splitlines())) <= 100
    assert "\x1b" not in table


def test_states_have_colors_on_a_terminal_only(stack: Stack) -> None:
    submit(stack, "colored", ["true"])
    stack.until_ended("colored")
    environment = os.environ | {"ECS_BRIDGE_LOCAL": str(stack.ready_file), "TERM": "xterm"}
    for more, is_colored in [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]:
        command = ["script", "-qec", f"{PROGRAM} ps --all", "/dev/null"]
        shown = subprocess.run(
            command, env=environment | more, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        assert "colored" in shown.stdout
        assert ("\x1b[32msucceeded" in shown.stdout) == is_colored


def test_show_of_a_failed_command_displays_its_last_lines(stack: Stack, run: Run) -> None:
    submit(stack, "last-lines", ["sh", "-c", "echo cannot open the file; exit 2"])
    stack.until_ended("last-lines")
    assert run("show", "last-lines").stdout.endswith("shows more):\n  cannot open the file\n")


def test_pool_list_equals_pools(run: Run) -> None:
    listed = run("pool", "list")
    assert listed.returncode == 0
    assert listed.stdout == run("pools").stdout
    assert all(heading in listed.stdout for heading in ("TARGET", "STARTED 15M", "WARM %", "IDLE TIME"))


def test_errors_quote_the_value_and_state_what_is_allowed(run: Run) -> None:
    for arguments, code, words in [
        (["submit", "true"], 2, ["write -- before the command: ecs-bridge submit [OPTIONS] -- true"]),
        (["submit", "--label", "foo", "--", "true"], 2, ["'foo'", "must be KEY=VALUE"]),
        (["submit", "--notify", "{}", "--", "true"], 2, ["'{}'", '"event_bus", "task_token"']),
        (["submit", "--notify", '{"bus": "x"}', "--", "true"], 2, ['"event_bus", "task_token"']),
        (["submit", "--overrides", "x", "--", "true"], 2, ["'x'", "must be a JSON object"]),
        (["submit", "--profile", "nobody", "--", "true"], 1, ['--profile "nobody"', "known: default"]),
        (["submit", "--file", "/no/such"], 1, ['"/no/such"']),
        (["submit", "--id", "a b", "--", "true"], 1, ["a b"]),
        (["ps", "--state", "foo"], 2, ["'foo'", "queued, launching, launched, running, succeeded"]),
        (["ps", "--older", "1w"], 2, ["'1w'", "such as 90s or 15m"]),
        (["wait", "x", "--timeout", "soon"], 2, ["'soon'", "such as 90s or 15m"]),
        (["submit", "--launch-within", "soon", "--", "true"], 2, ["'soon'", "such as 90s or 15m"]),
        (["stats", "--since", "soon"], 2, ["'soon'", "such as 90s or 15m"]),
        (["ps", "--watch", "0"], 2, ["at least 1s"]),
        (["show", "nobody"], 1, ['"nobody"', "ecs-bridge ps --all"]),
        (["show", "no/such id"], 1, ['"no/such id"']),
        (["logs", "nobody"], 1, ['"nobody"']),
        (["wait", "nobody"], 126, ['"nobody"']),
        (["pool", "set", "nobody", "--max", "1"], 1, ['"nobody"']),
        (["pool", "set", "nobody"], 2, ["--max"]),
        (["show", "x", "--url", "http://127.0.0.1:9"], 1, ["is `ecs-bridge local` running?"]),
        (["ps", "--dynamodb-url", "http://127.0.0.1:9"], 1, ["is `ecs-bridge local` running?"]),
        (["ps", "--table", "other"], 1, ['"other"']),
        (["show", "x", "--url", "ftp://x"], 1, ["ftp://x"]),
        (["show", "x", "--url", "https://nowhere.invalid"], 1, ["nowhere.invalid"]),
        (["show", "x", "--local", "/no/such.json"], 1, ["/no/such.json", "is `ecs-bridge local` running?"]),
        (["show", "x", "--local", "/etc/passwd"], 1, ["/etc/passwd"]),
        (["show", "x", "--function", "nowhere"], 1, ["nowhere"]),
        (["show", "x", "--aws-profile", "nobody", "--url", "https://a.lambda-url.us-east-1.on.aws"], 1, ["ecs-bridge"]),
        (["verify-aws", "--only", "foo"], 2, ["'foo'", "must be one of url"]),
        (["local", "--drop", "2"], 2, ["'2'", "from 0 to 1"]),
        (["local", "--functions-dir", "/etc"], 1, ['"/etc/']),
        (["local", "--task-definitions", "/etc/passwd"], 1, ["/etc/passwd"]),
        (["nonsense"], 2, ["nonsense"]),
    ]:
        answer = run(*arguments)
        assert answer.returncode == code, (arguments, answer.stdout, answer.stderr)
        for word in words:
            assert word in answer.stderr, (arguments, answer.stderr)
        for debug in ("Error(", "{ ", "Some("):
            assert debug not in answer.stdout + answer.stderr, (arguments, answer.stdout, answer.stderr)


def test_file_without_lines_submits_nothing(run: Run) -> None:
    answer = run("submit", "--file", "-", input="\n")
    assert answer.returncode == 1
    assert "standard input contains no submissions" in answer.stderr
