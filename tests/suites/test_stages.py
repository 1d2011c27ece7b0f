"""One summary shows every failure, whatever becomes of a suite."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from local_stack import until

SCRIPT = Path(__file__).resolve().parents[2] / "tools/stages.py"
# As outside of any make.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("MAKE") and name != "MFLAGS"}

PYTEST = """
import logging, pytest

def test_that_passes(): pass

def test_that_fails():
    logging.error("a line of a log is no test")
    assert 1 == 2, "for a reason"

@pytest.fixture
def broken(): raise OSError("no such thing")

def test_with_a_broken_fixture(broken): pass
"""

# Of `cargo test --quiet --no-fail-fast`.
CARGO = """
running 2 tests
.F
failures:

---- decide::tests::stop_is_repeated stdout ----
assertion failed

failures:
    decide::tests::stop_is_repeated

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

error: test failed, to rerun pass `-p ecs-bridge-core --lib`

running 3 tests
...
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s

error: 2 targets failed:
    `-p ecs-bridge-core --lib`
    `-p submit --test crashes`
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "test_some.py").write_text(PYTEST)
    (tmp_path / "cargo.txt").write_text(CARGO)
    (tmp_path / "Makefile").write_text(
        f"""
.PHONY: tests/some fine quiet rust killed killed-make waits
tests/some: ; @{sys.executable} -m pytest -q test_some.py
fine: ; @echo "7 passed in 0.10s"
quiet: ; @false
rust: ; @cat cargo.txt; exit 101
killed: ; @kill -9 $$$$
killed-make: ; @echo last words; kill -9 $$PPID
waits: ; @touch waits.begun; exec sleep 1000
"""
    )
    return tmp_path


def command(*stages: str) -> list[str]:
    return [sys.executable, str(SCRIPT), "logs", *stages]


def run(folder: Path, *stages: str) -> tuple[int, list[str], str]:
    """The exit code, the lines of the summary, and the output before it."""
    done = subprocess.run(command(*stages), cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    before, _, summary = done.stdout.partition("== summary\n")
    return done.returncode, summary.splitlines(), before


def lines_of(summary: list[str], suite: str) -> list[str]:
    """The line of a suite, and the indented ones below it."""
    [first] = [place for place, line in enumerate(summary) if line[8:].startswith(f"{suite}:")]
    found = [summary[first]]
    for line in summary[first + 1 :]:
        if not line.startswith("    "):
            break
        found.append(line.strip())
    return found


def test_passed_suites_are_listed_with_counts(folder: Path) -> None:
    code, summary, before = run(folder, "fine")
    assert code == 0
    assert lines_of(summary, "fine")[0].startswith("passed  fine: 7 passed")
    assert summary[-1] == "1 suites, 0 failed"
    assert "7 passed in 0.10s\n" in before


def test_suites_run_after_a_failure(folder: Path) -> None:
    code, summary, before = run(folder, "tests/some fine rust", "quiet")
    assert code == 1
    some = lines_of(summary, "tests/some")
    assert some[0].startswith("FAILED  tests/some: 1 failed, 1 passed, 1 error")
    assert "logs/tests-some.log" in some[0]
    assert [line.split(" - ")[0] for line in some[1:]] == [
        "FAILED test_some.py::test_that_fails",
        "ERROR test_some.py::test_with_a_broken_fixture",
    ]
    rust = lines_of(summary, "rust")
    assert rust[0].startswith("FAILED  rust: 4 passed, 1 failed")
    assert rust[1:] == ["decide::tests::stop_is_repeated", "`-p ecs-bridge-core --lib`", "`-p submit --test crashes`"]
    assert lines_of(summary, "fine")[0].startswith("passed")
    assert lines_of(summary, "quiet")[0].startswith("FAILED")
    assert "Error 1" in lines_of(summary, "quiet")[-1]
    assert summary[-1] == "4 suites, 3 failed"
    # The closing lines of each runner are there as people know them.
    assert "1 failed, 1 passed, 1 error in " in before
    assert "test result: ok. 3 passed" in before
    assert "a line of a log is no test" in (folder / "logs" / "tests-some.log").read_text()


@pytest.mark.parametrize("suite", ["killed", "killed-make", "no-such-target"])
def test_killed_or_unstarted_suites_fail(folder: Path, suite: str) -> None:
    code, summary, _ = run(folder, f"{suite} fine")
    assert code == 1
    assert lines_of(summary, suite)[0].startswith("FAILED")
    assert lines_of(summary, "fine")[0].startswith("passed")


def test_interrupted_run_lists_unstarted_suites(folder: Path) -> None:
    script = subprocess.Popen(command("waits fine"), cwd=folder, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    until("the first suite has begun", (folder / "waits.begun").exists)
    script.send_signal(signal.SIGTERM)
    output, _ = script.communicate()
    assert script.returncode == 1
    summary = output.partition("== summary\n")[2].splitlines()
    assert lines_of(summary, "waits")[0].startswith("FAILED")
    assert lines_of(summary, "fine")[0] == "FAILED  fine: did not end"
