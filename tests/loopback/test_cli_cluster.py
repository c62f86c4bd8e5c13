"""The commands that talk to a cluster, against a real API server: what they write, print and refuse."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import hashlib
import json
import pathlib
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from typer import testing

from coordinator.cli import main, members
from coordinator.clients import blobs
from coordinator.issuing import certificate_authority, token_secrets, tokens
from federation import object_stores
from federation.api import leaving
from federation.apps import bundle as bundles
from federation.kube import client, errors
from federation.trust import bundle
from tests.fakes import controlplane, s3

pytestmark = pytest.mark.controlplane

_T = TypeVar("_T")
NOW = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)


class Cluster:
    """An API server as a person at the keyboard has it."""

    def __init__(self, kubeconfig: pathlib.Path) -> None:
        self.kubeconfig = kubeconfig

    def hanse(self, *arguments: str, kubeconfig: pathlib.Path | None = None) -> testing.Result:
        """Run `hanse ... --kubeconfig ...`."""
        where = kubeconfig or self.kubeconfig
        return testing.CliRunner().invoke(main.app, [*arguments, "--kubeconfig", str(where)])

    def do(self, work: Callable[[client.Client], Awaitable[_T]]) -> _T:
        """Do something with the API."""

        async def connected() -> _T:
            async with await client.Client.connect(self.kubeconfig) as api:
                return await work(api)

        return asyncio.run(connected())

    def put(self, *manifests: dict[str, Any]) -> None:
        """Create or change objects."""

        async def work(api: client.Client) -> None:
            for manifest in manifests:
                status = manifest.get("status")
                await api.apply({key: value for key, value in manifest.items() if key != "status"})
                if status is not None:
                    metadata = manifest["metadata"]
                    await api.replace_status(
                        manifest["kind"], metadata["name"], metadata.get("namespace", ""), status
                    )

        self.do(work)

    def get(self, kind: str, name: str, namespace: str = "") -> client.Object | None:
        """Return an object, or None."""

        async def work(api: client.Client) -> client.Object | None:
            try:
                return await api.get(kind, name, namespace)
            except errors.NotFound:
                return None

        return self.do(work)

    def is_going(self, kind: str, name: str, namespace: str) -> bool:
        """Whether an object is not there, or deleted and held by a finalizer."""
        found = self.get(kind, name, namespace)
        return found is None or bool(found["metadata"].get("deletionTimestamp"))


@pytest.fixture
def cluster(control_plane: controlplane.ControlPlane) -> Cluster:
    return Cluster(control_plane.kubeconfig)


def namespace(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def authority() -> certificate_authority.CertificateAuthority:
    return certificate_authority.create(
        "hanse.local",
        ec.generate_private_key(ec.SECP256R1()),
        now=dt.datetime.now(dt.UTC),
        lifetime=dt.timedelta(days=1),
        serial=1,
    )


@pytest.fixture
def hub(cluster: Cluster) -> Iterator[str]:
    """A namespace with what a hub's start leaves there: CA and door; returns the CA's hash."""
    ca = authority()
    pem = base64.b64encode(ca.certificate_pem).decode()
    cluster.put(
        namespace("hub"),
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": "hanse-ca", "namespace": "hub"},
            "data": {"tls.crt": pem, "tls.key": pem},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "hanse-door", "namespace": "hub"},
            "spec": {"type": "NodePort", "ports": [{"name": "door", "port": 443, "nodePort": 30443}]},
        },
    )
    yield bundle.pin(ca.certificate)
    cluster.do(lambda api: api.delete("Secret", "hanse-ca", "hub"))
    cluster.do(lambda api: api.delete("Service", "hanse-door", "hub"))


def test_a_token_is_made_listed_and_revoked(cluster: Cluster, hub: str) -> None:
    """The printed line joins, the Secret holds the hash alone, and a revoked token is gone."""
    made = cluster.hanse(
        "token", "create", "--cluster", "zurich", "--approve", "--hub", "hub.example.org:443",
        "--expires", "88200s", "-n", "hub",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    found = re.fullmatch(
        r"hanse join hub\.example\.org:443 --token (hanse_([a-z2-7]{8})\.\S{43}) --ca-hash (\S+) "
        r"--name zurich --apply\n",
        made.stdout,
    )
    assert found, made.stdout
    token, token_id, ca_hash = found.groups()
    assert ca_hash == hub
    assert made.stderr == (
        f"Token {token_id} is good for one join by zurich, within 88200s; it is accepted at once.\n"
        "Run this with the kubeconfig of the edge:\n"
    )
    secret = cluster.get("Secret", token_secrets.name_of(token_id), "hub")
    assert secret is not None
    assert token.partition(".")[2] not in json.dumps(secret)
    presented = tokens.parse(token)
    assert isinstance(presented, tokens.Token)
    used = tokens.redeem(
        token_secrets.record_of(secret), presented, cluster="zurich", now=dt.datetime.now(dt.UTC)
    )
    assert isinstance(used, tokens.TokenRecord) and used.approves

    listed = cluster.hanse("token", "list", "-n", "hub")
    assert listed.stdout.splitlines() == [
        "ID         CLUSTER   APPROVES   STATE   USED-BY   EXPIRES",
        f"{token_id}   zurich    yes        Fresh   -         in 24h",
    ]
    assert cluster.hanse("token", "revoke", token_id, "-n", "hub").stdout == f"token {token_id} is revoked\n"
    assert cluster.get("Secret", token_secrets.name_of(token_id), "hub") is None
    again = cluster.hanse("token", "revoke", token_id, "-n", "hub")
    assert (again.exit_code, again.stderr) == (
        2, f"hanse: there is no token {token_id}; `hanse token list` shows those there are\n",
    )  # fmt: skip


def test_a_token_says_where_the_hub_is(cluster: Cluster, hub: str) -> None:
    """Without --hub the door's Service is asked; where it does not say, the command asks for it."""
    silent = cluster.hanse("token", "create", "-n", "hub")
    assert silent.exit_code == 2
    assert silent.stderr == (
        "hanse: Service hanse-door does not say how it is reached from outside; say it with --hub HOST:PORT\n"
    )
    assert cluster.hanse("token", "list", "-n", "hub", "-o", "json").stdout == "[]\n"
    cluster.put(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "node"},
            "status": {"addresses": [{"type": "InternalIP", "address": "172.30.0.10"}]},
        }
    )
    try:
        made = cluster.hanse("token", "create", "-n", "hub", "-o", "json", "--expires", "30m")
    finally:
        cluster.do(lambda api: api.delete("Node", "node"))
    told = json.loads(made.stdout)
    assert (told["hub"], told["caHash"], told["cluster"]) == ("172.30.0.10:30443", hub, "")
    assert told["command"].startswith(f"hanse join 172.30.0.10:30443 --token {told['token']} ")
    assert told["command"].endswith("--name NAME --apply")
    cluster.hanse("token", "revoke", told["id"], "-n", "hub")


