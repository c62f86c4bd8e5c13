"""Tests for the owner's objects in a namespace: what is offered and allowed, and what their statuses say."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from edge_agent import owned, policy, volumes
from federation.api import meta

NOW = dt.datetime(2026, 5, 1, tzinfo=dt.UTC)


def dataset(name: str = "heart", volume: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": "hanse",
        "generation": 3,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    spec = {"name": "heart-disease", "volume": volume or {"persistentVolumeClaim": {"claimName": "heart"}}}
    return {
        "apiVersion": "hanse.dev/v1alpha1",
        "kind": "EdgeDataset",
        "metadata": {**metadata, **fields.pop("metadata", {})},
        "spec": {**spec, **fields},
    }


def a_policy(name: str = "owner", **rule: Any) -> dict[str, Any]:
    return {
        "apiVersion": "hanse.dev/v1alpha1",
        "kind": "EdgePolicy",
        "metadata": {"name": name, "namespace": "hanse", "generation": 1},
        "spec": {"rules": [{"name": "all", **rule}]},
    }


VOLUMES = {
    "a claim": (
        {"persistentVolumeClaim": {"claimName": "heart"}},
        {"persistentVolumeClaim": {"claimName": "heart", "readOnly": True}},
    ),
    "a ConfigMap": ({"configMap": {"name": "rows"}}, {"configMap": {"name": "rows"}}),
    "a directory of the node": (
        {"hostPath": {"path": "/srv/heart"}},
        {"hostPath": {"path": "/srv/heart", "type": "Directory"}},
    ),
    "a driver's volume": (
        {"csi": {"driver": "csi.example", "attributes": {"share": "heart"}}},
        {"csi": {"driver": "csi.example", "readOnly": True, "volumeAttributes": {"share": "heart"}}},
    ),
}


@pytest.mark.parametrize("case", VOLUMES)
def test_a_volume_is_mounted_read_only_at_its_place(case: str) -> None:
    """As the pod will have it."""
    volume, source = VOLUMES[case]
    read = owned.read([dataset(volume=volume, mountPath="/srv/data")], [])
    (offer,) = owned.declared(read, {}).offers
    assert offer.mount is not None
    assert (str(offer.mount.path), offer.mount.source, offer.mount.read_only) == ("/srv/data", source, True)


NOT_MOUNTABLE = {
    "a handle": ({"volume": {"csi": {"driver": "d.example", "volumeHandle": "h"}}}, "volumeHandle"),
    "over the client's own": ({"mountPath": "/hanse/state"}, "choose another spec.mountPath"),
    "over everything": ({"mountPath": "/"}, "choose another spec.mountPath"),
    "over scratch": ({"mountPath": "/tmp"}, "choose another spec.mountPath"),
}


@pytest.mark.parametrize("case", NOT_MOUNTABLE)
def test_a_volume_that_no_pod_can_have_is_offered_as_unavailable(case: str) -> None:
    """The same sentence for the hub and in the owner's status."""
    fields, want = NOT_MOUNTABLE[case]
    read = owned.read([dataset(**fields)], [])
    (offer,) = owned.declared(read, {}).offers
    assert offer.mount is None
    assert want in (offer.unavailable or "")
    with pytest.raises(volumes.NotMountable, match=want):
        volumes.mount(read.datasets[0])
    status = owned.dataset_status(read.datasets[0], read, owned.Volume(), (), NOW)
    assert status.conditions[0].reason == "VolumeNotSupported"


STATUSES = {
    "there": (owned.Volume(True), (), ("True", "VolumeFound"), ("False", "NoTraining")),
    "not there": (
        owned.Volume(False, "none of that name"),
        (),
        ("False", "VolumeNotFound"),
        ("False", "NoTraining"),
    ),
    "nobody can look": (owned.Volume(), (), ("Unknown", "VolumeNotLookedAt"), ("False", "NoTraining")),
    "in use": (owned.Volume(True), ("c/h",), ("True", "VolumeFound"), ("True", "TrainingRuns")),
}


