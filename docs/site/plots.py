#!/usr/bin/env python3
"""Draws the plots of docs/performance.md from the table of its last run: `make plots`."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

DOCS = Path(__file__).resolve().parents[1]
# The same bytes from the same numbers; text stays text.
mpl.rcParams |= {
    "svg.hashsalt": "ecs-bridge",
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
OURS, PEER, BASE = "#3f51b5", "#9e9e9e", "#c5cae9"


def rows() -> list[list[str]]:
    """The cells of the table, the name of a bench in each of its rows."""
    found: list[list[str]] = []
    for line in (DOCS / "performance.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 7:
            found.append([cells[0] or found[-1][0], *cells[1:]])
    return found


def values(bench: str, metric: str, column: int = 2) -> list[float]:
    """The numbers of a row, the first whose metric begins like this."""
    row = next(row for row in rows() if row[0] == bench and row[1].startswith(metric))
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", row[column].replace(",", ""))]


def save(name: str) -> None:
    """Writes the plot."""
    plt.tight_layout()
    plt.savefig(DOCS / "img" / name, metadata={"Date": None})
    plt.close()


def heartbeat() -> None:
    """What a scheduler's heartbeat takes, by what is in flight."""
    metric = "idle heartbeat with 10"
    flying = [10, 1_000, 5_000, 10_000]
    plt.figure(figsize=(7, 3.4))
    plt.plot(flying, values("executor", metric), "o-", color=OURS, label="EcsBridgeExecutor")
    peer = values("executor", metric, 3)
    plt.plot(flying[: len(peer)], peer, "s-", color=PEER, label="AwsEcsExecutor")
    plt.xscale("log")
    plt.yscale("log")
    plt.xlabel("tasks in flight")
    plt.ylabel("milliseconds a heartbeat")
    plt.legend(frameon=False)
    save("heartbeat.svg")


def pool() -> None:
    """From the submission to the first instruction."""
    few, many = values("pool", "submission to first instruction"), values("pool", "100 idle runners")
    few_late, many_late = [row for row in rows() if row[0] == "pool" and row[1].startswith("the same, 99")]
    late = [float(number) for row in (few_late, many_late) for number in re.findall(r"\d+\.\d+", row[2])]
    names = ["10 idle, 1", "10 idle, 10", "100 idle, 1", "100 idle, 10", "100 idle, 100", "a container"]
    medians = [*few, *many, 45.0]
    places = range(len(names))
    plt.figure(figsize=(7, 3.4))
    plt.barh(places, [*late, 45.0], color=BASE, label="99 of 100")
    plt.barh(places, medians, color=[*[OURS] * 5, PEER], height=0.5, label="median")
    plt.yticks(places, names)
    plt.xscale("log")
    plt.xlabel("seconds from the submission to the first instruction")
    plt.legend(frameon=False)
    plt.gca().invert_yaxis()
    save("pool.svg")


def cold_start() -> None:
    """What a start of a function takes."""
    hello = values("cold start", "hello-world")[0]
    submit, task_state, reconcile = values("cold start", "submit · task-state")
    peer = values("cold start", "submit · task-state", 3)[-1]
    names = ["hello-world", "submit", "task-state", "reconcile", "boto3"]
    plt.figure(figsize=(7, 2.6))
    plt.barh(names, [hello, submit, task_state, reconcile, peer], color=[BASE, OURS, OURS, OURS, PEER])
    plt.xscale("log")
    plt.xlabel("milliseconds of a cold start, on the machine of the bench")
    plt.gca().invert_yaxis()
    save("cold-start.svg")


def operator() -> None:
    """What 1,000 tasks that wait cost a triggerer."""
    figures = (("AWS calls a minute", "1,000 waiting"), ("seconds of CPU a minute", "CPU of the triggerer a minute"))
    _, places = plt.subplots(1, 2, figsize=(7, 2.0))
    for place, (label, metric) in zip(places, figures, strict=True):
        both = values("operator", metric)[-1], values("operator", metric, 3)[0]
        place.barh(["EcsBridgeOperator", "EcsRunTaskOperator"], both, color=[OURS, PEER])
        place.set_xlabel(label)
        place.invert_yaxis()
    places[1].set_yticks([])
    save("operator.svg")


if __name__ == "__main__":
    heartbeat()
    operator()
    pool()
    cold_start()