def test_a_hub_that_never_started_has_no_tokens_to_give(cluster: Cluster) -> None:
    """Without a CA there is nothing to pin, and the sentence says what makes one."""
    cluster.put(namespace("empty-hub"))
    refused = cluster.hanse("token", "create", "--hub", "a:1", "-n", "empty-hub")
    assert refused.exit_code == 2
    assert "the hub has no CA yet (Secret hanse-ca in empty-hub)" in refused.stderr


def member(name: str, **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "hanse.dev/v1alpha1",
        "kind": "EdgeCluster",
        "metadata": {"name": name},
        "spec": {"acceptance": "Pending"},
        **({"status": status} if status else {}),
    }


def test_clusters_are_listed_approved_and_expelled(cluster: Cluster) -> None:
    """The operator's word stands in spec.acceptance; a name that is none is answered with those there are."""
    cluster.put(
        member("budapest"),
        member(
            "zurich",
            conditions=[
                {
                    "type": "Connected", "status": "True", "reason": "SessionOpen", "message": "It is.",
                    "lastTransitionTime": "2026-03-01T11:00:00Z",
                }
            ],
            datasets=[{"name": "heart-disease", "examples": 123}],
            summary={"datasets": "heart-disease", "trainings": "0/10"},
            agent={"version": "0.1.0", "protocol": 1},
            certificate={"sha256": "ab" * 32, "expiresAt": "2026-03-08T12:00:00Z"},
        ),
    )  # fmt: skip
    try:
        listing = cluster.do(lambda api: api.list("EdgeCluster"))
        created = "2026-03-01T09:00:00Z"
        shown = [
            {**item, "metadata": {**item["metadata"], "creationTimestamp": created}} for item in listing.items
        ]
        assert members.listing(shown, NOW).splitlines() == [
            "NAME       ACCEPTED   CONNECTED   DATASETS        TRAININGS   VERSION   CERT-EXPIRES   AGE",
            "budapest   Pending    -           -               -           -         -              3h",
            "zurich     Pending    True        heart-disease   0/10        0.1.0     in 7d          3h",
        ]
        shown[1]["status"]["conditions"] = [{"type": "Joined", "status": "False", "reason": "Left"}]
        assert members.listing(shown, NOW).splitlines()[-1].startswith("zurich     Pending    Left ")
        assert cluster.hanse("clusters", "list").stdout.startswith("NAME       ACCEPTED   CONNECTED")
        assert cluster.hanse("clusters", "approve", "zurich").exit_code == 0
        assert cluster.hanse("clusters", "expel", "budapest").exit_code == 0
        told = json.loads(cluster.hanse("clusters", "list", "-o", "json").stdout)
        assert {entry["name"]: entry["acceptance"] for entry in told} == {
            "budapest": "Expelled", "zurich": "Accepted",
        }  # fmt: skip
        unknown = cluster.hanse("clusters", "approve", "basel")
        assert (unknown.exit_code, unknown.stderr) == (
            2, "hanse: basel is no member; the members are budapest, zurich\n",
        )  # fmt: skip
    finally:
        for name in ("budapest", "zurich"):
            cluster.do(lambda api, name=name: api.delete("EdgeCluster", name))  # type: ignore[misc]


