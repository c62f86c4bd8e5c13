"""Pods in the lab: policies hold from a pod's first moment, claims bind, a node's files are its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from simulations.lab import state
from simulations.lab.bare import layout, provider
from tests.cluster import labs
from tests.cluster.conftest import say

STARTS = 10
# Tries from the container's first instruction on, as fast as it can, longer than the guard holds pods back.
DIAL_AT_ONCE = """
end=$(( $(date +%s) + 8 ))
while [ $(date +%s) -lt $end ]; do
  echo | nc -w 1 {address} {port} >/dev/null 2>&1 && echo REACHED {address}
done
echo tried
"""


def policy(name: str, labels: dict[str, str], egress: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "podSelector": {"matchLabels": labels},
            "policyTypes": ["Ingress", "Egress"],
            "egress": egress,
        },
    }


def in_namespace(namespace: str, document: dict[str, Any]) -> dict[str, Any]:
    return {**document, "metadata": {**document["metadata"], "namespace": namespace}}


def test_a_denied_pod_reaches_nothing_from_its_first_moment(lab: labs.TestLab) -> None:
    """Ten pods that dial the API server from their first instruction on: not one connection."""
    edge = lab.edges[0]
    namespace = edge.namespace("locked")
    script = DIAL_AT_ONCE.format(address=layout.API_SERVICE, port=443)
    names = [f"locked-{number}" for number in range(STARTS)]
    documents = [policy("deny", {"is": "locked"}, [])]
    documents += [labs.shell_pod(name, script, labels={"is": "locked"}) for name in names]
    edge.apply(*(in_namespace(namespace, document) for document in documents))
    said = {name: edge.ended(namespace, name, seconds=120) for name in names}
    assert said == dict.fromkeys(names, "tried\n")
    edge.kubectl("delete", "namespace", namespace, "--wait=false")


def test_a_pod_reaches_what_its_policy_names_and_nothing_else(lab: labs.TestLab) -> None:
    """One address and port of the hub; not its other ports, not the edge's own API server or kubelet."""
    edge = lab.edges[0]
    namespace = edge.namespace("one-way")
    hub = lab.lab.hub_address
    open_way = {
        "to": [{"ipBlock": {"cidr": f"{hub}/32"}}],
        "ports": [{"protocol": "TCP", "port": labs.HUB_API}],
    }
    closed = [(hub, 10250), (layout.API_SERVICE, 443), (layout.LAN_NODE, 6443), (layout.LAN_NODE, 10250)]
    script = "".join(
        f"echo | nc -w 3 {address} {number} >/dev/null 2>&1 && echo {address}:{number}; "
        for address, number in [(hub, labs.HUB_API), *closed]
    )
    free = labs.shell_pod("free", script + "echo done")
    bound = labs.shell_pod("bound", script + "echo done", labels={"is": "bound"})
    for document in (policy("one-way", {"is": "bound"}, [open_way]), free, bound):
        edge.apply(in_namespace(namespace, document))
    everything = "".join(f"{address}:{number}\n" for address, number in [(hub, labs.HUB_API), *closed])
    assert edge.ended(namespace, "free", seconds=90) == f"{everything}done\n", (
        "without a policy all of it is open"
    )
    assert edge.ended(namespace, "bound", seconds=90) == f"{hub}:{labs.HUB_API}\ndone\n"
    edge.kubectl("delete", "namespace", namespace, "--wait=false")


def test_a_claim_binds_and_every_user_may_write(lab: labs.TestLab) -> None:
    """A claim gets a directory of the node, for a pod that is not root; it goes with the claim."""
    for cluster in (lab.hub, lab.edges[0]):
        namespace = cluster.namespace("claims")
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "models"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        }
        pod = labs.shell_pod(
            "writer",
            "echo kept > /data/file && cat /data/file",
            volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "models"}}],
            container={"volumeMounts": [{"name": "data", "mountPath": "/data"}]},
        )
        cluster.apply(in_namespace(namespace, claim), in_namespace(namespace, pod))
        assert cluster.ended(namespace, "writer") == "kept\n"
        volume = cluster.get("pvc", "models", "-n", namespace)["spec"]["volumeName"]
        cluster.kubectl("delete", "namespace", namespace, "--wait")
        labs.wait_for(lambda name=volume, at=cluster: not at.get("pv", name), f"end of volume {volume}")  # type: ignore[misc]


def test_files_are_placed_on_one_node_only(lab: labs.TestLab, tmp_path: Path) -> None:
    """What is put on an edge's node is read by its pods, and is nowhere else."""
    source = tmp_path / "patients.csv"
    source.write_text("age\n42\n")
    first, second = lab.edges[:2]
    lab.lab.place(first.name, source, "/srv/data/patients.csv")
    said = {}
    for edge in (first, second):
        namespace = edge.namespace("files")
        pod = labs.shell_pod(
            "reader",
            "cat /data/patients.csv; ls /data",
            volumes=[{"name": "data", "hostPath": {"path": "/srv/data", "type": "DirectoryOrCreate"}}],
            container={"volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": True}]},
        )
        edge.apply(in_namespace(namespace, pod))
        said[edge.name] = edge.ended(namespace, "reader")
        edge.kubectl("delete", "namespace", namespace, "--wait=false")
    assert said[first.name] == "age\n42\npatients.csv\n"
    assert "42" not in said[second.name]


@pytest.fixture
def bare(lab: labs.TestLab) -> provider.Bare:
    if not isinstance(lab.lab, provider.Bare):
        pytest.skip("it stops programs of the bare provider's nodes")
    return lab.lab


def test_a_killed_program_of_a_node_comes_back(lab: labs.TestLab, bare: provider.Bare) -> None:
    """The node's first process starts again what ended; what the API server knew, it knows again."""
    edge = lab.edges[-1]
    namespace = edge.namespace("kept")
    node = bare.node(edge.name)
    before = node.programs()
    for program in ("etcd", "apiserver"):
        node.run("kill", "-9", str(before[program]["pid"]))
    labs.wait_for(
        lambda: node.programs()["apiserver"]["starts"] > before["apiserver"]["starts"], "second start"
    )
    labs.wait_for(lambda: not node.problem(), node.problem)
    assert edge.get("namespace", namespace)["status"]["phase"] == "Active"
    edge.kubectl("delete", "namespace", namespace, "--wait=false")


def test_a_node_that_lost_its_power_comes_back(lab: labs.TestLab, bare: provider.Bare) -> None:
    """Its first process is killed, and with it everything; `up` brings it back, on what it had kept."""
    edge = lab.edges[-1]
    namespace = edge.namespace("powered")
    edge.apply(in_namespace(namespace, labs.shell_pod("lasting", "sleep 3600")))
    labs.wait_for(
        lambda: edge.get("pod", "lasting", "-n", namespace)["status"].get("phase") == "Running", "pod"
    )
    node = bare.node(edge.name)
    pid = node.first_process()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    labs.wait_for(lambda: node.problem() == "the node is off", node.problem)
    record = state.State(bare.name).read()
    assert record is not None
    bare.up(record[0], say)
    assert node.problem() == ""
    assert edge.get("pod", "lasting", "-n", namespace)["spec"]["nodeName"] == edge.name
    edge.kubectl("delete", "namespace", namespace, "--wait=false")
