"""The policies of roles under other parameters than those of the recording: more clusters, long lists of ARNs."""

from __future__ import annotations

import ast
import json

import boto3
from policies import Call, Context, granted_by, permits
from stacks import EVERY_OPTION, Stack, packaged
from walk import FUNCTIONS

from cloudformation import ACCOUNT, arn


def test_tasks_are_allowed_only_on_named_clusters(aws: None) -> None:
    further = EVERY_OPTION["MoreClusterArns"].split(",")
    statements = granted_by(Stack(packaged(), EVERY_OPTION))
    definition = arn("ecs", "task-definition/etl:1")

    def allowed(cluster: str) -> set[bool]:
        held: Context = {"ecs:cluster": cluster}
        task = f"{cluster.replace(':cluster/', ':task/')}/0123456789abcdef0123456789abcdef"
        calls = [Call("submit", "ecs:DescribeClusters", cluster), Call("reconcile", "ecs:ListTasks", "*", held)]
        calls += [Call(who, "ecs:StopTask", task, held) for who in FUNCTIONS if who != "runner-api"]
        for who in ("submit", "reconcile"):
            calls.append(Call(who, "ecs:RunTask", definition, held))
            calls.append(Call(who, "ecs:DescribeTasks", task, held))
        return {permits(statements[call.role], call) for call in calls}

    assert [allowed(cluster) for cluster in (EVERY_OPTION["ClusterArn"], *further)] == [{True}] * 3
    assert allowed(arn("ecs", "cluster/batch-2")) == {False}


# Characters without white space, of all inline policies of a role and of one managed policy; policies of a role.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
INLINE, MANAGED, ATTACHED = 10_240, 6_144, 10


def test_policies_hold_60_task_definitions_and_roles(aws: None) -> None:
    definitions = [arn("ecs", f"task-definition/team-{n:02}-nightly-job:*") for n in range(60)]
    roles = [f"arn:aws:iam::{ACCOUNT}:role/team-{n:02}-nightly-job-task-role" for n in range(60)]
    many = {"TaskDefinitionArns": definitions, "PassRoleArns": roles, "InfrastructureRoleArns": roles}
    stack = Stack(packaged(), EVERY_OPTION | {name: ",".join(arns) for name, arns in many.items()})
    iam = boto3.client("iam")

    def size(document: object) -> int:
        return len(json.dumps(document, separators=(",", ":")))

    for logical_id, resource in packaged()["Resources"].items():
        if resource["Type"] == "AWS::IAM::Role":
            assert len(resource["Properties"].get("ManagedPolicyArns", [])) <= ATTACHED
            name = stack.ids[logical_id]
            policies = iam.list_role_policies(RoleName=name)["PolicyNames"]
            documents = [iam.get_role_policy(RoleName=name, PolicyName=each)["PolicyDocument"] for each in policies]
            assert sum(size(ast.literal_eval(str(document))) for document in documents) <= INLINE, logical_id
        elif resource["Type"] == "AWS::IAM::ManagedPolicy":
            version = iam.get_policy_version(PolicyArn=stack.ids[logical_id], VersionId="v1")["PolicyVersion"]
            assert size(version["Document"]) <= MANAGED, logical_id
