"""The generated CRDs: current, structural, bounded and documented."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from federation.api import crds, meta, resources, rules, schema

DIRECTORY = Path(__file__).parents[4] / "crds"
FILES = sorted(DIRECTORY.glob("*.yaml"))


def definitions() -> list[Mapping[str, Any]]:
    return [yaml.safe_load(file.read_text()) for file in FILES]


def walk(node: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every schema node with its path, metadata left out (the API server knows it)."""
    yield path, node
    for name, child in node.get("properties", {}).items():
        if path.count(".") == 0 and name == "metadata":
            continue
        yield from walk(child, f"{path}.{name}")
    if "items" in node:
        yield from walk(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), Mapping):
        yield from walk(node["additionalProperties"], f"{path}.*")


def nodes() -> list[tuple[str, Mapping[str, Any]]]:
    return [
        found
        for definition in definitions()
        for found in walk(
            definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
            definition["spec"]["names"]["kind"],
        )
    ]


def test_files_are_current() -> None:
    """crds/ is what the generator makes now, no more and no less."""
    assert {file.name: file.read_text() for file in FILES} == crds.files()


def test_check_tells_stale_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--check writes nothing and names each file that is not current; without it they are written."""
    assert crds.main(["--output", str(tmp_path), "--check"]) == 1
    assert list(tmp_path.iterdir()) == []
    assert "hanse.dev_edgepolicies.yaml is not current" in capsys.readouterr().err
    assert crds.main(["--output", str(tmp_path)]) == 0
    assert crds.main(["--output", str(tmp_path), "--check"]) == 0


@pytest.mark.parametrize(
    ("kind", "want_plural", "want_short", "want_scope"),
    [
        ("FederatedTraining", "federatedtrainings", "ft", "Namespaced"),
        ("EdgeCluster", "edgeclusters", "edge", "Cluster"),
        ("EdgeDataset", "edgedatasets", "eds", "Namespaced"),
        ("EdgePolicy", "edgepolicies", "epol", "Namespaced"),
    ],
)
def test_names(kind: str, want_plural: str, want_short: str, want_scope: str) -> None:
    """Each kind has its plural, short name, category, scope and status subresource."""
    spec = crds.definition(resources.KINDS[kind])["spec"]
    assert spec["names"]["plural"] == want_plural
    assert spec["names"]["shortNames"] == [want_short]
    assert spec["names"]["categories"] == ["hanse"]
    assert spec["scope"] == want_scope
    assert spec["versions"][0]["subresources"] == {"status": {}}


def test_print_columns_point_at_fields() -> None:
    """Every print column's path is a field of the schema, and trainings show what the design lists."""
    for resource in resources.KINDS.values():
        for column in resource.INFO.columns:
            node = schema.of(resource)
            for part in re.sub(r"\[[^]]*\]", "[", column.json_path).removeprefix(".").split("."):
                if part == "metadata":
                    break
                name, bracket, _ = part.partition("[")
                node = node["properties"][name]
                if bracket:
                    node = node["items"]
    training = [
        column.name for column in resources.KINDS["FederatedTraining"].INFO.columns if not column.wide
    ]
    assert training == ["Phase", "Round", "Clusters", "Metric", "Model", "Age"]


def test_everything_is_bounded() -> None:
    """Strings, lists, maps and numbers all have bounds."""
    unbounded = []
    for path, node in nodes():
        if path.count(".") == 1 and path.rsplit(".", 1)[1] in ("apiVersion", "kind"):
            continue
        kind = node.get("type")
        if kind == "string" and not ({"enum", "format"} & set(node)) and "maxLength" not in node:
            unbounded.append(path)
        if kind == "array" and "maxItems" not in node:
            unbounded.append(path)
        if "additionalProperties" in node and "maxProperties" not in node:
            unbounded.append(path)
        if kind in ("integer", "number") and not {"minimum", "maximum"} <= set(node):
            unbounded.append(path)
    assert unbounded == []


def test_schemas_are_structural() -> None:
    """No $ref, no null, a type at every node, anyOf only for int-or-string, formats on whole numbers."""
    for path, node in nodes():
        assert "$ref" not in node, path
        assert "nullable" not in node, path
        assert "anyOf" not in node or node.get("x-kubernetes-int-or-string"), path
        has_type = "type" in node or node.get("x-kubernetes-int-or-string")
        assert has_type or node.get("x-kubernetes-preserve-unknown-fields"), path
        if node.get("type") == "integer":
            assert node["format"] in ("int32", "int64"), path
        assert not any(key.startswith("x-doc") for key in node), path


def test_lists_say_how_they_merge() -> None:
    """Every list has a list type; keys of map lists are required fields of their items."""
    for path, node in nodes():
        if node.get("type") != "array":
            continue
        assert node.get("x-kubernetes-list-type") in ("map", "set", "atomic"), path
        for key in node.get("x-kubernetes-list-map-keys", ()):
            assert key in node["items"]["required"] or "default" in node["items"]["properties"][key], path


def test_descriptions_begin_with_the_name() -> None:
    """A field's description starts with its name, and one that people write says default and mutability."""
    for path, node in nodes():
        for name, child in node.get("properties", {}).items():
            if path.count(".") == 0 and name in ("apiVersion", "kind", "metadata"):
                continue
            text = child["description"]
            assert text.startswith(f"{name} "), f"{path}.{name}"
            assert text.endswith("."), f"{path}.{name}"
            if ".spec" in path:
                assert "change" in text, f"{path}.{name}"
                told = "Required." in text or "No default." in text or "Default " in text
                assert told or child.get("type") == "object", f"{path}.{name}"
            if ".spec" in path and "default" in child and child.get("type") != "object":
                assert f"Default {json.dumps(child['default'])}." in text, f"{path}.{name}"


def test_rules_are_cel_with_plain_messages() -> None:
    """Every rule compiles and has a lower-case message without a full stop."""
    count = 0
    for path, node in nodes():
        for rule in node.get("x-kubernetes-validations", ()):
            rules.program(rule["rule"])
            assert rule["message"] and not rule["message"].endswith("."), path
            if "fieldPath" in rule:
                field = node
                for name in rule["fieldPath"].removeprefix(".").split("."):
                    assert name in field["properties"], path
                    field = field["properties"][name]
            count += 1
    assert count >= 12


def test_no_two_patterns_share_words() -> None:
    """Each pattern with words of its own is told apart from the others."""
    assert len(set(meta.PATTERN_WORDS.values())) == len(meta.PATTERN_WORDS)


def test_a_model_that_kubernetes_cannot_hold_is_refused() -> None:
    """A union of types, which a structural schema cannot say, stops the generator by name."""
    with pytest.raises(ValueError, match="a structural schema cannot say anyOf"):
        schema._structural({"anyOf": [{"type": "string"}, {"type": "boolean"}]}, {}, "Some")
