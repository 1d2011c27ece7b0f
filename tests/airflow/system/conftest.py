"""An Airflow of its own for the system tests, unless AIRFLOW_HOME names one; the bridge is the one of the options."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

# One of each line.
OPTIONS = (("SUBMIT_URL", "SUBMIT_FUNCTION"), ("TABLE",), ("DEPLOYMENT",))
PREFIX = "AIRFLOW__ECS_BRIDGE_EXECUTOR__"

if missing := [names for names in OPTIONS if not any(PREFIX + name in os.environ for name in names)]:
    wanted = ", ".join(" or ".join(PREFIX + name for name in names) for names in missing)
    raise pytest.UsageError(f"set {wanted} from the stack's outputs: the commands run on that bridge")

if "AIRFLOW_HOME" not in os.environ:
    HOME = tempfile.mkdtemp(prefix="airflow-system-")
    atexit.register(shutil.rmtree, HOME, ignore_errors=True)
    # Before the first import of airflow, which reads its configuration then.
    os.environ |= {"AIRFLOW_HOME": HOME, "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(Path(__file__).parent)
    subprocess.run([Path(sys.executable).parent / "airflow", "db", "migrate"], check=True, stdout=subprocess.DEVNULL)
