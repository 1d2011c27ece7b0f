"""Evaluates alarms as CloudWatch does: statistics by period, metric math, missing data.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html
"""

from __future__ import annotations

import ast
import operator
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from stacks import PARAMETERS, packaged

from cloudformation import ResolvedTemplate

Name = tuple[str, str, frozenset[tuple[str, str]]]
# A point of a series for each period; none where no sample fell into it.
Series = list[float | None]
ALARMS = ResolvedTemplate(packaged(), PARAMETERS).of_type("AWS::CloudWatch::Alarm")
# Datapoints that are retrieved beyond EvaluationPeriods, where some are missing: the documentation's example has two.
FURTHER_POINTS = 2


@dataclass
class Metrics:
    """Samples by metric and minute."""

    minutes: int
    samples: dict[Name, dict[int, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def put(self, namespace: str, metric: str, minute: int, *values: float, **dimensions: str) -> None:
        self.samples[namespace, metric, frozenset(dimensions.items())][minute] += values

    def drop(self, namespace: str, metric: str, since: int, **dimensions: str) -> None:
        """Remove the samples from this minute on."""
        samples = self.samples[namespace, metric, frozenset(dimensions.items())]
        for minute in [minute for minute in samples if minute >= since]:
            del samples[minute]

    def series(self, query: dict[str, Any], statistic: str, period: int) -> Series:
        """One point for each whole period."""
        dimensions = frozenset((each["Name"], each["Value"]) for each in query["Dimensions"])
        samples = self.samples.get((query["Namespace"], query["MetricName"], dimensions), {})
        step = period // 60
        points: Series = []
        for start in range(0, self.minutes - step + 1, step):
            values = [value for minute in range(start, start + step) for value in samples.get(minute, [])]
            points.append({"Sum": sum, "Maximum": max}[statistic](values) if values else None)
        return points

    def alarm(self, logical_id: str, further: int = FURTHER_POINTS) -> list[int]:
        """The minutes at which the alarm enters the state ALARM."""
        alarm = ALARMS[logical_id]
        if "Metrics" in alarm:
            queries = {each["Id"]: each["MetricStat"] for each in alarm["Metrics"] if "MetricStat" in each}
            (period,) = {query["Period"] for query in queries.values()}
            named = {name: self.series(query["Metric"], query["Stat"], period) for name, query in queries.items()}
            (expression,) = [each["Expression"] for each in alarm["Metrics"] if "Expression" in each]
            # CloudWatch computes only from the points that it retrieves for an evaluation.
            retrieved = alarm["EvaluationPeriods"] + further
            ends = range(1, len(next(iter(named.values()))) + 1)
            windows = [{name: series[max(0, end - retrieved) : end] for name, series in named.items()} for end in ends]
            seen = [calculated(expression, window) for window in windows]
        else:
            period = alarm["Period"]
            points = self.series(alarm, alarm["Statistic"], period)
            seen = [points[: end + 1] for end in range(len(points))]
        states: list[bool] = []
        for points in seen:
            states.append(breaches(alarm, points, was=bool(states and states[-1]), further=further))
        entered = [end for end, state in enumerate(states) if state and not (end and states[end - 1])]
        return [(end + 1) * period // 60 for end in entered]


COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "GreaterThanThreshold": operator.gt,
    "LessThanThreshold": operator.lt,
}


def breaches(alarm: dict[str, Any], points: Series, *, was: bool = False, further: int = FURTHER_POINTS) -> bool:
    """Whether the alarm is in the state ALARM after the last of these points, and `was` before."""
    periods = alarm["EvaluationPeriods"]
    retrieved = points[-periods - further :]
    # If enough points are present, however old, missing points do not count.
    evaluated: Series = [point for point in retrieved if point is not None][-periods:]
    if len(evaluated) < periods:
        evaluated = points[-periods:]
    compare, threshold = COMPARISONS[alarm["ComparisonOperator"]], float(alarm["Threshold"])
    needed = alarm.get("DatapointsToAlarm", periods)
    present = [compare(point, threshold) for point in evaluated if point is not None]
    missing = periods - len(present)
    match alarm["TreatMissingData"]:
        case "breaching":
            return sum(present) + missing >= needed
        case "notBreaching":
            return sum(present) >= needed
        case "ignore":
            # The state stays where the missing points could decide it.
            return sum(present) >= needed or (was and sum(present) + missing >= needed)
    raise NotImplementedError(alarm["TreatMissingData"])


def calculated(expression: str, named: dict[str, Series]) -> Series:
    """Metric math, as far as the template uses it: its grammar is Python's."""
    tree = ast.parse(expression, mode="eval").body
    length = len(next(iter(named.values())))
    return [_point(tree, {name: series[: at + 1] for name, series in named.items()}) for at in range(length)]


OPERATORS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Gt: operator.gt,
    ast.Lt: operator.lt,
}


def _point(node: ast.expr, named: dict[str, Series]) -> float | None:
    """The last point of an expression."""
    match node:
        case ast.Constant(int(value) | float(value)):
            return value
        case ast.Name(name):
            return named[name][-1]
        case ast.Call(ast.Name("FILL"), [of, instead]):
            point = _point(of, named)
            return _point(instead, named) if point is None else point
        case ast.Call(ast.Name("RUNNING_SUM"), [of]):
            length = len(next(iter(named.values())))
            ends = ({name: series[:end] for name, series in named.items()} for end in range(1, length + 1))
            return sum(point for point in (_point(of, end) for end in ends) if point is not None)
        case ast.Call(ast.Name("IF"), [condition, then, otherwise]):
            return _point(then if _point(condition, named) else otherwise, named)
        case ast.BinOp(left, how, right) | ast.Compare(left, [how], [right]):
            one, other = _point(left, named), _point(right, named)
            # A point that is missing on one side is missing in the result, and so is a quotient by zero.
            if one is None or other is None or (isinstance(how, ast.Div) and other == 0):
                return None
            return OPERATORS[type(how)](one, other)
    raise NotImplementedError(ast.dump(node))
