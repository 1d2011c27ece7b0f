"""A real Airflow on the loopback: API server, Dag processor and triggerer all along, schedulers as wanted."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, inspect

BIN = Path(sys.executable).parent
FINISHED = {"success", "failed", "skipped", "upstream_failed", "removed"}
# Seconds after which a wait fails, enough for a busy machine.
PATIENCE = 600.0


def free_port(wish: int = 0) -> int:
    """Return a port that is free now: the one wished for, if it is."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", wish))
        except OSError:
            return free_port()
        return listener.getsockname()[1]


class Airflow:
    """One Airflow in one folder; a context manager, so that all its processes end."""

    def __init__(
        self,
        home: Path,
        dags: Path,
        port: int | None = None,
        environment: dict[str, str] | None = None,
        database: str | None = None,
    ) -> None:
        """Make one; its database is a file in its folder unless another is named, as SQLAlchemy does."""
        self.home = home
        self.database = create_engine(database or f"sqlite:///{home}/airflow.db?timeout=60", pool_pre_ping=True)
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.ran = home / "ran"
        self.worker_environment = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            # One API server of one process, and a machine that may be busy.
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "300",
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
            "RAN": str(self.ran),
        }
        self.environment = {
            **self.worker_environment,
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__FERNET_KEY": "",
            "AIRFLOW__CORE__PARALLELISM": "6",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "600",
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self.database.url.render_as_string(hide_password=False),
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "6",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            **(environment or {}),
        }
        self._processes: list[subprocess.Popen[bytes]] = []
        self._token: str | None = None

    def __enter__(self) -> Airflow:
        self.home.mkdir(parents=True, exist_ok=True)
        try:
            subprocess.run(
                [BIN / "airflow", "db", "migrate"], env=self.environment, check=True, stdout=subprocess.DEVNULL
            )
            for service in ("api-server", "dag-processor", "triggerer"):
                self._start(service, {})
            self.until("the API server answers", self._is_up)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            end(process)
        self.database.dispose()

    def scheduler(self, environment: dict[str, str]) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        """Run a scheduler, and stop it at the end."""
        return self._running("scheduler", environment)

    @contextlib.contextmanager
    def triggerer(self, environment: dict[str, str]) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
        """Replace the triggerer. Yields a function that kills it and starts the next."""
        name = "triggerer"
        running = [next(process for process in self._processes if process.args[-1] == name)]

        def replace(environment: dict[str, str] = environment) -> subprocess.Popen[bytes]:
            old = running.pop()
            self._processes.remove(old)
            old.kill()
            end(old)
            running.append(self._start(name, environment))
            return running[0]

        replace()
        try:
            yield replace
        finally:
            replace({})

    def another_triggerer(
        self, environment: dict[str, str]
    ) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        """Run a triggerer beside the existing one, and stop it at the end."""
        return self._running("triggerer", environment)

    @contextlib.contextmanager
    def _running(self, name: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
        process = self._start(name, environment)
        try:
            yield process
        finally:
            end(process)
            self._processes.remove(process)

    @contextlib.contextmanager
    def api_server(self, environment: dict[str, str], path: str = "/") -> Iterator[str]:
        """Run another API server on a port of its own, below a path; yields its base URL, without a last slash."""
        port = free_port()
        url = f"http://127.0.0.1:{port}{path}".rstrip("/")
        addressed = {"AIRFLOW__API__PORT": str(port), "AIRFLOW__API__BASE_URL": url}
        process = self._start("api-server", {**environment, **addressed})
        try:
            self.until("the other API server answers", lambda: self._is_up(url))
            yield url
        finally:
            end(process)
            self._processes.remove(process)

    def _start(self, service: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        return self._run(service, [BIN / "airflow", service], {**self.environment, **environment})

    def _run(self, service: str, command: list[str | Path], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self.home / f"{service}.log").open("ab") as log:
            # A session of its own, so that what it started ends with it.
            process = subprocess.Popen(
                command,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        self._processes.append(process)
        return process

    def watch(self) -> None:
        """Wait until a process ends by itself, which none should; say which."""
        while not (ended := [process for process in self._processes if process.poll() is not None]):
            time.sleep(0.5)
        raise SystemExit(f"ended by itself: {ended[0].args[-1]}, see {self.home}")

    # Dags and runs

    def until(self, what: str, look: Any, seconds: float = PATIENCE) -> Any:
        """Return the first truthy answer of `look`."""
        give_up = time.monotonic() + seconds
        while not (seen := look()):
            dead = [process.args for process in self._processes if process.poll() not in (None, -signal.SIGKILL)]
            assert not dead, f"ended by itself: {dead}, see {self.home}"
            assert time.monotonic() < give_up, f"not within {seconds:.0f} s: {what}; logs are in {self.home}"
            time.sleep(0.2)
        return seen

    def trigger(self, dag_id: str, **params: Any) -> str:
        """Start a run of a Dag; return its id."""
        self.until(f"Dag {dag_id} is known", lambda: self.rows("SELECT 1 FROM dag WHERE dag_id = ?", dag_id))
        self.call("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": False})
        body = {"logical_date": None, "conf": params}
        return self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)["dag_run_id"]

    def finish(self, run_id: str, seconds: float = PATIENCE) -> str:
        """Wait for the end of a run; return its state."""

        def state() -> str | None:
            ((state,),) = self.rows("SELECT state FROM dag_run WHERE run_id = ?", run_id)
            return state if state in FINISHED else None

        try:
            return self.until(f"run {run_id} has ended", state, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.task_instances(run_id)}") from None

    def task_instances(self, run_id: str) -> dict[tuple[str, int], dict[str, Any]]:
        """Return the task instances of a run, each in its last try, by task id and map index."""
        columns = ("task_id", "map_index", "state", "try_number", "external_executor_id")
        names = [each["name"] for each in inspect(self.database).get_columns("task_instance")]
        # From Airflow 3.4 on earlier tries are rows of the same table.
        index, last = ("map_index", "") if "map_index" in names else ("region_index", "AND working_set")
        selected = f"task_id, {index}, state, try_number, external_executor_id"
        rows = self.rows(f"SELECT {selected} FROM task_instance WHERE run_id = ? {last}", run_id)
        return {(row[0], row[1]): dict(zip(columns, row, strict=True)) for row in rows}

    def task_log_events(self, run_id: str, event: str) -> list[str]:
        """Return the texts of an event in the task instances' event log."""
        return [row[0] for row in self.rows("SELECT extra FROM log WHERE run_id = ? AND event = ?", run_id, event)]

    def lines(self, run_id: str) -> list[str]:
        """Return what the run's tasks left in $RAN."""
        lines = self.ran.read_text().splitlines() if self.ran.exists() else []
        return sorted(line.partition(" ")[2] for line in lines if line.startswith(run_id + " "))

    def rows(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Ask Airflow's database; parameters are question marks."""
        if self.database.dialect.paramstyle != "qmark":
            statement = statement.replace("?", "%s")
        with self.database.connect() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(statement, parameters)]

    def call(self, method: str, path: str, body: Any = None, url: str | None = None) -> Any:
        """Call Airflow's REST API, of this API server or of another one."""
        if self._token is None:
            with urllib.request.urlopen(self._token_request(), timeout=PATIENCE) as answer:
                self._token = json.load(answer)["access_token"]
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {self._token}"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request((url or self.url) + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return json.loads(answer.read() or b"null")

    def _token_request(self) -> urllib.request.Request:
        return urllib.request.Request(f"{self.url}/auth/token")

    def _is_up(self, url: str | None = None) -> bool:
        try:
            with urllib.request.urlopen(f"{url or self.url}/api/v2/version", timeout=5):
                return True
        except OSError:
            return False


def end_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends, be it by SIGKILL (Linux only)."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def end(process: subprocess.Popen[bytes], seconds: float = 30) -> None:
    """Tell a process to stop, then kill what is left of its session."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
