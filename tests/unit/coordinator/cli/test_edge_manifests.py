"""What `hanse join` prints."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from typer import testing

from coordinator.cli import edge_manifests, main
from edge_agent import config as agent_config

TOKEN = "hanse_abcdefgh." + "x" * 43
CA_HASH = "sha256:" + "a1" * 32


def invitation(hub: str = "hub.example.org:443", **changes: Any) -> edge_manifests.Invitation:
    fields = {"hub": hub, "token": TOKEN, "ca_hash": CA_HASH, "cluster": "zurich"}
    return edge_manifests.Invitation(**{**fields, **changes})


def find(manifests: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = (m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name)
    return found


def test_the_invitation_is_the_agents_configuration() -> None:
    """The agent reads the ConfigMap's JSON as it is; the token is in the Secret alone."""
    manifests = edge_manifests.agent(invitation(labels={"region": "europe"}))
    text = find(manifests, "ConfigMap", "hanse-agent")["data"]["config.json"]
    read = json.loads(text)
    assert agent_config.AgentConfig.model_validate_json(text).pin() == CA_HASH
    assert read == {
        "cluster": "zurich",
        "enrollment_address": "hub.example.org:443",
        "ca_pin": CA_HASH,
        "token_file": "/etc/hanse/join/token",
        "state_directory": "/var/lib/hanse/state",
        "labels": {"region": "europe"},
        "kubernetes": {},
    }
    assert TOKEN not in text
    assert find(manifests, "Secret", "hanse-join")["stringData"] == {"token": TOKEN}
    mounts = find(manifests, "Deployment", "hanse-agent")["spec"]["template"]["spec"]["containers"][0]
    paths = {mount["name"]: mount["mountPath"] for mount in mounts["volumeMounts"]}
    assert read["token_file"] == f"{paths['join']}/token"
    # in the volume and not its root, which belongs to somebody else
    assert read["state_directory"] == f"{paths['state']}/state"
    assert mounts["args"] == ["--config", f"{paths['config']}/config.json"]


@pytest.mark.parametrize(
    "hub, want",
    [
        ("172.30.0.10:30443", [["172.30.0.10/32", 30443]]),
        ("[2001:db8::1]:443", [["2001:db8::1/128", 443]]),
        ("hub.example.org:443", [[443], [53, 53]]),
        ("hub.example.org:8443", [[8443], [53, 53]]),
    ],
)
def test_the_agents_way_out(hub: str, want: list[list[Any]]) -> None:
    """Besides the API server the agent reaches the door; DNS only where the hub is given by name.

    The way to the door is in the invitation, so that it is there also for whoever takes the rest from Git.
    """
    manifests = edge_manifests.agent(invitation(hub))
    door = find(edge_manifests.invitation_manifests(invitation(hub)), "NetworkPolicy", "hanse-agent-door")
    assert find(manifests, "NetworkPolicy", "hanse-agent-door") == door
    own = find(manifests, "NetworkPolicy", "hanse-agent")
    assert own["spec"]["podSelector"] == door["spec"]["podSelector"]
    assert _ways(own) == [[443, 6443]]
    assert _ways(door) == want


def _ways(policy: dict[str, Any]) -> list[list[Any]]:
    return [
        [*(to["ipBlock"]["cidr"] for to in rule.get("to", [])), *(port["port"] for port in rule["ports"])]
        for rule in policy["spec"]["egress"]
    ]


def test_images_are_the_releases_or_where_they_are_said_to_be() -> None:
    """--registry moves every image, also those that the agent is told of."""
    for registry, place in ((None, "registry.example/hanse"), ("localhost/hanse", "localhost/hanse")):
        manifests = edge_manifests.agent(invitation(), registry=registry)
        container = find(manifests, "Deployment", "hanse-agent")["spec"]["template"]["spec"]["containers"][0]
        environment = {entry["name"]: entry.get("value") for entry in container["env"]}
        assert container["image"].startswith(f"{place}/edge-agent:")
        assert environment["HANSE_AGENT_IMAGE"] == container["image"]
        assert environment["HANSE_CLIENT_IMAGE"].startswith(f"{place}/client:")


@pytest.mark.parametrize(
    "pinned, want",
    [
        ({"newTag": "0.1.0"}, ":0.1.0"),
        ({"digest": CA_HASH}, f"@{CA_HASH}"),
        ({"newTag": "0.1.0", "digest": CA_HASH}, f":0.1.0@{CA_HASH}"),
    ],
)
def test_a_release_may_name_its_images_by_digest(pinned: dict[str, str], want: str) -> None:
    """As kustomize has it, so that both ways to join run the same image."""
    entry = {"name": "hanse/client", "newName": "registry.example/hanse/client", **pinned}
    assert edge_manifests.reference(entry, None) == f"registry.example/hanse/client{want}"
    assert edge_manifests.reference(entry, "localhost/hanse") == f"localhost/hanse/client{want}"


def test_another_namespace() -> None:
    """With --namespace nothing is left in the usual one."""
    manifests = edge_manifests.agent(invitation(), namespace="learning")
    assert {m["metadata"].get("namespace", "learning") for m in manifests} == {"learning"}
    assert find(manifests, "Namespace", "learning")
    assert find(manifests, "RoleBinding", "hanse-agent")["subjects"][0]["namespace"] == "learning"


@pytest.mark.parametrize(
    "changes, want",
    [
        ({"hub": "hub.example.org"}, "want HOST:PORT"),
        ({"hub": "hub.example.org:0"}, "want HOST:PORT"),
        ({"ca_hash": "sha256:12"}, "want sha256: and 64 hexadecimal digits"),
        ({"cluster": "Zürich"}, "want 1 to 63 of a-z"),
        ({"labels": {"a b": "c"}}, "not a label"),
    ],
)
def test_what_cannot_be_an_invitation_is_refused(changes: dict[str, Any], want: str) -> None:
    """A mistyped word is named before anything is applied."""
    with pytest.raises(edge_manifests.InvalidInvitation, match=want):
        invitation(**changes)


def test_the_command_prints_manifests() -> None:
    """Without --apply the command writes YAML to standard output and talks to no cluster."""
    command = ["join", "hub.example.org:443", "--token", TOKEN, "--ca-hash", CA_HASH, "--name", "zurich"]
    whole = testing.CliRunner().invoke(main.app, command)
    part = testing.CliRunner().invoke(main.app, [*command, "--label", "region=europe", "--only-invitation"])
    assert whole.exit_code == part.exit_code == 0
    kinds = [manifest["kind"] for manifest in yaml.safe_load_all(whole.stdout)]
    assert kinds[0] == "Namespace" and kinds[-1] == "Deployment"
    invitations = list(yaml.safe_load_all(part.stdout))
    assert [manifest["kind"] for manifest in invitations] == ["NetworkPolicy", "ConfigMap", "Secret"]
    assert json.loads(invitations[1]["data"]["config.json"])["labels"] == {"region": "europe"}


def test_the_command_refuses_in_one_sentence() -> None:
    """What is wrong comes on standard error, with exit code 2."""
    result = testing.CliRunner().invoke(
        main.app, ["join", "hub", "--token", TOKEN, "--ca-hash", CA_HASH, "--name", "zurich"]
    )
    assert result.exit_code == 2
    assert result.stderr == "hanse: HUB 'hub': want HOST:PORT, such as hub.example.org:443\n"
