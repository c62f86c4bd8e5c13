"""Tests for the client's workload where clients are pods."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from edge_agent import assignments, offers, pods, policy
from edge_agent.client import config as client_config
from federation.runtime import port

DIGEST = "sha256:" + "9f" * 32
ASSIGNMENT = assignments.Assignment(
    "u1", "cardiology", "hospitals", "heart-disease", DIGEST,
    aggregator_address="hub.example:443", aggregator_server_name="h.c", run_config='{"lr": 0.5}',
    requests={"cpu": "1"},
)  # fmt: skip
OFFER = offers.Offer(
    "heart-disease",
    node_config={"data-path": "$(MOUNT_PATH)/rows.csv", "fold": 3},
    mount=port.Mount(pathlib.PurePosixPath("/data"), {"configMap": {"name": "rows"}}),
)
DOORS = (port.Destination("192.0.2.1", 443),)
BROUGHT = pods.Brought({"tls.key": b"k", "tls.crt": b"c", "ca.crt": b"a"}, b"PK", DOORS, b"s" * 32)
SETTINGS = pods.Settings(
    "zurich", "hanse", "client:1", node_selector={"zone": "a"}, closed_addresses=("10.96.0.1:443",)
)


def make(
    assignment: assignments.Assignment = ASSIGNMENT, allowed: policy.Allowed | None = None, **brought: object
) -> port.Workload:
    allowed = allowed or policy.Allowed("rule", {"memory": "2Gi"})
    return pods.client(
        "hub.example", assignment, allowed, OFFER, dataclasses.replace(BROUGHT, **brought), SETTINGS
    )


def read(workload: port.Workload) -> client_config.ClientConfig:
    return client_config.ClientConfig.model_validate_json(workload.files["config.json"])


def test_the_client_finds_everything_in_its_pod() -> None:
    """Config, identity, app, state and data lie where its configuration says."""
    workload = make()
    config = read(workload)
    assert workload.argv == (
        "python3", "-P", "-m", "edge_agent.client", "--config", "/hanse/config/config.json",
    )  # fmt: skip
    assert str(workload.directory) == "/hanse/config"
    assert (
        workload.pod.secret_directories[pathlib.PurePosixPath(config.credential_directory)]["tls.key"] == b"k"
    )
    assert config.app_bundle is not None
    assert workload.pod.blobs == {pathlib.PurePosixPath(config.app_bundle): b"PK"}
    assert config.app_digest == DIGEST
    writable = {str(mount.path) for mount in workload.pod.mounts if not mount.read_only}
    assert writable == {str(config.state_directory), "/tmp"}
    assert config.node_config == {"data-path": "/data/rows.csv", "fold": 3}
    assert config.run_config == {"lr": 0.5}
    assert OFFER.mount in workload.pod.mounts


def test_its_only_way_out_is_its_aggregators_address() -> None:
    """By IP address, so that no name server is needed; and it looks whether the others are closed."""
    workload = make()
    assert workload.pod.egress == DOORS
    config = read(workload)
    assert config.aggregator_address == "192.0.2.1:443"
    assert config.closed_addresses == ("10.96.0.1:443",)
    assert str(config.termination_log) == "/dev/termination-log"


TARGETS = {
    "one": ((port.Destination("192.0.2.1", 443),), "192.0.2.1:443"),
    "one of IPv6": ((port.Destination("2001:db8::1", 443),), "[2001:db8::1]:443"),
    "two": (
        (port.Destination("192.0.2.1", 443), port.Destination("192.0.2.2", 443)),
        "ipv4:192.0.2.1:443,192.0.2.2:443",
    ),
    "two of IPv6": (
        (port.Destination("2001:db8::1", 1), port.Destination("2001:db8::2", 1)),
        "ipv6:[2001:db8::1]:1,[2001:db8::2]:1",
    ),
}


@pytest.mark.parametrize("case", TARGETS)
def test_what_grpc_dials(case: str) -> None:
    """An address, or a list of them in gRPC's own form."""
    doors, want = TARGETS[case]
    assert pods.target(doors) == want


def test_an_installed_app_needs_no_bundle() -> None:
    """It is part of the image."""
    workload = make(dataclasses.replace(ASSIGNMENT, client_app="pkg:app"), bundle=None)
    assert workload.pod.blobs == {}
    assert read(workload).app_bundle is None
    assert read(workload).client_app == "pkg:app"


def test_labels_and_note_tell_what_it_is() -> None:
    """For people, for `hanse leave`, and for the agent that finds it running."""
    workload = make()
    assert workload.pod.labels == {
        "app.kubernetes.io/name": "hanse",
        "app.kubernetes.io/component": "client",
        "app.kubernetes.io/managed-by": "hanse",
        "hanse.dev/training": "hospitals",
        "hanse.dev/training-namespace": "cardiology",
        "hanse.dev/dataset": "heart-disease",
    }
    note = workload.pod.annotations["hanse.dev/assignment"]
    assert assignments.from_text(note) == ("hub.example", ASSIGNMENT)
    assert "k" not in json.loads(note)["assignment"].values()
    assert workload.pod.namespace == "hanse"
    assert workload.pod.node_selector == {"zone": "a"}
    assert workload.pod.service_account == ""


