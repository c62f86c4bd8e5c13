"""Manifests without Kubernetes: from a document to a typed resource, by the CRD's own schema and rules.

It refuses to know files (manifests.py) and where resources are kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pydantic

from federation.api import checking, meta, resources, rules, schema
from federation.api.errors import InvalidManifest, InvalidUpdate, UnknownKind, Violation

# What a metadata may carry (Kubernetes' ObjectMeta); only some of it is kept in meta.ObjectMeta.
_TEXT: schema.Schema = {"type": "string", "maxLength": 262_144}
_TEXT_MAP: schema.Schema = {"type": "object", "additionalProperties": _TEXT}
_ANYTHING: schema.Schema = {"type": "array", "items": {"x-kubernetes-preserve-unknown-fields": True}}
_METADATA: schema.Schema = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "namespace": {"type": "string", "maxLength": 63, "minLength": 1, "pattern": meta.LABEL_PATTERN},
        "labels": {
            "type": "object",
            "additionalProperties": {"type": "string", "maxLength": 63, "pattern": meta.LABEL_VALUE_PATTERN},
        },
        "annotations": _TEXT_MAP,
        "uid": _TEXT,
        "generation": {"type": "integer"},
        "resourceVersion": _TEXT,
        "creationTimestamp": {"type": "string", "format": "date-time"},
        "deletionTimestamp": {"type": "string", "format": "date-time"},
        "deletionGracePeriodSeconds": {"type": "integer"},
        "finalizers": {"type": "array", "items": _TEXT},
        "ownerReferences": _ANYTHING,
        "managedFields": _ANYTHING,
        "selfLink": _TEXT,
        "generateName": _TEXT,
    },
}


def parse(document: Mapping[str, Any], source: str) -> meta.Resource:
    """Return the document as a typed resource with all defaults filled in.

    `source` is what messages call the document by, usually its file. A namespaced resource without a
    namespace gets `default`, as kubectl would.
    Raises: UnknownKind; InvalidManifest with every violation.
    """
    kind, name = str(document.get("kind") or ""), name_of(document)
    resource = _resource(document, source, kind, name)
    full = _with_metadata(schema.of(resource))
    value = checking.with_defaults(full, document)
    found = checking.violations(full, value)
    metadata = value.get("metadata")
    if isinstance(metadata, Mapping):
        if not resource.INFO.namespaced and "namespace" in metadata:
            found.append(Violation("metadata.namespace", f"must be left out; every {kind} is cluster-wide"))
        elif resource.INFO.namespaced:
            value["metadata"] = {"namespace": "default", **metadata}
    if found:
        raise InvalidManifest(source, kind, name, found)
    try:
        return resource.model_validate(value)
    except pydantic.ValidationError as error:  # the schema let something through that the model does not take
        raise InvalidManifest(
            source,
            kind,
            name,
            [Violation(".".join(str(part) for part in each["loc"]), each["msg"]) for each in error.errors()],
        ) from error


def check_update(old: meta.Resource, new: meta.Resource, source: str = "") -> None:
    """Check that `new` may replace `old`: schema, rules, and the rules that compare with the old object.

    Raises: InvalidUpdate with every violation.
    """
    full = _with_metadata(schema.of(type(new)))
    if (old.kind, old.name, old.namespace) != (new.kind, new.name, new.namespace):
        found = [Violation("metadata", f"is another object than {old.kind} {old.name}")]
    else:
        before, after = old.manifest(), new.manifest()
        found = checking.violations(full, after, before)
        found += [
            Violation(each.field_path.removeprefix("."), each.message)
            for each in new.ADMISSION
            if not rules.holds(each.rule, after, before)
        ]
    if found:
        raise InvalidUpdate(source, new.kind, new.name, found)


def name_of(document: Mapping[str, Any]) -> str:
    """Return metadata.name for messages, or nothing if there is none."""
    metadata = document.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return name if isinstance(name, str) else ""


def metadata_schema(maximum_name_length: int, name_pattern: str) -> schema.Schema:
    """Return the schema of an object's metadata, which a CRD does not say since the API server knows it."""
    name = {"type": "string", "minLength": 1, "maxLength": maximum_name_length, "pattern": name_pattern}
    return {**_METADATA, "properties": {"name": name, **_METADATA["properties"]}}


def _resource(document: Mapping[str, Any], source: str, kind: str, name: str) -> type[meta.Resource]:
    """Return the resource's class."""
    version = document.get("apiVersion")
    expected = f"expected {', '.join(resources.KINDS)} of {meta.API_VERSION}, Namespace or ConfigMap of v1"
    if not kind:
        raise UnknownKind(source, "", name, "", f"is no Kubernetes object, since it has no kind; {expected}")
    if kind not in resources.KINDS:
        hint = checking.nearest(kind, resources.KINDS)
        raise UnknownKind(
            source, kind, name, "", f"is of a kind that Hanse does not read{hint or '; ' + expected}"
        )
    if version != meta.API_VERSION:
        was = checking.shown(version) if version is not None else "missing"
        raise UnknownKind(source, kind, name, "apiVersion", f"is {was}; expected {meta.API_VERSION}")
    return resources.KINDS[kind]


def _with_metadata(root: schema.Schema) -> schema.Schema:
    """Return the schema with what an API server knows of metadata by itself."""
    name = root["properties"]["metadata"]["properties"]["name"]
    metadata = metadata_schema(name["maxLength"], name["pattern"])
    required = ["apiVersion", "kind", "metadata", *root.get("required", ())]
    return {**root, "required": required, "properties": {**root["properties"], "metadata": metadata}}


def set_path(document: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of the document with `path` (`spec.clusters.minimum`, `spec.rules[0].name`) set.

    Mappings on the way are made; a list index must exist. What it means is for `parse` to say.
    Raises: ValueError if the path leads through something that is neither mapping nor list.
    """
    parts = [part or index for part, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path)]
    if not parts:
        raise ValueError(f"{path!r} is not a path such as spec.clusters.minimum")
    result = _set(document, parts, value, path)
    if not isinstance(result, dict):  # pragma: no cover - a mapping stays one
        raise TypeError("a document is a mapping")
    return result


def _set(node: Any, parts: list[str], value: Any, path: str) -> Any:
    if not parts:
        return value
    head, rest = parts[0], parts[1:]
    if isinstance(node, list):
        if not head.isdigit() or int(head) >= len(node):
            raise ValueError(f"{path}: there is no item {head}")
        return [_set(item, rest, value, path) if i == int(head) else item for i, item in enumerate(node)]
    if node is None:
        node = {}
    if not isinstance(node, Mapping):
        raise ValueError(f"{path}: {head} lies inside {checking.shown(node)}")
    return {**node, head: _set(node.get(head), rest, value, path)}
