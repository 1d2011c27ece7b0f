"""A thousand short tasks on the pool `short`: each starts in a container that has imported Airflow already."""

from __future__ import annotations

from airflow.sdk import Param, dag, task


@dag(
    schedule=None,
    catchup=False,
    # [core] max_map_length is 1024.
    params={"tasks": Param(1000, type="integer", minimum=1, maximum=1024)},
    default_args={"queue": "short"},
    tags=["example"],
)
def fan():
    """Square so many numbers, and add the squares up."""

    @task
    def parts(params: dict[str, int]) -> list[int]:
        return list(range(params["tasks"]))

    @task
    def square(number: int) -> int:
        return number * number

    @task
    def total(squares: list[int]) -> int:
        return sum(squares)

    total(square.expand(number=parts()))


fan()
