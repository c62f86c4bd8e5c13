"""Where an aggregator is not started, whatever the manifest says."""

from __future__ import annotations

from typing import Any, cast

import pytest

from coordinator import pod_launcher
from coordinator.planning import server_images, snapshot
from federation.runtime import port

UNUSED: Any = cast(Any, None)
"""A refusal comes before anything is asked for."""


def launcher() -> pod_launcher.PodLauncher:
    return pod_launcher.PodLauncher(
        issuer=UNUSED,
        shelf=UNUSED,
        objects=UNUSED,
        hub_address=UNUSED,
        hub_namespace="federation-hub",
        images=server_images.ServerImages("hanse/coordinator", ("*",)),
        model_store="",
        models_claim="hanse-models",
        models_size="1Gi",
        models_class="",
        limits=snapshot.Limits(1, 1),
        log_level="INFO",
    )


@pytest.mark.parametrize("namespace", ["federation-hub", "kube-system"])
async def test_no_app_runs_beside_the_federations_keys(namespace: str) -> None:
    """A pod may have every Secret of its namespace mounted: spec.model.credentials could name the CA's."""
    spec = {"model": {"store": "s3://bucket/models", "credentials": {"secretName": "hanse-ca"}}}
    training = snapshot.Training(namespace, "thief", "uid", 1, spec, {}, snapshot.App("sha256:" + "0" * 64))
    with pytest.raises(port.WorkloadNotStarted, match=f"namespace {namespace} is not for trainings"):
        await launcher().launch(training, 1)


def test_what_removes_a_journal_is_the_hubs_own_image() -> None:
    """Whichever image the training's aggregator had: it may be gone by then."""
    spec = {"server": {"image": "registry.example/apps/cardiology:1"}}
    training = snapshot.Training("cardiology", "hospitals", "u1", 1, spec, {}, snapshot.App("sha256:0"))
    assert launcher().tidy(training).image == "hanse/coordinator"
