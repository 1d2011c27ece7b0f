"""Validates JSON against a shape of botocore's models, strictly: no unknown member, type or constant."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

# In ECS's developer guide and in events, but not in botocore's list of constants.
ALSO_KNOWN = {"TaskStopCode": {"InfrastructureHealth"}}
PLAIN = {"string": str, "boolean": bool, "integer": int, "long": int, "double": (int, float), "float": (int, float)}


def problems(shape: Any, value: Any, *, times: type | tuple[type, ...] = (int, float)) -> list[str]:
    """The problems of a value. `times` is the format of timestamps."""
    return list(_problems(shape, value, shape.name, times))


def _problems(shape: Any, value: Any, path: str, times: type | tuple[type, ...]) -> Iterator[str]:
    match shape.type_name:
        case "structure":
            if not isinstance(value, dict):
                yield f"{path} is no object: {value!r}"
                return
            for name, member in value.items():
                if name not in shape.members:
                    yield f"{path} has no member {name}"
                else:
                    yield from _problems(shape.members[name], member, f"{path}.{name}", times)
        case "list":
            if not isinstance(value, list):
                yield f"{path} is no list: {value!r}"
                return
            for at, member in enumerate(value):
                yield from _problems(shape.member, member, f"{path}[{at}]", times)
        case "map":
            for name, member in value.items():
                yield from _problems(shape.value, member, f"{path}.{name}", times)
        case "timestamp":
            if not isinstance(value, times):
                yield f"{path} is no time: {value!r}"
        case kind:
            if not isinstance(value, PLAIN[kind]) or (kind != "boolean" and isinstance(value, bool)):
                yield f"{path} is no {kind}: {value!r}"
            constants = set(getattr(shape, "enum", ())) | ALSO_KNOWN.get(shape.name, set())
            if getattr(shape, "enum", ()) and value not in constants:
                yield f"{path} is none of {sorted(constants)}: {value!r}"
