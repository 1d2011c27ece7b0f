"""Checks whether a task can start and end in the triggerer with the same result as in a worker.

A task that starts in the triggerer skips all steps of a worker around ``execute``. So each function here returns the
first reason against it, or None. The reasons complete the sentence "it starts in a worker, because ...".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.configuration import conf

from airflow_ecs_bridge import _versions

if TYPE_CHECKING:
    from collections.abc import Iterator

    import jinja2.nodes

    from airflow_ecs_bridge.operators import EcsBridgeOperator

CALLBACKS = ("on_execute", "on_success", "on_failure", "on_retry", "on_skipped")

HOOKS = ("_pre_execute_hook", "_post_execute_hook")

LIMITS = ("max_active_tis_per_dag", "max_active_tis_per_dagrun")

OVERRIDABLE = frozenset({"__init__", "partial"})
"""Methods that a subclass may override and still start in the triggerer, because they run when the Dag is parsed."""

SAME = frozenset(
    {
        "ds",
        "ds_nodash",
        "ts",
        "ts_nodash",
        "ts_nodash_with_tz",
        "logical_date",
        "data_interval_start",
        "data_interval_end",
        "run_id",
        "params",
        "task_instance_key_str",
        # Jinja's own
        "range",
        "dict",
    }
)
"""Template names that always render to the same text, in a worker and in any triggerer.

