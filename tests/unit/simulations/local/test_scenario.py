"""A simulation's directory: read, changed by options, written again."""

import random
from pathlib import Path

import hypothesis
import pytest
import yaml
from hypothesis import strategies as st

from federation.api import manifests
from federation.api.errors import ManifestError
from simulations.local import scenario
from simulations.local.errors import SimulationError
from tests.process import federations

HOSPITALS = Path(__file__).resolve().parents[4] / "simulations" / "hospitals"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Three edges; the first two hold the parts of one data set."""
    edges = {
        "a": {"partition-id": 0, "num-partitions": 2},
        "b": {"partition-id": 1, "num-partitions": 2},
        "c": {"file": "x"},
    }
    written = federations.Federation(edges).write(tmp_path / "scenario")
    cluster = {
        "apiVersion": federations.API,
        "kind": "EdgeCluster",
        "metadata": {"name": "a"},
        "spec": {"acceptance": "Accepted", "labels": {"region": "north"}},
    }
    federations.write_yaml(written / "clusters.yaml", cluster)
    return written


def test_hospitals_can_be_read() -> None:
    """The example that ships is a scenario of four edges."""
    plan = scenario.read(HOSPITALS)

    assert plan.title == "cardiology/hospitals"
    assert [edge.name for edge in plan.edges] == ["budapest", "cleveland", "long-beach", "zurich"]
    assert plan.app_directory == HOSPITALS / "app"


def test_read(directory: Path) -> None:
    """Training, clusters and edges by name; the app's path is absolute."""
    plan = scenario.read(directory)

    assert plan.title == "lab/tiny"
    assert [edge.name for edge in plan.edges] == ["a", "b", "c"]
    assert [cluster.name for cluster in plan.clusters] == ["a"]
    assert [dataset.spec.name for edge in plan.edges for dataset in edge.datasets] == ["numbers"] * 3
    assert plan.app_directory == directory / "app"


def test_two_trainings(directory: Path) -> None:
    """A simulation runs exactly one; the sentence names both."""
    other = federations.training()
    other["metadata"]["name"] = "other"
    federations.write_yaml(directory / "other.yaml", other)

    with pytest.raises(SimulationError, match=r"exactly one FederatedTraining, found .*other"):
        scenario.read(directory)


def test_policy_on_the_hub(directory: Path) -> None:
    """What belongs to an edge is refused on the hub, with the place where it belongs."""
    (directory / "edges" / "a" / "policy.yaml").rename(directory / "policy.yaml")

    with pytest.raises(
        SimulationError, match="EdgePolicy house-rules belongs to an edge; move it to edges/NAME/"
    ):
        scenario.read(directory)


def test_training_on_an_edge(directory: Path) -> None:
    """What belongs to the hub is refused on an edge."""
    (directory / "training.yaml").rename(directory / "edges" / "a" / "training.yaml")
    federations.write_yaml(directory / "training.yaml", federations.training())

    with pytest.raises(SimulationError, match="FederatedTraining tiny belongs to the hub"):
        scenario.read(directory)


def test_cluster_without_an_edge(directory: Path) -> None:
    """A cluster that no directory stands for is refused with the edges' names."""
    text = (directory / "clusters.yaml").read_text().replace("name: a", "name: z")
    (directory / "clusters.yaml").write_text(text)

    with pytest.raises(
        SimulationError, match=r"EdgeCluster z has no directory edges/z; the edges are a, b, c"
    ):
        scenario.read(directory)


def test_settings(directory: Path) -> None:
    """Values are YAML; fields that are not there yet are made; the original stays as it was."""
    plan = scenario.read(directory)
    changed = scenario.with_settings(
        plan,
        [
            "spec.clusters.minimum=1",
            'spec.round.minimumFraction="0.5"',
            "spec.app.runConfig.rounds=7",
            "spec.app.runConfig.optimiser.rate=0.5",
            "spec.clusters.selector.matchLabels.region=north",
        ],
    )

    assert changed.training.spec.clusters.minimum == 1
    assert changed.training.spec.round.minimum_fraction == "0.5"
    assert changed.training.spec.app.run_config == {"rounds": 7, "optimiser.rate": 0.5}
    assert changed.training.spec.clusters.selector.match_labels == {"region": "north"}
    assert plan.training.spec.clusters.minimum == 2
    assert scenario.with_settings(plan, []) is plan


