"""Where a model goes follows from the manifest and the hub's own store."""

from typing import Any

import pytest

from coordinator.planning import model_stores

MOUNT = "file:///var/lib/hanse/models"
CASES: dict[str, tuple[dict[str, Any], str, model_stores.ModelStore]] = {
    "nothing said": ({}, "", model_stores.ModelStore(MOUNT, "pvc://hanse-models", "hanse-models", made=True)),
    "a claim": (
        {"store": "pvc://models"}, "", model_stores.ModelStore(MOUNT, "pvc://models", "models"),
    ),
    "a directory of a claim": (
        {"store": "pvc://models/a/b"}, "",
        model_stores.ModelStore(f"{MOUNT}/a/b", "pvc://models/a/b", "models"),
    ),
    "an object store with its Secret": (
        {"store": "s3://bucket/x/", "credentials": {"secretName": "keys"}}, "",
        model_stores.ModelStore("s3://bucket/x", "s3://bucket/x", secret="keys"),
    ),
    "an object store at an address": (
        {"store": "s3://bucket/x", "endpoint": "https://10.0.0.5:9000"}, "",
        model_stores.ModelStore("s3://bucket/x", "s3://bucket/x", address=("10.0.0.5", 9000)),
    ),
    "an address without a port": (
        {"store": "s3://bucket/x", "endpoint": "https://[fd00::5]"}, "",
        model_stores.ModelStore("s3://bucket/x", "s3://bucket/x", address=("fd00::5", 443)),
    ),
    "an object store with a name": (
        {"store": "s3://bucket/x", "endpoint": "http://s3.example.org:9000"}, "",
        model_stores.ModelStore("s3://bucket/x", "s3://bucket/x"),
    ),
    "a storage that is not S3": (
        {"store": "sftp://10.0.0.5/models/", "credentials": {"secretName": "keys"}}, "",
        model_stores.ModelStore("sftp://10.0.0.5/models", "sftp://10.0.0.5/models", secret="keys"),
    ),
    "an endpoint that the hub's store does not know": (
        {"endpoint": "https://10.0.0.5"}, "gs://all", model_stores.ModelStore("gs://all", "gs://all"),
    ),
    "the hub's object store": ({}, "s3://all", model_stores.ModelStore("s3://all", "s3://all")),
}  # fmt: skip


@pytest.mark.parametrize(("model", "default", "want"), CASES.values(), ids=CASES)
def test_the_store_follows(model: dict[str, Any], default: str, want: model_stores.ModelStore) -> None:
    """Each case: what the manifest says, the hub's own URL, the store."""
    assert model_stores.choose({"model": model}, "hanse-models", default) == want


REFUSED = {
    "files of the hub": ("file:///models", "file:// is for simulations"),
    "a way out of the claim": ("pvc://models/../other", "want pvc://CLAIM"),
    "no claim's name": ("pvc://My_Claim", "want pvc://CLAIM"),
}


@pytest.mark.parametrize(("store", "want"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_used_is_refused_with_the_way_out(store: str, want: str) -> None:
    """The sentence says what to write instead."""
    with pytest.raises(model_stores.UnusableStore, match=want):
        model_stores.choose({"model": {"store": store}}, "hanse-models")


def test_an_endpoint_that_is_no_address_is_refused() -> None:
    """Before anything is made of it."""
    with pytest.raises(model_stores.UnusableStore, match=r"spec.model.endpoint https://10.0.0.5:x"):
        model_stores.choose({"model": {"store": "s3://b/x", "endpoint": "https://10.0.0.5:x"}}, "models")
