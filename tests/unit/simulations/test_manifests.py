"""The example federations' manifests are valid, fit together, and name apps that are there."""

import pathlib

import pytest

from federation.api import manifests
from federation.apps import bundle, config

SIMULATIONS = pathlib.Path(__file__).resolve().parents[3] / "simulations"


@pytest.mark.parametrize(
    ("name", "want_edges", "want_dataset"),
    [("hospitals", 4, "heart-disease"), ("digits-torch", 10, "digits")],
)
def test_manifests_load_and_fit_together(name: str, want_edges: int, want_dataset: str) -> None:
    """The hub's manifests and each edge's read as kubectl would, and every edge offers what is asked for."""
    directory = SIMULATIONS / name
    hub = [resource.manifest() for resource in manifests.load_directory(directory)]
    (training,) = [manifest for manifest in hub if manifest["kind"] == "FederatedTraining"]
    clusters = {manifest["metadata"]["name"] for manifest in hub if manifest["kind"] == "EdgeCluster"}
    edges = {edge.name: edge for edge in (directory / "edges").iterdir() if edge.is_dir()}
    assert clusters == set(edges)
    assert len(edges) == want_edges
    assert training["spec"]["dataset"] == want_dataset
    assert training["spec"]["clusters"]["minimum"] <= want_edges
    for edge in edges.values():
        found = {resource.kind: resource.manifest() for resource in manifests.load_directory(edge)}
        assert set(found) == {"EdgeDataset", "EdgePolicy", "ConfigMap"}
        assert found["EdgeDataset"]["spec"]["name"] == want_dataset
        assert (
            found["EdgeDataset"]["spec"]["volume"]["configMap"]["name"]
            == found["ConfigMap"]["metadata"]["name"]
        )
        (rule,) = found["EdgePolicy"]["spec"]["rules"]
        assert rule["trainings"][0]["namespace"] == training["metadata"]["namespace"]
    app = directory / training["spec"]["app"]["source"]["path"]
    config.merge(config.load(app).defaults, training["spec"]["app"]["runConfig"])
    assert "pyproject.toml" in bundle.files(app)
