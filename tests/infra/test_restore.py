"""Going on from a table that was restored from a backup, as docs/operating.md describes it."""

from __future__ import annotations

from typing import Any

import boto3
from policies import Call, granted_by, permits
from stacks import EVERY_OPTION, Stack, packaged, template

from cloudformation import arn, nodes, rewritten

ROLES = {"submit": "GetItem", "task-state": "UpdateItem", "reconcile": "BatchGetItem"}


def test_restored_table_replaces_the_stacks_own_table(aws: None) -> None:
    own, client = Stack(packaged(), EVERY_OPTION).ids["Table"], boto3.client("dynamodb")
    item = {"submission_id": {"S": "a"}, "feed": {"S": "prod"}, "changed_at": {"N": "1"}, "state": {"S": "failed"}}
    client.put_item(TableName=own, Item=item)
    client.restore_table_to_point_in_time(SourceTableName=own, TargetTableName="restored", UseLatestRestorableTime=True)
    client.update_time_to_live(
        TableName="restored", TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires_at"}
    )

    # As another stack: moto updates functions and policies in part.
    stack = Stack(packaged(), EVERY_OPTION | {"Deployment": "after", "RestoredTable": "restored"}, name="after")

    functions = boto3.client("lambda")
    for name in ("after-submit", "after-task-state", "after-reconcile"):
        variables = functions.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        assert variables["ECS_BRIDGE_TABLE"] == "restored"
    assert stack.outputs["TableName"] == "restored"
    granted = granted_by(stack)
    for role, action in ROLES.items():
        allowed = [
            name
            for name in ("restored", own, stack.ids["Table"])
            if permits(granted[role], Call(role, f"dynamodb:{action}", arn("dynamodb", f"table/{name}")))
        ]
        assert allowed == ["restored"]
    feed = Call("executor", "dynamodb:Query", arn("dynamodb", "table/restored/index/feed"))
    assert permits(granted["executor"], feed)
    found = client.query(
        TableName=stack.outputs["TableName"],
        IndexName="feed",
        KeyConditionExpression="feed = :feed",
        ExpressionAttributeValues={":feed": {"S": "prod"}},
    )
    assert found["Items"] == [item]


def test_only_the_condition_refers_to_the_stacks_own_table() -> None:
    """A reference past the parameter would split the deployment over two tables."""

    selected = {"Fn::If": ["HasRestoredTable", {"Ref": "RestoredTable"}, {"Ref": "Table"}]}

    def refers(node: Any) -> bool:
        match node:
            case {"Ref": "Table"} | {"Fn::GetAtt": ["Table", _]}:
                return True
            case {"Fn::Sub": str(text)} | {"Fn::Sub": [str(text), _]}:
                return "${Table}" in text or "${Table." in text
        return False

    source = template()
    parts = [source[part] for part in ("Resources", "Outputs", "Globals")]
    others = rewritten(parts, lambda node: None if node == selected else node)
    assert others != parts
    assert not [node for node in nodes(others) if refers(node)]
