"""Tests for what a data set in a bucket becomes, and for the sentences about it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edge_agent import buckets, owned
from federation.runtime import pods, port
from tests.unit.edge_agent import test_owned

S3 = {"url": "s3://cardiology/heart", "endpoint": "https://10.0.0.5:9000", "secretName": "heart-keys"}


def fetch(uid: str = "uid-1", **volume: Any) -> buckets.Fetch:
    s3 = {name: value for name, value in {**S3, **volume}.items() if value is not None}
    manifest = test_owned.dataset(volume={"s3": s3}, metadata={"uid": uid})
    (dataset,) = owned.read([manifest], []).datasets
    found = buckets.of(dataset)
    assert found is not None
    return found


def pod_of(workload: port.Workload) -> dict[str, Any]:
    return dict(pods.job(workload)["spec"]["template"]["spec"])


def test_every_change_is_another_claim() -> None:
    """What a claim has is what its name stands for; of the same wish it is the same one."""
    same = fetch()
    assert fetch() == same
    changes: list[dict[str, Any]] = [
        {"url": "s3://cardiology/heart-2"}, {"endpoint": "https://10.0.0.6:9000"}, {"secretName": "other"},
        {"region": "eu-central-1"}, {"sizeLimit": "20Gi"}, {"storageClassName": "fast"}, {"revision": "2"},
        {"uid": "uid-2"},
    ]  # fmt: skip
    names = {fetch(**change).name for change in changes}
    assert len(names) == len(changes)
    assert same.name not in names
    assert len(same.name) <= port.MAXIMUM_NAME_LENGTH


def test_the_claim_goes_with_its_data_set() -> None:
    """Its owner is the EdgeDataset, its size the limit, its class the owner's choice or the default."""
    made = buckets.claim(fetch(sizeLimit="3Gi"), "hanse")
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("EdgeDataset", "heart", "uid-1")
    assert "blockOwnerDeletion" not in owner  # which would need one more permission
    assert made["spec"]["resources"]["requests"] == {"storage": "3Gi"}
    assert "storageClassName" not in made["spec"]
    assert buckets.claim(fetch(storageClassName="fast"), "hanse")["spec"]["storageClassName"] == "fast"


def test_what_fetches_reaches_the_storage_and_nothing_else() -> None:
    """One address and port, no name server; only here is the owner's Secret, mounted by kubelet."""
    workload = buckets.workload(fetch(), "hanse", "agent:1", ["10.0.0.5"], {"disk": "large"})
    policy = pods.belongings(workload, "uid")[0]
    assert policy["kind"] == "NetworkPolicy"
    assert policy["spec"]["ingress"] == []
    assert policy["spec"]["egress"] == [
        {"to": [{"ipBlock": {"cidr": "10.0.0.5/32"}}], "ports": [{"protocol": "TCP", "port": 9000}]}
    ]
    pod = pod_of(workload)
    assert pod["automountServiceAccountToken"] is False
    assert pod["nodeSelector"] == {"disk": "large"}
    assert pod["securityContext"]["runAsNonRoot"] is True
    volumes = {
        json.dumps({k: v for k, v in one.items() if k != "name"}, sort_keys=True) for one in pod["volumes"]
    }
    assert (
        json.dumps({"secret": {"defaultMode": 0o440, "secretName": "heart-keys"}}, sort_keys=True) in volumes
    )
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"cpu": "1", "memory": "512Mi"}
    assert container["command"] == [
        *("python3", "-P", "-m", "edge_agent.fetch", "--url", "s3://cardiology/heart"),
        *("--endpoint", "https://10.0.0.5:9000", "--region", "us-east-1"),
        *("--at-most-bytes", str(10 * 2**30), "--to", "/hanse/claim", "--secret", "/hanse/secret"),
    ]


def test_a_name_is_resolved_for_what_fetches() -> None:
    """It gets the address by its hosts file, and no way to a name server; Amazon's is the region's."""
    wanted = fetch(endpoint=None, region="eu-central-1")
    assert (wanted.host, wanted.port) == ("s3.eu-central-1.amazonaws.com", 443)
    workload = buckets.workload(wanted, "hanse", "agent:1", ["192.0.2.1", "192.0.2.2"], {})
    assert pod_of(workload)["hostAliases"] == [{"ip": "192.0.2.1", "hostnames": [wanted.host]}]
    assert len(workload.pod.egress or ()) == 2


def test_an_open_bucket_mounts_no_secret() -> None:
    """Then none of the namespace's is in the pod."""
    workload = buckets.workload(fetch(secretName=None), "hanse", "agent:1", ["10.0.0.5"], {})
    assert not [one for one in pod_of(workload)["volumes"] if "secret" in one]
    assert "--secret" not in workload.argv


def test_a_client_sees_the_objects_and_no_more() -> None:
    """The claim read-only, and of it only what is whole."""
    manifest = test_owned.dataset(volume={"s3": S3}, metadata={"uid": "uid-1"})
    read = owned.read([manifest], [])
    seen = owned.Volume(True, "3 objects", fetch=fetch().name)
    (offer,) = owned.declared(read, {"heart": seen}).offers
    assert offer.mount is not None
    assert offer.mount.source == {"persistentVolumeClaim": {"claimName": fetch().name, "readOnly": True}}
    assert (offer.mount.sub_path, offer.mount.read_only) == ("objects", True)
    workload = port.Workload("c", ("x",), offer.mount.path, pod=port.Pod(mounts=(offer.mount,)))
    mounts = pod_of(workload)["containers"][0]["volumeMounts"]
    assert mounts[-1] == {"name": "mount-0", "mountPath": "/data", "readOnly": True, "subPath": "objects"}


