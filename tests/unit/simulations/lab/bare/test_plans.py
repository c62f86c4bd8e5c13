"""What a bare lab would do, read as data: names, addresses, commands, configuration."""

from __future__ import annotations

import datetime as dt
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from simulations.lab import port
from simulations.lab.bare import components, files, layout, network, objects, pki, provider, system

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
TOOLS = components.Tools(Path("/cache/bin"), Path("/cache/cni"))


@pytest.fixture
def lab(tmp_path: Path) -> layout.Layout:
    return layout.Layout(port.Plan("demo", ("zurich", "basel"), "1.36"), tmp_path)


@pytest.fixture
def credentials(lab: layout.Layout) -> pki.Pki:
    edge = lab.cluster("zurich")
    return pki.make(
        edge.directory / "pki",
        users=components.users(edge),
        addresses=("127.0.0.1", edge.node_address),
        names=("localhost",),
        now=NOW,
    )


def programs(lab: layout.Layout, credentials: pki.Pki) -> dict[str, components.Program]:
    cluster = lab.cluster("zurich")
    made = components.programs(cluster, credentials, TOOLS, python="/python", keeper=Path("/keeper.py"))
    return {program.name: program for program in made}


# --- names and addresses ------------------------------------------------------------------------------------


def test_every_name_follows_from_the_labs(lab: layout.Layout) -> None:
    """`down` finds by the prefix what `up` made, whatever the record says."""
    assert lab.namespaces == (
        "hanse-lab.demo.wan",
        "hanse-lab.demo.hub",
        "hanse-lab.demo.zurich",
        "hanse-lab.demo.basel",
        "hanse-lab.demo.zurich.router",
        "hanse-lab.demo.basel.router",
    )
    assert all(name.startswith(layout.prefix("demo")) for name in lab.namespaces)
    assert lab.cluster("basel").cgroup == "/hanse-lab.demo/basel"


def test_edges_have_the_same_inside_and_differ_outside(lab: layout.Layout) -> None:
    """As sites do: nobody coordinates addresses behind a router."""
    assert [edge.node_address for edge in lab.edges] == ["192.168.50.2", "192.168.50.2"]
    assert [cluster.wan_address for cluster in lab.clusters] == ["172.30.0.10", "172.30.0.21", "172.30.0.22"]


def test_names_fit_the_kernels_limit() -> None:
    """An interface's name has at most 15 characters, also for the last of the edges."""
    plan = port.Plan("demo", port.numbered(port.MOST_EDGES), "1.36")
    assert max(len(cluster.uplink) for cluster in layout.Layout(plan, Path("/")).clusters) <= 15


@pytest.mark.parametrize("name", ["", "Zurich", "a.b", "-a", "a-", "1a", "a" * 31, "a/b"])
def test_names_that_could_be_mistaken_are_refused(name: str) -> None:
    """A dot or a slash would lead out of the lab's prefix."""
    with pytest.raises(port.LabError, match="cannot name"):
        port.Plan(name, (), "1.36")


@pytest.mark.parametrize("edges", [("hub",), ("a", "a")])
def test_edges_have_names_of_their_own(edges: tuple[str, ...]) -> None:
    with pytest.raises(port.LabError, match="names of their own"):
        port.Plan("demo", edges, "1.36")


def test_only_edges_have_links(lab: layout.Layout) -> None:
    """The sentence names what there is."""
    with pytest.raises(port.LabError, match="those of edges: zurich basel"):
        lab.edge("hub")
    with pytest.raises(port.LabError, match="no cluster bern; it has hub zurich basel"):
        lab.edge("bern")


# --- the network --------------------------------------------------------------------------------------------


def test_a_router_lets_nothing_in_before_it_is_linked(lab: layout.Layout) -> None:
    """The rules are loaded before the router's side of the link is up, at every edge."""
    commands = list(network.build(lab, "/nft"))
    for edge in lab.edges:
        there = [each for each in commands if edge.router in " ".join(each.argv)]
        rules = next(number for number, each in enumerate(there) if "/nft" in each.argv)
        up = next(number for number, each in enumerate(there) if "link set wan0 up" in each.standard_input)
        assert rules < up


def test_the_hub_gets_no_route_to_an_edge(lab: layout.Layout) -> None:
    """What the hub's namespace is told names no address behind a router."""
    told = [
        each for each in network.build(lab, "/nft") if each.argv[:3] == ("ip", "-n", "hanse-lab.demo.hub")
    ]
    assert told
    assert not any("192.168.50" in each.standard_input for each in told)


def test_everything_is_made_inside_the_labs_namespaces(lab: layout.Layout) -> None:
    """Nothing touches the machine's own network: each command names a namespace of this lab."""
    commands = [
        *network.build(lab, "/nft"),
        *network.restore(lab, lab.edges[0]),
        *network.cut(lab, lab.edges[0]),
    ]
    assert all("hanse-lab.demo." in " ".join(each.argv[:4]) for each in commands)


@pytest.mark.parametrize(
    ("flags", "queues", "want"),
    [
        (["BROADCAST", "UP"], [], "open"),
        (["BROADCAST", "UP"], [{"kind": "noqueue", "options": {}}], "open"),
        (["BROADCAST", "UP"], [{"kind": "tbf", "options": {"rate": 1_000_000}}], "limited to 8 Mbit/s"),
        (["BROADCAST"], [{"kind": "tbf", "options": {"rate": 1_000_000}}], "cut"),
    ],
)
def test_a_links_state_is_read_from_the_kernel(flags: list[str], queues: list[Any], want: str) -> None:
    """What was cut is cut, whatever limit it has."""
    assert network.link_state([{"flags": flags}], queues) == want


# --- the node's programs ------------------------------------------------------------------------------------


