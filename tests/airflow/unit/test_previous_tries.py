"""Which size a try has, by how the tries before it ended."""

from __future__ import annotations

import time
from concurrent.futures import Future

import pytest
from airflow.configuration import conf

from airflow_ecs_bridge.config import Settings
from airflow_ecs_bridge.job import Job
from airflow_ecs_bridge.previous_tries import END_IS_NEAR, NotYet, PreviousTries
from airflow_ecs_bridge.results import explain
from ecs_bridge.table import Record

OOM = "out_of_memory"


def record(id: str, hint: str | None = None, state: str = "failed") -> Record:
    return Record(id, state, hint=hint)


def history(*records: Record, ids: list[str] | None = None) -> PreviousTries:
    known = {each.submission_id: each for each in records}

    def lookup(asked: list[str]) -> Future[dict[str, Record]]:
        answer: Future[dict[str, Record]] = Future()
        answer.set_result({id: known[id] for id in asked if id in known})
        return answer

    return PreviousTries(lookup, lambda subject: list(known) if ids is None else ids)


def job(try_number: int, by_try_condition: str | None = OOM, **more: object) -> Job:
    config: dict[str, object] = {"by_try": [{}, {}, {}]}
    if by_try_condition:
        config["by_try_condition"] = by_try_condition
    subject = {"dag_id": "d", "task_id": "t", "run_id": "r", "try_number": str(try_number)}
    return Job("an-id", subject, executor_config=config, **more)  # type: ignore[arg-type]


def test_without_a_condition_each_try_has_the_next_size_and_nobody_is_asked():
    def nobody(asked: object) -> None:
        raise AssertionError("asked")

    assert [PreviousTries(nobody, nobody).patches(job(number, None)) for number in (1, 2, 3)] == [0, 1, 2]  # type: ignore[arg-type]


def test_only_tries_that_ran_out_of_memory_lead_to_the_next_size():
    known = history(record("a", OOM), record("b"), record("c", OOM))
    assert known.patches(job(4)) == 2


def test_a_worker_that_survived_the_end_of_its_task_counts():
    """Airflow's supervisor reports the task that was killed, and exits with 0."""
    assert history(record("a", OOM, state="succeeded")).patches(job(2)) == 1


def test_what_the_bridge_does_not_have_any_more_counts_for_nothing():
    assert history(record("a", OOM), ids=["gone", "a"]).patches(job(3)) == 1
    assert history(ids=[]).patches(job(3)) == 0


def test_a_try_waits_for_the_end_of_the_one_before_but_not_for_ever():
    known = history(record("a", state="running"))
    with pytest.raises(NotYet, match="submission a has not ended"):
        known.patches(job(2))
    assert known.patches(job(2, queued_at=time.time() - END_IS_NEAR - 1)) == 0


def test_the_first_try_and_a_job_without_sizes_ask_nobody():
    assert history(ids=["never"]).patches(job(1)) == 0
    assert history(ids=["never"]).patches(Job("an-id", {"callback_id": "c"})) == 0


def test_the_text_of_a_failure_says_what_to_set(configure):
    configure(submit_url="https://abc.lambda-url.eu-central-1.on.aws/", table="t", deployment="prod")
    settings = Settings.from_conf(conf)
    text = explain(Record("an-id", "failed", exit_code=137, hint=OOM, memory=512), settings)
    assert "out of memory of 512 MiB" in text
    assert "by_try" in text
    assert "memory" not in explain(Record("an-id", "failed", exit_code=1), settings)
