"""The run config is Flower's own, and every mistake in it has one sentence."""

import pathlib

import hypothesis
import hypothesis.strategies as st
import pytest

from federation.apps import config, errors

PROJECT = """
[project]
name = "demo"
version = "1.2.3"
[tool.flwr.app]
publisher = "hanse"
[tool.flwr.app.components]
serverapp = "demo.server:app"
clientapp = "demo.client:app"
[tool.flwr.app.config]
num-server-rounds = 3
learning-rate = 0.1
verbose = false
[tool.flwr.app.config.model]
name = "mlp"
layers.hidden = 8
"""


def write(directory: pathlib.Path, text: str) -> pathlib.Path:
    (directory / "pyproject.toml").write_text(text)
    return directory


def test_reads_components_and_flat_defaults(tmp_path: pathlib.Path) -> None:
    """Nested tables of the run config become dotted keys, in order."""
    assert config.load(write(tmp_path, PROJECT)) == config.AppConfig(
        server_app="demo.server:app",
        client_app="demo.client:app",
        defaults={
            "num-server-rounds": 3, "learning-rate": 0.1, "verbose": False,
            "model.name": "mlp", "model.layers.hidden": 8,
        },
        name="demo",
        version="1.2.3",
    )  # fmt: skip


def test_same_defaults_and_fusion_as_flower(tmp_path: pathlib.Path) -> None:
    """What is accepted comes out as Flower's own functions make it, with the same types."""
    flower = pytest.importorskip("flwr.common.config")
    app = write(tmp_path, PROJECT)
    overrides = {"learning-rate": 1, "model.layers.hidden": 16, "num-server-rounds": 0.5, "verbose": True}
    want = flower.get_fused_config_from_dir(app, overrides)
    got = config.merge(config.load(app).defaults, overrides)
    assert list(got.items()) == list(want.items())
    assert [type(v) for v in got.values()] == [type(v) for v in want.values()]


def test_nested_overrides_are_flattened() -> None:
    """A manifest may write a nested key as a table or with dots."""
    want = {"a.b": 2, "c": 1.0}
    assert config.merge({"a": {"b": 1}, "c": 1.0}, {"a": {"b": 2}}) == want
    assert config.merge({"a": {"b": 1}, "c": 1.0}, {"a.b": 2}) == want


@pytest.mark.parametrize(
    ("overrides", "want_error", "want_text"),
    [
        ({"learning-rte": 1.0}, errors.UnknownKey, "did you mean 'learning-rate'"),
        ({"zzz": 1.0}, errors.UnknownKey, "it has learning-rate, on"),
        ({"learning-rate": "fast"}, errors.MismatchedType, "is 'fast', a string"),
        ({"learning-rate": True}, errors.MismatchedType, "a boolean"),
        ({"on": 1}, errors.MismatchedType, "a number"),
        ({"learning-rate": None}, errors.InvalidProject, "is a null"),
        ({"learning-rate": [1]}, errors.InvalidProject, "is a list"),
        ({"learning-rate": {"deep": 1}}, errors.UnknownKey, "learning-rate.deep"),
    ],
)
def test_wrong_overrides(overrides: dict, want_error: type[Exception], want_text: str) -> None:
    """A wrong key or value is refused by name."""
    with pytest.raises(want_error, match=want_text):
        config.merge({"learning-rate": 0.1, "on": True}, overrides)


def test_no_config_at_all() -> None:
    """An override of an app without run config says so."""
    with pytest.raises(errors.UnknownKey, match=r"has no \[tool.flwr.app.config\]"):
        config.merge({}, {"a": 1})


@pytest.mark.parametrize(
    ("text", "want_error"),
    [
        ("[", errors.InvalidProject),
        ("", errors.NoComponents),
        ("[tool.flwr.app.components]\nagentapp='a:b'", errors.NoComponents),
        ("[tool.flwr]\napp = 3", errors.InvalidProject),
        ("[tool.flwr.app.components]\nclientapp='module'", errors.InvalidProject),
        ("[tool.flwr.app.components]\nclientapp=3", errors.InvalidProject),
        ("[tool.flwr.app.components]\nclientapp='a:b'\n[tool.flwr.app.config]\na=[1]", errors.InvalidProject),
    ],
)
def test_wrong_projects(tmp_path: pathlib.Path, text: str, want_error: type[Exception]) -> None:
    """Each way to write pyproject.toml wrongly has its type."""
    with pytest.raises(want_error, match=r"pyproject\.toml"):
        config.load(write(tmp_path, text))


def test_missing_files(tmp_path: pathlib.Path) -> None:
    """A missing directory and a missing file are told apart."""
    with pytest.raises(errors.NoAppDirectory):
        config.load(tmp_path / "nothing")
    with pytest.raises(errors.NoProject):
        config.load(tmp_path)


def test_an_app_with_one_component(tmp_path: pathlib.Path) -> None:
    """An app may have a ClientApp only; asking for its ServerApp is a typed error."""
    app = config.load(write(tmp_path, "[tool.flwr.app.components]\nclientapp='a.b:c.d'"))
    assert config.client_app(app) == "a.b:c.d"
    with pytest.raises(errors.NoSuchComponent):
        config.server_app(app)


VALUES = st.one_of(st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
KEYS = st.text("abc-.", min_size=1, max_size=4)
FLAT = st.dictionaries(KEYS, VALUES, max_size=3)
NESTED = st.dictionaries(KEYS, VALUES | FLAT | st.dictionaries(KEYS, FLAT, max_size=2), max_size=4)


@hypothesis.given(NESTED)
def test_flatten_is_flowers(nested: dict) -> None:
    """Flattening agrees with Flower's for any tables, and a flat config is its own flattening."""
    flower = pytest.importorskip("flwr.common.config")
    flat = config.flatten(nested)
    assert repr(flat) == repr(flower.flatten_dict(nested))
    assert repr(config.flatten(flat)) == repr(flat) == repr(config.merge(nested, {}))


@hypothesis.given(st.dictionaries(KEYS, VALUES), st.dictionaries(KEYS, VALUES))
def test_merge_is_flowers_or_stricter(defaults: dict, overrides: dict) -> None:
    """Whatever merge accepts is what Flower's fuse_dicts gives; whatever Flower refuses, merge refuses."""
    flower = pytest.importorskip("flwr.common.config")
    try:
        want = flower.fuse_dicts(defaults, overrides)
    except ValueError:
        with pytest.raises(errors.UnknownKey):
            config.merge(defaults, {key: overrides[key] for key in overrides if key not in defaults})
        return
    try:
        got = config.merge(defaults, overrides)
    except errors.MismatchedType:
        return
    assert repr(got) == repr(want)