def test_the_trainings_image_goes_before_the_edges() -> None:
    """Policy decided about the one that is used."""
    assert make().image == "client:1"
    assert make(dataclasses.replace(ASSIGNMENT, image="mine@sha256:1")).image == "mine@sha256:1"


RESOURCES = {
    "a wish under the ceiling": ({"cpu": "1"}, {}, {"memory": "2Gi"}, {"memory": "2Gi"}),
    "a GPU asked for is its own limit": (
        {"nvidia.com/gpu": "1"}, {}, {"nvidia.com/gpu": "4"}, {"nvidia.com/gpu": "1"},
    ),
    "a ceiling of GPUs is no wish for one": ({}, {}, {"nvidia.com/gpu": "4", "cpu": "2"}, {"cpu": "2"}),
    "a GPU by its limit": ({}, {"nvidia.com/gpu": "1"}, {"nvidia.com/gpu": "1"}, {"nvidia.com/gpu": "1"}),
}  # fmt: skip


@pytest.mark.parametrize("case", RESOURCES)
def test_what_it_may_use(case: str) -> None:
    """As Kubernetes takes it."""
    requests, limits, allowed, want = RESOURCES[case]
    assignment = dataclasses.replace(ASSIGNMENT, requests=requests, limits=limits)
    assert pods.resources(assignment, policy.Allowed("r", allowed)) == port.Resources(requests, want)


def test_data_that_no_pod_can_mount_start_no_client() -> None:
    """The sentence is the data set's."""
    lost = dataclasses.replace(OFFER, mount=None, unavailable="data set heart is elsewhere")
    with pytest.raises(offers.DatasetUnavailable, match="is elsewhere"):
        pods.client("h", ASSIGNMENT, policy.Allowed("r"), lost, BROUGHT, SETTINGS)


def test_what_must_be_closed_to_a_client() -> None:
    """The API server and the name servers, where the agent's pod knows them; nothing outside a pod."""
    inside = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    conf = "search x\nnameserver 10.96.0.10\nnameserver fd00::a\noptions ndots:5\n"
    assert pods.closed_addresses(inside, conf) == ("10.96.0.1:443", "10.96.0.10:53", "[fd00::a]:53")
    assert pods.closed_addresses({}, conf) == ()


HUB_ONLY = dataclasses.replace(SETTINGS, hub_host="hub.example")
ADDRESSES = {
    "the hub's door": ("hub.example:443", ""),
    "another port of the hub": ("HUB.example:7443", ""),
    "the edge's own API server": ("10.96.0.1:443", "the hub sends clients to 10.96.0.1:443"),
    "a machine beside the data": ("db.hospital.internal:5432", "may dial hub.example only"),
    "a name that only begins alike": ("hub.example.evil.org:443", "may dial hub.example only"),
}


@pytest.mark.parametrize("case", ADDRESSES)
def test_a_hub_cannot_send_clients_elsewhere(case: str) -> None:
    """The address that the hub says opens the client's network policy: only the hub that the owner joined."""
    address, want = ADDRESSES[case]
    refusal = pods.why_not_dialled(address, HUB_ONLY)
    assert want in refusal and bool(want) == bool(refusal)
    assert pods.why_not_dialled(address, SETTINGS) == ""


RESOLVED = {
    "an address of a hub": ("192.0.2.1", 443, ""),
    "the edge's own API server": ("10.96.0.1", 443, "10.96.0.1:443, which must be closed"),
    "a cloud's metadata": ("169.254.169.254", 80, "no hub has such a one"),
    "the same of IPv6": ("fe80::1", 80, "no hub has such a one"),
}


@pytest.mark.parametrize("case", RESOLVED)
def test_a_name_cannot_lead_clients_elsewhere(case: str) -> None:
    """Whoever owns the hub's name may let it mean anything."""
    ip, number, want = RESOLVED[case]
    refusal = pods.why_closed((*DOORS, port.Destination(ip, number)), SETTINGS)
    assert want in refusal and bool(want) == bool(refusal)


def test_a_client_cannot_fill_its_nodes_disk() -> None:
    """What it may write to is bounded, by the owner's configuration."""
    writable = [mount for mount in make().pod.mounts if not mount.read_only]
    assert [mount.source for mount in writable] == [{"emptyDir": {"sizeLimit": "10Gi"}}] * 2


def test_state_lies_on_the_claim_that_was_made_for_it() -> None:
    """What the client keeps is below it, and outlives the pod."""
    claim = {"persistentVolumeClaim": {"claimName": "client-a-state"}}
    brought = dataclasses.replace(BROUGHT, state=claim)
    made = pods.client("h", ASSIGNMENT, policy.Allowed("r"), OFFER, brought, SETTINGS)
    (mount,) = [mount for mount in made.pod.mounts if mount.source == claim]
    read = client_config.ClientConfig.model_validate_json(made.files["config.json"])
    assert (mount.path, mount.read_only) == (pathlib.PurePosixPath(read.state_directory), False)
