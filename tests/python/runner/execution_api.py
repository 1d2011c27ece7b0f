"""As much of Airflow's execution API as one task needs, so that a workload runs without an Airflow."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DAG_RUN = {
    "dag_id": "probe",
    "run_id": "manual",
    "logical_date": "2026-11-21T00:00:00Z",
    "data_interval_start": "2026-11-21T00:00:00Z",
    "data_interval_end": "2026-11-21T00:00:00Z",
    "run_after": "2026-11-21T00:00:00Z",
    "start_date": "2026-11-21T00:00:00Z",
    "end_date": None,
    "run_type": "manual",
    "state": "running",
    "consumed_asset_events": [],
    "partition_key": None,
}


class ExecutionAPI:
    """Answers `/run` with a context, or with `refusal`, and accepts all else; keeps the reported `states`."""

    def __init__(self) -> None:
        self.states: list[str] = []
        self.refusal: int | None = None
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                status, answer = api.answer(self.path, json.loads(body) if body else None)
                payload = b"" if answer is None else json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/execution/"

    def answer(self, path: str, body: Any) -> tuple[int, Any]:
        """Return status and body."""
        if path.endswith("/run"):
            if self.refusal:
                return self.refusal, {"detail": {"reason": "invalid_state", "message": "not the current run"}}
            return 200, {"dag_run": DAG_RUN, "max_tries": 0, "should_retry": False}
        if path.endswith("/state"):
            self.states.append(body["state"])
        return 204, None

    def __enter__(self) -> ExecutionAPI:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def workload() -> str:
    """Return the JSON of a workload of the DAG `probe`, as the scheduler makes it."""
    ids = {name: f"00000000-0000-7000-8000-00000000000{number}" for number, name in enumerate(("id", "dag_version_id"))}
    ti = {
        **ids,
        "task_id": "write_down",
        "dag_id": "probe",
        "run_id": "manual",
        "try_number": 1,
        "map_index": -1,
        "pool_slots": 1,
        "queue": "default",
        "priority_weight": 1,
    }
    bundle = {"name": "dags-folder", "version": None}
    fields = {"ti": ti, "dag_rel_path": "probe.py", "token": "t", "log_path": "probe.log", "bundle_info": bundle}
    return json.dumps({"type": "ExecuteTask", **fields})
