"""A task that writes down what it finds in its process."""

import json
import os
import random
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

from airflow.sdk import dag, task

FIRST_INSTRUCTION = time.time()


def database() -> str:
    """What comes of asking Airflow for its database, which no task may reach."""
    try:
        from airflow.utils.session import create_session

        with create_session():
            return "a session"
    except Exception as error:
        return repr(error)


@dag(schedule=None)
def probe():
    @task
    def write_down():
        environment = dict(os.environ)
        target = Path(environment.pop("PROBE"))
        files = sorted(fd for fd in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{fd}"))
        handlers = {
            name.name: str(signal.getsignal(name)).split(" at ")[0]
            for name in signal.valid_signals() - {0}
            if isinstance(name, signal.Signals)
        }
        told = {
            "argv": sys.argv,
            "blocked signals": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
            "cwd": os.getcwd(),
            "database": database(),
            "environment": environment,
            "files": files,
            "flags": str(sys.flags),
            "handlers": handlers,
            "main": sys.modules["__main__"].__spec__.name,
            "orig_argv": sys.orig_argv[1:],
            "path": sys.path,
            "terminal or session": os.getsid(0) == os.getsid(os.getppid()),
            "threads": threading.active_count(),
            "umask": os.umask(0o22),
            "warnings": str(warnings.filters),
        }  # fmt: skip
        facts = {"first_instruction": FIRST_INSTRUCTION, "random": random.random(), "told": told}
        target.with_suffix(".part").write_text(json.dumps(facts))
        target.with_suffix(".part").rename(target)

    write_down()


probe()