def test_no_pod_starts_before_the_rules_that_hold_it(lab: layout.Layout, credentials: pki.Pki) -> None:
    """The kubelet waits for the guard and for the engine's queue."""
    found = programs(lab, credentials)
    assert {"done:guard", "done:queue-0", "done:queue-1"} <= set(found["kubelet"].after)
    assert all(found[name].once for name in ("guard", "queue-0", "queue-1"))


def test_every_sign_is_given_by_a_program_of_the_plan(lab: layout.Layout, credentials: pki.Pki) -> None:
    """Nobody waits for ever for a name that is not there."""
    found = programs(lab, credentials)
    for program in found.values():
        for sign in program.after:
            kind, _, rest = sign.partition(":")
            assert kind in ("tcp", "unix", "https") or (kind == "done" and found[rest].once)


def test_programs_come_from_the_cache_alone(lab: layout.Layout, credentials: pki.Pki) -> None:
    """What happens to be installed on the machine is not used by accident."""
    own = {"queue-0", "queue-1", "keeper"}
    for name, program in programs(lab, credentials).items():
        assert name in own or program.argv[0].startswith("/cache/bin/"), name


def test_the_plan_of_a_node_is_json_with_its_mark(lab: layout.Layout, credentials: pki.Pki) -> None:
    """`inside/init.py` reads it; the mark is how `down` knows the processes."""
    cluster = lab.cluster("zurich")
    plan = components.init_plan(
        cluster,
        credentials,
        TOOLS,
        python="/python",
        keeper=Path("/k"),
        visible=(Path("/cache"),),
        mark="demo",
    )
    read = json.loads(json.dumps(plan))
    assert read["mark"] == {layout.MARK: "demo"}
    assert read["visible"] == [[str(cluster.directory), True], ["/cache", False]]


def test_the_guard_starts_empty_every_time() -> None:
    """Loading the rules again forgets every pod: they fail closed."""
    lines = files.guard().splitlines()
    assert lines[:2] == ["table ip hanse_guard", "delete table ip hanse_guard"]
    assert "elements" not in files.guard()


def test_configuration_files_are_what_their_readers_parse(lab: layout.Layout, credentials: pki.Pki) -> None:
    """TOML, YAML and JSON, each with the settings without which a node does not run here."""
    cluster = lab.cluster("zurich")
    containerd = tomllib.loads(files.containerd(cluster, runc=Path("/r/runc"), cni=Path("/c")))
    cri = containerd["plugins"]["io.containerd.grpc.v1.cri"]
    assert (cri["sandbox_image"], cri["cni"]["bin_dir"]) == (files.PAUSE_IMAGE, "/c")
    kubelet = yaml.safe_load(files.kubelet(cluster, credentials, on_a_disk=True))
    assert (kubelet["cgroupRoot"], kubelet["failCgroupV1"]) == ("/hanse-lab.demo/zurich", False)
    assert kubelet["localStorageCapacityIsolation"]
    assert yaml.safe_load(files.kube_proxy(Path("/k")))["mode"] == "iptables"
    assert json.loads(files.cni())["plugins"][0]["bridge"] == layout.POD_BRIDGE


def test_only_a_disk_is_measured(lab: layout.Layout, credentials: pki.Pki) -> None:
    """Where the node's files have no device, its kubelet would not start if it had to."""
    assert not system.on_a_disk(Path("/proc"))
    kubelet = yaml.safe_load(files.kubelet(lab.cluster("zurich"), credentials, on_a_disk=False))
    assert not kubelet["localStorageCapacityIsolation"]


def test_each_component_has_a_token_of_its_own(lab: layout.Layout, credentials: pki.Pki) -> None:
    """The API server's file of tokens names each of them once."""
    lines = credentials.read("tokens.csv").splitlines()
    assert len(lines) == len({line.split(",")[0] for line in lines}) == len(components.users(lab.edges[0]))
    assert any(line.endswith('system:node:zurich,kubelet,"system:nodes"') for line in lines)
    assert all(path.stat().st_mode & 0o077 == 0 for path in credentials.directory.iterdir())


def test_the_clusters_initial_objects_grant_what_is_read() -> None:
    """The keeper and the policy engine watch and change nothing; one class of storage is the default."""
    documents = [document for _, document in objects.initial()]
    roles = [document for document in documents if document["kind"] == "ClusterRole"]
    assert {verb for role in roles for rule in role["rules"] for verb in rule["verbs"]} == {
        "get",
        "list",
        "watch",
    }
    assert [document["metadata"]["name"] for document in documents if document["kind"] == "StorageClass"] == [
        "standard"
    ]


@pytest.mark.parametrize(
    ("room", "clusters", "want"),
    [
        (128, 9, ""),
        (0, 0, ""),
        (60, 4, ""),
        (20, 2, "2 clusters need 26 inotify instances, and this machine has 20 left of the 128 that a user "
         "may have: run `sysctl -w fs.inotify.max_user_instances=256`, take other labs down, or ask for "
         "fewer edges"),
    ],
    ids=["nine on an empty machine", "all are up", "room is left", "too many labs"],
)  # fmt: skip
def test_too_many_nodes_for_one_machine_are_refused_before_they_start(
    room: int, clusters: int, want: str
) -> None:
    """The kernel's limit is told with the command that raises it."""
    assert provider.too_few_instances(room, clusters, 128) == want


def test_counting_the_room_for_inotify_keeps_nothing() -> None:
    """Two counts in a row say the same, and no descriptor stays open."""
    before = sorted(Path("/proc/self/fd").iterdir())
    assert 0 <= system.inotify_room(3) <= 3
    assert sorted(Path("/proc/self/fd").iterdir()) == before
