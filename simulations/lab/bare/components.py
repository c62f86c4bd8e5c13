"""The programs of a node: who they are to the API server, how each is called, and what each waits for. Pure.

Why it exists: the node's first process (`inside/init.py`) runs whatever plan it is handed. The plan is made
here, as data, so that a test can read it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from simulations.lab.bare import files, layout, pki

USERS = {
    "controller-manager": pki.User("system:kube-controller-manager", ("system:masters",)),
    "scheduler": pki.User("system:kube-scheduler", ()),
    "proxy": pki.User("system:kube-proxy", ()),
    "policy": pki.User("hanse:lab:network-policy", ()),
    "keeper": pki.User("hanse:lab:keeper", ()),
}


def users(cluster: layout.Cluster) -> dict[str, pki.User]:
    """Every component of this cluster that speaks with its API server by a token."""
    node = pki.User(f"system:node:{cluster.name}", ("system:nodes",))
    return {"kubelet": node, **USERS}


@dataclasses.dataclass(frozen=True)
class Tools:
    """Where the programs are: one directory with all of them, and the plugins of the pods' network."""

    bin: Path
    cni: Path

    def path(self, name: str) -> str:
        return str(self.bin / name)


@dataclasses.dataclass(frozen=True)
class Program:
    """One program. `after` are the signs that it waits for; see `inside/init.py` for their forms."""

    name: str
    argv: tuple[str, ...]
    after: tuple[str, ...] = ()
    once: bool = False
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


_API_READY = f"https:127.0.0.1:{layout.API_PORT}/readyz"
_ETCD = "tcp:127.0.0.1:2379"
# The readiness of the API server's own roles comes with readyz; the rest may start in any order.


def programs(
    cluster: layout.Cluster, credentials: pki.Pki, tools: Tools, *, python: str, keeper: Path
) -> Iterator[Program]:
    """All programs of this cluster's one node, in the order in which they are started."""
    configured = cluster.config
    yield Program("guard", (tools.path("nft"), "-f", str(configured / "guard.nft")), once=True)
    for number, rule in enumerate(files.queue_rules()):
        add = " ".join(rule)
        yield Program(
            f"queue-{number}",
            ("sh", "-c", f"iptables -w -t mangle -C {add} 2>/dev/null || iptables -w -t mangle -A {add}"),
            once=True,
        )
    yield Program(
        "etcd",
        (
            tools.path("etcd"),
            "--data-dir=/var/lib/etcd",
            f"--name={cluster.name}",
            "--listen-client-urls=http://127.0.0.1:2379",
            "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--initial-advertise-peer-urls=http://127.0.0.1:2380",
            f"--initial-cluster={cluster.name}=http://127.0.0.1:2380",
            "--unsafe-no-fsync",  # a lab's data need not outlive the machine
            "--log-level=warn",
        ),
    )
    yield Program("containerd", (tools.path("containerd"), "--config", str(configured / "containerd.toml")))
    yield Program("apiserver", _apiserver(cluster, credentials, tools), after=(_ETCD,))
    yield Program(
        "controller-manager",
        (
            tools.path("kube-controller-manager"),
            f"--kubeconfig={configured / 'controller-manager.kubeconfig'}",
            "--bind-address=127.0.0.1",
            f"--root-ca-file={credentials.file('ca.crt')}",
            f"--service-account-private-key-file={credentials.file('service-accounts.key')}",
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--enable-hostpath-provisioner",  # claims get a directory of the node
            "--node-monitor-grace-period=20s",
            "--concurrent-job-syncs=10",
        ),
        after=(_API_READY,),
    )
    yield Program(
        "scheduler",
        (
            tools.path("kube-scheduler"),
            f"--kubeconfig={configured / 'scheduler.kubeconfig'}",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
        ),
        after=(_API_READY,),
    )
    yield Program(
        "keeper",
        (python, "-I", "-S", str(keeper), str(configured / "keeper.json")),
        after=(_API_READY, "done:guard"),
    )
    # From containerd 2 it learns of a pod's address before the pod runs; the guard closes that gap with any.
    yield Program(
        "network-policies",
        (
            tools.path("kube-network-policies"),
            f"--hostname-override={cluster.name}",
            f"--nfqueue-id={files.QUEUE}",
            "--netfilter-bug-1766-fix=false",
            "--v=1",
        ),
        after=(_API_READY,),
        environment={
            "KUBERNETES_SERVICE_HOST": cluster.node_address,
            "KUBERNETES_SERVICE_PORT": str(layout.API_PORT),
        },
    )
    yield Program(
        "proxy",
        (
            tools.path("kube-proxy"),
            f"--config={configured / 'proxy.yaml'}",
            f"--hostname-override={cluster.name}",
        ),
        after=(_API_READY,),
    )
    yield Program(
        "kubelet",
        (
            tools.path("kubelet"),
            f"--config={configured / 'kubelet.yaml'}",
            f"--kubeconfig={configured / 'kubelet.kubeconfig'}",
            f"--node-ip={cluster.node_address}",
            f"--hostname-override={cluster.name}",
        ),
        # No pod before the rules that hold it.
        after=(
            _API_READY,
            f"unix:{files.CONTAINERD_SOCKET}",
            "done:guard",
            *(f"done:queue-{number}" for number in range(len(files.queue_rules()))),
        ),
    )


