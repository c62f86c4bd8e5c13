"""The pure parts of the commands for clusters: spans, addresses, tables, and what pods and logs mean."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest

from coordinator.cli import cluster_logs, join_tokens, joining, models, pods, reach, spans, tables

NOW = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    "text, seconds", [("90s", 90), ("30m", 1800), ("24h", 86_400), ("7d", 604_800), (" 1h ", 3600)]
)
def test_a_span(text: str, seconds: int) -> None:
    """A number and a unit."""
    assert spans.parse(text) == dt.timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "24", "h", "0h", "-1h", "1.5h", "1w", "9999999d"])
def test_no_span(text: str) -> None:
    """Anything else is refused with an example."""
    with pytest.raises(ValueError, match="such as 24h"):
        spans.parse(text)


@pytest.mark.parametrize(
    "moment, want",
    [
        (None, ""),
        ("", ""),
        ("2026-03-01T11:59:15Z", "45s"),
        ("2026-03-01T11:30:00Z", "30m"),
        (NOW + dt.timedelta(hours=5), "in 5h"),
        (NOW - dt.timedelta(days=12), "12d"),
    ],
)
def test_an_age(moment: Any, want: str) -> None:
    """As kubectl says it; what is to come with `in`."""
    assert spans.age(moment, NOW) == want


def test_a_table_shows_nothing_that_steers_a_terminal() -> None:
    """An edge says its own labels and version; an escape sequence in them is only text."""
    assert tables.table(("A", "B"), [("\x1b[31mx\n", "")]) == "A       B\n[31mx   -"


@pytest.mark.parametrize(
    "spec, status, want",
    [
        ({"type": "LoadBalancer"}, {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}, "203.0.113.7:443"),
        ({"type": "LoadBalancer"}, {"loadBalancer": {"ingress": [{"hostname": "a.test"}]}}, "a.test:443"),
        ({"type": "LoadBalancer"}, {"loadBalancer": {}}, None),
        ({"type": "NodePort"}, {}, "198.51.100.1:30443"),
        ({"type": "ClusterIP"}, {}, None),
    ],
)  # fmt: skip
def test_where_the_door_is(spec: dict[str, Any], status: dict[str, Any], want: str | None) -> None:
    """A balancer's address, or a node's, the outer one first; a Service inside does not say."""
    service = {"spec": {**spec, "ports": [{"port": 443, "nodePort": 30443}]}, "status": status}
    addresses = [
        {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "ExternalIP", "address": "198.51.100.1"},
    ]  # fmt: skip
    assert join_tokens.door_address(service, ({"status": {"addresses": addresses}},)) == want


@pytest.mark.parametrize(
    "image, want",
    [
        ("localhost/hanse/coordinator:0.1.0", "localhost/hanse"),
        ("registry.test:5000/hanse/coordinator@sha256:00", "registry.test:5000/hanse"),
        ("registry.example/hanse/coordinator:0.1.0", ""),
        ("registry.test/our-own-hub:7", ""),
    ],
)
def test_a_join_names_the_registry_of_the_hub(image: str, want: str) -> None:
    """A hub whose images are not where the release has them says so to its edges."""
    containers = [{"name": "door", "image": "envoy"}, {"name": "coordinator", "image": image}]
    deployment = {"spec": {"template": {"spec": {"containers": containers}}}}
    assert join_tokens.registry_of(deployment) == want
    line = join_tokens.command_line("hub:443", "t", "h", "zurich", want)
    assert line == "hanse join hub:443 --token t --ca-hash h --name zurich" + (
        f" --registry {want} --apply" if want else " --apply"
    )


def test_a_door_at_an_ipv6_address() -> None:
    """The address stands in brackets, as `hanse join` reads it."""
    ingress = [{"ip": "2001:db8::1"}]
    service = {
        "spec": {"type": "LoadBalancer", "ports": [{"port": 443}]},
        "status": {"loadBalancer": {"ingress": ingress}},
    }
    assert join_tokens.door_address(service, ()) == "[2001:db8::1]:443"


@pytest.mark.parametrize(
    "line, want",
    [
        ("no json", ("", False)),
        ("[]", ("", False)),
        ({"event": "client started"}, ("", False)),
        ({"event": "joined the federation"}, ("zurich joined: the hub issued its certificate", False)),
        (
            {"event": "join failed", "error": "no hub\nanswers"},
            ("the hub does not let it in yet: no hub answers; the agent tries again", False),
        ),
        ({"event": "session open"}, ("", True)),
    ],
)
def test_what_an_agent_writes(line: Any, want: tuple[str, bool]) -> None:
    """Of the agent's log, what its owner waits for."""
    assert joining.heard(line if isinstance(line, str) else json.dumps(line), "zurich") == want


def pod(**state: Any) -> dict[str, Any]:
    return {"status": {"containerStatuses": [{"image": "a/b:1", "state": state}]}}


def test_what_keeps_a_pod_from_running() -> None:
    """Images, nodes and crashes are told; what passes by itself is not."""
    assert pods.obstacle(pod(waiting={"reason": "ContainerCreating"})) == ""
    assert pods.obstacle(pod(running={})) == ""
    assert pods.obstacle(pod(waiting={"reason": "ErrImagePull"})).startswith("the image a/b:1 does not come")
    unschedulable = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}
    assert "0/1 nodes" in pods.obstacle({"status": {"conditions": [unschedulable]}})


def test_the_last_words_of_an_agent() -> None:
    """An agent that the hub sent away has said why; one that a kubelet restarts has not."""
    assert joining.last_words(pod(running={})) == ""
    assert joining.last_words(pod(terminated={"exitCode": 137})) == ""
    assert joining.last_words(pod(terminated={"exitCode": 3, "message": "token used\n"})) == "token used"


@pytest.mark.parametrize("text", ["hospitals", "/x", "x/", "A/b", ""])
def test_no_training(text: str) -> None:
    """A training has a namespace and a name."""
    with pytest.raises(reach.Refused, match="want NAMESPACE/NAME"):
        reach.namespaced(text)


def test_where_a_model_is() -> None:
    """A claim is read in the cluster, all else by its URL."""
    assert models.claim_of("pvc://models/a/b/7") == ("models", "/models/a/b/7")
    assert models.claim_of("s3://bucket/a/b/7") is None


def test_a_pod_that_wrote_nothing_is_said_to_have_written_nothing() -> None:
    """`hanse logs` of an aggregator that has just started prints a line, not nothing at all."""
    assert cluster_logs.told("aggregator-x", ()) == ("(pod aggregator-x has written nothing yet)",)
    assert cluster_logs.told("aggregator-x", ("a", "b")) == ("a", "b")
