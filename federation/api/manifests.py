"""Reading manifests: YAML files and directories, and the two features of kustomize that examples need.

A directory with a kustomization.yaml is read as `kubectl apply -k` would read it, if it uses nothing but
`resources` and `configMapGenerator`; other features are refused by name, since ignoring one would change what
is applied. This module refuses to know what a resource means.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from federation.api import checking, meta, validation, yaml_text
from federation.api.errors import (
    InvalidManifest,
    ManifestError,
    UnknownKind,
    UnreadableManifest,
    UnsupportedKustomization,
    Violation,
)

MAXIMUM_FILE_BYTES = 8 * 2**20  # far above any manifest; keeps a mistaken file name from filling the memory
MAXIMUM_CONFIG_MAP_BYTES = 2**20  # what an API server takes

KUSTOMIZATION_NAMES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_KUSTOMIZATION_FIELDS = ("apiVersion", "kind", "resources", "configMapGenerator")
_GENERATOR_FIELDS = ("name", "namespace", "files", "literals", "options")


class ConfigMap(meta.Model):
    """A Kubernetes ConfigMap, written out or generated: text in `data`, everything else in `binary_data`."""

    api_version: Literal["v1"] = "v1"
    kind: Literal["ConfigMap"] = "ConfigMap"
    metadata: meta.ObjectMeta
    data: dict[str, str] = Field(default_factory=dict)
    binary_data: dict[str, bytes] = Field(default_factory=dict)

    @property
    def name(self) -> str:
        """The object's name."""
        return self.metadata.name

    @property
    def namespace(self) -> str | None:
        """The object's namespace."""
        return self.metadata.namespace

    def manifest(self) -> dict[str, Any]:
        """Return it as it stands in YAML, binary data in base64."""
        binary = {key: base64.b64encode(value).decode("ascii") for key, value in self.binary_data.items()}
        rest = self.model_copy(update={"binary_data": {}})
        manifest = super(ConfigMap, rest).manifest()
        return manifest | {"binaryData": binary}

    def content(self, key: str) -> bytes | None:
        """Return the bytes under a key, or None."""
        return self.data[key].encode() if key in self.data else self.binary_data.get(key)


@dataclass(frozen=True)
class Loaded:
    """A resource and the file that it stands in (for a generated ConfigMap, the kustomization)."""

    resource: meta.Resource | ConfigMap
    file: Path


def load_file(path: Path) -> list[meta.Resource | ConfigMap]:
    """Return the resources of a YAML file in order; a Namespace is passed over.

    Raises: ManifestError, in one of its classes.
    """
    return [loaded.resource for loaded in read_file(path)]


def load_directory(path: Path) -> list[meta.Resource | ConfigMap]:
    """Return a directory's resources: its kustomization's if it has one, else of all *.yaml and *.yml in it.

    Files are read in the order of their names, not recursively; a kustomization's in its own order, with
    generated ConfigMaps last.
    Raises: ManifestError, in one of its classes.
    """
    return [loaded.resource for loaded in read_directory(path)]


def read_file(path: Path, source: str | None = None) -> list[Loaded]:
    """Return a YAML file's resources with their file; messages call it `source` (by default, its path)."""
    source = str(path) if source is None else source
    found = []
    for document in yaml_text.documents(_text(path, source), source):
        resource = _parse(document, source)
        if resource is not None:
            found.append(Loaded(resource, path))
    return found


def read_directory(path: Path) -> list[Loaded]:
    """Return the resources of a directory with their files, as `load_directory` does."""
    if not path.is_dir():
        what = "is not a directory" if path.exists() else "no such directory"
        raise UnreadableManifest(str(path), "", "", "", what)
    found = list(_directory(path, path, ()))
    _refuse_twins(found, path)
    return found


def _directory(path: Path, root: Path, outer: tuple[Path, ...]) -> Iterator[Loaded]:
    resolved = path.resolve()
    if resolved in outer:
        raise UnsupportedKustomization(
            _source(path, root), "", "", "resources", "the directory includes itself"
        )
    kustomization = next((path / name for name in KUSTOMIZATION_NAMES if (path / name).is_file()), None)
    if kustomization is not None:
        yield from _kustomized(kustomization, root, (*outer, resolved))
        return
    files = sorted(file for file in path.iterdir() if file.suffix in (".yaml", ".yml") and file.is_file())
    if not files:
        raise UnreadableManifest(_source(path, root) or str(path), "", "", "", "has no *.yaml or *.yml file")
    for file in files:
        yield from read_file(file, _source(file, root))


