"""The task-state function in Python, with boto3: one event, one consistent read, one conditional write.

It does for an event of a first attempt what the one in Rust does: reads the record, works out what changes, writes that
and no more if the record is unchanged, and logs the transition. Attempts, repairs and stops it leaves out.
"""

import json
import logging
import os
import time
from datetime import datetime

import boto3
from botocore.exceptions import ClientError

logging.basicConfig(level=logging.INFO, format="%(message)s")
log = logging.getLogger("task-state")
logging.getLogger("botocore").setLevel(logging.WARNING)

TABLE = os.environ["ECS_BRIDGE_TABLE"]
DEPLOYMENT = os.environ["ECS_BRIDGE_DEPLOYMENT"]
TERMINAL = {"succeeded", "failed", "rejected", "expired", "cancelled", "lost"}

dynamodb = boto3.client("dynamodb")


def handle(event):
    if event.get("source") != "aws.ecs" or event.get("detail-type") != "ECS Task State Change":
        return
    task = event["detail"]
    deployment, submission_id, attempt = task["startedBy"].split("/")
    if deployment != DEPLOYMENT:
        return
    key = {"submission_id": {"S": submission_id}}
    while item := dynamodb.get_item(TableName=TABLE, Key=key, ConsistentRead=True).get("Item"):
        changes, gone = decide(item, task, int(attempt))
        if not changes:
            return
        try:
            write(key, item, changes, gone)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            continue
        if "state" in changes:
            states = {"from": item["state"]["S"], "to": changes["state"]["S"]}
            log.info(json.dumps({"message": "transition", "submission_id": submission_id, **states}))
        return
    return


def decide(item, task, attempt):
    """The attributes to set, and those to remove."""
    known = int(item.get("ecs_version", {"N": "-1"})["N"])
    if attempt != int(item["attempt"]["N"]) or task["version"] <= known:
        return None, ()
    now = int(time.time() * 1000)
    changes = {
        "task_arn": {"S": task["taskArn"]},
        "ecs_version": {"N": str(task["version"])},
        "last_status": {"S": task["lastStatus"]},
        "desired_status": {"S": task["desiredStatus"]},
        "rev": {"N": str(int(item["rev"]["N"]) + 1)},
        "updated_at": {"N": str(now)},
    }
    for name, field in (("stop_code", "stopCode"), ("stopped_reason", "stoppedReason")):
        if field in task:
            changes[name] = {"S": task[field]}
    for name, field in (("started_at", "startedAt"), ("stopped_at", "stoppedAt")):
        if field in task:
            changes[name] = {"N": str(millis(task[field]))}
    if item["state"]["S"] in TERMINAL:
        return {name: value for name, value in changes.items() if name not in item or name in ("rev",)}, ()
    containers = [each for each in task["containers"] if each["name"] == item["container_name"]["S"]]
    codes = [each["exitCode"] for each in containers if each.get("exitCode") is not None]
    if codes or task["lastStatus"] == "STOPPED":
        code = next((code for code in codes if code), 0) if codes else None
        changes["state"] = {"S": "succeeded" if code == 0 else "failed"}
        if code is not None:
            changes["exit_code"] = {"N": str(code)}
            changes["container_exited_at"] = {"N": str(millis(task.get("executionStoppedAt", task["updatedAt"])))}
        changes["feed"] = {"S": DEPLOYMENT}
        changes["changed_at"] = {"N": str(now)}
        return changes, ("request", "due", "check_at")
    if task["lastStatus"] == "RUNNING":
        changes["state"] = {"S": "running"}
        changes["seen_running"] = {"BOOL": True}
        return changes, ("request",)
    return changes, ()


def write(key, item, changes, gone):
    changed = {name: value for name, value in changes.items() if item.get(name) != value}
    removed = [name for name in gone if name in item]
    expression = "SET " + ", ".join(f"#{name} = :{name}" for name in changed)
    if removed:
        expression += " REMOVE " + ", ".join(f"#{name}" for name in removed)
    dynamodb.update_item(
        TableName=TABLE,
        Key=key,
        UpdateExpression=expression,
        ConditionExpression="#rev = :before",
        ExpressionAttributeNames={f"#{name}": name for name in (*changed, *removed, "rev")},
        ExpressionAttributeValues={f":{name}": value for name, value in changed.items()} | {":before": item["rev"]},
        ReturnValuesOnConditionCheckFailure="ALL_OLD",
    )


def millis(text):
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)