SEEN = {
    "not looked at": owned.Volume(),
    "another claim, before a change": owned.Volume(True, "all", fetch="dataset-heart-disease-old"),
    "a claim of another kind, before a change": owned.Volume(True),
}


@pytest.mark.parametrize("case", SEEN)
def test_until_the_objects_are_here_clients_wait(case: str) -> None:
    """Whatever was true of what the owner asked for before; to wait is not to be refused."""
    manifest = test_owned.dataset(volume={"s3": S3}, metadata={"uid": "uid-1"})
    read = owned.read([manifest], [])
    (offer,) = owned.declared(read, {"heart": SEEN[case]}).offers
    assert (offer.mount, offer.coming) == (None, True)
    assert "is being fetched from s3://cardiology/heart; clients wait" in (offer.unavailable or "")
    condition = owned.dataset_status(read.datasets[0], read, SEEN[case], (), test_owned.NOW).conditions[0]
    assert (condition.status, condition.reason, condition.message) == ("False", "Fetching", offer.unavailable)


UNFETCHABLE = {
    "no port": ({"endpoint": "https://10.0.0.5:99999"}, ["10.0.0.5"], "which has no valid port; correct"),
    "where clouds keep credentials": ({}, ["169.254.169.254"], "no storage has the address 169.254.169.254"),
    "the pod itself": ({}, ["127.0.0.1"], "no storage has the address 127.0.0.1"),
}


@pytest.mark.parametrize("case", UNFETCHABLE)
def test_where_no_storage_is_nothing_is_fetched(case: str) -> None:
    """With the field to correct."""
    volume, ips, want = UNFETCHABLE[case]
    with pytest.raises(buckets.NotFetchable, match=want):
        buckets.workload(fetch(**volume), "hanse", "agent:1", ips, {})


def test_an_agent_without_its_image_says_so() -> None:
    """Its Deployment was written before there was anything to fetch."""
    with pytest.raises(buckets.NotFetchable, match="set HANSE_AGENT_IMAGE"):
        buckets.workload(fetch(), "hanse", "", ["10.0.0.5"], {})


def a_claim(*, labels: Any = buckets.CLAIM_LABELS, **more: Any) -> dict[str, Any]:
    metadata = {"name": fetch().name, "labels": labels, **more.pop("metadata", {})}
    return {"metadata": metadata, "spec": {"storageClassName": "standard"}, **more}


CLAIMS = {
    "fine": (a_claim(), ""),
    "bound without a class": (a_claim(spec={}, status={"phase": "Bound"}), ""),
    "somebody's": (a_claim(labels={}), "that the agent did not make; delete or rename it"),
    "going": (a_claim(metadata={"deletionTimestamp": "now"}), "it is made anew once no pod mounts it"),
    "lost": (a_claim(status={"phase": "Lost"}), "delete the claim, and the objects are fetched anew"),
    "no class": (a_claim(spec={}), "no default StorageClass; name one in spec.volume.s3.storageClassName"),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_what_is_wrong_with_a_claim_is_said(case: str) -> None:
    """In one sentence with what to do."""
    found, want = CLAIMS[case]
    said = buckets.claim_trouble(fetch(), found)
    assert want in said
    assert bool(want) == bool(said)


def test_a_claim_that_gets_no_volume_names_the_clusters_reason() -> None:
    """Only until it has one."""
    warning = 'storageclass.storage.k8s.io "fast"\nnot found.'
    said = buckets.no_volume(fetch(), a_claim(), warning)
    assert 'which gets no volume: storageclass.storage.k8s.io "fast" not found; check' in said
    assert buckets.no_volume(fetch(), a_claim(status={"phase": "Bound"}), warning) == ""


WORDS = {
    '{"objects": 1, "bytes": 10}': "1 object (10 bytes) fetched; clients mount them read-only",
    '{"objects": 9, "bytes": 3565158, "x": 1}': "9 objects (3.4 MiB) fetched; clients mount them read-only",
    "[]": "all objects fetched; clients mount them read-only",
    "what somebody wrote": "all objects fetched; clients mount them read-only",
    '{"objects": "<b>", "bytes": 1}': "all objects fetched; clients mount them read-only",
}


@pytest.mark.parametrize("words", WORDS)
def test_a_filled_claim_says_how_much_it_has(words: str) -> None:
    """By a mark of numbers alone, whatever the program's last words are."""
    marked = a_claim(metadata={"annotations": {buckets.FETCHED_ANNOTATION: buckets.mark(words)}})
    assert buckets.fetched(marked) == WORDS[words]
    assert buckets.fetched(a_claim()) == ""


def test_why_a_fetch_failed_is_the_programs_sentence() -> None:
    """Or how it ended, where it left none."""
    told = port.Exited("n", 1, None, reason="StorageRefused", message="there is no bucket x; create it")
    assert "there is no bucket x; create it; it is tried again" in buckets.failed(
        fetch(), buckets.why_ended(told)
    )
    assert "exit code 3" in buckets.why_ended(port.Exited("n", 3, None))
    assert "SIGKILL" in buckets.why_ended(port.Exited("n", None, "SIGKILL"))
