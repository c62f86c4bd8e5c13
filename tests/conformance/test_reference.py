"""The conformance apps are Flower apps, and the host that they are compared with keeps its own promise."""

import pathlib
import random
import tomllib

import pytest

from federation.apps import bundle, config
from tests.conformance import reference

NODE_IDS = (2**64 - 8, 5, 900, 77, 12345678901234567, 3, 2**63)
APPS = sorted({case.app for case in reference.CASES})


def test_every_app_is_used() -> None:
    """No app directory lies about without a case."""
    there = sorted(path.parent.name for path in reference.APPS.glob("*/pyproject.toml"))
    assert there == APPS


@pytest.mark.parametrize("app", APPS)
def test_apps_are_flower_apps(app: str, tmp_path: pathlib.Path) -> None:
    """Each app is valid by Flower's own rules (but for the one without a ServerApp) and survives a bundle."""
    flower = pytest.importorskip("flwr.common.config")
    directory = reference.APPS / app
    project = (directory / "pyproject.toml").read_text()
    valid, errors, _ = flower.validate_config(
        tomllib.loads(project), check_module=True, project_dir=directory
    )
    assert valid or (app == "client_only" and "serverapp" in errors[0]), errors
    bundle.unpack(bundle.pack(directory).data, tmp_path / "app")
    assert config.load(tmp_path / "app") == config.load(directory)


@pytest.mark.process
@pytest.mark.parametrize("name", ["actions", "state", "strategy-FedAdam"])
def test_the_reference_does_not_depend_on_the_order_of_nodes(name: str, tmp_path: pathlib.Path) -> None:
    """The same nodes in another order give the same result, to the last bit."""
    (case,) = [case for case in reference.CASES if case.name == name]
    app = config.load(case.directory)
    nodes = [reference.NodeSpec(NODE_IDS[i], node) for i, node in enumerate(case.node_configs())]
    results = []
    for attempt in ("one", "two"):
        server = reference.run_reference(
            case.directory, nodes, config.merge(app.defaults, case.run_config), tmp_path / attempt
        )
        results.append(reference.read_result(server))
        random.Random(1).shuffle(nodes)
    assert results[0] == results[1]
    assert results[0]["json"]
    assert results[0]["arrays"]


@pytest.mark.process
def test_a_failing_server_app_is_an_error(tmp_path: pathlib.Path) -> None:
    """The traceback of a ServerApp reaches the caller."""
    app = tmp_path / "app"
    app.mkdir()
    (app / "pyproject.toml").write_text(
        '[tool.flwr.app.components]\nserverapp = "s:app"\nclientapp = "c:app"\n'
    )
    (app / "s.py").write_text("raise LookupError('no such thing')\n")
    with pytest.raises(RuntimeError, match="LookupError: no such thing"):
        reference.run_reference(app, [reference.NodeSpec(5)], {}, tmp_path / "work")