def training(name: str, **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "hanse.dev/v1alpha1",
        "kind": "FederatedTraining",
        "metadata": {"name": name, "namespace": "watched"},
        "spec": {"app": {"source": {"configMap": {"name": "app"}}}, "dataset": "heart-disease"},
        **({"status": status} if status else {}),
    }


def condition(type_: str, message: str) -> dict[str, str]:
    return {
        "type": type_, "status": "True", "reason": "Because", "message": message,
        "lastTransitionTime": "2026-03-01T11:00:00Z",
    }  # fmt: skip


@pytest.mark.parametrize("phase, code", [("Completed", 0), ("Failed", 1)])
def test_watch_ends_with_the_training(cluster: Cluster, phase: str, code: int) -> None:
    """Lines while it runs, the last words at its end, and an exit code that says how it went."""
    name = f"ends-{phase.lower()}"
    running = training(
        name, phase="Running", round={"current": 1, "total": 2},
        clusters=[{"name": "zurich", "state": "Training"}],
    )  # fmt: skip
    model = {"uri": "pvc://models/watched/x/2", "sha256": "ab" * 32, "round": 2}
    final = training(
        name, phase=phase, round={"current": 2, "total": 2},
        clusters=[{"name": "zurich", "state": "Completed"}],
        conditions=[condition(phase, "The story is over.")], **({"model": model} if code == 0 else {}),
    )  # fmt: skip
    cluster.put(namespace("watched"), running)

    # Whichever of the two is seen first, the command ends with the last.
    ending = threading.Thread(target=cluster.put, args=(final,))
    ending.start()
    result = cluster.hanse("watch", f"watched/{name}", "--timeout", "60")
    ending.join()
    assert result.exit_code == code, result.output
    assert f"watched/{name}: {phase}: The story is over." in result.stdout
    assert ("next    hanse models watched/" in result.stdout) == (code == 0)
    summary = json.loads(cluster.hanse("watch", f"watched/{name}", "-o", "json").stdout)
    assert (summary["state"], summary["rounds"]) == (phase, 2)


