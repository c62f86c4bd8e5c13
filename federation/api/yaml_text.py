"""YAML as Kubernetes reads it: only what JSON can hold, no timestamps, no sexagesimals, no key twice.

It refuses to know what the documents mean.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml

from federation.api.errors import UnreadableManifest


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with JSON's types."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Return a mapping with text keys, each once."""
        self.flatten_mapping(node)
        result: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None:
                raise yaml.constructor.ConstructorError(None, None, "a key must be text", key_node.start_mark)
            if key in result:
                raise yaml.constructor.ConstructorError(
                    None, None, f'the key "{key}" stands twice', key_node.start_mark
                )
            result[key] = self.construct_object(value_node, deep=deep)
        return result


# Resolvers by first character, without timestamps; numbers as JSON and Go's YAML have them (1e3 is a number,
# 20:00 is text, 0o17 and 0x1f are numbers).
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in pairs
        if tag.rsplit(":", 1)[-1] not in ("timestamp", "int", "float")
    ]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"^[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F]+|0b[01]+)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^([-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def documents(text: str, source: str) -> list[dict[str, Any]]:
    """Return the documents of a YAML text in order, empty ones left out; each is a mapping with text keys.

    Raises: UnreadableManifest(source, line and problem) if it is not YAML or a document is not a mapping.
    """
    found: list[dict[str, Any]] = []
    loader = None
    try:
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            document = loader.construct_document(node) if node is not None else None
            if node is None or document is None:
                continue
            if not isinstance(document, dict):
                line = node.start_mark.line + 1
                raise UnreadableManifest(
                    source, "", "", f"line {line}", "is not a mapping of fields, as every object is"
                )
            found.append(document)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}" if mark else ""
        raise UnreadableManifest(
            source, "", "", where, f"is not YAML: {error.problem or error.context}"
        ) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        problem = "nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        raise UnreadableManifest(source, "", "", "", f"is not YAML: {problem}") from error
    finally:
        if loader is not None:
            loader.dispose()
    return found
