"""What a hostile app can connect to: the code that it runs, and the places that must be closed to it.

The same code runs in a pod that no policy selects, so that each place that must be closed is seen to be open
to somebody.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

from simulations.lab.bare import layout, network
from tests.cluster.federation.trainings import HUB, Clusters, eventually

CODE = """
import json, socket, threading, time

PLACES = @PLACES@

def _opens(place):
    kind, host, port = place.split(" ")
    try:
        if kind == "udp":
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
                asked.settimeout(2)
                asked.sendto(b"anybody there?", (host, int(port)))
                return bool(asked.recv(100))
        with socket.create_connection((host, int(port)), 2):
            return True
    except OSError:
        return False

def probe(when):
    opened = []
    def attempt(name):
        if _opens(PLACES[name]):
            opened.append(name)
    threads = [threading.Thread(target=attempt, args=(name,)) for name in PLACES]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    print("PROBED " + json.dumps({"when": when, "opened": sorted(opened)}), flush=True)
"""

_LISTENER = """
import socket, sys, threading
host, port = sys.argv[1], int(sys.argv[2])
server = socket.create_server((host, port), backlog=64)
asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asked.bind((host, port))
def answer():
    while True:
        _, who = asked.recvfrom(100)
        asked.sendto(b"yes", who)
threading.Thread(target=answer, daemon=True).start()
print("listening", flush=True)
while True:
    server.accept()[0].close()
"""

NEIGHBOUR_PORT = 8000


def code(places: Mapping[str, str]) -> str:
    """Return the code of `probe(when)`, which prints what opened of these: `tcp HOST PORT` by name."""
    return CODE.replace("@PLACES@", repr(dict(places)))


def probed(log: str) -> dict[str, list[str]]:
    """Return what opened, by when it was tried."""
    found = [line.partition("PROBED ")[2] for line in log.splitlines() if "PROBED " in line]
    return {entry["when"]: entry["opened"] for entry in map(json.loads, found)}


@contextlib.contextmanager
def listening(namespace: str, host: str, port: int) -> Iterator[None]:
    """Somebody who answers at this place of a network namespace, by TCP and by UDP."""
    command = network.inside(namespace, sys.executable, "-c", _LISTENER, host, str(port))
    with subprocess.Popen(command.argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "listening"
            yield
        finally:
            process.kill()


@contextlib.contextmanager
def neighbour(clusters: Clusters, cluster: str) -> Iterator[str]:
    """A pod that listens in another namespace, which no policy selects; gives its address."""
    argv = ["python3", "-m", "http.server", str(NEIGHBOUR_PORT), "--directory", "/tmp"]
    clusters.apply(cluster, _pod(image_on(clusters, cluster), "neighbour", argv))
    try:

        def address() -> str:
            found = json.loads(clusters.kubectl(cluster, "get", "pod", "neighbour", "-o", "json"))["status"]
            ready = [one for one in found.get("containerStatuses", ()) if one["ready"]]
            return str(found["podIP"]) if ready else ""

        yield str(eventually(address, f"neighbour on {cluster}"))
    finally:
        clusters.kubectl(cluster, "delete", "pod", "neighbour", "--grace-period=1")


def opened_to_anybody(clusters: Clusters, cluster: str, places: Mapping[str, str]) -> list[str]:
    """Return what opens to a pod that no policy selects."""
    clusters.apply(
        cluster,
        _pod(image_on(clusters, cluster), "anybody", ["python3", "-c", code(places) + "\nprobe('anybody')"]),
    )
    try:

        def answer() -> dict[str, list[str]]:
            return probed(clusters.kubectl(cluster, "logs", "anybody", check=False))

        return list(eventually(answer, f"an answer of the pod anybody on {cluster}")["anybody"])
    finally:
        clusters.kubectl(cluster, "delete", "pod", "anybody", "--grace-period=1")


def image_on(clusters: Clusters, cluster: str) -> str:
    """Return an image with Python that is on this cluster's nodes: Hanse's own."""
    namespace = "hanse-system" if cluster == HUB else "hanse"
    pods = clusters.get(cluster, "pods", namespace, "-l", "app.kubernetes.io/name=hanse")
    return str(pods[0]["spec"]["containers"][0]["image"])


def node_ports(name: str, address: str) -> dict[str, str]:
    """Return the ports of a node that its pods have no business with."""
    ports = {"API": layout.API_PORT, "kubelet": 10250, "etcd": 2379, "NodePort 30000": 30000}
    return {f"{what} of {name}": f"tcp {address} {number}" for what, number in ports.items()}


def _pod(image: str, name: str, argv: Sequence[str]) -> dict[str, object]:
    container = {"name": "main", "image": image, "imagePullPolicy": "IfNotPresent", "command": argv}
    spec = {
        "restartPolicy": "Never",
        "containers": [container],
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }
