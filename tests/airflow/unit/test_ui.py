"""The page in Airflow's UI: who sees what, what is read for it, and what it says when it cannot be read."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import boto3
import pytest
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from botocore.exceptions import ClientError
from fake_bridge import PATIENCE
from fastapi import FastAPI
from fastapi.testclient import TestClient
from moto import mock_aws

from airflow_ecs_bridge import commands
from airflow_ecs_bridge.ui import app as page_app
from airflow_ecs_bridge.ui import queries
from airflow_ecs_bridge.ui.authorization import Sight, address, described
from airflow_ecs_bridge.ui.cache import Shared
from airflow_ecs_bridge.ui.queries import LAUNCH_RATE, Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TABLE, DEPLOYMENT = "bridge", "test"
NOW = int(time.time() * 1000)
MINUTE = 60_000


class DagByDag(SimpleAuthManager):
    """A viewer who is called ``reader of <dag>`` may read that Dag alone, and no pools."""

    def is_authorized_dag(self, *, method, user, access_entity=None, details=None) -> bool:
        allowed = super().is_authorized_dag(method=method, user=user, access_entity=access_entity, details=details)
        if not user.username.startswith("reader of ") or details is None or details.id is None:
            return allowed
        return allowed and details.id == user.username.removeprefix("reader of ")

    def is_authorized_pool(self, *, method, user, details=None) -> bool:
        allowed = super().is_authorized_pool(method=method, user=user, details=details)
        return allowed and not user.username.startswith("reader of ")


@pytest.fixture(scope="module")
def database() -> None:
    """Airflow's tables, with two Dags, and a task instance in its second try."""
    from datetime import datetime, timezone

    from airflow.models import import_all_models
    from airflow.models.base import Base
    from airflow.models.dag import DagModel
    from airflow.models.dagbundle import DagBundleModel
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from airflow.models.taskinstancehistory import TaskInstanceHistory
    from airflow.settings import engine
    from airflow.utils.session import create_session
    from sqlalchemy import insert

    import_all_models()
    Base.metadata.create_all(engine)
    at = datetime(2026, 1, 1, tzinfo=timezone.utc)
    with create_session() as session:
        session.add(DagBundleModel(name="dags"))
        session.flush()
        for dag in ("orders", "salaries"):
            session.add(DagModel(dag_id=dag, bundle_name="dags", fileloc=""))
        session.flush()
        for dag in ("orders", "salaries"):
            run = DagRun(dag_id=dag, run_id=RUN, run_type="manual", run_after=at)
            run.start_date = at
            session.add(run)
            session.flush()
            common = {
                "dag_id": dag,
                "run_id": RUN,
                "task_id": "load",
                "map_index": -1,
                "pool": "default_pool",
                "pool_slots": 1,
                "max_tries": 1,
                "executor_config": {},
            }
            session.execute(
                insert(TaskInstance.__table__).values(
                    **common, id=UUIDS[1], try_number=2, state="running", external_executor_id=IDS[1]
                )
                if dag == "orders"
                else insert(TaskInstance.__table__).values(**common, id=UUIDS[2], try_number=1, state="running")
            )
            if dag == "orders":
                session.execute(
                    insert(TaskInstanceHistory.__table__).values(
                        **common,
                        task_instance_id=UUIDS[0],
                        try_number=1,
                        state="failed",
                        external_executor_id=IDS[0],
                    )
                )


RUN = "manual__2026-01-01T00:00:00+00:00"
UUIDS = [uuid.UUID(f"0198aaaa-0000-7000-8000-00000000000{number}") for number in range(3)]
IDS = [f"0198bbbb-0000-7000-8000-00000000000{number}" for number in range(3)]


