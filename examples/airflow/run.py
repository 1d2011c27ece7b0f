"""A real Airflow on the bridge, all of it on this machine: ``make airflow``.

Starts the local stack (the bridge's own functions, with processes for containers) and an Airflow whose executor is
EcsBridgeExecutor: API server, Dag processor, triggerer and scheduler, on the loopback, in the folder .airflow. Prints
where to look and how to log in, and runs until Ctrl-C. With ``--once`` it triggers the example, waits for its end, and
exits 0 if it succeeded. With ``--pool`` the tasks run on a pool, which keeps two runners idle that have imported
Airflow.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from local_airflow import Airflow, end, end_with_parent, free_port

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DAG = "example_ecs_bridge"

PROFILES = {
    "default": {
        "container_name": "airflow",
        "run_task": {
            "taskDefinition": "airflow-worker",
            "launchType": "FARGATE",
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"]}},
        },
        "allow_overrides": ["overrides.containerOverrides.environment", "overrides.cpu", "overrides.memory"],
    }
}
POOL = {
    "max": 8,
    "min_idle": 2,
    "commands_per_container": 20,
    "poll_interval_ms": 500,
    "runner": ["ecs-bridge-runner", "--zygote", "python -m airflow_ecs_bridge.zygote"],
}
TASK_DEFINITIONS = [
    {
        "family": "airflow-worker",
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "cpu": "1024",
        "memory": "2048",
        "taskRoleArn": "arn:aws:iam::123456789012:role/airflow-worker",
        "containerDefinitions": [{"name": "airflow", "image": "airflow:3.3.2", "essential": True}],
    }
]


@contextlib.contextmanager
def local_stack(
    folder: Path, program: Path, profiles: dict[str, Any], containers: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Run the bridge on this machine; give what its ready file says."""
    folder.mkdir(parents=True, exist_ok=True)
    ready = folder / "ready.json"
    ready.unlink(missing_ok=True)
    (folder / "profiles.json").write_text(json.dumps(profiles))
    (folder / "task-definitions.json").write_text(json.dumps(TASK_DEFINITIONS))
    command = [program, "local", "--ready-file", ready, "--log-dir", folder / "logs"]
    command += ["--profiles", folder / "profiles.json", "--task-definitions", folder / "task-definitions.json"]
    for name, value in containers.items():
        command += ["--container-env", f"{name}={value}"]
    with (folder / "local.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=end_with_parent
        )
    try:
        give_up = time.monotonic() + 60
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > give_up:
                sys.exit(f"the local stack did not start, see {folder}/local.log")
            time.sleep(0.1)
        yield json.loads(ready.read_text())
    finally:
        end(process)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, default=ROOT / ".airflow")
    parser.add_argument("--program", type=Path, default=ROOT / "target" / "debug" / "ecs-bridge")
    parser.add_argument("--port", type=int, help="of Airflow's web interface; default: 8080, or a free one")
    parser.add_argument("--once", action="store_true", help="run the example once, and end")
    parser.add_argument("--pool", action="store_true", help="run the tasks on a pool")
    arguments = parser.parse_args()
    profiles = {name: profile | ({"pool": POOL} if arguments.pool else {}) for name, profile in PROFILES.items()}
    # A terminal's SIGHUP and a supervisor's SIGTERM end all processes, as Ctrl-C does.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))

    home: Path = arguments.home
    home.mkdir(parents=True, exist_ok=True)
    password = secrets.token_urlsafe(9)
    passwords = home / "passwords.json"
    passwords.write_text(json.dumps({"admin": password}))
    passwords.chmod(0o600)
    environment = {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": str(arguments.once),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__CORE__PARALLELISM": str(2 * (os.cpu_count() or 2)),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTOR": "airflow_ecs_bridge.EcsBridgeExecutor",
    }
    airflow = Airflow(home, HERE / "dags", arguments.port or free_port(8080), environment)
    with local_stack(home / "bridge", arguments.program, profiles, airflow.worker_environment) as ready:
        bridge = {
            "AIRFLOW__ECS_BRIDGE_EXECUTOR__SUBMIT_URL": ready["submit_url"],
            "AIRFLOW__ECS_BRIDGE_EXECUTOR__TABLE": ready["table"],
            "AIRFLOW__ECS_BRIDGE_EXECUTOR__DEPLOYMENT": ready["deployment"],
            "AIRFLOW__ECS_BRIDGE_EXECUTOR__LOCAL_LOG_DIR": str((home / "bridge" / "logs").resolve()),
            "AIRFLOW_CONN_AWS_DEFAULT": f"aws://local:local@/?region_name={ready['region']}",
            "AWS_ENDPOINT_URL_DYNAMODB": ready["dynamodb_url"],
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        # The API server asks the bridge too: for the log view of a running task.
        airflow.environment.update(bridge)
        with airflow, airflow.scheduler({}):
            return once(airflow) if arguments.once else stay(airflow, home, password, arguments.pool)


def once(airflow: Airflow) -> int:
    """Run the example."""
    run = airflow.trigger(DAG)
    state = airflow.finish(run)
    for (task_id, map_index), ti in sorted(airflow.task_instances(run).items()):
        name = task_id if map_index < 0 else f"{task_id}[{map_index}]"
        print(f"{name:20}{ti['state']:10}try {ti['try_number']}  submission {ti['external_executor_id']}")
    print(f"the run is a {state}")
    # Once more, now that all is warm: what a person waits for.
    triggered = time.time()
    again = airflow.trigger(DAG)
    airflow.finish(again)
    (began,) = airflow.rows("SELECT min(start_date) FROM task_instance WHERE run_id = ?", again)[0]
    at = datetime.fromisoformat(str(began))
    seconds = at.replace(tzinfo=at.tzinfo or timezone.utc).timestamp() - triggered
    print(f"triggered again, its first task ran {seconds:.1f} s later")
    return 0 if state == "success" else 1


def stay(airflow: Airflow, home: Path, password: str, has_pool: bool) -> int:
    """Say where it is, and wait for Ctrl-C."""
    where = "in a container that waits for it" if has_pool else "as a container of its own"
    program = f"ECS_BRIDGE_LOCAL={home}/bridge/ready.json target/debug/ecs-bridge"
    print(
        f"""
Airflow {airflow.url}/dags/{DAG}   (user admin, password {password})
Press "Trigger": each task runs {where}, through the bridge.
Bridge  {program} {"pools" if has_pool else "ps"}
Logs    {home}
Ctrl-C  ends all of it
""",
        flush=True,
    )
    with contextlib.suppress(KeyboardInterrupt):
        airflow.watch()
    return 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