def _source(path: Path, root: Path) -> str:
    """Return how messages call a path: relative to the directory that was asked for."""
    try:
        return str(path.relative_to(root)) if path != root else str(path)
    except ValueError:
        return str(path)


def _text(path: Path, source: str) -> str:
    data = _bytes(path, source, MAXIMUM_FILE_BYTES)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableManifest(source, "", "", "", f"is not UTF-8 text (byte {error.start})") from error


def _bytes(path: Path, source: str, most: int) -> bytes:
    try:
        if path.is_file() and path.stat().st_size > most:
            raise UnreadableManifest(
                source, "", "", "", f"has {path.stat().st_size} bytes; at most {most} are read"
            )
        return path.read_bytes()
    except OSError as error:
        reason = {
            "FileNotFoundError": "no such file",
            "IsADirectoryError": "is a directory, not a file",
            "PermissionError": "cannot be read: permission denied",
        }
        message = reason.get(type(error).__name__, f"cannot be read: {error.strerror}")
        raise UnreadableManifest(source, "", "", "", message) from error


def _parse(document: Mapping[str, Any], source: str) -> meta.Resource | ConfigMap | None:
    match document.get("apiVersion"), document.get("kind"):
        case "v1", "Namespace":
            return None
        case "v1", "ConfigMap":
            return _config_map(document, source)
        case "v1", "List":
            raise UnknownKind(
                source, "List", "", "", "is not read; separate objects by lines of three hyphens"
            )
    return validation.parse(document, source)


_KEY_VALUES: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}}
_CONFIG_MAP: dict[str, Any] = {
    "type": "object",
    "required": ["metadata"],
    "properties": {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "immutable": {"type": "boolean"},
        "metadata": validation.metadata_schema(253, meta.SUBDOMAIN_PATTERN),
        "data": _KEY_VALUES,
        "binaryData": _KEY_VALUES,
    },
}


def _config_map(document: Mapping[str, Any], source: str) -> ConfigMap:
    name = validation.name_of(document)
    found = checking.violations(_CONFIG_MAP, document)
    binary: dict[str, bytes] = {}
    for key, text in (document.get("binaryData") or {}).items() if not found else ():
        try:
            binary[key] = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            found.append(Violation(checking.child_path("binaryData", key), "must be base64"))
    if found:
        raise InvalidManifest(source, "ConfigMap", name, found)
    metadata = meta.ObjectMeta.model_validate({"namespace": "default", **document["metadata"]})
    return _sized(ConfigMap(metadata=metadata, data=document.get("data") or {}, binary_data=binary), source)


def _sized(config_map: ConfigMap, source: str) -> ConfigMap:
    size = sum(len(text.encode()) for text in config_map.data.values())
    size += sum(len(data) for data in config_map.binary_data.values())
    if size > MAXIMUM_CONFIG_MAP_BYTES:
        message = f"has {size} bytes; a ConfigMap takes at most {MAXIMUM_CONFIG_MAP_BYTES}"
        raise InvalidManifest(source, "ConfigMap", config_map.name, [Violation("data", message)])
    return config_map


def _refuse_twins(found: list[Loaded], root: Path) -> None:
    seen: dict[tuple[str, str | None, str], Path] = {}
    for loaded in found:
        resource = loaded.resource
        key = (resource.kind, resource.namespace, resource.name)
        if key in seen:
            message = f"is defined in {_source(seen[key], root)} already"
            raise ManifestError(_source(loaded.file, root), resource.kind, resource.name, "", message)
        seen[key] = loaded.file


# ---- kustomization ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kustomization:
    """An opened kustomization.yaml; `source` is how messages call it."""

    file: Path
    source: str
    content: Mapping[str, Any] = field(default_factory=dict)

    def refuse(self, path: str, message: str) -> UnsupportedKustomization:
        return UnsupportedKustomization(self.source, "", "", path, message)

    def texts(self, node: Mapping[str, Any], name: str, path: str) -> list[str]:
        """Return a list of texts under a name; absent is empty."""
        value = node.get(name) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.refuse(f"{path}{name}", "must be a list of text")
        return value

    def inside(self, text: str, path: str) -> Path:
        """Return a file of this directory."""
        target = self.file.parent / text
        if not target.resolve().is_relative_to(self.file.parent.resolve()):
            raise self.refuse(
                path, f"{text} lies outside the kustomization's directory, which kustomize refuses too"
            )
        return target


