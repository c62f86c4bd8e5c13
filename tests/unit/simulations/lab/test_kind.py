"""Labs of kind: the commands that would run, the files that would be written, and the provider over both.

Docker and kind are small programs here that note how they were called and answer as the real ones do.
"""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path

import pytest
import yaml

from simulations.lab import port, releases
from simulations.lab.kind import Kind, commands, missing

PLAN = port.Plan("try", ("edge-1", "edge-2"), "1.36")


# --- commands and files ----------------------------------------------------------------------


def test_only_the_hub_publishes_anything_and_only_its_door() -> None:
    """The hub's door is at its network's gateway; an edge can be dialled by nobody."""
    hub = yaml.safe_load(commands.cluster_config("hub", "172.18.0.1"))
    assert hub["nodes"] == [
        {
            "role": "control-plane",
            "extraPortMappings": [
                {"containerPort": 30443, "hostPort": 30443, "listenAddress": "172.18.0.1", "protocol": "TCP"}
            ],
        }
    ]
    edge = yaml.safe_load(commands.cluster_config("edge-1", "172.18.0.1"))
    assert edge["nodes"] == [{"role": "control-plane"}]
    for config in (hub, edge):
        assert config["networking"]["apiServerAddress"] == "127.0.0.1"
        assert (config["kind"], config["apiVersion"]) == ("Cluster", "kind.x-k8s.io/v1alpha4")


def test_each_cluster_is_made_in_a_network_of_its_own() -> None:
    """Docker lets no packet from one of its networks into another."""
    made = [commands.make_network("try", name).argv for name in PLAN.clusters]
    assert len({argv[-1] for argv in made}) == 3
    assert all(argv[5:7] == ("--label", "hanse.dev/lab=try") for argv in made)
    create = commands.create("try", "edge-1", "1.36", Path("/c.yaml"), Path("/k"))
    assert create.environment == (("KIND_EXPERIMENTAL_DOCKER_NETWORK", "hanse-try-edge-1"),)
    assert create.argv[:5] == ("kind", "create", "cluster", "--name", "hanse-try-edge-1")
    assert create.argv[create.argv.index("--config") + 1] == "/c.yaml"
    assert create.argv[create.argv.index("--kubeconfig") + 1] == "/k"


def test_every_supported_minor_has_a_node_image_by_digest() -> None:
    """The two minors of the bare lab, each pinned."""
    assert set(commands.NODE_IMAGES) == set(releases.KUBERNETES)
    for minor, image in commands.NODE_IMAGES.items():
        assert image.startswith(f"kindest/node:v{minor}.")
        assert len(image.rpartition("@sha256:")[2]) == 64
    with pytest.raises(port.LabError, match=r"no node image for Kubernetes 1\.20"):
        commands.node_image("1.20")


def test_long_names_are_shortened_and_stay_apart() -> None:
    """Kind takes 50 characters, and a lab and an edge may have 30 each."""
    names = {commands.cluster_name("l" * 30, f"{'e' * 28}{number}") for number in range(9)}
    assert len(names) == 9
    assert all(len(name) <= 50 and not name.endswith("-") for name in names)
    assert commands.cluster_name("try", "hub") == "hanse-try-hub"


def test_the_gateway_is_the_ipv4_one() -> None:
    """Docker may list an IPv6 pool first."""
    pools = [
        {"Subnet": "fc00::/64", "Gateway": "fc00::1"},
        {"Subnet": "172.20.0.0/16", "Gateway": "172.20.0.1"},
    ]
    assert commands.gateway(json.dumps([{"IPAM": {"Config": pools}}])) == "172.20.0.1"
    with pytest.raises(port.LabFailed, match="no IPv4 gateway"):
        commands.gateway(json.dumps([{"IPAM": {"Config": None}}]))


