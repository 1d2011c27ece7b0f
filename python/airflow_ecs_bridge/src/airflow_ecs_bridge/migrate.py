"""Convert the configuration of Airflow's AwsEcsExecutor to a profile: ``python -m airflow_ecs_bridge.migrate``.

It is a module and no command of ``airflow``, because before Airflow 3.2 those come from the configured executor, which
still is AwsEcsExecutor.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from typing import Any, cast

from airflow_ecs_bridge.config import DEFAULT_PROFILE, AirflowConf

SECTION = "aws_ecs_executor"
# Options of the executor itself, which the bridge configures elsewhere or does not need.
_NOT_LAUNCHING = ("conn_id", "region_name", "check_health_on_startup")
# Options that are RunTask's own parameters, and those of the network configuration and the container.
_PARAMETERS = ("capacity_provider_strategy", "cluster", "launch_type", "platform_version", "task_definition")
_PLACED = ("assign_public_ip", "container_name", "security_groups", "subnets")
_OPTIONS = {*_NOT_LAUNCHING, *_PARAMETERS, *_PLACED, "run_task_kwargs", "max_run_task_attempts"}
# Airflow 3 has it as a default of the option, and Airflow 2 only in the code of the executor.
_ATTEMPTS = "3"
# RunTask parameters that the bridge sets itself, and refuses in a profile.
_SET_BY_BRIDGE = ("count", "startedBy", "clientToken")


class MigrationError(ValueError):
    """The configuration cannot be converted. The message names the option."""


def options_of(conf: AirflowConf) -> dict[str, str]:
    """Return the options that are set, as AwsEcsExecutor reads them."""
    values = ((name, str(conf.get(SECTION, name, fallback="") or "").strip()) for name in sorted(_OPTIONS))
    return {name: value for name, value in values if value}


def profile_of(options: dict[str, str]) -> tuple[dict[str, Any], list[str]]:
    """Return the profile, and notes on values that its owner must check."""
    notes = []
    given: dict[str, Any] = {"platform_version": "LATEST", "assign_public_ip": "False"}
    given |= {name: options[name] for name in (*_PARAMETERS, *_PLACED) if name in options}
    given |= _object("run_task_kwargs", options.get("run_task_kwargs", "{}"))
    if isinstance(text := given.get("capacity_provider_strategy"), str):
        given["capacity_provider_strategy"] = _strategy(text)

    # In camelCase an option has the name of the RunTask parameter.
    run_task = _camel_case(given)
    if "launchType" in run_task and "capacityProviderStrategy" in run_task:
        raise MigrationError("capacity_provider_strategy and launch_type are mutually exclusive: remove one of them")
    if "launchType" not in run_task and "capacityProviderStrategy" not in run_task:
        run_task["launchType"] = "FARGATE"
        notes.append(
            "neither launch type nor capacity provider strategy is set: launchType is FARGATE, as AwsEcsExecutor sets "
            "it for a cluster without a default strategy; remove it if your cluster has one"
        )
    ec2 = run_task.get("launchType") == "EC2"
    if ec2:
        # AwsEcsExecutor drops it too: only Fargate has platform versions.
        run_task.pop("platformVersion", None)
    for name in _SET_BY_BRIDGE:
        if run_task.pop(name, None) is not None:
            notes.append(f"{name} is omitted: the bridge sets it in every request")
    if "taskDefinition" not in run_task:
        raise MigrationError(_missing("task_definition"))
    container = run_task.pop("containerName", None)
    if not isinstance(container, str):
        raise MigrationError(_missing("container_name"))
    _name_container(run_task, container)
    _place_network(run_task, ec2)

    attempts = options.get("max_run_task_attempts", _ATTEMPTS)
    if not (attempts.isascii() and attempts.isdecimal() and int(attempts) > 0):
        raise MigrationError(f"max_run_task_attempts is {attempts!r}, but must be an integer above 0")
    notes.append("max_attempts counts only launches whose container never started; AwsEcsExecutor repeats others")
    notes.append("no overrides are allowed: add what tasks set in executor_config to allow_overrides")
    return {"container_name": container, "max_attempts": int(attempts), "run_task": run_task}, notes


def _missing(option: str) -> str:
    return f"{option} is not set: set it in [{SECTION}]"


def _object(option: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise MigrationError(f"{option} must be a JSON object")
    return value


def _strategy(text: str) -> list[Any]:
    """Parse JSON or a Python literal, as in Airflow's own example."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError):
            continue
        if isinstance(value, list):
            return value
    raise MigrationError(f"capacity_provider_strategy is {text!r}, but must be a list of capacity providers")


def _name_container(run_task: dict[str, Any], container: str) -> None:
    """Set the container's name in the first of the container overrides, if any."""
    overrides = run_task.get("overrides", {})
    containers = overrides.get("containerOverrides") if isinstance(overrides, dict) else overrides
    if containers is None:
        return
    if not (isinstance(containers, list) and containers and isinstance(containers[0], dict)):
        raise MigrationError("run_task_kwargs must have overrides that RunTask accepts")
    first = containers[0]
    first["name"] = container
    # The command comes from the submission.
    first.pop("command", None)


def _place_network(run_task: dict[str, Any], ec2: bool) -> None:
    """Move subnets, security groups and the public address into the network configuration.

    It replaces that of run_task_kwargs, as in AwsEcsExecutor.
    """
    subnets, groups = (_list(run_task.pop(name, None)) for name in ("subnets", "securityGroups"))
    public = run_task.pop("assignPublicIp", None)
    if not subnets and not groups and public == "False":
        return
    if not subnets:
        raise MigrationError(_missing("subnets"))
    network: dict[str, Any] = {"subnets": subnets}
    if groups:
        network["securityGroups"] = groups
    if not ec2:
        network["assignPublicIp"] = "ENABLED" if public == "True" else "DISABLED"
    run_task["networkConfiguration"] = {"awsvpcConfiguration": network}


def _list(value: Any) -> Any:
    return [item.strip() for item in value.split(",")] if isinstance(value, str) else value


def _camel_case(given: dict[str, Any]) -> dict[str, Any]:
    """Return the object with its keys, also of nested objects, in camelCase. Those of tags are kept."""
    return {
        _camelize(key): _camel_case(value) if isinstance(value, dict) and key.lower() != "tags" else value
        for key, value in given.items()
    }


def _camelize(key: str) -> str:
    first, *rest = key.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)


def main() -> int:
    """Write the profile to standard output, and notes to standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m airflow_ecs_bridge.migrate",
        description=f"Convert the section [{SECTION}] of Airflow's configuration to a profile of the ECS bridge. "
        "AIRFLOW_CONFIG selects another file than the airflow.cfg of AIRFLOW_HOME.",
    )
    parser.add_argument("--name", default=DEFAULT_PROFILE, help="name of the profile (default: %(default)s)")
    name = parser.parse_args().name

    from airflow.configuration import AIRFLOW_CONFIG, conf

    try:
        profile, notes = profile_of(options_of(cast("AirflowConf", conf)))
    except MigrationError as error:
        print(f"cannot convert {AIRFLOW_CONFIG}: {error}", file=sys.stderr)
        return 1
    unknown = {
        option.removesuffix("_cmd").removesuffix("_secret") for option in conf.as_dict().get(SECTION, {})
    } - _OPTIONS
    notes += [f"{option} is not an option of AwsEcsExecutor that can be imported" for option in sorted(unknown)]
    print(json.dumps({name: profile}, indent=2))
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
