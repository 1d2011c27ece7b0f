"""Which events reach task-state: the template's pattern against EventBridge's rules as localstack-core has them."""

from __future__ import annotations

import copy
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from stacks import PARAMETERS, ROOT, packaged, template

from cloudformation import ResolvedTemplate, arn

# The engine runs alone but for one exception class, whose module would pull in all of LocalStack.
api = types.ModuleType("localstack.aws.api.events")
api.InvalidEventPatternException = type("InvalidEventPatternException", (Exception,), {})  # type: ignore[attr-defined]
sys.modules["localstack.aws.api.events"] = api
from localstack.services.events.event_rule_engine import EventPatternCompiler, EventRuleEngine

EVENTS = sorted((ROOT / "tests/fixtures/events").glob("*.json"))
FOREIGN_CLUSTER = arn("ecs", "cluster/jobs-2")


def pattern(**parameters: str) -> dict[str, Any]:
    """The event pattern of task-state's rule under these parameters."""
    resolved = ResolvedTemplate(packaged(), PARAMETERS | parameters)
    return resolved.resources["TaskStateFunctionTaskStateChange"]["EventPattern"]


PATTERN = pattern()


def test_longest_pattern_fits_eventbridges_limit() -> None:
    """An event pattern has up to 2,048 characters; CloudFormation rejects longer parameters at the start."""
    more = template()["Parameters"]["MoreClusterArns"]
    assert more["MaxLength"] == 1_400
    assert "1,400" in more["Description"]
    # The longest partition and name for the first, and as many short ones as there can be: each costs two quotes.
    first = f"arn:aws-us-gov:ecs:us-gov-west-1:123456789012:cluster/{'c' * 255}"
    assert re.fullmatch(template()["Parameters"]["ClusterArn"]["AllowedPattern"], first)
    assert not re.fullmatch(template()["Parameters"]["ClusterArn"]["AllowedPattern"], f"{first}c")
    short = "arn:aws:ecs:eu-west-1:123456789012:cluster/c"
    others = ",".join([short] * ((more["MaxLength"] + 1) // (len(short) + 1)))
    assert re.fullmatch(more["AllowedPattern"], others)
    longest = pattern(Deployment="d" * 32, ClusterArn=first, MoreClusterArns=others)
    assert len(json.dumps(longest, separators=(",", ":"))) <= 2_048


def passes(event: dict[str, Any], pattern: dict[str, Any] = PATTERN) -> bool:
    compiled = EventPatternCompiler().compile_event_pattern(json.dumps(pattern))
    return EventRuleEngine().evaluate_pattern_on_event(compiled, event)


def event(
    last_status: str = "STOPPED", containers: list[dict[str, Any]] | None = None, **detail: Any
) -> dict[str, Any]:
    return {
        "source": "aws.ecs",
        "detail-type": "ECS Task State Change",
        "detail": {
            "clusterArn": PARAMETERS["ClusterArn"],
            "startedBy": "prod/etl-2026-01-01/1",
            "lastStatus": last_status,
            "containers": containers if containers is not None else [{"name": "main", "lastStatus": last_status}],
        }
        | detail,
    }


def without(member: str) -> dict[str, Any]:
    bare = event()
    del bare["detail"][member]
    return bare


@pytest.mark.parametrize("status", ["RUNNING", "STOPPED"])
def test_running_or_stopped_task_matches(status: str) -> None:
    assert passes(event(status))


@pytest.mark.parametrize("status", ["RUNNING", "DEACTIVATING", "STOPPING", "DEPROVISIONING"])
@pytest.mark.parametrize("code", [0, 1, 137])
def test_exit_code_matches_before_the_task_stops(status: str, code: int) -> None:
    sidecar = {"name": "proxy", "lastStatus": "RUNNING"}
    assert passes(event(status, [sidecar, {"name": "main", "lastStatus": "STOPPED", "exitCode": code}]))
    assert passes(event(status, [{"name": "main", "lastStatus": "STOPPED", "exitCode": code}, sidecar]))


def test_stopped_task_without_containers_matches() -> None:
    assert passes(event("STOPPED", []))


@pytest.mark.parametrize("status", ["PROVISIONING", "PENDING", "ACTIVATING", "DEACTIVATING", "DEPROVISIONING"])
def test_other_status_without_exit_code_does_not_match(status: str) -> None:
    assert not passes(event(status))


@pytest.mark.parametrize(
    "foreign",
    [
        pytest.param(event(clusterArn=FOREIGN_CLUSTER), id="a cluster whose name begins the same"),
        pytest.param(event(startedBy="prod-2/etl/1"), id="a deployment whose name begins the same"),
        pytest.param(event(startedBy="prod"), id="no submission in startedBy"),
        pytest.param(event(startedBy="ecs-svc/1234567890123456789"), id="a task of a service"),
        pytest.param(without("startedBy"), id="a task that somebody started by hand"),
        pytest.param(event() | {"source": "aws.batch"}, id="another service"),
        pytest.param(event() | {"source": "my.app"}, id="an event that somebody made up"),
        pytest.param(event() | {"detail-type": "ECS Service Action"}, id="another detail type"),
        pytest.param(event() | {"detail-type": "ECS Container Instance State Change"}, id="a container instance"),
    ],
)
def test_foreign_event_does_not_match(foreign: dict[str, Any]) -> None:
    assert not passes(foreign)


@pytest.mark.parametrize("path", EVENTS, ids=lambda path: path.stem)
def test_captured_event_matches_only_for_our_tasks(path: Path) -> None:
    captured = json.loads(path.read_text())
    assert not passes(captured)
    ours = copy.deepcopy(captured)
    detail = ours["detail"]
    detail |= {"clusterArn": PARAMETERS["ClusterArn"], "startedBy": "prod/captured/1"}
    tells = ours["detail-type"] == "ECS Task State Change" and (
        detail["lastStatus"] in ("RUNNING", "STOPPED") or any("exitCode" in c for c in detail["containers"])
    )
    assert passes(ours) == tells


def test_events_of_named_clusters_match() -> None:
    first, second = (arn("ecs", f"cluster/{name}") for name in ("batch", "gpu"))
    further = pattern(MoreClusterArns=f"{first},{second}")
    assert all(passes(event(clusterArn=named), further) for named in (PARAMETERS["ClusterArn"], first, second))
    assert not passes(event(clusterArn=FOREIGN_CLUSTER), further)
    assert not passes(event(clusterArn=first))
