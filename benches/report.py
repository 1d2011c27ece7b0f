"""Rows of figures: a table for people, or with JSON=1 one JSON object a line."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

AS_JSON = os.environ.get("JSON") == "1"


@dataclass(frozen=True)
class Row:
    """One figure, and what it is measured beside."""

    bench: str
    metric: str
    value: float
    unit: str
    spread: float | None = None
    peer: float | None = None
    ratio: float | None = None
    target: str | None = None
    met: bool | None = None

    def json(self) -> str:
        return json.dumps({key: value for key, value in vars(self).items() if value is not None})


@dataclass
class Report:
    """All rows of a run; each is printed as soon as it is known."""

    rows: list[Row] = field(default_factory=list)

    def add(
        self,
        bench: str,
        metric: str,
        value: float | Sequence[float],
        unit: str,
        *,
        peer: float | Sequence[float] | None = None,
        at_most: float | None = None,
        at_least: float | None = None,
        ratio_at_least: float | None = None,
        within: tuple[float, float] | None = None,
    ) -> float:
        """Add a figure, or the median of several, and its target. A ratio is the peer's by ours.

        `within` is a value and the share by which the figure may differ from it.
        """
        spread = None
        if isinstance(value, Sequence):
            if len(value) > 1:
                low, _, high = statistics.quantiles(value, n=4)
                spread = high - low
            value = statistics.median(value)
        if isinstance(peer, Sequence):
            peer = statistics.median(peer)
        ratio = peer / value if peer and value else None
        target, met = None, None
        if at_most is not None:
            target, met = f"≤ {at_most:g}", value <= at_most
        elif at_least is not None:
            target, met = f"≥ {at_least:g}", value >= at_least
        elif ratio_at_least is not None:
            target, met = f"{ratio_at_least:g} times", ratio is not None and ratio >= ratio_at_least
        elif within is not None:
            centre, share = within
            target, met = f"{centre:g} ± {share:.0%}", abs(value - centre) <= centre * share
        self._tell(Row(bench, metric, value, unit, spread, peer, ratio, target, met))
        return value

    def take(self, line: dict[str, Any]) -> None:
        """Add the row of another program, in its JSON form."""
        known = {key: value for key, value in line.items() if key in Row.__dataclass_fields__}
        self._tell(Row(**known))

    def _tell(self, row: Row) -> None:
        self.rows.append(row)
        if AS_JSON:
            print(row.json(), flush=True)

    def print(self) -> None:
        """Print the table for people."""
        if AS_JSON:
            return
        head = ("bench", "metric", "value", "± (quartiles)", "peer", "ratio", "target", "")
        lines = [head, tuple("---" for _ in head)]
        for row in self.rows:
            verdict = {None: "", True: "yes", False: "NO"}[row.met]
            lines.append(
                (
                    row.bench,
                    row.metric,
                    f"{figure(row.value)} {row.unit}".strip(),
                    figure(row.spread),
                    figure(row.peer),
                    "" if row.ratio is None else f"{row.ratio:.3g} ×",
                    row.target or "",
                    verdict,
                )
            )
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        for line in lines:
            print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |")

    def missed(self) -> list[Row]:
        return [row for row in self.rows if row.met is False]


def figure(value: float | None) -> str:
    """Three digits that count, and no exponent."""
    if value is None:
        return ""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
