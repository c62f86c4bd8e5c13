"""The CustomResourceDefinitions, made from the models: `python -m federation.api.crds --output crds/`.

It refuses to know anything that the models do not say.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from federation.api import meta, resources, schema

HEADER = (
    "# Made by `python -m federation.api.crds --output crds/`; change the models in federation/api instead.\n"
)


def definition(resource: type[meta.Resource]) -> dict[str, Any]:
    """Return the CustomResourceDefinition of a resource."""
    info = resource.INFO
    names = {
        "kind": info.kind,
        "listKind": f"{info.kind}List",
        "plural": info.plural,
        "singular": info.kind.lower(),
        "shortNames": list(info.short_names),
        "categories": ["hanse"],
    }
    version = {
        "name": meta.VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [_column(column) for column in info.columns],
        "schema": {"openAPIV3Schema": _without_empty_required(schema.of(resource))},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{info.plural}.{meta.GROUP}",
            "labels": {"app.kubernetes.io/name": "hanse", "app.kubernetes.io/part-of": "hanse"},
        },
        "spec": {
            "group": meta.GROUP,
            "names": names,
            "scope": "Namespaced" if info.namespaced else "Cluster",
            "versions": [version],
        },
    }


def _column(column: meta.Column) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.json_path}
    if column.wide:
        entry["priority"] = 1
    return entry


def _without_empty_required(root: schema.Schema) -> schema.Schema:
    return {key: value for key, value in root.items() if (key, value) != ("required", [])}


class _Dumper(yaml.SafeDumper):
    """Writes shared parts out again instead of anchoring them, and indents lists as people do."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def files() -> dict[str, str]:
    """Return every CRD file's name and text."""
    return {
        f"{meta.GROUP}_{resource.INFO.plural}.yaml": HEADER
        + yaml.dump(definition(resource), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
        for resource in resources.KINDS.values()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or with --check say which are not current; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m federation.api.crds", description="Write the CRDs.")
    parser.add_argument("--output", type=Path, default=Path("crds"), help="directory (default: crds)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not current")
    options = parser.parse_args(arguments)
    stale = [name for name, text in files().items() if _text(options.output / name) != text]
    if options.check:
        for name in stale:
            sys.stderr.write(f"{options.output / name} is not current; run make generate\n")
        return 1 if stale else 0
    options.output.mkdir(parents=True, exist_ok=True)
    for name in stale:
        (options.output / name).write_text(files()[name], encoding="utf-8")
    return 0


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


if __name__ == "__main__":
    raise SystemExit(main())
