"""Where the bridge can be deployed: the template refuses exactly the regions that lack one of its resource types."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from cfnlint.helpers import REGIONS
from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER
from stacks import ROOT, packaged, template

TEMPLATES = ["template.yaml", "infra/key.yaml", "infra/example.yaml", "infra/private.yaml"]


def refused() -> set[str]:
    """The regions that the template's rule refuses."""
    (assertion,) = template()["Rules"]["RegionHasFunctionUrls"]["Assertions"]
    ((regions, region),) = (each["Fn::Contains"] for each in assertion["Assert"]["Fn::Not"])
    assert region == {"Ref": "AWS::Region"}
    return set(regions)


def test_the_template_refuses_the_regions_that_lack_a_resource_type() -> None:
    types = {resource["Type"] for resource in packaged()["Resources"].values()}
    lacking = {
        region
        for region in REGIONS
        if not types <= set(PROVIDER_SCHEMA_MANAGER.get_resource_types(region))
    }
    assert refused() == lacking


def test_cfn_lint_accepts_what_sam_makes_of_the_template_in_every_other_region(tmp_path: Path) -> None:
    file = tmp_path / "packaged.json"
    file.write_text(json.dumps(packaged()))
    command = [Path(sys.executable).with_name("cfn-lint"), "--regions", *sorted(set(REGIONS) - refused()), "--", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_guide_names_the_same_regions() -> None:
    guide = (ROOT / "docs/deploying.md").read_text()
    (named,) = re.findall(r"refuses to deploy where there are none:(.*?)\n- ", guide, re.DOTALL)
    spelt_out = named.replace("`ap-southeast-4` to `-7`", "`ap-southeast-4` `ap-southeast-5` `ap-southeast-6` `ap-southeast-7`")
    assert set(re.findall(r"`([a-z0-9-]+)`", spelt_out)) == refused()


def test_a_new_account_can_deploy_the_defaults() -> None:
    reserved = [name for name in template()["Parameters"] if name.endswith("Concurrency")]
    assert reserved
    assert {template()["Parameters"][name]["Default"] for name in reserved} == {""}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_failed_first_deployment_leaves_nothing_that_blocks_the_second(name: str) -> None:
    """CloudFormation deletes what it made, but for what is retained, which must not hold a name or refuse to go."""
    named = {"BucketName", "FunctionName", "LogGroupName", "Name", "QueueName", "RoleName", "TableName"}
    for logical_id, resource in template(name)["Resources"].items():
        match resource.get("DeletionPolicy"):
            case "Retain":
                assert not named & resource["Properties"].keys(), logical_id
            case "RetainExceptOnCreate":
                assert not resource["Properties"].get("DeletionProtectionEnabled"), logical_id
            case policy:
                assert policy is None, logical_id


def test_sam_deletes_the_stack_of_a_failed_first_deployment() -> None:
    """A stack in ROLLBACK_COMPLETE cannot be updated."""
    config = tomllib.loads((ROOT / "samconfig.toml").read_text())
    assert all(each["deploy"]["parameters"]["on_failure"] == "DELETE" for each in config.values() if isinstance(each, dict) and "deploy" in each)
