"""What an app's `pyproject.toml` says: its components, and its run config with overrides.

Both sides make the run config from the same file and the same overrides, so it is made here once,
exactly as Flower makes it: tables flatten to dotted keys, overrides replace values and keep the type
that they came with. Knows nothing of where an app came from, and imports nothing of Flower.

Source: `flatten_dict` and `fuse_dicts` of `flwr.common.config`, flwr 1.41; the unit tests compare.
"""

import dataclasses
import difflib
import pathlib
import tomllib
from collections.abc import Mapping
from typing import Any

from federation.apps import errors

PROJECT_FILE = "pyproject.toml"

Value = bool | int | float | str
RunConfig = dict[str, Value]


@dataclasses.dataclass(frozen=True)
class AppConfig:
    """An app as its `pyproject.toml` describes it.

    `server_app` and `client_app` are references `module:attribute`, or None where the file names none;
    at least one is there. `defaults` is the flat run config.
    """

    server_app: str | None
    client_app: str | None
    defaults: RunConfig
    name: str = ""
    version: str = ""


def load(directory: pathlib.Path) -> AppConfig:
    """Read the `pyproject.toml` of an app directory.

    Raises: NoAppDirectory, NoProject, InvalidProject, NoComponents.
    """
    if not directory.is_dir():
        raise errors.NoAppDirectory(f"there is no app directory {directory}")
    path = directory / PROJECT_FILE
    if not path.is_file():
        raise errors.NoProject(f"{directory} has no {PROJECT_FILE}, so it is not a Flower app")
    try:
        project = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise errors.InvalidProject(f"{path} is not valid TOML: {error}") from error
    app = _table(project, path, "tool", "flwr", "app")
    components = _table(app, path, "components")
    if not {"serverapp", "clientapp"} & set(components):
        raise errors.NoComponents(
            f"{path} names no component; add serverapp or clientapp to [tool.flwr.app.components]"
        )
    try:
        defaults = flatten(_table(app, path, "config"))
    except errors.InvalidProject as error:
        raise errors.InvalidProject(f"{path}: {error}") from error
    about = _table(project, path, "project")
    return AppConfig(
        server_app=_reference(components, path, "serverapp"),
        client_app=_reference(components, path, "clientapp"),
        defaults=defaults,
        name=str(about.get("name", "")),
        version=str(about.get("version", "")),
    )


def server_app(app: AppConfig) -> str:
    """Return the reference of the ServerApp; raises NoSuchComponent if the app has none."""
    if app.server_app is None:
        raise errors.NoSuchComponent(f"the app {app.name or 'without a name'} has no serverapp component")
    return app.server_app


def client_app(app: AppConfig) -> str:
    """Return the reference of the ClientApp; raises NoSuchComponent if the app has none."""
    if app.client_app is None:
        raise errors.NoSuchComponent(f"the app {app.name or 'without a name'} has no clientapp component")
    return app.client_app


def flatten(nested: Mapping[str, Any], parent: str = "") -> RunConfig:
    """Join the keys of nested tables with dots: `{"a": {"b": 1}}` is `{"a.b": 1}`, an empty table nothing.

    Law:    a flat config is its own flattening.
    Raises: InvalidProject for a value that is not a boolean, integer, float, string or table of those.
    """
    flat: RunConfig = {}
    for key, value in nested.items():
        name = f"{parent}.{key}" if parent else key
        if isinstance(value, Mapping):
            flat.update(flatten(value, name))
        elif isinstance(value, bool | int | float | str):
            flat[name] = value
        else:
            kind = "null" if value is None else type(value).__name__
            raise errors.InvalidProject(
                f"run config {name} is a {kind}, and may be a boolean, a number, a string or a table of those"
            )
    return flat


def merge(defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> RunConfig:
    """Replace values of an app's run config; both may be nested or flat, the result is flat.

    A replaced value keeps the type it came with (an integer given for a float stays an integer), and
    stays of its kind: boolean, number or string.

    Law:    merge(d, {}) == flatten(d); keys and their order are those of the defaults.
    Raises: UnknownKey with the nearest known key, MismatchedType, InvalidProject as `flatten`.
    """
    merged = flatten(defaults)
    for key, value in flatten(overrides).items():
        if key not in merged:
            raise errors.UnknownKey(_unknown(key, merged))
        if _kind(value) != _kind(merged[key]):
            raise errors.MismatchedType(
                f"run config {key} is {value!r}, a {_kind(value)}, and the app's own value {merged[key]!r} "
                f"is a {_kind(merged[key])}"
            )
        merged[key] = value
    return merged


def _kind(value: Value) -> str:
    if isinstance(value, bool):
        return "boolean"
    return "string" if isinstance(value, str) else "number"


def _unknown(key: str, known: Mapping[str, Value]) -> str:
    message = f"the app has no run config {key!r}"
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    if near:
        return f"{message}, did you mean {near[0]!r}"
    if not known:
        return f"{message}; its {PROJECT_FILE} has no [tool.flwr.app.config]"
    return f"{message}; it has {', '.join(sorted(known)[:8])}"


def _table(value: Mapping[str, Any], path: pathlib.Path, *keys: str) -> Mapping[str, Any]:
    for key in keys:
        inner = value.get(key, {})
        if not isinstance(inner, dict):
            raise errors.InvalidProject(f"{key!r} in {path} is not a table")
        value = inner
    return value


def _reference(components: Mapping[str, Any], path: pathlib.Path, key: str) -> str | None:
    if key not in components:
        return None
    reference = components[key]
    module, _, attribute = reference.partition(":") if isinstance(reference, str) else ("", "", "")
    if not module or not attribute:
        raise errors.InvalidProject(f"{key} in {path} is {reference!r}, and must read 'module:attribute'")
    return str(reference)
