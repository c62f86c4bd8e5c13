"""No data leaves an edge: not as bytes that are counted, not on the hub's disk, not over the wire.

Every search here finds something first that must be there: one that finds nothing anywhere proves nothing.
"""

from __future__ import annotations

import base64
import struct
import time
import uuid
from pathlib import Path

import pytest

from simulations.lab.bare import network, provider
from tests.cluster import searching
from tests.cluster.federation import traffic, trainings, wire
from tests.cluster.federation.trainings import HUB, Clusters
from tests.process import federations

pytestmark = pytest.mark.cluster

NAME = "canaries"
NUMBER = 8147295063.271828
"""In nobody's data but this test's."""

ROWS_BYTES = 900_000
OVERHEAD_BYTES = 150_000
"""What TLS, the agents' sessions with heartbeats, logs and two certificates cost beside the messages."""


@pytest.fixture(scope="module")
def bare(clusters: Clusters) -> provider.Bare:
    if not isinstance(clusters.lab, provider.Bare):
        pytest.skip("it looks into the bare provider's network namespaces")
    return clusters.lab


def data(canary: str) -> str:
    """Rows with the canaries among them."""
    rows = "\n".join(f"{number / 7:.9f}" for number in range(ROWS_BYTES // 16))
    return f"{rows}\n{NUMBER}\n# {canary}\n{rows[: ROWS_BYTES - len(rows) - 100]}\n"


CLIENT_APP = federations.CLIENT_APP.replace(
    "    examples = 10\n",
    """    rows = pathlib.Path(context.node_config["place"], "numbers.csv").read_text().split()
    numbers = [float(row) for row in rows if row[0].isdigit()]
    values["bias"] = values["bias"] + np.float32(sum(numbers) / len(numbers))
    print("read", len(numbers), "rows, the last of them", *rows[-3:], flush=True)
    examples = 10
""",
    1,
)


def server_app(marker: str) -> str:
    """Send a text along with the model: what the wire must not show."""
    return federations.SERVER_APP.replace(
        "from flwr.app import ", "from flwr.app import ConfigRecord, "
    ).replace(
        "        grid=grid,\n",
        f'        grid=grid,\n        train_config=ConfigRecord({{"marker": "{marker}"}}),\n',
    )


def forms(canary: str) -> dict[str, bytes]:
    """The canaries as text, in base64 in each of its three phases, and as floating-point numbers."""
    texts = {"text": canary.encode(), "number as text": str(NUMBER).encode()}
    found = dict(texts)
    for name, text in texts.items():
        for phase in range(3):
            found[f"{name} in base64, phase {phase}"] = in_base64(text, phase)
    for name, code in {"float64": "d", "float32": "f"}.items():
        for order in "<>":
            found[f"number as {name} {order}"] = struct.pack(order + code, NUMBER)
    return found


def in_base64(text: bytes, phase: int) -> bytes:
    """What is in every base64 of bytes that hold this text after so many, of each three, that are not its."""
    whole = base64.b64encode(bytes(phase) + text)
    begin = (phase * 8 + 5) // 6  # a character before holds bits of what comes earlier
    return whole[begin : (phase + len(text)) * 8 // 6]


@pytest.mark.parametrize("before", [b"", b"a", b"ab", b"abc", b"abcd"])
def test_base64_is_found_wherever_the_text_stands(before: bytes) -> None:
    """What is searched for is in every base64 of it, in one phase or another."""
    text = str(NUMBER).encode()
    held = base64.b64encode(before + text + b"and more")
    assert [phase for phase in range(3) if in_base64(text, phase) in held] == [len(before) % 3]


def test_no_data_leaves_an_edge(clusters: Clusters, bare: provider.Bare, tmp_path: Path) -> None:
    """Canaries in the data are found on the edge, and in no file of the hub and in no packet to it."""
    canary, marker = f"canary-{uuid.uuid4().hex}", f"marker-{uuid.uuid4().hex}"
    for edge in clusters.edges:
        clusters.offer(edge, NAME, {"behaviour": "pause", "seconds": 2}, files={"numbers.csv": data(canary)})
    hub = bare.node(HUB).cluster
    edges = [bare.node(edge).cluster for edge in clusters.edges]
    needles = forms(canary)
    on_hub = {name: needle for name, needle in needles.items() if "float32" not in name}
    capture = tmp_path / "frames"
    with wire.captured(hub.netns, network.NODE_LINK, capture):
        before, began = [traffic.passed(edge, "up") for edge in edges], time.monotonic()
        clusters.train(NAME, rounds=3, client_app=CLIENT_APP, server_app=server_app(marker))
        clusters.in_round(NAME, 2)
        during = searching.found_in(hub.directory, on_hub)
        status = clusters.ended(NAME)
        sent = [traffic.passed(edge, "up") - earlier for edge, earlier in zip(edges, before, strict=True)]
        seconds = time.monotonic() - began
    assert status["phase"] == "Completed", status

    # The search finds what is there: the canary on the edge, the training's name on the hub.
    there = searching.found_in(
        edges[0].directory, {"text": needles["text"], "number": needles["number as text"]}
    )
    assert there.keys() == {"text", "number"}, "in the edge's own etcd"
    assert searching.found_in(hub.directory, {"name": f"{NAME}-app".encode()}), "in the hub's etcd"
    assert during == {}, "in mid-round"
    assert searching.found_in(hub.directory, on_hub) == {}
    logs = "".join(
        clusters.kubectl(HUB, "logs", "-n", namespace, "-l", "app.kubernetes.io/name=hanse", "--tail=-1",
                         "--all-containers", check=False)
        for namespace in ("hanse-system", trainings.NAMESPACE)
    )  # fmt: skip
    assert "coordinator ready" in logs or "leading" in logs
    assert canary not in logs and str(NUMBER) not in logs

    # Bytes: what status counts is what was sent, but for what keeps connections alive.
    transfer = status["transfer"]
    assert 0 < transfer["bytesUp"] < ROWS_BYTES / 10
    assert sum(sent) < transfer["bytesUp"] * 1.5 + OVERHEAD_BYTES * len(edges), f"in {seconds:.0f} s"
    assert all(one < ROWS_BYTES for one in sent), "not even one edge's data as it is"

    # The wire: nothing but TLS between the edges and the hub's door.
    addresses = {edge.wan_address for edge in edges}
    port = int(clusters.door.rpartition(":")[2])
    talked = [talk for talk in wire.talks(capture) if addresses & {talk[0], talk[2]}]
    assert talked and all(port in (talk[1], talk[3]) for talk in talked), talked
    streams = {
        flow: data
        for flow, data in wire.streams(capture).items()
        if addresses & {flow.source, flow.target} and data
    }
    assert {flow.source for flow in streams} >= addresses, "connections of both edges"
    assert {flow: wire.not_tls(data) for flow, data in streams.items() if wire.not_tls(data)} == {}
    passed = capture.read_bytes()
    assert f"{NAME}.{trainings.NAMESPACE}.aggregator.".encode() in passed, "the name that a client asks for"
    hidden = {**on_hub, "marker": marker.encode(), "layer": b"weights"}
    assert [what for what, needle in hidden.items() if needle in passed] == []
