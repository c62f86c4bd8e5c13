"""What a coordinator is told at its start."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pydantic
import pytest

from coordinator import cluster, config, parts


@pytest.mark.parametrize(
    ("environment", "namespace", "want_refusal"),
    [
        pytest.param({}, "", False, id="no pod"),
        pytest.param({"POD_NAMESPACE": "hanse-system"}, "", False, id="where the manifests put it"),
        pytest.param({"POD_NAMESPACE": "ml-hub"}, "", True, id="moved by an overlay"),
        pytest.param({"POD_NAMESPACE": "ml-hub"}, "hanse-system", True, id="its Secrets are elsewhere"),
        pytest.param({"POD_NAMESPACE": "ml-hub"}, "ml-hub", False, id="moved, and its settings say so"),
    ],
)
def test_a_coordinator_without_its_guard_does_not_start(
    environment: dict[str, str], namespace: str, want_refusal: bool
) -> None:
    """In a namespace that the admission policies do not know it says where they hold, and what to do."""
    why = config.KubernetesConfig(namespace=namespace).unguarded(environment)
    assert bool(why) is want_refusal
    if why:
        assert "runs in namespace ml-hub" in why
        assert "are for hanse-system" in why


def test_a_coordinator_with_another_account_does_not_start() -> None:
    """An overlay's namePrefix reaches the account, and not what the admission policies compare with."""
    settings = config.KubernetesConfig()
    assert not settings.unguarded({"POD_SERVICE_ACCOUNT": "hanse-coordinator"})
    why = settings.unguarded({"POD_SERVICE_ACCOUNT": "ml-hanse-coordinator", "POD_NAMESPACE": "hanse-system"})
    assert "has the service account ml-hanse-coordinator" in why
    assert "no namePrefix" in why


def test_it_refuses_before_it_asks_anybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No API server is asked for anything, and nothing is written."""
    monkeypatch.setenv("POD_NAMESPACE", "ml-hub")
    settings = config.CoordinatorConfig(
        state_directory=tmp_path / "state",
        kubernetes=config.KubernetesConfig(kubeconfig=tmp_path / "none"),
    )
    with pytest.raises(parts.StartFailure, match="install it there, or write ml-hub into"):
        asyncio.run(cluster.serve(settings, asyncio.Event()))
    assert not (tmp_path / "state").exists()


def test_a_hub_whose_store_can_be_none_does_not_start(tmp_path: Path) -> None:
    """What a manifest may not name, the settings may not either."""
    for url in ("simplecache::s3://models", "memory://models", "sftp://me:hush@host/models"):
        with pytest.raises(pydantic.ValidationError, match="model_store"):
            config.CoordinatorConfig(trust_domain="t.test", state_directory=tmp_path, model_store=url)
    config.CoordinatorConfig(trust_domain="t.test", state_directory=tmp_path, model_store="gs://models")


@pytest.mark.parametrize(
    ("said", "environment", "want"),
    [
        pytest.param((), {}, (), id="none but the hub's own"),
        pytest.param((), {"HANSE_AGGREGATOR_IMAGES": " a/*, b:1 ,"}, ("a/*", "b:1"), id="by the environment"),
        pytest.param(
            ("c/*",), {"HANSE_AGGREGATOR_IMAGES": "a/*"}, ("c/*",), id="by the file, which counts first"
        ),
    ],
)
def test_which_images_aggregators_may_run(
    said: tuple[str, ...], environment: dict[str, str], want: tuple[str, ...]
) -> None:
    """Nothing is allowed that the hub's operator did not say."""
    settings = config.KubernetesConfig(aggregator_images=said)
    assert settings.completed(environment, "host").aggregator_images == want


@pytest.mark.parametrize("wrong", ["*", [""], [1], ["a"] * 65])
def test_patterns_of_images_are_a_list_of_texts(wrong: object) -> None:
    """A text alone would be read letter by letter."""
    with pytest.raises(pydantic.ValidationError, match="aggregator_images"):
        config.KubernetesConfig.model_validate({"aggregator_images": wrong})
