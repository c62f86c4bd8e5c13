"""Which URLs a model store may have, as the manifest's rules and the aggregator's own look say it alike."""

from __future__ import annotations

from typing import Any

import pytest
from fsspec.registry import known_implementations

from federation.api import errors, meta, model_urls, validation

SECRET = "into a Secret, and its name into spec.model.credentials"
KEEPS_NONE = "keeps no models; name a store such as pvc://CLAIM or s3://BUCKET/PREFIX"

REFUSED = {
    "a cache before a store": ("simplecache://::s3://bucket/x", "chained with ::"),
    "a cache of a store": ("simplecache://bucket/x", KEEPS_NONE),
    "an archive in a store": ("zip://x::s3://bucket/x.zip", "chained with ::"),
    "an archive": ("tar://models.tar", KEEPS_NONE),
    "memory": ("memory://models", KEEPS_NONE),
    "the web": ("https://example.org/models", KEEPS_NONE),
    "data": ("data://,x", KEEPS_NONE),
    "the pod's own disk by another name": ("local:///etc", KEEPS_NONE),
    "references": ("reference://x", KEEPS_NONE),
    "user and password": ("sftp://me:hush@host/models", SECRET),
    "a user": ("ftp://me@host/models", SECRET),
    "a token in the query": ("abfs://models/x?sig=hush", SECRET),
    "an account with its key": ("abfs://models:hush@account.dfs.core.windows.net/x", SECRET),
}
TAKEN = (
    "pvc://models", "s3://bucket/a b", "s3://bucket/who@where", "gs://bucket", "file:///models",
    "sftp://10.0.0.5:2222/srv/models", "ftp://host/models", "webhdfs://namenode:9870/models",
    "az://models/x", "abfs://models@account.dfs.core.windows.net/x", "abfss://m@a.dfs.core.windows.net",
    "memory-palace://x",
)  # fmt: skip
STORES = {
    "abfs", "adl", "arrow_hdfs", "az", "box", "dbfs", "dropbox", "file", "ftp", "gcs", "gdrive", "gs", "hdfs",
    "hf", "jlab", "jupyter", "lakefs", "oci", "ocilake", "oss", "root", "s3", "s3a", "sftp", "smb", "ssh",
    "tos", "tosfs", "wandb", "webdav", "webhdfs",
}  # fmt: skip
NO_SCHEMES = {"async_wrapper"}  # no URL has such a scheme


def training(**model: str) -> dict[str, Any]:
    """A training whose model goes there."""
    return {
        "apiVersion": meta.API_VERSION,
        "kind": "FederatedTraining",
        "metadata": {"name": "hospitals", "namespace": "cardiology"},
        "spec": {
            "app": {"source": {"configMap": {"name": "app"}}},
            "dataset": "heart-disease",
            "model": model,
        },
    }


@pytest.mark.parametrize(("url", "want"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_store_is_refused_in_one_sentence(url: str, want: str) -> None:
    """By the rule of the resource and by the function, in the same words, and without what was in the URL."""
    assert want in model_urls.refusal(url)
    with pytest.raises(errors.InvalidManifest) as refused:
        validation.parse(training(store=url), "training.yaml")
    assert str(refused.value).endswith(f"spec.model.store: {model_urls.refusal(url)}")
    assert "hush" not in str(refused.value)
    assert "hush" not in model_urls.bare(url)


@pytest.mark.parametrize("url", TAKEN)
def test_every_other_url_is_taken(url: str) -> None:
    """Whether its package is there, only the aggregator knows."""
    assert model_urls.refusal(url) == ""
    validation.parse(training(store=url), "training.yaml")


@pytest.mark.parametrize("store", ["models", "S3://bucket", "cached::s3://b", "dir_x://x", "s3:/models"])
def test_what_is_no_url_is_refused(store: str) -> None:
    """The sentence has examples."""
    with pytest.raises(errors.InvalidManifest, match=r"spec.model.store: must be a URL such as pvc://models"):
        validation.parse(training(store=store), "training.yaml")


def test_an_endpoint_is_for_s3_alone() -> None:
    """Nobody else looks at it, and it would narrow the aggregator's way out to somewhere else."""
    for store in ("pvc://models", "gs://bucket/x"):
        with pytest.raises(errors.InvalidManifest, match=r"spec.model.endpoint: endpoint is for a store s3"):
            validation.parse(training(store=store, endpoint="https://10.0.0.5"), "training.yaml")
    validation.parse(training(store="s3://bucket", endpoint="https://10.0.0.5"), "training.yaml")
    validation.parse(training(endpoint="https://10.0.0.5"), "training.yaml")


def test_what_fsspec_knows_is_a_store_or_refused() -> None:
    """A new version that knows more of them is looked at before it is used."""
    known = set(known_implementations)
    assert known - STORES - NO_SCHEMES - set(model_urls.NO_STORES) == set()
    assert not STORES & set(model_urls.NO_STORES)


def test_a_url_in_a_message_has_nothing_that_opens_it() -> None:
    """Neither user nor query; what stands in the path stays."""
    assert model_urls.bare("sftp://me:hush@host/a@b?sig=x") == "sftp://host/a@b"
    assert model_urls.bare("s3://bucket/a@b") == "s3://bucket/a@b"