@pytest.mark.parametrize("case", STATUSES)
def test_the_owner_sees_how_a_data_set_stands(case: str) -> None:
    """Available and InUse, of the generation that was read."""
    seen, used_by, available, in_use = STATUSES[case]
    read = owned.read([dataset()], [])
    status = owned.dataset_status(read.datasets[0], read, seen, used_by, NOW)
    assert [(one.type, one.status, one.reason) for one in status.conditions] == [
        ("Available", *available),
        ("InUse", *in_use),
    ]
    assert status.observed_generation == 3


def test_a_status_said_again_later_is_the_same() -> None:
    """So that nothing is written when nothing changed."""
    read = owned.read([dataset()], [])
    first = owned.dataset_status(read.datasets[0], read, owned.Volume(True), (), NOW)
    stored = {**dataset(), "status": first.manifest()}
    again = owned.read([stored], [])
    assert again.datasets[0].status == first
    later = NOW + dt.timedelta(hours=1)
    assert owned.dataset_status(again.datasets[0], again, owned.Volume(True), (), later) == first


def test_of_two_data_sets_with_one_name_the_older_counts() -> None:
    """Whatever the order of the list; the younger one's status names the older."""
    old = dataset("zz", metadata={"creationTimestamp": "2025-01-01T00:00:00Z"}, mountPath="/old")
    young = dataset("aa")
    read = owned.read([young, old], [])
    (offer,) = owned.declared(read, {}).offers
    assert offer.mount is not None
    assert str(offer.mount.path) == "/old"
    status = owned.dataset_status(read.datasets[1], read, owned.Volume(True), ("c/h",), NOW)
    assert [(one.status, one.reason) for one in status.conditions] == [
        (meta.ConditionStatus.FALSE, "NameTaken"),
        (meta.ConditionStatus.FALSE, "NoTraining"),
    ]
    assert "EdgeDataset zz is older" in status.conditions[0].message


def test_what_is_being_deleted_is_gone() -> None:
    """The owner's last word counts at once, whoever holds a finalizer."""
    going = {"deletionTimestamp": "2026-01-02T00:00:00Z"}
    refusal = a_policy()
    refusal["metadata"] |= going
    assert owned.read([dataset(metadata=going)], [refusal]) == owned.Owned()


REQUEST = policy.Request("hub", "zurich", "cardiology", "hospitals", "heart-disease", "", "")


def test_a_policy_that_cannot_be_read_denies_everything() -> None:
    """What it would deny is not known; another policy's Allow does not help."""
    broken = a_policy("broken", effect="Perhaps")
    read = owned.read([], [a_policy(), broken])
    assert "EdgePolicy broken" in read.unreadable
    decision = policy.decide(REQUEST, owned.declared(read, {}).policies, NOW)
    assert isinstance(decision, policy.Refused)
    assert "not-readable" in decision.message
    without = owned.read([], [a_policy()])
    assert isinstance(policy.decide(REQUEST, owned.declared(without, {}).policies, NOW), policy.Allowed)


def test_a_data_set_that_cannot_be_read_is_not_offered() -> None:
    """And said in the log, by its name."""
    read = owned.read([dataset(volume={"hostPath": {"path": "relative"}})], [])
    assert owned.declared(read, {}).offers == ()
    assert list(read.unreadable) == ["EdgeDataset heart"]


def test_a_status_of_another_version_does_not_hide_the_spec() -> None:
    """It is overwritten."""
    stored = {**dataset(), "status": {"conditions": "of another shape"}}
    read = owned.read([stored], [])
    assert read.unreadable == {}
    assert read.datasets[0].status is None


def test_a_policys_status_names_the_rule_that_cannot_be_enforced() -> None:
    """The schema lets a zone through that does not exist, and a limit that is not counted."""
    (good,) = owned.read([], [a_policy()]).policies
    assert owned.policy_status(good, NOW).conditions[0].status == "True"
    nowhere = a_policy(schedule={"windows": ["Mon 10:00-11:00 Atlantis/Capital"]})
    uncounted = a_policy(limits={"egressBytesPerDay": "50Gi"})
    for unusable, want in (
        (nowhere, "Atlantis/Capital"),
        (uncounted, "egressBytesPerDay would limit nothing"),
    ):
        (bad,) = owned.read([], [unusable]).policies
        (condition,) = owned.policy_status(bad, NOW).conditions
        assert (condition.status, condition.reason) == ("False", "InvalidRule")
        assert want in condition.message
    assert "rule all cannot be enforced" in condition.message
