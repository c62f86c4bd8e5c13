"""Where models may go, as a real API server says it to whoever applies a training."""

from __future__ import annotations

import pytest

from federation.api import meta, model_urls
from federation.kube import client, errors


def training(**model: str) -> client.Object:
    """A training whose model goes there."""
    return {
        "apiVersion": meta.API_VERSION,
        "kind": "FederatedTraining",
        "metadata": {"name": "stored-elsewhere", "namespace": "default"},
        "spec": {
            "app": {"source": {"configMap": {"name": "app"}}},
            "dataset": "heart-disease",
            "model": model,
        },
    }


async def test_the_server_says_what_is_no_store(api: client.Client) -> None:
    """In the words that the same manifest gets without Kubernetes; what is in the URL is not repeated."""
    for url in (
        "zip://x::s3://bucket/x.zip", "memory://models", "https://example.org/models",
        "sftp://me:hush@host/models", "abfs://models/x?sig=hush", "abfs://models:hush@account/x",
    ):  # fmt: skip
        with pytest.raises(errors.Invalid) as refused:
            await api.create(training(store=url), dry_run=True)
        assert model_urls.refusal(url) in str(refused.value)
        assert "hush" not in str(refused.value)
    with pytest.raises(errors.Invalid, match="endpoint is for a store s3://"):
        await api.create(training(store="gs://models", endpoint="https://10.0.0.5"), dry_run=True)


async def test_the_server_takes_every_other_url(api: client.Client) -> None:
    """Whether its package is there, only the aggregator knows."""
    for url in ("sftp://10.0.0.5/models", "gs://models", "abfs://models@account.dfs.core.windows.net/x"):
        await api.create(training(store=url), dry_run=True)
