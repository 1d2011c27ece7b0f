"""Some hundred submissions under every fault at once, by three seeds: each is accounted for."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")
SEEDS = (1, 2, 3)
SUBMISSIONS = 200


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[int, subprocess.Popen[str]]]:
    """All at once, as each of them mostly waits; stacks end with the program that started them."""
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
def test_every_submission_is_accounted_for(seed: int, runs: dict[int, subprocess.Popen[str]]) -> None:
    summary, _ = runs[seed].communicate()
    print(summary)
    assert runs[seed].returncode == 0, summary