def test_a_cut_leaves_the_way_to_the_api_server() -> None:
    """Pods lose everything outside, the node loses the hub, and this machine's kubectl goes on."""
    argvs = [
        command.argv[3:] for command in commands.cut("try", "edge-1", "172.18.0.1") if not command.may_fail
    ]
    assert [argv[:5] for argv in argvs] == [
        ("iptables", "-I", "FORWARD", "-o", "eth0"),
        ("iptables", "-I", "FORWARD", "-i", "eth0"),
        ("iptables", "-I", "OUTPUT", "-d", "172.18.0.1"),
    ]
    assert not any("INPUT" in argv for argv in argvs)


def test_what_a_cut_adds_restore_takes_away() -> None:
    """Rule for rule; and what is not there may be missing."""
    added = [c.argv[5:] for c in commands.cut("try", "edge-1", "172.18.0.1") if c.argv[4] == "-I"]
    mended = commands.restore("try", "edge-1", "172.18.0.1")
    assert [c.argv[5:] for c in mended if c.argv[3] == "iptables"] == added
    assert all(command.may_fail for command in mended)


@pytest.mark.parametrize(
    ("rules", "queue", "want"),
    [
        ("-P FORWARD ACCEPT", "qdisc noqueue 0: root refcnt 2", "open"),
        ("-A FORWARD -o eth0 -m comment --comment hanse-lab-cut -j DROP", "", "cut"),
        ("", "qdisc tbf 8001: root refcnt 2 rate 8Mbit burst 32Kb lat 200ms", "limited to 8 Mbit/s"),
        ("", "qdisc tbf 8001: root refcnt 2 rate 500Kbit burst 32Kb lat 200ms", "limited to 0.5 Mbit/s"),
        ("", "qdisc tbf 8001: root refcnt 2 rate 1500Kbit burst 32Kb lat 200ms", "limited to 1.5 Mbit/s"),
    ],
)
def test_a_link_is_described_from_what_the_node_says(rules: str, queue: str, want: str) -> None:
    """In the words of the bare lab."""
    assert commands.link_state(rules, queue) == want


def test_a_limit_holds_both_ways() -> None:
    """What leaves is queued, what comes is policed, at the same rate."""
    argvs = [command.argv for command in commands.limit("try", "edge-1", 8)]
    assert [argv.count("8000kbit") for argv in argvs if {"tbf", "police"} & set(argv)] == [1, 1]