@pytest.mark.parametrize(
    ("setting", "want"),
    [
        ("spec.clusters.minimum", "write it as spec.path=value"),
        ("metadata.name=x", "write it as spec.path=value"),
        ("spec.dataset=[1", "the value is not YAML"),
        ("spec.dataset.name=x", "dataset has no fields"),
    ],
)
def test_settings_that_cannot_be_read(setting: str, want: str, directory: Path) -> None:
    """One sentence with the setting in it."""
    with pytest.raises(SimulationError, match=want) as caught:
        scenario.with_settings(scenario.read(directory), [setting])
    assert setting in str(caught.value)


@pytest.mark.parametrize(
    "setting", ["spec.clusters.minimun=1", "spec.clusters.minimum=0", "spec.clusters.maximum=1"]
)
def test_settings_are_validated(setting: str, directory: Path) -> None:
    """What a manifest may not say, a setting may not say."""
    with pytest.raises(ManifestError):
        scenario.with_settings(scenario.read(directory), [setting])


def test_copies_of_edges(directory: Path) -> None:
    """More edges are copies in turn, with the cluster's labels; parts of the data set are divided anew."""
    plan = scenario.with_edges(scenario.read(directory), 5)

    assert [edge.name for edge in plan.edges] == ["a", "b", "c", "a-2", "b-2"]
    assert {cluster.name: cluster.spec.labels for cluster in plan.clusters} == {
        "a": {"region": "north"},
        "a-2": {"region": "north"},
    }
    configs = [edge.datasets[0].spec.node_config for edge in plan.edges]
    assert [(config.get("partition-id"), config.get("num-partitions")) for config in configs] == [
        (0, 5),
        (1, 5),
        (None, None),
        (3, 5),
        (4, 5),
    ]


@pytest.mark.parametrize("number", [0, -1, 1001])
def test_numbers_of_edges_that_cannot_be(number: int, directory: Path) -> None:
    """Between 1 and 1000."""
    with pytest.raises(SimulationError, match="between 1 and 1000"):
        scenario.with_edges(scenario.read(directory), number)


@hypothesis.given(number=st.integers(1, 60))
def test_names_of_copies_are_distinct(number: int) -> None:
    """Law: any number of edges gives as many different names, each a valid cluster's name."""
    plan = scenario.with_edges(scenario.read(HOSPITALS), number)

    assert len({edge.name for edge in plan.edges}) == number
    assert {cluster.name for cluster in plan.clusters} == {edge.name for edge in plan.edges}


def test_copies_do_not_take_an_edges_name(tmp_path: Path) -> None:
    """An edge that is called as a copy would be keeps its name; the copy gets another."""
    federations.Federation({name: {} for name in ("a", "a-2")}).write(tmp_path / "scenario")

    plan = scenario.with_edges(scenario.read(tmp_path / "scenario"), 4)

    names = [edge.name for edge in plan.edges]
    assert len(set(names)) == 4, names
    assert names[:2] == ["a", "a-2"]


def test_written_manifests_read_back(directory: Path, tmp_path: Path, rng: random.Random) -> None:
    """What is written for the hub and an edge is what was read; the app's path becomes absolute."""
    plan = scenario.read(directory)
    edge = rng.choice(plan.edges)
    scenario.write_hub(plan, tmp_path / "hub.yaml")
    scenario.write_edge(edge, tmp_path / "edge")

    documents = list(yaml.safe_load_all((tmp_path / "hub.yaml").read_text()))
    assert documents[0]["spec"]["app"]["source"]["path"] == str(directory / "app")
    assert [document["kind"] for document in documents] == ["FederatedTraining", "EdgeCluster"]
    read = manifests.load_directory(tmp_path / "edge")
    assert [resource.manifest() for resource in read] == [resource.manifest() for resource in edge.resources]
    assert (tmp_path / "edge").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "hub.yaml").stat().st_mode & 0o777 == 0o600