def test_watch_and_models_refuse_in_sentences(cluster: Cluster) -> None:
    """A training that is not there, is not named as one, is too slow, or has no model yet."""
    cluster.put(namespace("watched"), training("slow", phase="Running"))
    missing = cluster.hanse("watch", "watched/nothing")
    assert missing.exit_code == 2
    assert missing.stderr.startswith("hanse: there is no training watched/nothing; there are ")
    assert "watched/slow" in missing.stderr
    unclear = cluster.hanse("watch", "slow")
    assert unclear.stderr == "hanse: 'slow': want NAMESPACE/NAME, such as cardiology/hospitals\n"
    slow = cluster.hanse("watch", "watched/slow", "--timeout", "1")
    assert (slow.exit_code, slow.stderr) == (1, "hanse: watched/slow is still Running after 1 s\n")
    none = cluster.hanse("models", "watched/slow")
    assert none.stderr == (
        "hanse: watched/slow has no model yet, it is Running; follow it with `hanse watch watched/slow`\n"
    )
    silent = cluster.hanse("logs", "watched/slow")
    assert "no pod of its aggregator is there" in silent.stderr


def test_models_come_from_a_url_and_are_checked(cluster: Cluster, tmp_path: pathlib.Path) -> None:
    """The file is the one whose digest the status names, or nothing is kept."""
    store = tmp_path / "store"
    store.mkdir()
    (store / "model.safetensors").write_bytes(b"model")
    (store / "card.json").write_text("{}")
    sha256 = "9372c470eeadd5ecd9c3c74c2b3cb633f8e2f2fad799250a0f70d652b6b825e4"
    model = {"uri": store.as_uri(), "sha256": sha256, "round": 2}
    cluster.put(namespace("watched"), training("stored", phase="Completed", model=model))
    fetched = cluster.hanse("models", "watched/stored", "--to", str(tmp_path / "here"))
    assert fetched.exit_code == 0, fetched.output
    assert (tmp_path / "here" / "model.safetensors").read_bytes() == b"model"
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["card.json", "model.safetensors"]
    (store / "model.safetensors").write_bytes(b"another")
    refused = cluster.hanse("models", "watched/stored", "--to", str(tmp_path / "there"))
    assert refused.exit_code == 1
    assert "somebody changed it" in refused.stderr
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.process
def test_models_come_from_a_bucket_with_the_trainings_secret(
    cluster: Cluster, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read with the caller's own rights; else the caller's environment counts, and a refusal says so."""
    for name in object_stores.KNOWN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFANOTHER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-another")
    uri = f"s3://{s3.BUCKET}/watched/bucket/2"
    stored = training("bucket", phase="Completed", model={
        "uri": uri, "sha256": hashlib.sha256(b"model").hexdigest(), "round": 2,
    })  # fmt: skip
    with s3.serve() as server:
        stored["spec"]["model"] = {
            "store": f"s3://{s3.BUCKET}", "endpoint": server.url, "credentials": {"secretName": "bucket-key"},
        }  # fmt: skip
        cluster.put(namespace("watched"), stored)
        blobs.save(uri, {blobs.MODEL: b"model", blobs.CARD: b"{}"}, blobs.Key(server.secret()))
        refused = cluster.hanse("models", "watched/bucket", "--to", str(tmp_path / "there"))
        assert refused.exit_code == 2
        assert f"denies access to bucket {s3.BUCKET}; check the access key" in refused.stderr
        assert "your environment, as there is no Secret watched/bucket-key" in refused.stderr
        assert "of-another" not in refused.output
        data = {name: base64.b64encode(value).decode() for name, value in server.secret().items()}
        metadata = {"name": "bucket-key", "namespace": "watched"}
        cluster.put({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
        fetched = cluster.hanse("models", "watched/bucket", "--to", str(tmp_path / "here"))
    assert fetched.exit_code == 0, fetched.output
    assert (tmp_path / "here" / "model.safetensors").read_bytes() == b"model"


JOIN = (
    "join", "hub.example.org:443", "--token", "hanse_abcdefgh." + "x" * 43,
    "--ca-hash", "sha256:" + "ab" * 32, "--name", "zurich", "--registry", "localhost/hanse", "-n", "learning",
)  # fmt: skip


def test_an_edge_joins_and_leaves(cluster: Cluster) -> None:
    """Everything of the agent is applied; after leaving, the owner's objects are there and nothing else."""
    joined = cluster.hanse(*JOIN, "--apply", "--timeout", "1")
    assert joined.exit_code == 1, joined.output  # there is no kubelet here, so no agent
    assert "15 objects applied; the agent starts in namespace learning" in joined.stderr
    assert "the agent is not connected after 1 s; it goes on trying" in joined.stderr
    assert cluster.get("Deployment", "hanse-agent", "learning")
    assert cluster.hanse(*JOIN, "--apply", "--timeout", "1").exit_code == 1  # a second time changes nothing
    of_the_agent = {"app.kubernetes.io/managed-by": "hanse"}
    cluster.put(
        {
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "client-x", "namespace": "learning", "labels": of_the_agent},
        },
        *(
            {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "metadata": {
                    "name": name, "namespace": "learning",
                    "labels": {**of_the_agent, "app.kubernetes.io/component": component},
                },
                "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
            }
            for name, component in (("client-x-state", "client-state"), ("fetched", "dataset"))
        ),
        *(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "learning"}}
            for name in ("of-the-owner",)
        ),
        joined_identity("learning"),
        {
            "apiVersion": "hanse.dev/v1alpha1", "kind": "EdgePolicy",
            "metadata": {"name": "mine", "namespace": "learning"},
            "spec": {"rules": [{"name": "all", "effect": "Allow", "datasets": ["heart-disease"]}]},
        },
    )  # fmt: skip

    left = cluster.hanse("leave", "-n", "learning")
    assert left.exit_code == 0, left.output
    assert left.stdout.startswith(
        "left the federation; deleted the agent, its credentials, permissions and configuration\n"
        "the hub could not be told: for it zurich is a member that is away, and trainings may wait for it; "
        "its operator ends that with `hanse clusters expel zurich`\n"
        "EdgeDatasets, EdgePolicies, their CRDs and ClusterRoles, claims with data sets that were fetched, "
        "and the namespace with its default-deny NetworkPolicy stay;"
    )
    assert left.stdout.endswith("removes it with `kubectl delete edgecluster zurich`\n")
    for kind, name in (
        ("Deployment", "hanse-agent"), ("Secret", "hanse-join"), ("Secret", "hanse-agent-identity"),
        ("Secret", "client-x"), ("ConfigMap", "hanse-agent"), ("Role", "hanse-agent"),
        ("RoleBinding", "hanse-agent"), ("ServiceAccount", "hanse-agent"), ("NetworkPolicy", "hanse-agent"),
        ("NetworkPolicy", "hanse-agent-door"),
    ):  # fmt: skip
        assert cluster.get(kind, name, "learning") is None, name
    assert cluster.is_going("PersistentVolumeClaim", "client-x-state", "learning")
    assert not cluster.is_going("PersistentVolumeClaim", "fetched", "learning")
    assert cluster.get("EdgePolicy", "mine", "learning")
    assert cluster.get("Secret", "of-the-owner", "learning")
    assert cluster.get("NetworkPolicy", "hanse-default-deny", "learning")
    again = cluster.hanse("leave", "-n", "learning")
    assert again.exit_code == 0
    assert cluster.hanse("leave", "-n", "never-there").stdout == (
        "there is nothing of Hanse in namespace never-there\n"
    )


