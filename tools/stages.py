"""Runs all suites of tests to their ends, whatever fails, and prints one summary.

    stages.py LOGS SUITES...

Each `SUITES` is a stage: names of suites, which are targets of make. Stages run concurrently, and the suites of a stage
sequentially. The output of a suite is kept in the folder `LOGS` and printed once the suite has ended. The exit code is
0 only if every suite ended with 0: a suite that was killed, or never ran, has failed.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

MAKE = ["make", "--no-print-directory", "--keep-going", "--jobs", "1"]
# Lines of a log that are shown where no failed test is named in it.
TAIL = 15


class Suite:
    """One target and its result."""

    def __init__(self, name: str, logs: Path) -> None:
        self.name = name
        self.log = logs / f"{name.replace('/', '-')}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.exit_code: int | None = None
        self.seconds = 0.0
        # Of all of its processes. Suites compete for the CPU.
        self.cpu_seconds = 0.0

    @property
    def passed(self) -> bool:
        return self.exit_code == 0

    def run(self) -> None:
        began = time.monotonic()
        with self.log.open("wb") as output:
            self.process = subprocess.Popen([*MAKE, self.name], stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            _, status, usage = os.wait4(self.process.pid, 0)
        self.seconds = time.monotonic() - began
        self.cpu_seconds = usage.ru_utime + usage.ru_stime
        self.exit_code = self.process.returncode = os.waitstatus_to_exitcode(status)

    def output(self) -> str:
        """The log, without colors."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self.log.read_text(errors="replace")) if self.log.exists() else ""

    def outcome(self) -> str:
        """One line."""
        if self.exit_code is None:
            return f"FAILED  {self.name}: did not end"
        verdict = "passed" if self.passed else "FAILED"
        parts = [
            counts(self.output()),
            f"{self.seconds:.0f} s",
            f"{self.cpu_seconds:.0f} s of CPU",
            "" if self.passed else f"exit code {self.exit_code}, {self.log}",
        ]
        return f"{verdict}  {self.name}: {', '.join(filter(None, parts))}"

    def failures(self) -> list[str]:
        """The failed tests, or the end of the log where it names none."""
        output = self.output()
        return failed_tests(output) or output.splitlines()[-TAIL:]


def closing_lines(output: str) -> list[str]:
    """The lines in which pytest and cargo count the tests of a run."""
    return re.findall(
        r"^(?:test result: .*|(?:=+ )?\d+ (?:passed|failed|skipped|error).* in [\d.]+s.*)$", output, re.MULTILINE
    )


def counts(output: str) -> str:
    """Tests by outcome, over all runs of a suite."""
    found = re.findall(r"(\d+) (passed|failed|error|skipped|ignored)", "\n".join(closing_lines(output)))
    sums = {kind: sum(int(count) for count, each in found if each == kind) for _, kind in found}
    return ", ".join(f"{count} {kind}" for kind, count in sums.items() if count)


def failed_tests(output: str) -> list[str]:
    """The tests that pytest and cargo name at the end of a run."""
    found = []
    for summary in re.findall(r"^=+ short test summary info =+\n((?:.*\n)*?)(?:=+ )?\d+ ", output, re.MULTILINE):
        found += re.findall(r"^(?:FAILED|ERROR) .*", summary, re.MULTILINE)
    for names in re.findall(r"^failures:\n((?:    \S.*\n)+)", output, re.MULTILINE):
        found += names.split("\n")[:-1]
    # The binaries of Rust's failed tests, one of which may have crashed before it named a test.
    for names in re.findall(r"^error: \d+ targets? failed:\n((?:    \S.*\n)+)", output, re.MULTILINE):
        found += names.split("\n")[:-1]
    return [name.strip() for name in found]


class Stages:
    """All suites, and whether there is still time to begin one."""

    def __init__(self, logs: Path, stages: list[str]) -> None:
        self.stages = [[Suite(name, logs) for name in names.split()] for names in stages]
        self.suites = [suite for stage in self.stages for suite in stage]
        self.is_interrupted = False
        self.printing = threading.Lock()

    def run(self) -> None:
        threads = [threading.Thread(target=self.run_stage, args=(stage,)) for stage in self.stages]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def run_stage(self, stage: list[Suite]) -> None:
        for suite in stage:
            if self.is_interrupted:
                return
            suite.run()
            with self.printing:
                print(f"== {suite.name}", suite.output(), suite.outcome(), sep="\n", flush=True)

    def interrupt(self, *_: object) -> None:
        """Terminate running suites, and start no more."""
        self.is_interrupted = True
        for suite in self.suites:
            if suite.process and suite.exit_code is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(suite.process.pid, signal.SIGTERM)

    def summary(self) -> str:
        lines = ["== summary"]
        for suite in self.suites:
            lines.append(suite.outcome())
            if not suite.passed:
                lines += [f"    {line}" for line in suite.failures()]
        failed = sum(not suite.passed for suite in self.suites)
        return "\n".join([*lines, f"{len(self.suites)} suites, {failed} failed"])


def main() -> int:
    logs = Path(sys.argv[1])
    logs.mkdir(parents=True, exist_ok=True)
    for log in logs.glob("*.log"):
        log.unlink()
    stages = Stages(logs, sys.argv[2:])
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, stages.interrupt)
    stages.run()
    print(stages.summary())
    return 0 if all(suite.passed for suite in stages.suites) else 1


if __name__ == "__main__":
    sys.exit(main())
