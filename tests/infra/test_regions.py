"""Where the bridge can be deployed: the template refuses exactly the regions that lack one of its resource types."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tomllib
from cfnlint.helpers import REGIONS
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER
from release_template import without_urls
from stacks import ROOT, packaged, template

TEMPLATES = ["template.yaml", "infra/key.yaml", "infra/example.yaml", "infra/private.yaml"]


def refused() -> set[str]:
    """The regions that the template's rule refuses."""
    (assertion,) = template()["Rules"]["RegionHasFunctionUrls"]["Assertions"]
    ((regions, region),) = (each["Fn::Contains"] for each in assertion["Assert"]["Fn::Not"])
    assert region == {"Ref": "AWS::Region"}
    return set(regions)


def named(sentence: str) -> set[str]:
    """The Regions that a sentence of the guide names."""
    guide = (ROOT / "docs/deploying.md").read_text()
    (text,) = re.findall(sentence, guide, re.DOTALL)
    spelt_out = text.replace(
        "`ap-southeast-4` to `-7`", "`ap-southeast-4` `ap-southeast-5` `ap-southeast-6` `ap-southeast-7`"
    )
    return set(re.findall(r"`([a-z]+-[a-z-]+-[0-9])`", spelt_out))


UNVERIFIED = named(r"Not verified: (.*?), which the guide")


def lacking(body: dict[str, Any]) -> set[str]:
    """The Regions of which cfn-lint does not know all of a template's types."""
    types = {resource["Type"] for resource in body["Resources"].values()}
    return {region for region in REGIONS if not types <= set(PROVIDER_SCHEMA_MANAGER.get_resource_types(region))}


def linted(body: dict[str, Any], regions: set[str], folder: Path) -> None:
    file = folder / "packaged.json"
    file.write_text(json.dumps(body))
    command = [Path(sys.executable).with_name("cfn-lint"), "--regions", *sorted(regions), "--", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_template_rejects_regions_without_function_urls() -> None:
    """https://docs.aws.amazon.com/lambda/latest/dg/urls-configuration.html."""
    assert refused() == {
        "ap-east-2",
        "ap-south-2",
        "ap-southeast-4",
        "ap-southeast-5",
        "ap-southeast-6",
        "ap-southeast-7",
        "ca-west-1",
        "eu-central-2",
        "eu-south-2",
        "il-central-1",
        "me-central-1",
    }


def test_documents_name_rejected_and_unverified_regions() -> None:
    assert named(r"refuses to deploy where there are none:(.*?)\(") == refused()
    assert {region for region in REGIONS if region.startswith("cn-")} <= UNVERIFIED
    # Nothing else lacks a type: no other Region fails in CloudFormation.
    assert lacking(packaged()) <= refused() | UNVERIFIED


def test_cfn_lint_accepts_the_template_in_every_region_with_urls(tmp_path: Path) -> None:
    linted(packaged(), set(REGIONS) - refused() - UNVERIFIED, tmp_path)


def test_cfn_lint_accepts_the_template_without_urls_in_every_region(tmp_path: Path) -> None:
    body = packaged(without_urls((ROOT / "template.yaml").read_text()))
    assert not lacking(body)
    linted(body, set(REGIONS), tmp_path)


def test_defaults_reserve_no_concurrency() -> None:
    reserved = [name for name in template()["Parameters"] if name.endswith("Concurrency")]
    assert reserved
    assert {template()["Parameters"][name]["Default"] for name in reserved} == {""}


@pytest.mark.parametrize("name", TEMPLATES)
def test_failed_first_deployment_does_not_block_the_next(name: str) -> None:
    """CloudFormation keeps retained resources. They must have no fixed name and no deletion protection."""
    named = {"BucketName", "FunctionName", "LogGroupName", "Name", "QueueName", "RoleName", "TableName"}
    for logical_id, resource in template(name)["Resources"].items():
        match resource.get("DeletionPolicy"):
            case "Retain":
                assert not named & resource["Properties"].keys(), logical_id
            case "RetainExceptOnCreate":
                assert not resource["Properties"].get("DeletionProtectionEnabled"), logical_id
            case policy:
                assert policy is None, logical_id


def test_sam_deletes_a_stack_that_was_not_created() -> None:
    """A stack in ROLLBACK_COMPLETE cannot be updated."""
    config = tomllib.loads((ROOT / "samconfig.toml").read_text())
    assert all(
        each["deploy"]["parameters"]["on_failure"] == "DELETE"
        for each in config.values()
        if isinstance(each, dict) and "deploy" in each
    )
