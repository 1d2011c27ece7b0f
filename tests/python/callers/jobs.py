"""A job that notes each of its starts, and ends when it is told to."""

import os
import time
from pathlib import Path

from dagster import in_process_executor, job, op


@op
def wait_for_go() -> None:
    """Wait for the file `go`."""
    folder = Path(os.environ["FOLDER"])
    with (folder / "starts").open("a") as starts:
        starts.write(f"{os.getpid()}\n")
    while not (folder / "go").exists():
        time.sleep(0.1)


@job(executor_def=in_process_executor)
def patient() -> None:
    """Do that alone."""
    wait_for_go()