def joined_identity(namespace_: str) -> dict[str, Any]:
    """The Secret of an agent that has joined."""
    return {
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "hanse-agent-identity", "namespace": namespace_},
        "stringData": {"tls.crt": "its certificate"},
    }  # fmt: skip


async def told_hub(api: client.Client, namespace_: str) -> None:
    """End the agent's pod as one that is marked ends: the hub is told, and a receipt is left."""
    async with asyncio.timeout(60):
        while True:
            pod = await api.get("Pod", "hanse-agent-x", namespace_)
            if (pod["metadata"].get("annotations") or {}).get("hanse.dev/leaving"):
                break
            await asyncio.sleep(0.05)
    labels = {"app.kubernetes.io/managed-by": "hanse"}
    metadata = {"name": leaving.RECEIPT, "namespace": namespace_, "labels": labels}
    await api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    await api.delete("Pod", "hanse-agent-x", namespace_, grace_seconds=0)


def test_an_edge_that_leaves_tells_the_hub(cluster: Cluster) -> None:
    """The agent's pod is marked before it ends, its receipt is believed, and an older one is not."""
    of_the_agent = {"app.kubernetes.io/name": "hanse", "app.kubernetes.io/component": "agent"}
    stale = {"name": leaving.RECEIPT, "namespace": "departing"}
    cluster.put(
        namespace("departing"),
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "own", "namespace": "departing"}},
        {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "hanse-agent-x", "namespace": "departing", "labels": of_the_agent},
            "spec": {
                "serviceAccountName": "own",
                "automountServiceAccountToken": False,
                "containers": [{"name": "agent", "image": "agent:1"}],
            },
        },
        {
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "hanse-agent", "namespace": "departing"},
            "data": {"config.json": json.dumps({"cluster": "geneva"})},
        },
        joined_identity("departing"),
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": stale},
    )  # fmt: skip
    ending = threading.Thread(target=cluster.do, args=(lambda api: told_hub(api, "departing"),))
    ending.start()
    left = cluster.hanse("leave", "-n", "departing")
    ending.join()
    assert left.exit_code == 0, left.output
    assert left.stdout.splitlines()[1] == (
        "the hub knows that geneva left, and its certificates count no longer; to come back join with a "
        "token from `hanse token create --cluster geneva`"
    )
    assert cluster.get("ConfigMap", leaving.RECEIPT, "departing") is None