@pytest.fixture
def dynamodb(configure: Callable[..., None]) -> Iterator[Any]:
    """An empty table, with the indexes that template.yaml gives it."""
    configure(
        submit_url="https://bridge.example",
        table=TABLE,
        deployment=DEPLOYMENT,
        region_name="eu-central-1",
        aws_conn_id="",
        awslogs_group="/ecs/worker",
        awslogs_stream_prefix="airflow",
    )
    keys = {"feed": ("feed", "changed_at"), "due": ("due", "check_at"), "pool": ("pool", "rank")}
    with mock_aws():
        client = boto3.client("dynamodb", "eu-central-1")
        client.create_table(
            TableName=TABLE,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "submission_id", "KeyType": "HASH"}],
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": "N" if name in ("changed_at", "check_at", "rank") else "S"}
                for name in ("submission_id", *(name for pair in keys.values() for name in pair))
            ],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": index,
                    "KeySchema": [
                        {"AttributeName": pair[0], "KeyType": "HASH"},
                        {"AttributeName": pair[1], "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "KEYS_ONLY"},
                }
                for index, pair in keys.items()
            ],
        )
        yield client


def wire(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"BOOL": value}
        case int():
            return {"N": str(value)}
        case str():
            return {"S": value}
        case bytes():
            return {"B": value}
        case list():
            return {"L": [wire(each) for each in value]}
    return {"M": {name: wire(each) for name, each in value.items()}}


def put(dynamodb: Any, id: str, dag: str | None = "orders", **row: Any) -> None:
    """Write a row; a submission of a Dag's task instance unless `dag` is None."""
    labels = {"dag_id": dag, "task_id": "load", "run_id": RUN, "try_number": "2"} if dag else {}
    values = {"submission_id": id, "created_at": NOW - 2 * MINUTE, "profile": "default", "labels": labels, **row}
    dynamodb.put_item(TableName=TABLE, Item={name: wire(value) for name, value in values.items()})


def in_flight(dynamodb: Any, id: str, state: str, due: str = "0", **more: Any) -> None:
    put(dynamodb, id, state=state, due=due, check_at=NOW, **more)


def ended(dynamodb: Any, id: str, state: str, **more: Any) -> None:
    put(dynamodb, id, **{"state": state, "feed": DEPLOYMENT, "changed_at": NOW - MINUTE, **more})


def pool(dynamodb: Any, **more: Any) -> None:
    """Write a pool with a busy and an idle runner."""
    dynamodb.put_item(TableName=TABLE, Item={"submission_id": {"S": LAUNCH_RATE}, "pool/quick": {"BOOL": True}})
    spec = {"pool": {"max": 9, "min_idle": 2}, "run_task": b"{}"}
    row = {"submission_id": "#pool/quick", "rev": 3, "current": "quick#1", "specs": {"quick#1": spec}, "max": 5, **more}
    dynamodb.put_item(TableName=TABLE, Item={name: wire(value) for name, value in row.items()})
    for id, runner in {"runner-a": {"incarnation": "x", "serves": "s"}, "runner-b": {"incarnation": "y"}}.items():
        put(
            dynamodb,
            id,
            None,
            state="running",
            due="1",
            check_at=NOW,
            pool="quick#1/runners",
            rank=1,
            runner={"token": "hash", **runner},
        )


@pytest.fixture
def manager(database: None, monkeypatch: pytest.MonkeyPatch) -> DagByDag:
    monkeypatch.setenv("AIRFLOW__CORE__AUTH_MANAGER", f"{__name__}.DagByDag")
    from airflow.api_fastapi import app as airflow_app

    manager = DagByDag()
    monkeypatch.setattr(airflow_app._AuthManagerState, "instance", manager)
    return manager


@pytest.fixture
def client(manager: DagByDag) -> TestClient:
    """The app where Airflow mounts it."""
    root = FastAPI()
    root.mount("/ecs-bridge", page_app.make_app())
    return TestClient(root, base_url="http://airflow.example/ecs-bridge/")


@pytest.fixture
def as_(manager: DagByDag) -> Callable[[str | None], dict[str, str]]:
    """Return the headers of a user with a role, or of a reader of one Dag."""

    def headers(role: str | None) -> dict[str, str]:
        name, role = (role, "viewer") if role and role.startswith("reader of ") else ("someone", role)
        token = manager.generate_jwt(SimpleAuthManagerUser(username=name, role=role))
        # As the UI's iframe sends it.
        return {"Cookie": f"_token={token}"}

    return headers


@pytest.fixture
def overview(client: TestClient, as_: Callable[[str], dict[str, str]]) -> Callable[[str], Any]:
    def get(role: str = "admin") -> Any:
        answer = client.get("api/overview", headers=as_(role))
        assert answer.status_code == 200, answer.text
        return answer.json()

    return get


def instance_path(dag: str = "orders", **more: str) -> str:
    return "api/task-instance?" + urlencode({"dag_id": dag, "run_id": RUN, "task_id": "load", **more})


# Who sees what


@pytest.mark.parametrize("path", ["api/overview", instance_path()])
def test_nobody_is_told_anything_without_signing_in(client, dynamodb, as_, path):
    assert client.get(path).status_code == 401
    assert client.get(path, headers={"Authorization": "Bearer forged"}).status_code == 403


@pytest.mark.parametrize("path", ["api/overview", instance_path()])
def test_a_user_without_a_role_is_refused(client, dynamodb, as_, path):
    assert client.get(path, headers=as_(None)).status_code == 403


def test_a_user_of_one_dag_sees_and_counts_nothing_of_another(dynamodb, overview):
    pool(dynamodb)
    for dag in ("orders", "salaries"):
        in_flight(dynamodb, f"{dag}-waits", "queued", "queued", dag=dag, profile=f"{dag}-profile")
        in_flight(dynamodb, f"{dag}-runs", "running", dag=dag, started_at=NOW - MINUTE)
        times = {"started_at": NOW - MINUTE, "container_exited_at": NOW - MINUTE - 500}
        ended(dynamodb, f"{dag}-failed", "failed", dag=dag, reason=f"{dag} broke", **times)
    in_flight(dynamodb, "cli-runs", "running", dag=None)
    in_flight(dynamodb, "gone-runs", "running", dag="deleted")
    seen = overview("reader of orders")
    text = json.dumps(seen)
    for other in ("salaries", "cli-runs", "deleted", "gone-runs"):
        assert other not in text
    assert seen["in_flight"]["total"] == 2
    assert [group["count"] for group in seen["waiting"]] == [1]
    assert (seen["latency"]["launch"]["count"], seen["latency"]["landing"]["count"]) == (2, 1)
    assert seen["ended"] == {"failed": 1}
    assert seen["sees_all"] is False
    assert seen["pools"] is None
    assert overview("viewer")["in_flight"]["total"] == 4
    everything = overview("admin")
    assert everything["in_flight"]["total"] == 6
    assert everything["sees_all"] is True


def test_a_task_instance_of_another_dag_is_refused(client, dynamodb, as_):
    assert client.get(instance_path("salaries"), headers=as_("reader of orders")).status_code == 403
    # Airflow takes "~" for no Dag in particular, which everybody may read who may read any.
    assert client.get(instance_path("~"), headers=as_("reader of orders")).status_code == 422
    assert client.get("api/task-instance?run_id=r&task_id=t", headers=as_("reader of orders")).status_code == 422


@pytest.mark.parametrize(
    "path",
    [
        instance_path("or\0ders"),
        instance_path(run_id="r\0"),
        instance_path(task_id="\0"),
        "api/overview?x=%00",
        "task-instance?dag_id=%00",
        "static/%00.js",
        "%00",
    ],
)
def test_a_nul_is_no_error_of_the_server(client, dynamodb, as_, path):
    assert client.get(path, headers=as_("admin")).status_code == 404


@pytest.mark.parametrize("index", ["99999999999999999999", "2147483648", "-2", "x"])
def test_a_map_index_that_no_database_takes_is_refused(client, dynamodb, as_, index):
    assert client.get(instance_path(map_index=index), headers=as_("admin")).status_code == 422


def test_a_pool_whose_runners_fail_comes_with_advice(dynamodb, overview):
    failure = "container main exited with 201"
    pool(dynamodb, failing_since=NOW - MINUTE, failure=failure)
    in_flight(dynamodb, "waits", "queued", "queued", profile="quick", pool="quick/1")
    seen = overview()
    [group] = [group for group in seen["waiting"] if group["cause"] == "pool"]
    assert failure in group["detail"]
    [of_pool] = seen["pools"]
    for advice in (group["advice"], of_pool["advice"]):
        assert "it found no AWS credentials" in advice


def test_stuck_submissions_show_the_reason_of_their_key_alone(dynamodb, overview):
    stuck = {"since": NOW, "reason": "its containers do not ask for work", "stuck": True}
    waits = {"since": NOW, "reason": "its runners wait for the launch rate", "stuck": False}
    pool(dynamodb, wait_reasons={"quick#1": stuck, "quick#2": waits})
    for number in (1, 2, 3):
        in_flight(dynamodb, f"w{number}", "queued", "2", profile="quick", pool=f"quick#{number}", rank=1)
    seen = overview()
    assert {group["detail"] for group in seen["waiting"]} == {
        f"stuck: {stuck['reason']}",
        waits["reason"],
        "no runner of the pool is available",
    }
    (of_pool,) = seen["pools"]
    assert (of_pool["waiting"], of_pool["stuck"], of_pool["stuck_reasons"]) == (3, 1, [stuck["reason"]])


def test_of_a_cut_name_all_that_it_may_stand_for_must_be_allowed():
    every = frozenset({"orders_of_today", "orders_of_all", "salaries"})
    row = {"labels": {"dag_id": "orders_of…", "task_id": "t"}}
    assert Sight(frozenset({"orders_of_today", "orders_of_all"}), every, False).of(row)
    assert not Sight(frozenset({"orders_of_today"}), every, False).of(row)
    assert not Sight(every, every, False).of({"labels": {"dag_id": "unknown…"}})
    assert "link" not in described({**row["labels"], "run_id": "r"})


def test_a_link_names_the_task_instance_and_its_try():
    assert address("a/b", RUN, "t", "3", "2") == (
        "dags/a%2Fb/runs/manual__2026-01-01T00%3A00%3A00%2B00%3A00/tasks/t/mapped/3?try_number=2"
    )


# What is served


def test_the_pages_are_framed_by_airflow_alone_and_run_no_other_code(client):
    for path in ("", "task-instance", "static/overview.js", "api/overview"):
        answer = client.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "frame-ancestors 'self'" in policy
        assert answer.headers["X-Frame-Options"] == "SAMEORIGIN"
    for path in ("", "task-instance"):
        text = client.get(path).text
        assert "style=" not in text
        assert all(
            script.startswith((' src="static', ' type="module" src="static')) for script in text.split("<script")[1:]
        )


def test_nothing_but_get_is_answered(client, as_):
    for method in ("POST", "PUT", "PATCH", "DELETE"):
        assert client.request(method, "api/overview", headers=as_("admin")).status_code == 405


# What is read


def test_in_flight_is_counted_by_profile_and_state(dynamodb, overview):
    in_flight(dynamodb, "a", "queued", "queued")
    in_flight(dynamodb, "b", "running", "0")
    in_flight(dynamodb, "c", "running", "3", profile="large")
    # The index has not followed yet.
    put(dynamodb, "d", state="succeeded", check_at=NOW, changed_at=NOW, feed=DEPLOYMENT)
    seen = overview()["in_flight"]
    assert seen["states"] == {"queued": 1, "launching": 0, "launched": 0, "running": 2}
    assert [(row["profile"], row["total"]) for row in seen["profiles"]] == [("default", 2), ("large", 1)]


def test_what_waits_says_for_what_and_since_when(dynamodb, overview):
    choice = {"refusals": 3, "probe_at": NOW, "changed_at": NOW}
    item = {"submission_id": LAUNCH_RATE, "empty_at": 1, "capacity/spot": choice, "capacity/spot/1": choice}
    dynamodb.put_item(TableName=TABLE, Item={name: wire(value) for name, value in item.items()})
    for number in range(3):
        in_flight(
            dynamodb, f"s{number}", "queued", "waiting/spot", profile="spot", reason="Capacity is unavailable",
            created_at=NOW - number * MINUTE,
        )  # fmt: skip
    in_flight(dynamodb, "rate", "queued", "queued", created_at=NOW)
    seen = overview()
    first, second = seen["waiting"]
    assert (first["cause"], first["count"], first["since"]) == ("capacity", 3, NOW - 2 * MINUTE)
    assert "fallbacks" in first["advice"]
    assert first["first"]["link"].startswith("dags/orders/runs/")
    assert second["cause"] == "launch rate"
    assert [each["choice"] for each in seen["capacity"]] == ["spot", "spot/1"]


def test_failures_come_with_reason_advice_and_a_link_the_last_one_first(dynamodb, overview):
    ended(dynamodb, "old", "failed", exit_code=137, changed_at=NOW - 3 * MINUTE)
    ended(dynamodb, "new", "rejected", reason="ClusterNotFoundException: <script>alert(1)</script>", changed_at=NOW)
    ended(dynamodb, "fine", "succeeded", exit_code=0)
    ended(dynamodb, "long-ago", "failed", changed_at=NOW - 7 * 60 * MINUTE)
    seen = overview()
    assert [row["submission_id"] for row in seen["failures"]] == ["new", "old"]
    new, old = seen["failures"]
    assert new["reason"] == "ClusterNotFoundException: <script>alert(1)</script>"
    assert "cluster" in new["advice"]
    assert "SIGKILL" in old["advice"]
    assert new["task"]["link"].endswith("/tasks/load?try_number=2")
    assert seen["ended"] == {"failed": 1, "rejected": 1, "succeeded": 1}


def test_latencies_are_percentiles_over_time(dynamodb, overview):
    for number in range(10):
        started = NOW - 10 * MINUTE + number * 30_000
        exited = started + 1_000
        ended(
            dynamodb, f"e{number}", "succeeded", created_at=started - 1_000 * (number + 1), started_at=started,
            container_exited_at=exited, changed_at=exited + 200,
        )  # fmt: skip
    seen = overview()["latency"]
    assert (seen["launch"]["count"], seen["launch"]["median"], seen["launch"]["longest"]) == (10, 5, 10)
    assert seen["landing"]["most"] == pytest.approx(0.2)
    assert sum(seen["launch"]["counts"]) == 10
    assert len(seen["launch"]["at"]) == len(seen["launch"]["p95"])


def test_pools_have_their_runners_and_the_limits_that_hold(dynamodb, overview):
    pool(dynamodb)
    in_flight(dynamodb, "w", "queued", "2", profile="quick", pool="quick#1", rank=1)
    (seen,) = overview()["pools"]
    counts = {name: seen.get(name) for name in ("waiting", "busy", "idle", "max", "min_idle", "paused")}
    assert counts == {"waiting": 1, "busy": 1, "idle": 1, "max": 5, "min_idle": 2, "paused": False}
    assert overview()["in_flight"]["total"] == 1, "runners are no submissions"


def test_more_than_is_read_is_said(dynamodb, overview, monkeypatch):
    monkeypatch.setattr(queries, "PARTITION", 2)
    monkeypatch.setattr(queries, "MOST_ENDED", 2)
    for number in range(3):
        in_flight(dynamodb, f"f{number}", "running")
        ended(dynamodb, f"e{number}", "failed", changed_at=NOW - number * MINUTE)
    seen = overview()
    assert seen["cut"] == ["ended", "in_flight"]
    assert seen["in_flight"]["total"] == 2
    assert [row["submission_id"] for row in seen["failures"]] == ["e0", "e1"]
    assert seen["since"] == NOW - MINUTE


class Counting:
    """A client that notes its calls, and leaves keys unprocessed where it is told to."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.asked: list[tuple[str, Any]] = []
        self.unprocessed = 0

    def query(self, **request: Any) -> Any:
        self.asked.append(("query", request["IndexName"]))
        return self._client.query(**request)

    def batch_get_item(self, **request: Any) -> Any:
        ((table, asked),) = request["RequestItems"].items()
        self.asked.append(("get", [key["submission_id"]["S"] for key in asked["Keys"]]))
        left, self.unprocessed = asked["Keys"][: self.unprocessed], 0
        rest = asked["Keys"][len(left) :]
        answer = self._client.batch_get_item(RequestItems={table: {**asked, "Keys": rest}})
        return {**answer, "UnprocessedKeys": {table: {**asked, "Keys": left}} if left else {}}


def test_what_has_ended_is_read_once(dynamodb):
    counting = Counting(dynamodb)
    reader = Reader(lambda: counting, TABLE, DEPLOYMENT)
    ended(dynamodb, "one", "failed")
    assert len(reader.read().ended) == 1
    ended(dynamodb, "two", "failed", changed_at=NOW)
    counting.asked.clear()
    assert [row["submission_id"] for row in reader.read().ended] == ["two", "one"]
    assert [ids for kind, ids in counting.asked if kind == "get"] == [[LAUNCH_RATE], ["two"]]
    # No scan, and nothing beside the indexes.
    assert {index for kind, index in counting.asked if kind == "query"} == {"due", "feed"}


def test_keys_that_were_not_processed_are_asked_for_again(dynamodb):
    for number in range(3):
        in_flight(dynamodb, f"f{number}", "running")
    counting = Counting(dynamodb)
    reader = Reader(lambda: counting, TABLE, DEPLOYMENT)
    counting.unprocessed = 2
    assert len(reader.records(["f0", "f1", "f2"])) == 3


# Many browsers


def test_browsers_that_ask_at_once_share_one_reading(client, dynamodb, as_, monkeypatch):
    begun, go, readings = threading.Event(), threading.Event(), []
    read = Reader.read

    def slow(reader: Reader) -> Any:
        readings.append(1)
        begun.set()
        go.wait()
        return read(reader)

    monkeypatch.setattr(Reader, "read", slow)
    answers: list[int] = []
    ask = lambda: answers.append(client.get("api/overview", headers=as_("admin")).status_code)  # noqa: E731
    browsers = [threading.Thread(target=ask) for _ in range(5)]
    for browser in browsers:
        browser.start()
    assert begun.wait(PATIENCE)
    go.set()
    for browser in browsers:
        browser.join()
    assert answers == [200] * 5
    assert readings == [1]


def test_a_value_is_read_again_once_it_is_old():
    import asyncio

    values = iter(range(9))
    shared: Shared[int] = Shared(0)
    assert [asyncio.run(shared.get("k", lambda: next(values))) for _ in range(3)] == [0, 1, 2]
    kept: Shared[int] = Shared(3600)
    assert [asyncio.run(kept.get("k", lambda: next(values))) for _ in range(3)] == [3, 3, 3]


# A task instance


def test_the_tab_has_each_try_with_what_became_of_its_submissions(client, dynamodb, as_):
    arn = "arn:aws:ecs:eu-central-1:123456789012:task/jobs/0123"
    ended(
        dynamodb, IDS[0], "failed", exit_code=7, attempt=2, attempts=["SpotInterruption: taken back"], task_arn=arn,
        container_name="main", launched_at=NOW - 110_000, started_at=NOW - 100_000, container_exited_at=NOW - 61_000,
        runs_on="FARGATE_SPOT", request=b"secret",
    )  # fmt: skip
    in_flight(dynamodb, IDS[1], "launched", last_status="PENDING")
    subject = {"dag_id": "orders", "run_id": RUN, "task_id": "load", "map_index": -1}
    command = commands.submission_id(type("TI", (), {**subject, "try_number": 2, "id": UUIDS[1]})())
    ended(dynamodb, command, "succeeded", exit_code=0)
    answer = client.get(instance_path(), headers=as_("reader of orders"))
    assert answer.status_code == 200, answer.text
    second, first = answer.json()["tries"]
    assert (second["try_number"], second["state"], first["try_number"]) == (2, "running", 1)
    by_kind = {each["kind"]: each for each in second["submissions"]}
    assert by_kind["command"]["submission_id"] == command
    assert by_kind["worker"]["waits_for"] == {"cause": "container start", "detail": "the ECS task is PENDING"}
    (worker,) = first["submissions"]
    assert worker["attempts"] == ["SpotInterruption: taken back"]
    assert [step["what"] for step in worker["timeline"]] == [
        "submitted", "launched on FARGATE_SPOT", "started", "exited with 7", "recorded as failed",
    ]  # fmt: skip
    assert "awslogs" not in json.dumps(worker)
    assert "log-group" in worker["log"]
    assert "secret" not in answer.text


def test_failed_try_with_succeeded_submission_is_not_shown_as_success(client, dynamodb, as_):
    ended(dynamodb, IDS[0], "succeeded", exit_code=0)
    ended(dynamodb, IDS[1], "succeeded", exit_code=0)
    second, first = client.get(instance_path(), headers=as_("reader of orders")).json()["tries"]
    assert first["state"] == "failed"
    assert first["warning"].startswith("Airflow marked this try as failed, although the container")
    assert [each["overruled"] for each in first["submissions"]] == [True]
    # The try that runs may still succeed.
    assert second["warning"] is None
    assert [each["overruled"] for each in second["submissions"]] == [False]


def test_failed_command_explains_a_failed_try(client, dynamodb, as_):
    subject = {"dag_id": "orders", "run_id": RUN, "task_id": "load", "map_index": -1}
    command = commands.submission_id(type("TI", (), {**subject, "try_number": 1, "id": UUIDS[0]})())
    ended(dynamodb, IDS[0], "succeeded", exit_code=0)
    ended(dynamodb, command, "failed", exit_code=1)
    first = client.get(instance_path(), headers=as_("reader of orders")).json()["tries"][1]
    assert first["warning"] is None
    assert {each["kind"]: each["overruled"] for each in first["submissions"]} == {"worker": True, "command": False}


def test_an_unknown_task_instance_is_not_found(client, dynamodb, as_):
    assert client.get(instance_path(map_index="4"), headers=as_("admin")).status_code == 404


# When it cannot be read


def test_missing_options_are_named(client, as_, monkeypatch):
    for name in ("SUBMIT_URL", "TABLE", "DEPLOYMENT"):
        monkeypatch.delenv(f"AIRFLOW__ECS_BRIDGE_EXECUTOR__{name}", raising=False)
    answer = client.get("api/overview", headers=as_("admin"))
    assert answer.status_code == 503
    assert "invalid options in [ecs_bridge_executor]" in answer.json()["detail"]
    assert "table must be set" in answer.json()["detail"]


class Refusing:
    """A client whose calls are refused."""

    def __init__(self, code: str, operation: str = "query") -> None:
        self._code, self._operation = code, operation

    def __getattr__(self, name: str) -> Any:
        def call(**request: Any) -> Any:
            if name == self._operation:
                raise ClientError({"Error": {"Code": self._code, "Message": "arn:aws:iam::1:role/x"}}, name)
            return {"Responses": {}, "Items": []}

        return call


@pytest.mark.parametrize(
    ("refusing", "words"),
    [
        (Refusing("AccessDeniedException"), "dynamodb:Query on its index due"),
        (Refusing("AccessDeniedException", "batch_get_item"), "dynamodb:BatchGetItem"),
        (Refusing("ResourceNotFoundException"), "Cannot find the table 'bridge'"),
        (Refusing("ExpiredTokenException"), "credentials"),
        (Refusing("InternalServerError"), "Retrying"),
    ],
)
def test_a_refusal_says_what_is_missing(refusing, words):
    with pytest.raises(queries.Unreadable) as told:
        Reader(lambda: refusing, TABLE, DEPLOYMENT).read()
    assert words in str(told.value)
    assert "arn:" not in str(told.value)


def test_an_unreadable_table_is_told_to_the_browser(client, dynamodb, as_):
    dynamodb.delete_table(TableName=TABLE)
    for path in ("api/overview", instance_path()):
        answer = client.get(path, headers=as_("admin"))
        assert (answer.status_code, "Cannot find the table" in answer.json()["detail"]) == (503, True)


def test_after_a_refusal_credentials_are_read_anew(dynamodb):
    clients = iter([Refusing("ExpiredTokenException"), dynamodb])
    reader = Reader(lambda: next(clients), TABLE, DEPLOYMENT)
    with pytest.raises(queries.Unreadable):
        reader.read()
    assert reader.read().in_flight == []


# Where it is loaded

LOADS = """
import json, sys
from importlib.metadata import entry_points
from airflow.plugins_manager import AirflowPlugin
before = set(sys.modules)
[entry] = entry_points(group="airflow.plugins", name="ecs_bridge")
plugin = entry.load()
assert issubclass(plugin, AirflowPlugin)
plugin()
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_scheduler_worker_and_dag_processor_load_nothing_of_it():
    # As each of them does, through the module that they all have imported.
    done = subprocess.run([sys.executable, "-c", LOADS], capture_output=True, text=True, check=True)
    added = json.loads(done.stdout.splitlines()[-1])
    ours = {each for each in added if each.startswith("airflow_ecs_bridge.")}
    assert ours <= {"airflow_ecs_bridge._versions", "airflow_ecs_bridge.ui", "airflow_ecs_bridge.ui.plugin"}
    assert not {each.partition(".")[0] for each in added} & {"fastapi", "starlette", "boto3", "botocore", "sqlalchemy"}


def test_airflow_finds_the_page_and_mounts_it_below_its_base_url(monkeypatch):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "http://airflow.example/team/airflow/")
    from airflow_ecs_bridge.ui.plugin import Page

    page = Page()
    nav, tab = page.external_views
    assert nav["href"] == "/team/airflow/ecs-bridge/"
    assert tab["href"].startswith("/team/airflow/ecs-bridge/task-instance?dag_id={DAG_ID}&")
    assert (nav["destination"], tab["destination"]) == ("nav", "task_instance")
    assert page.fastapi_apps is page.fastapi_apps, "Airflow asks for it more than once"


@pytest.mark.parametrize(
    ("version", "has"), [("2.11.2", False), ("3.0.6", False), ("3.1.0rc1", True), ("3.3.2", True), ("4.0.0", True)]
)
def test_before_airflow_3_1_there_is_no_page(version: str, has: bool):
    # As a new process finds it.
    code = f"import airflow; airflow.__version__ = {version!r}; from airflow_ecs_bridge.ui.plugin import plugin; "
    done = subprocess.run([sys.executable, "-c", code + "print(plugin)"], capture_output=True, text=True, check=True)
    assert (done.stdout.splitlines()[-1] != "None") is has


def test_attributes_read_are_those_of_the_ui():
    listed = json.loads((Path(__file__).parents[3] / "shared/schema/attributes.json").read_text())
    read = {name.partition(".")[0] for name in (*queries.ATTRIBUTES, *queries._RUNNER)}
    assert read == {each["name"] for each in listed if "ui" in each["readers"]}
