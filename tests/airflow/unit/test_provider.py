"""What Airflow and its documents know of the package, asked of the real command line in one process."""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from airflow.providers.amazon.aws.operators.base_aws import AwsBaseOperator
from airflow.providers.amazon.aws.operators.ecs import EcsRunTaskOperator

from airflow_ecs_bridge import __version__
from airflow_ecs_bridge.operators import EcsBridgeOperator
from airflow_ecs_bridge.provider import OPTIONS, SECTION, get_provider_info

DOCS = Path(__file__).parents[3] / "docs"

COMMANDS = {
    "get": ["providers", "get", "airflow-ecs-bridge", "--output", "json"],
    "list": ["providers", "list", "--output", "json"],
    "executors": ["providers", "executors", "--output", "json"],
    "triggers": ["providers", "triggers", "--output", "json"],
    "links": ["providers", "links", "--output", "json"],
    # Airflow's --defaults leaves out those of providers.
    "config": ["config", "list", "--section", SECTION, *["--show-values", "-d", "-e", "-V"]],
    "value": ["config", "get-value", SECTION, "poll_interval"],
}
# As `airflow` itself begins, for one command after the other: each start of a process takes seconds.
RUN = """
import contextlib, io, json, sys
from airflow.__main__ import main
answers = {}
for name, words in json.load(sys.stdin).items():
    sys.argv = ["airflow", *words]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        main()
    answers[name] = output.getvalue()
json.dump(answers, sys.stdout)
"""


@pytest.fixture(scope="module")
def airflow() -> dict[str, str]:
    """What each command prints, with no option of ours set."""
    environment = {name: value for name, value in os.environ.items() if SECTION.upper() not in name}
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(COMMANDS),
        env={**environment, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # A provider that Airflow takes for broken is a warning.
    assert "airflow_ecs_bridge" not in done.stderr, done.stderr
    answers: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return answers


def test_airflow_lists_the_provider_with_what_it_has(airflow: dict[str, str]):
    assert json.loads(airflow["get"]) == [{"Provider": "airflow-ecs-bridge", "Version": __version__}]
    listed = {each["package_name"]: each for each in json.loads(airflow["list"])}
    assert listed["airflow-ecs-bridge"]["version"] == __version__
    # Airflow's list cuts the full stop.
    assert listed["airflow-ecs-bridge"]["description"] in get_provider_info()["description"]
    assert "airflow_ecs_bridge.EcsBridgeExecutor" in airflow["executors"]
    assert "airflow_ecs_bridge.triggers" in airflow["triggers"]
    assert "airflow_ecs_bridge.operators.ContainerLogLink" in airflow["links"]


def test_airflow_lists_each_option_with_default_description_and_example(airflow: dict[str, str]):
    text = airflow["config"]
    for name, option in OPTIONS.items():
        for line in option["description"].strip().splitlines():
            assert f"# {line}".rstrip() in text, name
        assert f"\n{name} = {option['default']}\n" in text or f"\n# {name} = \n" in text, name
        assert (f"\n# {name} = \n" in text) == (option["default"] is None), name
        assert f"# Example: {name} = {option['example']}" in text, name
        assert f"# Variable: AIRFLOW__{SECTION.upper()}__{name.upper()}" in text, name
    assert airflow["value"].strip() == OPTIONS["poll_interval"]["default"]


def test_the_provider_s_description_fits_airflow_s_schema():
    import airflow as package
    from jsonschema import validate

    schema = json.loads((Path(package.__file__).parent / "provider_info.schema.json").read_text())
    validate(get_provider_info(), schema)


def test_each_option_has_its_row_in_the_documents():
    table = columns(DOCS / "airflow.md", "## Options")
    assert set(table) == OPTIONS.keys()


def columns(document: Path, heading: str, column: int = 0) -> list[str]:
    """Return the names, in backticks, in the first column of the table below a heading."""
    part = f"\n{document.read_text()}".split(f"\n{heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line.split("|")[column + 1] for line in part.splitlines() if line.startswith("|")]
    return [name for row in rows[2:] for name in re.findall(r"`([a-z0-9_.]+)`", row)]


def parameters(*operators: type) -> set[str]:
    """Return the parameters of operators' own, without those of each operator."""
    named = {name for each in operators for name in inspect.signature(each.__init__).parameters}
    return named - {"self", "kwargs"}


def test_each_parameter_of_ecs_run_task_operator_has_its_row_in_the_migration_guide():
    rows = columns(DOCS / "migrating.md", "## From EcsRunTaskOperator")
    assert sorted(rows) == sorted({*parameters(EcsRunTaskOperator, AwsBaseOperator), "do_xcom_push"})


def test_what_the_migration_guide_names_of_the_operator_exists():
    named = set(columns(DOCS / "migrating.md", "## From EcsRunTaskOperator", column=1))
    profile = {"run_task", "tags_from_labels", "container_name", "verify", "config_kwargs"}
    assert {name for name in named if "." not in name} - profile - OPTIONS.keys() <= parameters(EcsBridgeOperator)


def test_each_parameter_of_the_operator_has_its_row_in_its_document():
    rows = columns(DOCS / "operator.md", "# EcsBridgeOperator")
    assert parameters(EcsBridgeOperator) <= set(rows)