@pytest.mark.parametrize(
    ("listed", "want"),
    [
        ({"items": []}, ("", "the cluster has no node")),
        (
            {"items": [{"status": {"nodeInfo": {"kubeletVersion": "v1.36.1"}, "conditions": [
                {"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}]}}]},
            ("v1.36.1", ""),
        ),
        (
            {"items": [{"status": {"nodeInfo": {"kubeletVersion": "v1.36.1"}, "conditions": [
                {"type": "Ready", "status": "False", "message": "network is not ready"}]}}]},
            ("v1.36.1", "network is not ready"),
        ),
    ],
)  # fmt: skip
def test_a_node_says_whether_it_is_ready(listed: dict[str, object], want: tuple[str, str]) -> None:
    """And why it is not."""
    assert commands.node_state(json.dumps(listed)) == want


def test_a_directory_is_placed_as_its_content(tmp_path: Path) -> None:
    """A file goes to its path, a directory's content into its path; both can be read by a pod's user."""
    (tmp_path / "data.csv").write_text("1")
    file = [c.argv for c in commands.place("try", "edge-1", tmp_path / "data.csv", "/srv/data/a.csv")]
    node = "hanse-try-edge-1-control-plane"
    assert file[0] == ("docker", "exec", node, "mkdir", "-p", "/srv/data")
    assert file[1] == ("docker", "cp", str(tmp_path / "data.csv"), f"{node}:/srv/data/a.csv")
    assert file[2][-3:] == ("-R", "a+rX,go-w", "/srv/data/a.csv")
    tree = [c.argv for c in commands.place("try", "edge-1", tmp_path, "/srv/data")]
    assert tree[1] == ("docker", "cp", f"{tmp_path}/.", f"{node}:/srv/data")


# --- the provider ----------------------------------------------------------------------

DOCKER = """#!/bin/sh
echo "docker $*" >> "$CALLS"
case "$1 $2" in
  "info "*) [ -e "$WORLD/off" ] && exit 1; echo 28.2.2 ;;
  "network ls") ls "$WORLD/networks" ;;
  "network create") for last; do :; done; touch "$WORLD/networks/$last"; echo id ;;
  "network inspect") [ -e "$WORLD/networks/$3" ] || { echo "Error: No such network: $3" >&2; exit 1; }
    echo '[{"IPAM": {"Config": [{"Gateway": "172.19.0.1"}]}}]' ;;
  "network rm") rm "$WORLD/networks/$3" ;;
  "exec -i") shift 3; exec "$@" ;;
  "exec "*) case "$*" in
    *kubectl*) echo '{"items": [{"status": {"nodeInfo": {"kubeletVersion": "v1.36.1"},'
      echo '"conditions": [{"type": "Ready", "status": "True"}]}}]}' ;;
    *"iptables -D"*|*"qdisc del"*) echo "no such rule" >&2; exit 1 ;;
    *"qdisc show"*) echo "qdisc noqueue 0: root" ;;
    esac ;;
esac
"""
KIND = """#!/bin/sh
echo "kind $* [$KIND_EXPERIMENTAL_DOCKER_NETWORK]" >> "$CALLS"
case "$1 $2" in
  "get clusters") ls "$WORLD/clusters" ;;
  "create cluster")
    [ -e "$WORLD/broken" ] && { echo "ERROR: failed to create cluster: no space" >&2; exit 1; }
    touch "$WORLD/clusters/$4"
    while [ $# -gt 1 ]; do [ "$1" = --kubeconfig ] && echo config > "$2"; shift; done ;;
  "delete cluster") rm "$WORLD/clusters/$4" ;;
esac
exit 0
"""


class World:
    """What the two programs know, and how they were called."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def clusters(self) -> list[str]:
        return sorted(path.name for path in (self.directory / "clusters").iterdir())

    @property
    def networks(self) -> list[str]:
        return sorted(path.name for path in (self.directory / "networks").iterdir())

    def calls(self, beginning: str) -> list[str]:
        lines = (self.directory / "calls").read_text().splitlines()
        return sorted(line for line in lines if line.startswith(beginning))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    directory = tmp_path / "world"
    for name in ("bin", "clusters", "networks"):
        (directory / name).mkdir(parents=True)
    for name, text in (("docker", DOCKER), ("kind", KIND)):
        program = directory / "bin" / name
        program.write_text(text)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{directory / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(directory / "calls"))
    monkeypatch.setenv("WORLD", str(directory))
    return World(directory)


def quiet(_cluster: str, _text: str) -> None:
    """No progress."""


def test_up_makes_every_cluster_in_its_network_and_status_shows_them(world: World, tmp_path: Path) -> None:
    """A hub and two edges; the hub's address is the same for all edges."""
    lab = Kind("try", tmp_path / "state")
    lab.up(PLAN, quiet)
    names = ["hanse-try-edge-1", "hanse-try-edge-2", "hanse-try-hub"]
    assert world.clusters == world.networks == names
    assert all(line.endswith(f"[{line.split()[4]}]") for line in world.calls("kind create"))
    status = lab.status()
    assert status is not None
    assert status.ready
    assert status.hub_address == lab.hub_address == "172.19.0.1"
    assert [(each.name, each.version, each.link) for each in status.clusters] == [
        ("hub", "v1.36.1", ""), ("edge-1", "v1.36.1", "open"), ("edge-2", "v1.36.1", "open"),
    ]  # fmt: skip
    assert lab.kubeconfig("edge-2").stat().st_mode & 0o077 == 0


def test_up_again_makes_only_what_is_missing(world: World, tmp_path: Path) -> None:
    """A cluster that somebody removed by hand comes back; the others are not touched."""
    lab = Kind("try", tmp_path / "state")
    lab.up(PLAN, quiet)
    (world.directory / "clusters" / "hanse-try-edge-1").unlink()
    lab.up(PLAN, quiet)
    created = [line.split()[4] for line in world.calls("kind create")]
    assert created == ["hanse-try-edge-1", "hanse-try-edge-1", "hanse-try-edge-2", "hanse-try-hub"]


def test_down_leaves_nothing_of_the_lab_and_all_of_others(world: World, tmp_path: Path) -> None:
    """A second `down` finds nothing to do."""
    (world.directory / "clusters" / "kind").touch()
    lab = Kind("try", tmp_path / "state")
    lab.up(PLAN, quiet)
    assert lab.down(quiet)
    assert (world.clusters, world.networks) == (["kind"], [])
    assert lab.status() is None
    assert not lab.down(quiet)


def test_down_cleans_up_after_an_up_that_failed(world: World, tmp_path: Path) -> None:
    """Even when the record is lost: Docker's networks say what belongs to the lab."""
    (world.directory / "broken").touch()
    with pytest.raises(port.LabFailed, match="no space"):
        Kind("try", tmp_path / "state").up(PLAN, quiet)
    assert world.networks
    assert Kind("try", tmp_path / "elsewhere").down(quiet)
    assert world.networks == []


def test_another_plan_needs_another_name(world: World, tmp_path: Path) -> None:
    """A lab is not changed under whoever uses it."""
    lab = Kind("try", tmp_path / "state")
    lab.up(PLAN, quiet)
    with pytest.raises(port.LabError, match="take another --name"):
        lab.up(port.Plan("try", ("edge-1",), "1.36"), quiet)


def test_links_are_cut_limited_and_restored(world: World, tmp_path: Path) -> None:
    """Inside the edge's node; the hub has no link."""
    lab = Kind("try", tmp_path / "state")
    lab.up(PLAN, quiet)
    lab.cut("edge-1")
    lab.limit("edge-1", 8)
    lab.restore("edge-1")
    node = "docker exec hanse-try-edge-1-control-plane"
    assert len(world.calls(f"{node} iptables -I")) == 3
    assert len(world.calls(f"{node} tc qdisc replace")) == 1
    with pytest.raises(port.LabError, match="the hub has no link"):
        lab.cut("hub")
    with pytest.raises(port.LabError, match="has no cluster edge-7; it has hub edge-1 edge-2"):
        lab.cut("edge-7")


def test_images_are_loaded_into_the_clusters_that_are_named(world: World, tmp_path: Path) -> None:
    """All archives at once."""
    lab = Kind("try", tmp_path / "state")
    lab.up(PLAN, quiet)
    lab.load([Path("/a.tar"), Path("/b.tar")], ["edge-1", "edge-2"])
    assert world.calls("kind load") == [
        f"kind load image-archive /a.tar /b.tar --name hanse-try-{edge} []" for edge in ("edge-1", "edge-2")
    ]


def test_a_forwarded_port_leads_where_the_node_leads(world: World, tmp_path: Path) -> None:
    """Bytes go both ways, and the same target has the same port."""
    lab = Kind("try", tmp_path / "state")
    lab.up(PLAN, quiet)
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = server.getsockname()[1]
        local = lab.forward("edge-1", "127.0.0.1", target)
        assert lab.forward("edge-1", "127.0.0.1", target) == local
        with socket.create_connection(("127.0.0.1", local)) as client:
            client.sendall(b"question")
            connection, _ = server.accept()
            with connection:
                assert connection.recv(100) == b"question"
                connection.sendall(b"answer")
                assert client.recv(100) == b"answer"


def test_what_is_missing_is_said(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No Docker, no daemon, no kind: each in its own words; and nothing where all is there."""
    assert missing() == ""
    (world.directory / "off").touch()
    assert "its daemon cannot be reached" in missing()
    with pytest.raises(port.LabError, match="daemon cannot be reached"):
        Kind("try", tmp_path / "state").up(PLAN, quiet)
    (world.directory / "bin" / "kind").unlink()
    monkeypatch.setenv("PATH", str(world.directory / "bin"))
    assert "needs the program kind" in missing()
    (world.directory / "bin" / "docker").unlink()
    assert "needs the program docker" in missing()
