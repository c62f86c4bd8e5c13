"""From a model to a structural schema, as Kubernetes defines it: no $ref, no null, every bound in place.

Descriptions are assembled here from a field's sentence and from what the schema itself says (default,
bounds, when it may change), so that they cannot go stale. CEL rules against changes are made from
`Change.NEVER`. This module refuses to know any one resource; crds.py wraps its result into a CRD and
validation.py checks manifests by the very same result.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any

from federation.api import meta

Schema = dict[str, Any]

_KEPT = frozenset(
    {
        "type",
        "format",
        "description",
        "default",
        "enum",
        "properties",
        "required",
        "items",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minProperties",
        "maxProperties",
        "pattern",
        "additionalProperties",
        "x-kubernetes-int-or-string",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-validations",
    }
)
_WRITTEN_BY_HANSE = (meta.Change.BY_HUB, meta.Change.BY_AGENT, meta.Change.BY_HANSE)
_DROPPED = frozenset(
    {"title", "const", "anyOf", "propertyNames", meta.DOC_TEXT, meta.DOC_CHANGE, meta.DOC_REFUSAL}
)


@functools.cache
def of(resource: type[meta.Resource]) -> Schema:
    """Return the structural schema of a resource as the API server gets it; callers must not change it.

    Raises: ValueError if a model says something that a structural schema cannot.
    """
    raw = resource.model_json_schema(by_alias=True)
    properties = {
        "apiVersion": {"type": "string", "description": f"apiVersion is {meta.API_VERSION}."},
        "kind": {"type": "string", "description": f"kind is {resource.INFO.kind}."},
        "metadata": {
            "type": "object",
            "properties": {
                "name": {
                    "type": "string",
                    "maxLength": resource.INFO.maximum_name_length,
                    "pattern": meta.LABEL_PATTERN,
                }
            },
        },
    }
    for name in ("spec", "status"):
        required = name in raw.get("required", ())
        properties[name] = _property(
            name, raw["properties"][name], raw["$defs"], required, resource.INFO.kind
        )
    root: Schema = {
        "type": "object",
        "description": " ".join((resource.__doc__ or "").split()),
        "required": ["spec"] if "spec" in raw.get("required", ()) else [],
        "properties": properties,
    }
    if resource.CEL:
        root["x-kubernetes-validations"] = [rule.schema() for rule in resource.CEL]
    return root


def _property(
    name: str, node: Mapping[str, Any], defs: Mapping[str, Any], required: bool, kind: str
) -> Schema:
    """Return the schema of one named field, with its description in front."""
    schema = _structural(node, defs, kind)
    text, change = node.get(meta.DOC_TEXT), node.get(meta.DOC_CHANGE)
    if text is None:
        raise ValueError(f"{kind}: field {name} has no documentation")
    parts = [f"{name} {text}"]
    if change not in _WRITTEN_BY_HANSE:
        parts.append(_presence(schema, required))
    parts += [*_bounds(schema), str(change)]
    return {"description": " ".join(part for part in parts if part), **schema}


def _presence(schema: Mapping[str, Any], required: bool) -> str:
    if required:
        return "Required."
    if "default" not in schema:
        return "No default."
    return "" if schema.get("type") == "object" else f"Default {json.dumps(schema['default'])}."


def _bounds(schema: Mapping[str, Any]) -> list[str]:
    """Return one short sentence for each bound that a person wants to know."""
    found = []
    if "enum" in schema:
        found.append(f"One of {', '.join(schema['enum'])}.")
    if "minimum" in schema and schema.get("maximum", 2**62) < 2**62:
        found.append(f"Range {schema['minimum']} to {schema['maximum']}.")
    if "maxLength" in schema and "enum" not in schema:
        found.append(f"At most {schema['maxLength']} characters.")
    if "maxItems" in schema:
        found.append(f"At most {schema['maxItems']} items.")
    if schema.get("type") == "object" and "maxProperties" in schema:
        found.append(f"At most {schema['maxProperties']} entries.")
    return found


def _structural(node: Mapping[str, Any], defs: Mapping[str, Any], kind: str) -> Schema:
    """Return `node` without references, nulls and what Kubernetes does not know."""
    node = _resolved(node, defs)
    if node.get("x-kubernetes-int-or-string"):
        kept = {key: value for key, value in node.items() if key in _KEPT or key == "anyOf"}
        return {key: value for key, value in kept.items() if (key, value) != ("default", None)}
    unknown = set(node) - _KEPT - _DROPPED
    if unknown or (node.get("anyOf") is not None):
        raise ValueError(f"{kind}: a structural schema cannot say {sorted(unknown) or 'anyOf'}")
    result = {key: value for key, value in node.items() if key in _KEPT and key != "description"}
    if "const" in node:
        result["enum"] = [node["const"]]
    if result.get("default", ...) is None:
        del result["default"]
    if node.get("additionalProperties") is False:
        del result["additionalProperties"]
    elif isinstance(node.get("additionalProperties"), Mapping):
        result["additionalProperties"] = _structural(node["additionalProperties"], defs, kind)
    if result.get("type") == "array" and result.get("default") == []:
        del result["default"]
    if result.get("type") == "integer":
        result["format"] = "int32" if result.get("maximum", 2**63) < 2**31 else "int64"
    if "items" in node:
        result["items"] = _structural(node["items"], defs, kind)
    if "properties" in node:
        required = set(node.get("required", ()))
        result["properties"] = {
            name: _property(name, child, defs, name in required, kind)
            for name, child in node["properties"].items()
        }
        if "default" in result:
            # Spelt out, since an API server holds a default against the object's rules before it fills in the
            # defaults of the fields.
            children = result["properties"].items()
            result["default"] = {name: child["default"] for name, child in children if "default" in child}
        rules = [
            *result.get("x-kubernetes-validations", ()),
            *_unchangeable(node, result["properties"], kind),
        ]
        if rules:
            result["x-kubernetes-validations"] = rules
    return result


def _resolved(node: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the node with its reference followed and `anyOf: [X, null]` reduced to X; siblings win."""
    siblings = dict(node)
    if "$ref" in siblings:
        target = defs[siblings.pop("$ref").removeprefix("#/$defs/")]
        return {**_resolved(target, defs), **siblings}
    branches = siblings.get("anyOf", [])
    if {"type": "null"} in branches and len(branches) == 2:
        del siblings["anyOf"]
        branch = next(branch for branch in branches if branch != {"type": "null"})
        return {**_resolved(branch, defs), **siblings}
    return siblings


