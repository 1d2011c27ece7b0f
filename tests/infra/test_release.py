"""The templates of a release, and that every part of a release has the same version."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import tomllib
from release_template import packaged, released, without_urls
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse
from stacks import PARAMETERS, ROOT

FUNCTIONS = {
    "SubmitFunction": "submit",
    "TaskStateFunction": "task-state",
    "ReconcileFunction": "reconcile",
    "RunnerApiFunction": "runner-api",
}


def test_released_template_refers_to_the_zips_beside_it() -> None:
    template = yaml_parse(released((ROOT / "template.yaml").read_text(), "arm64"))
    assert template["Parameters"]["Architecture"]["AllowedValues"] == ["arm64"]
    assert "CodeUri" not in template["Globals"]["Function"]
    for logical_id, name in FUNCTIONS.items():
        function = template["Resources"][logical_id]
        assert function["Properties"]["CodeUri"] == f"arm64/{name}.zip"
        assert "BuildMethod" not in function["Metadata"]


def test_sam_accepts_the_released_template(tmp_path: Path) -> None:
    (tmp_path / "x86_64").mkdir()
    for name in FUNCTIONS.values():
        (tmp_path / f"x86_64/{name}.zip").touch()
    file = tmp_path / "template.yaml"
    file.write_text(released((ROOT / "template.yaml").read_text(), "x86_64"))
    sam = Path(sys.executable).with_name("sam")
    done = subprocess.run(
        [sam, "validate", "--lint", "--template-file", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_packaged_template_builds_the_zip_key_from_parameters(tmp_path: Path) -> None:
    file = tmp_path / "packaged.yaml"
    file.write_text(packaged((ROOT / "template.yaml").read_text(), ["x86_64", "arm64"]))
    source = yaml_parse(file.read_text())
    defaults = {name: each["Default"] for name, each in source["Parameters"].items() if "Default" in each}
    resources = transform(source, defaults | PARAMETERS, managed_policy_loader=None)["Resources"]
    for logical_id, name in FUNCTIONS.items():
        code = resources[logical_id]["Properties"]["Code"]
        key = [{"Ref": "CodePrefix"}, {"Ref": "Architecture"}, f"/{name}.zip"]
        assert code == {"S3Bucket": {"Ref": "CodeBucket"}, "S3Key": {"Fn::Join": ["", key]}}
    cfn_lint = Path(sys.executable).with_name("cfn-lint")
    done = subprocess.run([cfn_lint, file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_template_without_urls_differs_only_in_urls() -> None:
    text = (ROOT / "template.yaml").read_text()
    source, variant = yaml_parse(text), yaml_parse(without_urls(text))
    assert variant["Parameters"].keys() == source["Parameters"].keys()
    assert (
        variant["Parameters"]["FunctionUrl"]["AllowedValues"]
        == ["false"]
        == [variant["Parameters"]["FunctionUrl"]["Default"]]
    )
    urls = {name for name, each in source["Resources"].items() if each["Type"] == "AWS::Lambda::Url"}
    assert (
        urls
        == {"SubmitFunctionUrl", "RunnerApiFunctionUrl"}
        == source["Resources"].keys() - variant["Resources"].keys()
    )
    assert source["Outputs"].keys() - variant["Outputs"].keys() == {"SubmitUrl", "RunnerApiUrl"}
    for logical_id, resource in variant["Resources"].items():
        if logical_id in ("SubmitFunction", "ReconcileFunction"):
            variables = source["Resources"][logical_id]["Properties"]["Environment"]["Variables"]
            del variables["ECS_BRIDGE_RUNNER_API_URL"]
        assert resource == source["Resources"][logical_id], logical_id
    assert "Lambda::Url" not in without_urls(packaged(text, ["arm64"]))
    assert "FunctionUrl." not in without_urls(text)


def test_release_has_every_template_without_urls() -> None:
    script = (ROOT / "tools/release.sh").read_text()
    written = set(re.findall(r"> \"\$dist/([^\"]*\.yaml)\"", script))
    assert written == {
        "template-$each.yaml",
        "template-$each-no-urls.yaml",
        "private-$each.yaml",
        "packaged.yaml",
        "packaged-no-urls.yaml",
    }
    # The private network has no URL, whatever the Region.
    assert "TemplateURL: template-$each-no-urls.yaml" in script
    nested = yaml_parse((ROOT / "infra/private.yaml").read_text())
    assert nested["Resources"]["Bridge"]["Properties"]["Parameters"]["FunctionUrl"] == "false"
    assert "Outputs.SubmitUrl" not in str(nested)
    assert "Outputs.RunnerApiUrl" not in str(nested)


def test_packaged_release_allows_only_its_architectures() -> None:
    source = yaml_parse(packaged((ROOT / "template.yaml").read_text(), ["x86_64"]))
    assert source["Parameters"]["Architecture"]["AllowedValues"] == ["x86_64"]


def test_all_parts_have_the_changelogs_version() -> None:
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    for package in ("python/ecs_bridge/src/ecs_bridge", "python/airflow_ecs_bridge/src/airflow_ecs_bridge"):
        assert f'__version__ = "{version}"' in (ROOT / package / "__init__.py").read_text()
    needed = tomllib.loads((ROOT / "python/airflow_ecs_bridge/pyproject.toml").read_text())["project"]["dependencies"]
    assert f"ecs-bridge=={version}" in needed
    assert re.search(rf"^## \[{re.escape(version)}\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