def _apiserver(cluster: layout.Cluster, credentials: pki.Pki, tools: Tools) -> tuple[str, ...]:
    return (
        tools.path("kube-apiserver"),
        "--etcd-servers=http://127.0.0.1:2379",
        "--bind-address=0.0.0.0",
        f"--secure-port={layout.API_PORT}",
        f"--advertise-address={cluster.node_address}",
        f"--service-cluster-ip-range={layout.SERVICES}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={credentials.file('service-accounts.key')}",
        f"--service-account-signing-key-file={credentials.file('service-accounts.key')}",
        f"--client-ca-file={credentials.file('ca.crt')}",
        f"--tls-cert-file={credentials.file('apiserver.crt')}",
        f"--tls-private-key-file={credentials.file('apiserver.key')}",
        f"--token-auth-file={credentials.file('tokens.csv')}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        # Logs and exec cannot use tokens.
        f"--kubelet-client-certificate={credentials.file('kubelet-client.crt')}",
        f"--kubelet-client-key={credentials.file('kubelet-client.key')}",
        "--kubelet-preferred-address-types=InternalIP",
        "--allow-privileged=true",
    )


def init_plan(
    cluster: layout.Cluster,
    credentials: pki.Pki,
    tools: Tools,
    *,
    python: str,
    keeper: Path,
    visible: tuple[Path, ...],
    mark: str,
) -> dict[str, Any]:
    """What the node's first process is told; its programs need the machine's directories `visible`."""
    return {
        "hostname": cluster.name,
        "root": str(cluster.node),
        "visible": [[str(cluster.directory), True], *([str(path), False] for path in visible)],
        "sysctls": {
            "net/ipv4/ip_forward": "1",
            # Else traffic between two pods of the node passes the bridge unseen by any rule.
            "net/bridge/bridge-nf-call-iptables": "1",
        },
        "copies": [
            [str(credentials.file("policy.token")), f"{files.SERVICE_ACCOUNT}/token"],
            [str(credentials.file("ca.crt")), f"{files.SERVICE_ACCOUNT}/ca.crt"],
        ],
        "directories": [files.VOLUME_PLUGINS, files.VOLUMES],
        "environment": {
            "PATH": f"{tools.bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
        },
        "mark": {layout.MARK: mark},
        "logs": str(cluster.logs),
        "report": str(cluster.programs_file),
        "programs": [
            dataclasses.asdict(program)
            for program in programs(cluster, credentials, tools, python=python, keeper=keeper)
        ],
    }