def test_an_agent_that_does_not_end_holds_up_no_one_who_leaves(cluster: Cluster) -> None:
    """Its node may be gone: the wait is bounded, and the sentence says who ends the membership then."""
    cluster.put(
        namespace("stuck"),
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "own", "namespace": "stuck"}},
        {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "hanse-agent-y", "namespace": "stuck",
                "labels": {"app.kubernetes.io/name": "hanse", "app.kubernetes.io/component": "agent"},
            },
            "spec": {
                "serviceAccountName": "own",
                "automountServiceAccountToken": False,
                "containers": [{"name": "agent", "image": "agent:1"}],
            },
        },
        joined_identity("stuck"),
    )  # fmt: skip
    left = cluster.hanse("leave", "-n", "stuck", "--timeout", "1")
    assert left.exit_code == 1
    assert left.stderr == (
        "hanse: pods of namespace stuck still run after 1 s; see `kubectl -n stuck get pods`, and run this "
        "again; the hub could not be told: for it NAME is a member that is away, and trainings may wait for "
        "it; its operator ends that with `hanse clusters expel NAME`\n"
    )
    cluster.do(lambda api: api.delete("Namespace", "stuck"))


def test_an_app_in_a_config_map(cluster: Cluster) -> None:
    """What `hanse app build --config-map` prints is applied as it is, and holds the packed app."""
    app = pathlib.Path(__file__).parents[2] / "simulations/hospitals/app"
    command = ["app", "build", str(app), "--config-map", "hospitals-app", "-n", "watched"]
    printed = testing.CliRunner().invoke(main.app, command)
    assert printed.exit_code == 0, printed.output
    assert testing.CliRunner().invoke(main.app, command).stdout == printed.stdout
    cluster.put(namespace("watched"), yaml.safe_load(printed.stdout))
    stored = cluster.get("ConfigMap", "hospitals-app", "watched")
    assert stored is not None
    assert base64.b64decode(stored["binaryData"]["app.fab"])[:2] == b"PK"
    assert stored["metadata"]["annotations"]["hanse.dev/app-digest"] in printed.stderr


