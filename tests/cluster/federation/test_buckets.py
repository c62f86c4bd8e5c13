"""A data set in a bucket, with real pods: one fetches it from the storage, one trains and cannot reach it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping

import pytest

from simulations.lab.bare import layout, network, provider
from tests.cluster.federation import probes, trainings
from tests.cluster.federation.trainings import HUB, Clusters, condition, eventually, of_cluster
from tests.fakes import s3
from tests.process import federations

pytestmark = pytest.mark.cluster

NAME = "bucket"
SECRET = "bucket-keys"
ROWS = {"rows.csv": "1\n2\n3\n", "more/rows.csv": "4\n5\n"}
STORAGE = "the storage"

CLIENT_APP = federations.CLIENT_APP.replace(
    "    examples = 10\n",
    """    place = pathlib.Path(context.node_config["place"])
    read = {str(one.relative_to(place)): one.read_text() for one in place.rglob("*") if one.is_file()}
    try:
        (place / "new").write_text("")
        read["written"] = "yes"
    except OSError:
        pass
    print("READ " + json.dumps(read), flush=True)
    probe("training")
    examples = 10
""",
    1,
)

_FILL = """
import json, sys
import obstore, obstore.store
url, bucket, keys, objects = json.loads(sys.argv[1])
store = obstore.store.S3Store(
    bucket, endpoint=url, region="us-east-1", client_options={"allow_http": True},
    access_key_id=keys["AWS_ACCESS_KEY_ID"], secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
)
for name, content in objects.items():
    obstore.put(store, name, content.encode())
"""


@pytest.fixture(scope="module")
def bare(clusters: Clusters) -> provider.Bare:
    if not isinstance(clusters.lab, provider.Bare):
        pytest.skip("its storage is in one of the bare provider's network namespaces")
    return clusters.lab


def fill(wan: str, server: s3.Server, prefix: str, objects: Mapping[str, str]) -> None:
    """Put objects into the bucket, from where it is reached."""
    named = {f"{prefix}/{name}": content for name, content in objects.items()}
    what = json.dumps([server.url, s3.BUCKET, dict(server.writer), named])
    subprocess.run(network.inside(wan, sys.executable, "-c", _FILL, what).argv, check=True, timeout=60)


def test_a_data_set_comes_out_of_a_bucket_and_no_client_reaches_it(
    clusters: Clusters, bare: provider.Bare
) -> None:
    """A training waits while the Secret is missing; then its client reads the data, and the storage is closed
    to it.
    """
    edge = clusters.edges[0]
    wan = layout.prefix(bare.name) + "wan"

    def available(word: str) -> str:
        (found,) = [
            one for one in clusters.get(edge, "edgedatasets", "hanse") if one["metadata"]["name"] == NAME
        ]
        message = condition(found.get("status") or {}, "Available").get("message", "")
        return message if word in message else ""

    within = network.inside(wan).argv
    with s3.serve(host=layout.WAN_GATEWAY, within=within) as server:
        fill(wan, server, "heart", ROWS)
        number = server.url.rpartition(":")[2]
        place = {STORAGE: f"tcp {layout.WAN_GATEWAY} {number}"}
        assert probes.opened_to_anybody(clusters, edge, place) == [STORAGE]
        clusters.offer(edge, NAME, {"behaviour": "pause", "seconds": 20})
        volume = {
            "configMap": None,
            "s3": {
                "url": f"s3://{s3.BUCKET}/heart",
                "endpoint": server.url,
                "secretName": SECRET,
                "sizeLimit": "100Mi",
            },
        }
        patch = json.dumps({"spec": {"volume": volume}})
        clusters.kubectl(edge, "patch", "edgedataset", NAME, "-n", "hanse", "--type=merge", "-p", patch)
        try:
            app = probes.code(place) + CLIENT_APP
            clusters.train(NAME, rounds=1, client_app=app, clusters={"minimum": 1})
            missing = f"The Secret {SECRET} does not exist"
            eventually(lambda: available(missing), "a word on the Secret")
            told = clusters.until(NAME, lambda status: missing in of_cluster(status, edge).get("message", ""))
            assert of_cluster(told, edge)["state"] == "Waiting"
            assert told["phase"] == "Waiting"
            clusters.apply(
                edge,
                {
                    "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
                    "metadata": {"name": SECRET, "namespace": "hanse"}, "stringData": dict(server.reader),
                },
            )  # fmt: skip
            said = eventually(lambda: available("2 objects"), "the data set", seconds=240)
            assert said == "2 objects (10 bytes) fetched; clients mount them read-only"
            clusters.in_round(NAME, 1)

            def log() -> str:
                text = clusters.kubectl(
                    edge, "logs", "-n", "hanse", "-l", f"hanse.dev/training={NAME}", "--tail=-1", check=False
                )
                return text if "PROBED" in text else ""

            text = str(eventually(log, "what the client read and reached"))
            read = next(line.partition("READ ")[2] for line in text.splitlines() if "READ " in line)
            assert json.loads(read) == ROWS
            assert probes.probed(text) == {"training": []}
            assert clusters.ended(NAME)["phase"] == "Completed"
        finally:
            clusters.kubectl(HUB, "delete", "ft", NAME, "-n", trainings.NAMESPACE, "--ignore-not-found")
            clusters.kubectl(edge, "delete", "edgedataset", NAME, "-n", "hanse")
            with contextlib.suppress(AssertionError):
                clusters.kubectl(edge, "delete", "secret", SECRET, "-n", "hanse")
        eventually(
            lambda: clusters.get(edge, "pvc", "hanse", "-l", "app.kubernetes.io/component=dataset") == [],
            "end of the claim",
        )
