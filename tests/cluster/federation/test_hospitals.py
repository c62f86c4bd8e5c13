"""The main job on real clusters: the hospitals' training gives the model of the process run, to the bit."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path

import pytest

from simulations.clusters import objects
from simulations.local import scenario
from tests.cluster.federation.trainings import HUB, Clusters, condition, hanse

pytestmark = pytest.mark.cluster

HOSPITALS = Path(__file__).parents[3] / "simulations" / "hospitals"
NAMESPACE, NAME = "cardiology", "hospitals"
GOLDEN = Path(__file__).parent / "golden" / "describe-hospitals.txt"
CHANGING = {
    r"\d{4}-\d\d-\d\dT[\d:]+Z": "TIME",
    r"(UID: +)\S+": r"\1UID",
    r"(Resource Version: +)\d+": r"\1NUMBER",
    r"(sha256: *)[0-9a-f]{64}": r"\1SHA256",
    r"((?:Bytes Up|Bytes Down|Median Seconds|Aggregate|Evaluate|Train): +)[\d.e-]+": r"\1NUMBER",
    r"(\d\.\d{3})\d+": r"\1",  # another machine's last digits may be others
}
"""What is another in each run, and what the golden text has for it."""
ALWAYS = ("RoundInProgress", "AllRoundsDone")
"""What every run tells; how it waits for the edges before depends on who answers first."""


@pytest.fixture(scope="module")
def plan(clusters: Clusters) -> scenario.Scenario:
    """The hospitals that this lab has, by the names that they have in the example."""
    read = scenario.with_edges(scenario.read(HOSPITALS), len(clusters.edges))
    assert tuple(edge.name for edge in read.edges) == clusters.edges
    return dataclasses.replace(read, directory=HOSPITALS)


@pytest.fixture(scope="module")
def trained(clusters: Clusters, plan: scenario.Scenario) -> dict[str, object]:
    """The status of the training once it is over."""
    clusters.kubectl(HUB, "delete", "ft", NAME, "-n", NAMESPACE, "--ignore-not-found")
    for edge in plan.edges:
        clusters.apply(edge.name, *objects.edge(edge))
    before, training = objects.hub(plan)
    clusters.apply(HUB, *before)
    clusters.apply(HUB, training)
    return clusters.ended(NAME, NAMESPACE)


def test_the_model_is_that_of_the_process_run(
    clusters: Clusters, trained: dict[str, object], tmp_path: Path
) -> None:
    """Same data, same app, same names: the same SHA-256, in status and in the file that is fetched."""
    assert trained["phase"] == "Completed", condition(trained, "Failed")
    processes = json.loads(
        hanse("simulate", HOSPITALS, "--edges", len(clusters.edges), "--keep", tmp_path / "p", "-o", "json")
    )
    want = processes["model"]["sha256"]
    assert trained["model"]["sha256"] == want
    to = tmp_path / "fetched"
    hanse("models", f"{NAMESPACE}/{NAME}", "--to", to, kubeconfig=clusters.lab.kubeconfig(HUB))
    (model,) = to.rglob("model.safetensors")
    assert hashlib.sha256(model.read_bytes()).hexdigest() == want


def test_kubectl_get_is_worth_looking_at(clusters: Clusters, trained: dict[str, object]) -> None:
    """The print columns tell phase, rounds, clusters, a metric and the model in one line."""
    lines = clusters.kubectl(HUB, "get", "ft", "-n", NAMESPACE).splitlines()
    assert lines[0].split() == ["NAME", "PHASE", "ROUND", "CLUSTERS", "METRIC", "MODEL", "AGE"]
    assert re.fullmatch(
        r"hospitals +Completed +20/20 +3/3 +accuracy=0\.\d+ +pvc://\S+/20 +\S+",
        lines[1],
    )
    members = clusters.kubectl(HUB, "get", "edgeclusters").splitlines()
    assert len(members) == 1 + len(clusters.edges)
    assert all(re.search(r"Accepted +True +\S*heart-disease", line) for line in members[1:])


def test_events_tell_the_story(clusters: Clusters, trained: dict[str, object]) -> None:
    """One Event for each change of state, in whole sentences, the last one being the end."""
    events = clusters.get(
        HUB, "events", NAMESPACE, "--field-selector", "involvedObject.kind=FederatedTraining"
    )
    reasons = {event["reason"] for event in events}
    assert {"RoundInProgress", "AllRoundsDone"} <= reasons
    assert all(event["message"].rstrip(".") for event in events)
    described = clusters.kubectl(HUB, "describe", "ft", NAME, "-n", NAMESPACE)
    assert "AllRoundsDone" in described


def normalised(described: str) -> str:
    """What `kubectl describe` printed, without what is another in each run."""
    for pattern, replacement in CHANGING.items():
        described = re.sub(pattern, replacement, described)
    story, _, events = described.partition("Events:\n")
    told = [re.split(r" {2,}", line.strip(), maxsplit=4) for line in events.splitlines()]
    kept = {
        reason: f"  {kind}  {reason}  AGE  {who}  {re.sub(r'^Round [0-9]+.*', 'Round NUMBER ...', message)}\n"
        for kind, reason, _, who, message in told
    }
    return story + "Events:\n" + "".join(kept[reason] for reason in ALWAYS)


def test_kubectl_describe_is_prose(clusters: Clusters, trained: dict[str, object], tmp_path: Path) -> None:
    """A golden text, to be read as one: every condition and cluster in a sentence, and the Events."""
    described = normalised(clusters.kubectl(HUB, "describe", "ft", NAME, "-n", NAMESPACE))
    (tmp_path / GOLDEN.name).write_text(described)
    assert described == GOLDEN.read_text(), f"read the difference, then: cp {tmp_path / GOLDEN.name} {GOLDEN}"


def test_the_edge_approved_by_hand_took_part(clusters: Clusters, trained: dict[str, object]) -> None:
    """Of three edges that joined by token one was let in by an operator; all of them trained."""
    assert [entry["state"] for entry in trained["clusters"]] == ["Completed"] * len(clusters.edges)


def test_the_agent_may_do_what_its_page_says_and_no_more(clusters: Clusters) -> None:
    """Asked of a real API server: the agent has its own namespace, and nothing of the cluster."""
    edge = clusters.edges[0]
    agent = "--as=system:serviceaccount:hanse:hanse-agent"

    def may(*question: str) -> bool:
        return clusters.kubectl(edge, "auth", "can-i", *question, agent, check=False).strip() == "yes"

    assert may("create", "jobs", "-n", "hanse")
    for question in (
        ("create", "jobs", "-n", "default"),
        ("get", "secrets", "-n", "kube-system"),
        ("list", "nodes"),
        ("create", "clusterrolebindings"),
        ("create", "pods", "-n", "hanse"),
        ("*", "*"),
    ):
        assert not may(*question), question
