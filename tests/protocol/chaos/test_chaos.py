"""A hundred submissions by each of two seeds, under every fault at once: each ends as promised."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")
SEEDS = (1, 2)
SUBMISSIONS = 100


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[int, subprocess.Popen[str]]]:
    """Side by side: most of the time they wait. A stack ends with the program that started it."""
    runs = {
        seed: subprocess.Popen(
            [sys.executable, RUN, f"--seed={seed}", f"--submissions={SUBMISSIONS}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for seed in SEEDS
    }
    yield runs
    for run in runs.values():
        run.kill()
        run.wait()


@pytest.mark.parametrize("seed", SEEDS)
def test_every_submission_ends_correctly_under_faults(seed: int, runs: dict[int, subprocess.Popen[str]]) -> None:
    summary, _ = runs[seed].communicate()
    print(summary)
    assert runs[seed].returncode == 0, summary
