"""The commands of the documents.

Each runs here or elsewhere in the tests, or is marked as needing AWS and is then a command of the AWS CLI.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import botocore.session
import pytest

from documents import DOCS, PAGES, fenced
from local_stack import PROGRAM, ROOT, LocalStack

NEEDS_AWS = "# needs AWS"
# Commands of the AWS CLI that are no operations of a service.
ITS_OWN = {"deploy", "wait", "tail", "cp", "sync", "export-credentials", "get-login-password"}


class Block(NamedTuple):
    """A block of commands."""

    page: Path
    line: int
    text: str
    # The folder of tests, or the target of make, that a comment before it names.
    run_by: str | None

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(r"(?:<!-- (\S+) -->\n+)?^( *)```sh\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL):
            run_by, indent, body = match.groups()
            body = re.sub(f"^{indent}", "", body, flags=re.MULTILINE)
            yield Block(page, text[: match.start(3)].count("\n") + 1, body, run_by)


BLOCKS = list(blocks())
ON_AWS = [block for block in BLOCKS if block.text.startswith(NEEDS_AWS)]
HERE = [block for block in BLOCKS if block not in ON_AWS and block.run_by is None]


def test_documents_have_commands_of_every_kind() -> None:
    assert len(ON_AWS) > 10
    assert len(HERE) > 4


def test_configuration_values_have_no_trailing_comment() -> None:
    """Airflow takes it as part of the value (`inline_comment_prefixes` is not set in its parser)."""
    for page in [*PAGES, ROOT / "python/airflow_ecs_bridge/README.md"]:
        for block in fenced(page.read_text(), "(?:ini|cfg)"):
            assert not re.findall(r"^\w+ *=.*\s[#;].*$", block, re.MULTILINE), page


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.run_by], ids=lambda block: block.name)
def test_blocks_run_elsewhere_name_an_existing_test(block: Block) -> None:
    assert block.run_by is not None
    makefiles = [ROOT / "Makefile", *(ROOT / "make").glob("*.mk")]
    targets = [name for file in makefiles for name in re.findall(r"^([a-z-]+):", file.read_text(), re.MULTILINE)]
    assert (ROOT / block.run_by).exists() or block.run_by in targets


PROFILES = {
    name: {
        "run_task": {"taskDefinition": definition, "launchType": "FARGATE"},
        "container_name": "main",
        "allow_overrides": ["overrides.containerOverrides.environment"],
    }
    for name, definition in (("default", "demo"), ("short", "demo-pool"))
}
for profile in PROFILES.values():
    network = {"awsvpcConfiguration": {"subnets": ["subnet-0123456789abcdef0"]}}
    profile["run_task"]["networkConfiguration"] = network  # type: ignore[index]
PROFILES["short"]["pool"] = {"max": 2}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    with LocalStack(tmp_path_factory.mktemp("stack"), {"pull-s": 0, "teardown-s": 0}, profiles=PROFILES) as stack:
        # A pool is known once reconcile has seen it.
        stack.submit({"submission_id": "first-of-the-pool", "profile": "short", "command": ["true"]})
        stack.until_ended("first-of-the-pool")
        yield stack


@pytest.mark.parametrize("block", HERE, ids=lambda block: block.name)
def test_command_block_runs(block: Block, stack: LocalStack, tmp_path: Path) -> None:
    # Commands that build do nothing, but the packages that they name must exist.
    cargo = tmp_path / "bin" / "cargo"
    cargo.parent.mkdir()
    cargo.write_text(
        '#!/bin/sh\nfor word; do case $word in -*|build) ;; *) grep -qrx "name = \\"$word\\"" '
        f"{ROOT}/programs/*/Cargo.toml {ROOT}/functions/*/Cargo.toml || exit 1;; esac; done\n"
    )
    cargo.chmod(0o755)
    environment = os.environ | {"ECS_BRIDGE_LOCAL": str(stack.ready_file), "HOME": str(tmp_path)}
    environment["PATH"] = f"{cargo.parent}:{PROGRAM.parent}:{os.environ['PATH']}"
    script = ["set -eE"]
    expected = []
    text = block.text.replace("/tmp/", f"{tmp_path}/").replace("$PWD/target/debug:", "")
    # `make airflow` writes this file, and the stack of this test stands in for it.
    text = text.replace("$PWD/.airflow/bridge/ready.json", "$ECS_BRIDGE_LOCAL")
    for line in text.splitlines():
        command, _, comment = line.partition("    #")
        if comment.strip().isdigit() or comment.strip() in {"hello"}:
            expected.append(comment.strip())
            command = command.replace("; echo $?", " && code=0 || code=$?; echo $code")
        script.append(command)
    script.append("kill $(jobs -p) 2>/dev/null || true; wait")
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for words in expected:
        assert words in done.stdout.split(), done.stdout


def test_tutorial_shows_the_dag_that_make_airflow_runs() -> None:
    (shown,) = fenced((DOCS / "tutorial.md").read_text(), "python")
    example = (ROOT / "examples/airflow/dags/example_ecs_bridge.py").read_text()
    assert textwrap.indent(shown, "    ") in example


def test_readme_dag_compiles_and_its_options_exist() -> None:
    (dag,) = fenced((ROOT / "README.md").read_text(), "python")
    tree = ast.parse(dag)
    operator = ast.parse((ROOT / "python/airflow_ecs_bridge/src/airflow_ecs_bridge/operators.py").read_text())
    (initializer,) = (
        node
        for found in ast.walk(operator)
        if isinstance(found, ast.ClassDef) and found.name == "EcsBridgeOperator"
        for node in found.body
        if isinstance(node, ast.FunctionDef) and node.name == "__init__"
    )
    known = {argument.arg for argument in initializer.args.kwonlyargs} | {"task_id"}
    (call,) = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "EcsBridgeOperator"
    )
    assert {keyword.arg for keyword in call.keywords} <= known


def test_readme_configures_the_executor_as_its_guide_does() -> None:
    (shown,) = fenced((ROOT / "README.md").read_text(), "ini")
    assert shown in fenced((DOCS / "airflow.md").read_text(), "ini")


def profiles_of_documents() -> dict[str, dict[str, Any]]:
    """The profiles in blocks of JSON, by page and name."""
    found = {}
    for page in PAGES:
        for text in fenced(page.read_text(), "json"):
            # A block of a page may also be a part of a profile, or leave something out.
            try:
                block = json.loads(text)
            except ValueError:
                continue
            if isinstance(block, dict) and all(
                isinstance(each, dict) and "run_task" in each for each in block.values()
            ):
                found |= {f"{page.stem}-{name}": profile for name, profile in block.items()}
    return found


def test_submit_accepts_every_documented_profile(tmp_path: Path) -> None:
    profiles = profiles_of_documents()
    assert len(profiles) > 4
    with LocalStack(tmp_path, profiles=profiles) as stack:
        for name in profiles:
            (answer,) = stack.submit({"submission_id": name, "profile": name, "command": ["true"]})
            assert "error" not in answer, answer


def test_client_examples_print_their_documented_output(stack: LocalStack, tmp_path: Path) -> None:
    """All blocks are one program. A comment after a `print` is its output."""
    script = "\n".join(fenced((DOCS / "client.md").read_text(), "python"))
    environment = os.environ | {
        "ECS_BRIDGE_LOCAL": str(stack.ready_file),
        "PYTHONPATH": str(ROOT / "python/ecs_bridge/src"),
    }
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    expected = re.findall(r"print\(.*\)    # (.*)$", script, re.MULTILINE)
    assert len(expected) > 5
    lines = iter(done.stdout.splitlines())
    assert all(words in lines for words in expected), done.stdout


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_region_is_exported_for_every_tool(block: Block) -> None:
    """The AWS CLI and the SDK for Rust read AWS_REGION; SAM CLI and boto3 read AWS_DEFAULT_REGION."""
    regions = dict(re.findall(r"\b(AWS_REGION|AWS_DEFAULT_REGION)=(\S+)", block.text))
    assert len(regions) != 1
    assert len(set(regions.values())) <= 1


def test_documents_that_use_sam_export_the_region() -> None:
    """Without a Region SAM CLI takes us-east-1 of its configuration, or none."""
    used = {block.page for block in BLOCKS if re.search(r"^(make )?sam[ -]", block.text, re.MULTILINE)}
    assert used
    for page in used:
        text = page.read_text()
        assert "AWS_DEFAULT_REGION=" in text or "deploying.md" in text, page


def aws_commands() -> Iterator[tuple[str, list[str]]]:
    for block in ON_AWS:
        text = block.text.replace("\\\n", " ")
        for command in re.findall(r"(?:^|\(|&& |\{ |; )(aws [a-z0-9-]+ [a-z0-9-]+[^\n]*)", text, re.MULTILINE):
            # As far as the shell would take it for one command.
            words = []
            try:
                words = shlex.split(command.split(" | ")[0].split(" > ")[0].split(";")[0], comments=True)
            except ValueError:
                words = command.split()
            yield block.name, words


@pytest.mark.parametrize(
    ("where", "words"),
    list(aws_commands()),
    ids=lambda value: " ".join(value[:3]) if isinstance(value, list) else value,
)
def test_aws_cli_command_exists(where: str, words: list[str]) -> None:
    session = botocore.session.get_session()
    _, service, name, *rest = words
    if name in ITS_OWN:
        return
    client = boto3.client("logs" if service == "logs" else service, region_name="us-east-1")
    operations = {
        re.sub(r"_", "-", method): operation for method, operation in client.meta.method_to_api_mapping.items()
    }
    assert name in operations, f"{where}: {service} has no {name}"
    shape = session.get_service_model(service).operation_model(operations[name]).input_shape
    members = {
        re.sub(r"(?<!^)(?=[A-Z][a-z])|(?<=[a-z0-9])(?=[A-Z])", "-", member).lower()
        for member in (shape.members if shape else [])
    }
    general = {
        "query",
        "output",
        "region",
        "profile",
        "no-cli-pager",
        "zip-file",
        "effective-settings",
        "cli-binary-format",
    }
    for flag in (word.lstrip("-").partition("=")[0] for word in rest if word.startswith("--")):
        bare = flag.removeprefix("no-")
        assert flag in members | general or bare in members, f"{where}: {service} {name} has no --{flag}"


def subcommands() -> dict[str, str]:
    def help_of(*names: str) -> str:
        return subprocess.run([PROGRAM, *names, "--help"], capture_output=True, text=True, check=True).stdout

    listed = re.findall(r"^  ([a-z-]+)  ", help_of().partition("Commands:")[2].partition("Options:")[0], re.MULTILINE)
    texts = {name: help_of(name) for name in listed if name != "help"}
    return texts | {f"pool {name}": help_of("pool", name) for name in ("list", "set")}


def test_every_documented_command_and_flag_exists() -> None:
    known = subcommands()
    wrong = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for command in re.findall(r"`ecs-bridge ([a-z][^`]*)`|^ecs-bridge ([a-z].*)$", text, re.MULTILINE):
            words = "".join(command).split(" -- ")[0].split("#")[0].replace("\n", " ").split()
            name = " ".join(words[:2]) if words[0] == "pool" and len(words) > 1 else words[0]
            for flag in ["", *(word.split("=")[0].rstrip("…,.") for word in words if word.startswith("--"))]:
                if name not in known or flag not in known[name]:
                    wrong.append(f"{page.name}: ecs-bridge {name} {flag}")
    assert not wrong


def test_site_has_no_broken_link() -> None:
    done: Any = subprocess.run(
        [sys.executable, ROOT / "docs/site/build.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (ROOT / "target/site/html/index.html").exists()