Three kinds of names are excluded. Names that query Airflow's supervisor (``ti.xcom_pull``, ``prev_start_date_success``)
receive no response in 3.3.2. Names that depend on the process (``conf``, ``var``, ``conn``) may have different secrets
backends. Names that change with time (``macros.uuid``, ``macros.datetime.now``) would make another triggerer submit a
different command under the same ID.
"""

_TASK_INSTANCE = frozenset({"dag_id", "task_id", "run_id", "map_index", "try_number"})
SAME_ATTRIBUTES = {
    "ti": _TASK_INSTANCE,
    "task_instance": _TASK_INSTANCE,
    "dag": frozenset({"dag_id"}),
    "task": frozenset({"task_id"}),
    "dag_run": frozenset({"dag_id", "run_id", "conf"}),
    "macros": frozenset({"ds_add", "ds_format", "timedelta"}),
}
"""Attributes of other names that also render to the same text."""

CHANGING = frozenset({"now", "utcnow", "today", "diff_for_humans", "random"})
"""Attributes and filters whose value changes with each call."""


def why_starts_in_worker(operator: EcsBridgeOperator, values: dict[str, Any]) -> str | None:
    """Return why a task must start in a worker.

    :param values: the templated fields
    """
    if not _versions.TRIGGERS_RUN_WHOLE_TASKS:
        return f"Airflow {_versions.TEXT} starts tasks only in workers; from 3.3.1 on, a trigger can run a whole task"
    if operator.get_closest_mapped_task_group() is not None:
        return "it is in a mapped task group"
    if reason := why_ends_in_worker(operator):
        return reason
    return _why_values(operator, values) or _why_limits(operator) or _why_params(operator)


def why_ends_in_worker(operator: EcsBridgeOperator) -> str | None:
    """Return why a task must end in a worker."""
    if not _versions.TRIGGERS_RUN_WHOLE_TASKS:
        return f"Airflow {_versions.TEXT} ends tasks only in workers; from 3.3.1 on, a trigger can end a task"
    if operator.outlets:
        return "it has outlets, and only a worker creates asset events"
    for name in CALLBACKS:
        if getattr(operator, f"{name}_callback", None):
            return f"it has {name}_callback, which only a worker calls"
    for name in HOOKS:
        if getattr(operator, name, None):
            return f"it has {name.strip('_').removesuffix('_hook')}, which only a worker calls"
    if method := _override(operator):
        return f"it overrides {method}, which only a worker calls"
    if operator.email and (operator.email_on_failure or operator.email_on_retry):
        return "it has email, which only a worker sends"
    if getattr(operator, "retry_policy", None) is not None:
        return "it has a retry_policy, which only a worker evaluates"
    dag = operator.get_dag()
    if dag is not None and getattr(dag, "fail_fast", False):
        return "its Dag has fail_fast, which only a worker's failure triggers"
    return _why_return_value(operator)


def _override(operator: EcsBridgeOperator) -> str | None:
    """Return a method of Airflow or of the operator that the task overrides."""
    from airflow_ecs_bridge.operators import EcsBridgeOperator

    theirs = type(operator).__mro__[: type(operator).__mro__.index(EcsBridgeOperator)]
    for place in (vars(operator), *map(vars, theirs)):
        for name, value in place.items():
            ours = getattr(EcsBridgeOperator, name, None)
            if name not in OVERRIDABLE and (callable(ours) or name.startswith("template_")):
                if name.startswith("template_") and value == ours:
                    continue
                if name.startswith("__") and not callable(value):
                    continue
                return name
    return None


def _why_return_value(operator: EcsBridgeOperator) -> str | None:
    if not operator.do_xcom_push:
        return None
    backend = conf.get("core", "xcom_backend")
    if backend.rpartition(".")[2] != "BaseXCom":
        return f"[core] xcom_backend is {backend}, which only a worker uses"
    if not (operator.xcom_last_line or operator.xcom_s3_uri):
        return None
    if getattr(operator, "multiple_outputs", False):
        return "it has multiple_outputs, which only a worker pushes"
    if operator.get_dag() is not None and any(True for _ in operator.iter_mapped_dependants()):
        return "a task is mapped over its return value, whose length only a worker reports"
    return None


def _why_values(operator: EcsBridgeOperator, values: dict[str, Any]) -> str | None:
    from airflow.sdk import XComArg

    templates = False
    for field, value in values.items():
        for part in _parts(value):
            if isinstance(part, XComArg):
                return f"{field} has the output of another task"
            if isinstance(part, str) and _is_template(part):
                templates = True
                if name := _why_template(part):
                    return f"{field} has a template with {name}, which renders only in a worker"
            elif part is _OTHER_KEY:
                return f"{field} has a key that is not plain text"
            elif not isinstance(part, str | int | float | None):
                return f"{field} has a value of type {type(part).__name__}, which is not JSON"
    dag = operator.get_dag()
    if templates and dag is not None:
        native = getattr(operator, "render_template_as_native_obj", None)
        if dag.render_template_as_native_obj if native is None else native:
            return "it renders templates as native objects"
        for setting in ("user_defined_macros", "user_defined_filters", "jinja_environment_kwargs"):
            if getattr(dag, setting, None):
                return f"its Dag has {setting}, which a triggerer does not have"
    return None


_OTHER_KEY = object()


def _parts(value: Any) -> Iterator[Any]:
    """Yield all values in nested dicts and lists."""
    match value:
        case dict():
            for key, each in value.items():
                if not isinstance(key, str) or _is_template(key):
                    yield _OTHER_KEY
                yield from _parts(each)
        case list():
            for each in value:
                yield from _parts(each)
        case _:
            yield value


def _is_template(text: str) -> bool:
    return any(mark in text for mark in ("{{", "{%", "{#"))


def _why_template(text: str) -> str | None:
    """Return the part of a template that may render differently in a triggerer."""
    import jinja2
    from jinja2 import nodes

    try:
        tree = jinja2.Environment(extensions=["jinja2.ext.do"]).parse(text)
    except jinja2.TemplateSyntaxError as error:
        return f"an error ({error})"
    for statement in tree.find_all((nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)):
        return type(statement).__name__.lower()
    for expression in tree.find_all((nodes.Filter, nodes.Getattr, nodes.Getitem)):
        if (name := _attribute(expression)) in CHANGING:
            return name
    names = list(tree.find_all(nodes.Name))
    set_here = {name.name for name in names if name.ctx != "load"}
    checked: set[int] = set()
    for access in tree.find_all((nodes.Getattr, nodes.Getitem)):
        assert isinstance(access, nodes.Getattr | nodes.Getitem)
        if isinstance(owner := access.node, nodes.Name) and owner.name in SAME_ATTRIBUTES:
            checked.add(id(owner))
            if (attribute := _attribute(access)) not in SAME_ATTRIBUTES[owner.name]:
                return f"{owner.name}.{attribute}"
    for each in names:
        if each.ctx == "load" and id(each) not in checked and each.name not in SAME | set_here:
            return each.name
    return None


def _attribute(node: jinja2.nodes.Node) -> str:
    from jinja2 import nodes

    match node:
        case nodes.Filter():
            return node.name
        case nodes.Getattr():
            return node.attr
        case nodes.Getitem(arg=nodes.Const(value=value)):
            return str(value)
        case _:
            return "[...]"


def _why_limits(operator: EcsBridgeOperator) -> str | None:
    for name in LIMITS:
        if getattr(operator, name, None) is not None:
            return f"it has {name}, which applies only to tasks that start in a worker"
    if operator.pool != "default_pool":
        return f"its pool is {operator.pool!r}, and pools apply only to tasks that start in a worker"
    dag = operator.get_dag()
    if dag is not None and dag.max_active_tasks != conf.getint("core", "max_active_tasks_per_dag"):
        return "its Dag has max_active_tasks, which applies only to tasks that start in a worker"
    return None


def _why_params(operator: EcsBridgeOperator) -> str | None:
    """Return why params require a worker. An invalid value fails a task in a worker, but would end the triggerer."""
    dag = operator.get_dag()
    if operator.params.keys() - (dag.params.keys() if dag is not None else set()):
        return "it has its own params, which only a worker validates"
    return None