def test_a_training_of_a_simulation_on_a_cluster(cluster: Cluster) -> None:
    """`hanse app manifests` prints what a cluster takes: the app in a ConfigMap, named and pinned."""
    file = pathlib.Path(__file__).parents[2] / "simulations/hospitals/training.yaml"
    printed = testing.CliRunner().invoke(main.app, ["app", "manifests", str(file)])
    assert printed.exit_code == 0, printed.output
    cluster.put(*yaml.safe_load_all(printed.stdout))
    training = cluster.get("FederatedTraining", "hospitals", "cardiology")
    assert training is not None
    app = training["spec"]["app"]
    assert app["source"] == {"configMap": {"name": "hospitals-app", "key": "app.fab"}}
    stored = cluster.get("ConfigMap", "hospitals-app", "cardiology")
    assert stored is not None
    assert bundles.digest(base64.b64decode(stored["binaryData"]["app.fab"])) == app["digest"]
    assert training["spec"]["clusters"]["minimum"] == 3
    cluster.do(lambda api: api.delete("FederatedTraining", "hospitals", "cardiology"))


def test_what_keeps_a_command_from_its_cluster(
    cluster: Cluster, control_plane: controlplane.ControlPlane, tmp_path: pathlib.Path
) -> None:
    """A missing file, a server that is away, credentials without rights: one sentence each, no traceback."""
    absent = cluster.hanse("clusters", "list", kubeconfig=tmp_path / "absent")
    assert (absent.exit_code, absent.stderr) == (
        2,
        f"hanse: --kubeconfig {tmp_path / 'absent'}: no such file\n",
    )
    away = tmp_path / "away"
    away.write_text(re.sub(r"https://127.0.0.1:\d+", "https://127.0.0.1:1", cluster.kubeconfig.read_text()))
    silent = cluster.hanse("clusters", "list", kubeconfig=away)
    assert silent.exit_code == 2
    assert "the API server at https://127.0.0.1:1 does not answer" in silent.stderr
    assert silent.stderr.count("\n") == 1
    stranger = cluster.hanse("clusters", "list", kubeconfig=control_plane.kubeconfig_for("nobody"))
    assert stranger.exit_code == 2
    assert "ask the cluster's administrator for this permission" in stranger.stderr
    other = cluster.hanse("clusters", "list", "--context", "nowhere")
    assert other.exit_code == 2 and "nowhere" in other.stderr


def test_a_cluster_that_knows_nothing_of_hanse(cluster: Cluster) -> None:
    """Where the CRDs are missing the sentence says which kind, and how to install the hub."""
    bare = controlplane.start(controllers=False, crds=False)
    try:
        refused = cluster.hanse("clusters", "list", kubeconfig=bare.kubeconfig)
        assert refused.exit_code == 2
        assert refused.stderr == (
            "hanse: this cluster knows no edgeclusters of hanse.dev; choose the hub with --context, or "
            "install Hanse there with `kubectl apply -k manifests/hub/base`\n"
        )
        assert (
            "knows no FederatedTraining" in cluster.hanse("watch", "a/b", kubeconfig=bare.kubeconfig).stderr
        )
        assert "left the federation" not in cluster.hanse("leave", kubeconfig=bare.kubeconfig).stdout
    finally:
        bare.stop()
