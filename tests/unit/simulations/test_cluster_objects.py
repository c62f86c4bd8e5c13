"""A simulation on clusters gives an app that depends on torch the images that have it."""

from __future__ import annotations

import dataclasses
import pathlib

import pytest

from simulations.clusters import objects
from simulations.local import scenario

SIMULATIONS = pathlib.Path(__file__).resolve().parents[3] / "simulations"
NAMES = {
    "client-torch": "localhost/hanse/client-torch:1",
    "aggregator-torch": "localhost/hanse/aggregator-torch:1",
}


@pytest.mark.parametrize(("name", "want"), [("hospitals", False), ("digits-torch", True)])
def test_who_needs_torch_says_so_in_its_pyproject(name: str, want: bool) -> None:
    """By its dependencies."""
    assert objects.needs_torch(scenario.read(SIMULATIONS / name)) is want


@pytest.mark.parametrize(
    ("requirement", "want"),
    [
        ("torch", True),
        ("Torch >= 2", True),
        ("torch[opt]>=2.6", True),
        ("torchvision", False),
        ("torch-geometric", False),
    ],
)
def test_what_is_torch(requirement: str, want: bool, tmp_path: pathlib.Path) -> None:
    """A package whose name begins alike is another one."""
    (tmp_path / "pyproject.toml").write_text(f'[project]\ndependencies = ["flwr", "{requirement}"]\n')
    plan = scenario.read(SIMULATIONS / "hospitals")
    source = plan.training.spec.app.source.model_copy(update={"path": str(tmp_path)})
    app = plan.training.spec.app.model_copy(update={"source": source})
    spec = plan.training.spec.model_copy(update={"app": app})
    training = plan.training.model_copy(update={"spec": spec})
    assert objects.needs_torch(dataclasses.replace(plan, training=training)) is want


def test_the_training_names_them_unless_it_names_others() -> None:
    """Client and server each; without such images, neither."""
    plan = scenario.read(SIMULATIONS / "digits-torch")
    _, plain = objects.hub(plan)
    assert "image" not in plain["spec"]["client"]
    assert "image" not in plain["spec"]["server"]
    _, made = objects.hub(plan, NAMES | {"client": "localhost/hanse/client:1"})
    assert made["spec"]["client"]["image"] == NAMES["client-torch"]
    assert made["spec"]["server"]["image"] == NAMES["aggregator-torch"]
    _, own = objects.hub(scenario.with_settings(plan, ["spec.server.image=r/x:1"]), NAMES)
    assert own["spec"]["server"]["image"] == "r/x:1"
