"""A training with an app beside it becomes what clusters take: the command and the simulation agree."""

from __future__ import annotations

import base64
import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer import testing

from coordinator.cli import main
from federation.api import manifests
from federation.apps import bundle, errors, on_clusters
from simulations.clusters import objects
from simulations.local import scenario

HOSPITALS = Path(__file__).parents[4] / "simulations/hospitals"
PACKED = bundle.Bundle(b"PK of an app", "sha256:" + "ab" * 32)


def training(**metadata: str) -> dict[str, Any]:
    spec = {"app": {"source": {"path": "app"}, "runConfig": {"rounds": 3}}, "dataset": "heart-disease"}
    return {"kind": "FederatedTraining", "metadata": {"name": "hospitals", **metadata}, "spec": spec}


def test_the_app_is_in_a_config_map_and_pinned() -> None:
    """Source and digest change, the rest stays, and what was given is not touched."""
    given = training(namespace="cardiology")
    before = copy.deepcopy(given)
    app, made = on_clusters.training(given, PACKED)
    assert given == before
    assert made["spec"] == {
        "app": {
            "source": {"configMap": {"name": "hospitals-app", "key": "app.fab"}},
            "runConfig": {"rounds": 3},
            "digest": PACKED.digest,
        },
        "dataset": "heart-disease",
    }
    assert (app["metadata"]["name"], app["metadata"]["namespace"]) == ("hospitals-app", "cardiology")
    assert app["metadata"]["annotations"] == {"hanse.dev/app-digest": PACKED.digest}
    assert base64.b64decode(app["binaryData"]["app.fab"]) == PACKED.data


def test_without_a_namespace_both_are_in_default() -> None:
    """And default is not made: every cluster has it. A status that came along does not go on."""
    app, made = on_clusters.training({**training(), "status": {"phase": "Running"}}, PACKED)
    assert app["metadata"]["namespace"] == made["metadata"]["namespace"] == "default"
    assert "status" not in made
    assert on_clusters.namespace("default") == []
    assert [each["metadata"]["name"] for each in on_clusters.namespace("cardiology")] == ["cardiology"]


def test_an_app_that_no_config_map_holds_is_refused() -> None:
    """As many bytes as an API server takes are taken, one more is refused with what to do."""
    most = bundle.Bundle(bytes(on_clusters.MAXIMUM_BYTES), PACKED.digest)
    on_clusters.config_map(most, "app")
    with pytest.raises(errors.BundleTooLarge, match=r"1048577 bytes, .* put it into an image"):
        on_clusters.config_map(bundle.Bundle(most.data + b"1", PACKED.digest), "app")


def test_the_command_and_the_simulation_make_the_same_objects(tmp_path: Path) -> None:
    """`hanse app manifests` prints what `hanse simulate --on bare` applies, and it reads as manifests do."""
    printed = testing.CliRunner().invoke(main.app, ["app", "manifests", str(HOSPITALS / "training.yaml")])
    assert printed.exit_code == 0, printed.output
    before, made = objects.hub(scenario.read(HOSPITALS))
    want = [each for each in before if each["kind"] in ("Namespace", "ConfigMap")] + [made]
    assert list(yaml.safe_load_all(printed.stdout)) == want
    (tmp_path / "printed.yaml").write_text(printed.stdout)
    assert {each.kind for each in manifests.load_file(tmp_path / "printed.yaml")} >= {"FederatedTraining"}