def _kustomized(file: Path, root: Path, outer: tuple[Path, ...]) -> Iterator[Loaded]:
    source = _source(file, root)
    documents = yaml_text.documents(_text(file, source), source)
    if len(documents) > 1:
        raise UnsupportedKustomization(source, "", "", "", "must have one document")
    this = _Kustomization(file, source, documents[0] if documents else {})
    for name in this.content:
        if name not in _KUSTOMIZATION_FIELDS:
            hint = checking.nearest(name, _KUSTOMIZATION_FIELDS)
            raise this.refuse(
                name,
                "is a feature of kustomize that Hanse does not read; run kubectl kustomize first "
                f"and use what it prints{hint}",
            )
    for index, text in enumerate(this.texts(this.content, "resources", "")):
        path = f"resources[{index}]"
        if "://" in text or text.startswith("git@"):
            raise this.refuse(path, f"{text} is not in this directory; Hanse fetches nothing")
        target = file.parent / text
        if target.is_dir():
            yield from _directory(target, root, outer)
        elif not target.exists():
            raise this.refuse(path, f"there is no file {text}")
        else:
            yield from read_file(this.inside(text, path), _source(target, root))
    generators = this.content.get("configMapGenerator") or []
    if not isinstance(generators, list) or not all(isinstance(item, Mapping) for item in generators):
        raise this.refuse("configMapGenerator", "must be a list of mappings")
    for index, generator in enumerate(generators):
        yield Loaded(_generated(this, generator, f"configMapGenerator[{index}]."), file)


def _generated(this: _Kustomization, generator: Mapping[str, Any], path: str) -> ConfigMap:
    for name in generator:
        if name not in _GENERATOR_FIELDS:
            hint = checking.nearest(name, _GENERATOR_FIELDS)
            raise this.refuse(path + name, f"is a feature of kustomize that Hanse does not read{hint}")
    options = generator.get("options") or {}
    if not isinstance(options, Mapping) or options.get("disableNameSuffixHash") is not True:
        raise this.refuse(
            path + "options.disableNameSuffixHash",
            "must be true, so that the ConfigMap keeps the name that trainings refer to",
        )
    for name in options:
        if name not in ("disableNameSuffixHash", "labels", "annotations", "immutable"):
            raise this.refuse(f"{path}options.{name}", "is a feature of kustomize that Hanse does not read")
    content: dict[str, bytes] = {}
    for number, text in enumerate(this.texts(generator, "files", path)):
        here = f"{path}files[{number}]"
        key, equals, name = text.partition("=")
        target = this.inside(name if equals else text, here)
        if not target.is_file():
            raise this.refuse(here, f"there is no file {name if equals else text}")
        _add(
            this,
            content,
            key if equals else target.name,
            _bytes(target, str(target), MAXIMUM_CONFIG_MAP_BYTES),
            here,
        )
    for number, text in enumerate(this.texts(generator, "literals", path)):
        here = f"{path}literals[{number}]"
        key, equals, value = text.partition("=")
        if not equals:
            raise this.refuse(here, f"must be key=value, not {checking.shown(text)}")
        if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":  # as kustomize does
            value = value[1:-1]
        _add(this, content, key, value.encode(), here)
    document = {"metadata": {key: generator[key] for key in ("name", "namespace") if key in generator}}
    for key in ("labels", "annotations"):
        if key in options:
            document["metadata"][key] = options[key]
    empty = _config_map(document, this.source)
    data: dict[str, str] = {}
    binary: dict[str, bytes] = {}
    for key, value_bytes in content.items():
        try:
            data[key] = value_bytes.decode()
        except UnicodeDecodeError:
            binary[key] = value_bytes
    return _sized(empty.model_copy(update={"data": data, "binary_data": binary}), this.source)


def _add(this: _Kustomization, content: dict[str, bytes], key: str, value: bytes, path: str) -> None:
    if not key or key in content:
        raise this.refuse(path, f'the key "{key}" is given twice' if key else "has an empty key")
    content[key] = value
