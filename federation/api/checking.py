"""A value against a structural schema: defaults filled in, every violation found and said in plain words.

It walks the very schema that an API server gets (schema.py), in its order: null and default, then structure,
then CEL rules. It refuses to know any one resource.
"""

from __future__ import annotations

import copy
import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from federation.api import meta, rules
from federation.api.errors import Violation
from federation.api.schema import Schema

_MISSING: Any = object()


def with_defaults(schema: Schema, value: Any) -> Any:
    """Return a copy of `value` in which absent (or null) fields with a default have it, at every depth.

    Law: idempotent; given fields are never changed, but for 3.0, which becomes 3 where a whole number is due.
    """
    if schema.get("type") == "object" and isinstance(value, Mapping):
        properties = schema.get("properties", {})
        result = {
            name: with_defaults(
                properties[name] if name in properties else schema.get("additionalProperties", {}), child
            )
            for name, child in value.items()
        }
        for name, child in properties.items():
            if "default" in child and result.get(name) is None:
                result[name] = with_defaults(child, copy.deepcopy(child["default"]))
        return result
    if schema.get("type") == "array" and isinstance(value, list):
        return [with_defaults(schema.get("items", {}), item) for item in value]
    if schema.get("type") == "integer" and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def violations(schema: Schema, value: Any, old: Any = None, path: str = "") -> list[Violation]:
    """Return everything wrong with `value` (defaults filled in), in document order.

    With `old`, the value it replaces, transition rules are evaluated too. CEL rules of an object are left out
    where its own structure is broken, since they would only repeat that in other words.
    """
    found: list[Violation] = []
    _check(schema, value, _MISSING if old is None else old, path, found)
    return found


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean "X"?` for the nearest known name, or nothing if none is near."""
    known = list(known)
    folded = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    return f'; did you mean "{folded[close[0]]}"?' if close else ""


def child_path(path: str, name: str) -> str:
    """Return the path of a field or map entry: `spec.clusters`, or `labels["example.org/x"]`."""
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        return f"{path}[{json.dumps(name)}]"
    return f"{path}.{name}" if path else name


def shown(value: Any) -> str:
    """Return a value as a sentence mentions it, shortened."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:76] + '..."'


def _check(schema: Schema, value: Any, old: Any, path: str, found: list[Violation]) -> None:
    before = len(found)
    problem = _wrong_type(schema, value)
    if problem:
        found.append(Violation(path, problem))
        return
    found.extend(Violation(path, message) for message in _wrong_value(schema, value))
    if isinstance(value, Mapping):
        _check_object(schema, value, old, path, found)
    elif isinstance(value, list):
        _check_list(schema, value, old, path, found)
    if len(found) == before:
        for rule in schema.get("x-kubernetes-validations", ()):
            transition = rules.is_transition(rule["rule"])
            if transition and old is _MISSING:
                continue
            if not rules.holds(rule["rule"], value, old if transition else None):
                found.append(Violation(path + rule.get("fieldPath", ""), rule["message"]))


def _check_object(
    schema: Schema, value: Mapping[str, Any], old: Any, path: str, found: list[Violation]
) -> None:
    properties = schema.get("properties", {})
    olds = old if isinstance(old, Mapping) else {}
    for name, child in value.items():
        if name in properties:
            child_schema = properties[name]
        elif "additionalProperties" in schema:
            child_schema = schema["additionalProperties"]
        elif schema.get("x-kubernetes-preserve-unknown-fields"):
            continue
        else:
            found.append(Violation(child_path(path, name), f"unknown field{nearest(name, properties)}"))
            continue
        _check(child_schema, child, olds.get(name, _MISSING), child_path(path, name), found)
    for name in schema.get("required", ()):
        if name not in value:
            found.append(Violation(child_path(path, name), "is required and missing"))


def _check_list(schema: Schema, value: Sequence[Any], old: Any, path: str, found: list[Violation]) -> None:
    kind = schema.get("x-kubernetes-list-type")
    keys = schema.get("x-kubernetes-list-map-keys", ())
    olds = {_identity(item, keys): item for item in old} if kind == "map" and isinstance(old, list) else {}
    seen: dict[Any, int] = {}
    for index, item in enumerate(value):
        here = f"{path}[{index}]"
        identity = _identity(item, keys) if kind in ("map", "set") else None
        _check(schema.get("items", {}), item, olds.get(identity, _MISSING), here, found)
        if identity is None:
            continue
        if identity in seen:
            what = (
                " and ".join(f"{key} {shown(item[key])}" for key in keys if key in item)
                if keys
                else shown(item)
            )
            found.append(Violation(here, f"{what} stands in {path}[{seen[identity]}] already"))
        seen.setdefault(identity, index)


def _identity(item: Any, keys: Sequence[str]) -> str | None:
    if not keys:
        return json.dumps(item, sort_keys=True, default=str)
    if not isinstance(item, Mapping):
        return None
    return json.dumps([item.get(key) for key in keys], default=str)


def _is_scalar_only(schema: Schema) -> bool:
    """Return whether this is meta.SCALAR_SCHEMA: any scalar, its type kept."""
    return "type" not in schema and schema.get("maxProperties") == 0


def _wrong_type(schema: Schema, value: Any) -> str | None:
    """Return what is wrong with the value's type, or None."""
    if value is None:
        return "has no value; give one or leave the field out"
    if isinstance(value, float) and not math.isfinite(value):
        return "must be a finite number"
    if _is_scalar_only(schema):
        return _unless(
            isinstance(value, str | bool | int | float), "must be text, a number, true or false", value
        )
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, float):
            return f'must be text or a whole number, not {shown(value)}; write it in quotes: "{value}"'
        return _unless(
            isinstance(value, str | int) and not isinstance(value, bool),
            "must be text or a whole number",
            value,
        )
    match schema.get("type"):
        case "object":
            return _unless(isinstance(value, Mapping), "must be a mapping", value)
        case "array":
            return _unless(isinstance(value, list), "must be a list", value)
        case "boolean":
            return _unless(isinstance(value, bool), "must be true or false", value)
        case "integer":
            return _unless(
                isinstance(value, int) and not isinstance(value, bool), "must be a whole number", value
            )
        case "number":
            return _unless(
                isinstance(value, int | float) and not isinstance(value, bool), "must be a number", value
            )
        case "string" if isinstance(value, bool | int | float):
            return f'must be text, not {shown(value)}; write it in quotes: "{json.dumps(value)}"'
        case "string":
            return _unless(isinstance(value, str), "must be text", value)
    return None


def _unless(good: bool, message: str, value: Any) -> str | None:
    return None if good else f"{message}, not {shown(value)}"


def _wrong_value(schema: Schema, value: Any) -> list[str]:
    """Return what is wrong with a value of the right type."""
    if "enum" in schema and value not in schema["enum"]:
        wanted = schema["enum"]
        listed = ", ".join(wanted[:-1]) + " or " + wanted[-1] if len(wanted) > 1 else str(wanted[0])
        return [f"must be {listed}, not {shown(value)}{nearest(str(value), wanted)}"]
    match value:
        case str():
            return _wrong_text(schema, value)
        case bool():
            return []
        case int() | float():
            return _wrong_number(schema, value)
        case list():
            return _wrong_size(schema, len(value), "Items", "items")
        case Mapping():
            return _wrong_size(schema, len(value), "Properties", "entries")
    return []


def _wrong_number(schema: Schema, value: float) -> list[str]:
    if value < schema.get("minimum", value):
        return [f"must be at least {schema['minimum']}, not {value}"]
    if value > schema.get("maximum", value):
        return [f"must be at most {schema['maximum']}, not {value}"]
    return _wrong_text(schema, str(value)) if "pattern" in schema else []


def _wrong_text(schema: Schema, value: str) -> list[str]:
    size = _wrong_size(schema, len(value), "Length", "characters")
    if size:
        return size
    pattern = schema.get("pattern")
    # Go's $ is the end of the text; Python's would let a line feed through.
    if pattern and not re.search(re.sub(r"\$$", r"\\Z", pattern), value):
        words = meta.PATTERN_WORDS.get(pattern)
        return [
            f"must be {words}, not {shown(value)}" if words else f"must match {pattern}, not {shown(value)}"
        ]
    if schema.get("format") == "date-time":
        try:
            aware = datetime.fromisoformat(value).tzinfo is not None
        except ValueError:
            aware = False
        return [] if aware else [f"must be a time such as 2026-01-31T12:00:00Z, not {shown(value)}"]
    return []


def _wrong_size(schema: Schema, size: int, what: str, unit: str) -> list[str]:
    least, most = schema.get(f"min{what}", 0), schema.get(f"max{what}", size)
    if size < least:
        return ["must not be empty" if size == 0 else f"must have at least {least} {unit}, not {size}"]
    if size > most:
        return [f"must have at most {most} {unit}, not {size}"]
    return []
