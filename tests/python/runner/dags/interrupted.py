"""Tasks that a test interrupts: each waits for a file, and notes when it is killed."""

import os
import time
from pathlib import Path

from airflow.sdk import BaseOperator, dag


class Waits(BaseOperator):
    """Goes on when it is killed, as an operator does whose work is done elsewhere."""

    def execute(self, context):
        folder = Path(os.environ["PROBE"])
        (folder / "began").touch()
        while not (folder / "go").exists():
            time.sleep(0.05)

    def on_kill(self):
        Path(os.environ["PROBE"], "killed").touch()


@dag(schedule=None, dag_id="probe")
def interrupted():
    Waits(task_id="write_down")


interrupted()