def _unchangeable(
    node: Mapping[str, Any], properties: Mapping[str, Schema], kind: str
) -> list[dict[str, str]]:
    """Return transition rules for the fields that never change, at the outermost object that can change.

    A field of an object that cannot change as a whole needs no rule of its own: if every field of an object
    is `NEVER`, so is the field that holds the object, and the rule stands there. Of a field that CEL does not
    see `Resource.ADMISSION` has the rule.
    """
    fields = node["properties"]
    if all(child.get(meta.DOC_CHANGE) == meta.Change.NEVER for child in fields.values()):
        return []
    required = set(node.get("required", ()))
    rules = []
    for name, child in fields.items():
        if child.get(meta.DOC_CHANGE) != meta.Change.NEVER or not _is_seen(properties[name]):
            continue
        same = f"self.{name} == oldSelf.{name}"
        if name not in required and "default" not in properties[name]:
            same = f"has(self.{name}) == has(oldSelf.{name}) && (!has(self.{name}) || {same})"
        message = (
            child.get(meta.DOC_REFUSAL)
            or f"{name} cannot change after creation; create another {kind} instead"
        )
        rules.append(meta.Rule(same, message, f".{name}").schema())
    return rules


def _is_seen(schema: Schema) -> bool:
    """Return whether CEL in a CRD can name such a field: not a map of values that have no declared type."""
    values = schema.get("additionalProperties")
    return values is None or "type" in values or "x-kubernetes-int-or-string" in values
