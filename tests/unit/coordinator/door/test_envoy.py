"""What Envoy is told follows from the routes, and an aggregator cannot make the door lead anywhere."""

import json
import pathlib

import pytest

from coordinator.door import envoy, files

LISTEN = envoy.Address("0.0.0.0", 8443)
ROUTES = envoy.Routes(
    "coordinator.hanse.local",
    envoy.Address("10.0.0.1", 8442),
    envoy.Address("127.0.0.1", 8441),
    {
        "b.ns.aggregator.hanse.local": envoy.Address("10.0.0.3", 7443),
        "a.ns.aggregator.hanse.local": envoy.Address("fd00::2", 7443),
    },
)


def test_each_name_has_a_chain_of_its_own_and_the_rest_enrolls() -> None:
    """Names in order, the enrollment listener last and only for TLS."""
    clusters, listeners = envoy.opened(LISTEN, ROUTES)
    chains = listeners["resources"][0]["filter_chains"]
    assert [chain["filter_chain_match"].get("server_names") for chain in chains] == [
        ["coordinator.hanse.local"],
        ["a.ns.aggregator.hanse.local"],
        ["b.ns.aggregator.hanse.local"],
        None,
    ]
    assert all(chain["filter_chain_match"]["transport_protocol"] == "tls" for chain in chains)
    led = {
        cluster["name"]: cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"][
            "socket_address"
        ]
        for cluster in clusters["resources"]
    }
    assert led["enrollment"] == {"address": "127.0.0.1", "port_value": 8441}
    assert led["a.ns.aggregator.hanse.local"] == {"address": "fd00::2", "port_value": 7443}


def test_streams_are_cut_only_when_not_even_pings_come() -> None:
    """A client trains for hours and pings every 20 s; who holds a connection and says nothing loses it."""
    _, listeners = envoy.opened(LISTEN, ROUTES)
    proxies = [chain["filters"][-1]["typed_config"] for chain in listeners["resources"][0]["filter_chains"]]
    assert {proxy["idle_timeout"] for proxy in proxies} == {"300s", "20s"}


def test_equal_routes_are_equal_bytes_and_others_have_another_version() -> None:
    """Nothing is written that did not change."""
    again = envoy.Routes(
        ROUTES.control_name, ROUTES.control, ROUTES.enrollment, dict(reversed(ROUTES.aggregators.items()))
    )
    assert [envoy.text(doc) for doc in envoy.opened(LISTEN, ROUTES)] == [
        envoy.text(doc) for doc in envoy.opened(LISTEN, again)
    ]
    fewer = envoy.Routes(ROUTES.control_name, ROUTES.control, ROUTES.enrollment)
    assert envoy.opened(LISTEN, fewer)[1]["version_info"] != envoy.opened(LISTEN, again)[1]["version_info"]


REFUSED = {
    "a name": "aggregator.svc:7443",
    "another scheme": "unix:/run/docker.sock",
    "the door's own host": "127.0.0.1:7443",
    "its own host in IPv6": "[::1]:7443",
    "the cloud's metadata": "169.254.169.254:7443",
    "everywhere": "0.0.0.0:7443",
    "another port": "10.0.0.9:6443",
    "no port": "10.0.0.9:0",
    "no address": "10.0.0.999:7443",
}


@pytest.mark.parametrize("said", REFUSED.values(), ids=REFUSED)
def test_an_aggregator_cannot_lead_the_door_astray(said: str, tmp_path: pathlib.Path) -> None:
    """An app's code may say any address; the door leads to pods, at one port, or nowhere."""
    with pytest.raises(envoy.InvalidRoute):
        envoy.address(said, port=7443)
    door = files.Door(tmp_path, LISTEN, aggregator_port=7443, own_host=False)
    door.open(ROUTES.control_name, ROUTES.control, ROUTES.enrollment)
    door.lead({"a.ns.aggregator.hanse.local": said, "b.ns.aggregator.hanse.local": "10.0.0.3:7443"}, True)
    listed = json.loads((tmp_path / envoy.CLUSTERS).read_bytes())["resources"]
    assert [cluster["name"] for cluster in listed] == [
        "enrollment", "coordinator.hanse.local", "b.ns.aggregator.hanse.local",
    ]  # fmt: skip


def test_routes_stay_until_all_are_known(tmp_path: pathlib.Path) -> None:
    """A hub that leads again has heard of no aggregator yet; a closed door forgets them."""
    door = files.Door(tmp_path, LISTEN, aggregator_port=7443, own_host=False)

    def led_to() -> dict[str, str]:
        listed = json.loads((tmp_path / envoy.CLUSTERS).read_bytes())["resources"]
        places = {one["name"]: one["load_assignment"]["endpoints"][0]["lb_endpoints"][0] for one in listed}
        return {
            name: place["endpoint"]["address"]["socket_address"]["address"]
            for name, place in places.items()
            if name.endswith(".aggregator.hanse.local")
        }

    def name(letter: str) -> str:
        return f"{letter}.ns.aggregator.hanse.local"

    door.open(ROUTES.control_name, ROUTES.control, ROUTES.enrollment)
    door.lead({name("a"): "10.0.0.2:7443", name("b"): "10.0.0.3:7443"}, True)
    door.open(ROUTES.control_name, ROUTES.control, ROUTES.enrollment)
    door.lead({}, False)
    assert led_to() == {name("a"): "10.0.0.2", name("b"): "10.0.0.3"}
    door.lead({name("b"): "10.0.0.4:7443"}, False)
    assert led_to() == {name("a"): "10.0.0.2", name("b"): "10.0.0.4"}
    door.lead({name("b"): "10.0.0.4:7443"}, True)
    assert led_to() == {name("b"): "10.0.0.4"}
    door.close()
    door.open(ROUTES.control_name, ROUTES.control, ROUTES.enrollment)
    assert led_to() == {}


def test_a_closed_door_leads_nowhere(tmp_path: pathlib.Path) -> None:
    """Envoy starts with it, and a hub that lost its lead goes back to it."""
    files.prepare(tmp_path)
    door = files.Door(tmp_path, LISTEN, aggregator_port=7443, own_host=False)
    door.open(ROUTES.control_name, ROUTES.control, ROUTES.enrollment)
    assert json.loads((tmp_path / envoy.LISTENERS).read_bytes())["resources"]
    door.close()
    assert json.loads((tmp_path / envoy.LISTENERS).read_bytes())["resources"] == []
