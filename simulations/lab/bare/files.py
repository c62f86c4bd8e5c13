"""The files that a node's programs read, rendered. Pure: text out of names, addresses and paths.

Each setting that is not obvious says why it is there: most of them let real nodes run on a machine that is
itself a container or a small virtual machine, without privileges over the kernel's limits.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from simulations.lab.bare import layout, pki

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
SERVICE_ACCOUNT = "/run/secrets/kubernetes.io/serviceaccount"
# Where the controller manager makes volumes for claims; the node's /tmp is its own.
VOLUMES = "/tmp/hostpath_pv"  # noqa: S108
VOLUME_PLUGINS = "/var/lib/kubelet/volume-plugins"
PAUSE_IMAGE = "hanse.dev/lab/pause:1"
QUEUE = 100  # the netfilter queue that the network policy engine answers
KNOWN_PODS = "known"
GUARD_TABLE = "hanse_guard"


def kubeconfig_with_token(server: str, authority: str, user: str, token: str) -> str:
    """How a program of the node finds its API server."""
    return _kubeconfig("lab", server, authority, user, {"token": token})


def kubeconfig_with_certificate(context: str, server: str, credentials: pki.Pki, user: str) -> str:
    """How people and tests outside find it; the certificate is in the file."""
    return _kubeconfig(
        context,
        server,
        credentials.read("ca.crt"),
        user,
        {
            "client-certificate-data": pki.inline(credentials.read(f"{user}.crt")),
            "client-key-data": pki.inline(credentials.read(f"{user}.key")),
        },
    )


def _kubeconfig(context: str, server: str, authority: str, user: str, secret: dict[str, str]) -> str:
    return _yaml(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": context,
                    "cluster": {"server": server, "certificate-authority-data": pki.inline(authority)},
                }
            ],
            "users": [{"name": user, "user": secret}],
            "contexts": [{"name": context, "context": {"cluster": context, "user": user}}],
            "current-context": context,
        }
    )


def kubelet(cluster: layout.Cluster, credentials: pki.Pki, *, on_a_disk: bool) -> str:
    """The KubeletConfiguration. on_a_disk: whether the node's files are on a disk that kubelet can measure;
    it does not start where it should hold pods to their part of one that it cannot.
    """
    return _yaml(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(credentials.file("ca.crt"))},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cluster.cgroup,
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "oomScoreAdj": 0,  # a negative score needs CAP_SYS_RESOURCE
            "localStorageCapacityIsolation": on_a_disk,
            "volumeStatsAggPeriod": "5s",  # how soon a pod that takes too much of the disk is put out
            "imageGCHighThresholdPercent": 100,  # a full disk must not cost the lab its images
            "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
            "resolvConf": str(cluster.config / "resolv.conf"),
            "clusterDNS": ["10.96.0.10"],
            "clusterDomain": "cluster.local",
            "volumePluginDir": VOLUME_PLUGINS,
            "runtimeRequestTimeout": "2m",
            "nodeStatusUpdateFrequency": "5s",
            "logging": {"verbosity": 1},
        }
    )


def kube_proxy(kubeconfig: Path) -> str:
    """The KubeProxyConfiguration."""
    return _yaml(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "iptables",
            "clusterCIDR": layout.PODS,
            "clientConnection": {"kubeconfig": str(kubeconfig)},
            # These sizes belong to the whole machine, which the lab leaves as it is.
            "conntrack": {
                "maxPerCore": 0,
                "min": 0,
                "tcpEstablishedTimeout": "0s",
                "tcpCloseWaitTimeout": "0s",
            },
        }
    )


def containerd(cluster: layout.Cluster, *, runc: Path, cni: Path) -> str:
    """The configuration of containerd, 1.6 or later: version 2 is what all of these read."""
    cri = '[plugins."io.containerd.grpc.v1.cri"'
    return "\n".join(
        (
            "version = 2",
            'root = "/var/lib/containerd"',
            'state = "/run/containerd"',
            "disabled_plugins = "
            + json.dumps(
                [f"io.containerd.snapshotter.v1.{name}" for name in ("aufs", "btrfs", "devmapper", "zfs")]
            ),
            "[grpc]",
            f"  address = {json.dumps(CONTAINERD_SOCKET)}",
            f"{cri}]",
            f"  sandbox_image = {json.dumps(PAUSE_IMAGE)}",
            "  restrict_oom_score_adj = true",  # as for the kubelet
            f"{cri}.containerd]",
            '  snapshotter = "overlayfs"',
            '  default_runtime_name = "runc"',
            f"{cri}.containerd.runtimes.runc]",
            '  runtime_type = "io.containerd.runc.v2"',
            f"{cri}.containerd.runtimes.runc.options]",
            f"  BinaryName = {json.dumps(str(runc))}",
            "  SystemdCgroup = false",
            f"{cri}.cni]",
            f"  bin_dir = {json.dumps(str(cni))}",
            f"  conf_dir = {json.dumps(str(cluster.config / 'cni'))}",
            "",
        )
    )


def cni() -> str:
    """The pods' network: one bridge on the node, addresses from the node's range, hostPorts."""
    return json.dumps(
        {
            "cniVersion": "1.0.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": layout.POD_BRIDGE,
                    "isGateway": True,
                    "ipMasq": True,
                    "hairpinMode": True,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": layout.PODS}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}},
            ],
        },
        indent=2,
    )


def guard() -> str:
    """Pods that the policy engine cannot know yet open no connection.

    The engine lets pass what it does not know. A pod runs before its address is in its status, so whatever
    it does
    at once would escape every policy. Only addresses in the set may open connections; the lab's keeper adds
    them. An element is never added by these rules, so they fail closed.
    """
    drop = f'iifname "{layout.POD_BRIDGE}" ct state new ip saddr != @{KNOWN_PODS} drop'
    return "\n".join(
        (
            f"table ip {GUARD_TABLE}",
            f"delete table ip {GUARD_TABLE}",
            f"table ip {GUARD_TABLE} {{",
            f"  set {KNOWN_PODS} {{ type ipv4_addr; }}",
            # Before mangle (-150), where the queue to the engine is.
            f"  chain forward {{ type filter hook forward priority -170; {drop}; }}",
            f"  chain input {{ type filter hook input priority -170; {drop}; }}",
            "}",
            "",
        )
    )


def queue_rules() -> tuple[tuple[str, ...], ...]:
    """What the policy engine is asked about: new connections through the node, and from its pods to it.

    Without an engine that listens, the kernel drops what would have been queued.
    """
    verdict = ("-m", "conntrack", "--ctstate", "NEW", "-j", "NFQUEUE", "--queue-num", str(QUEUE))
    return (("FORWARD", *verdict), ("INPUT", "-i", layout.POD_BRIDGE, *verdict))


def keeper(cluster: layout.Cluster, credentials: pki.Pki, *, nft: str) -> dict[str, Any]:
    """The settings of `inside/keeper.py`."""
    return {
        "server": [cluster.node_address, layout.API_PORT],
        "ca_file": str(credentials.file("ca.crt")),
        "token_file": str(credentials.file("keeper.token")),
        "node": cluster.name,
        "nft": nft,
        "table": GUARD_TABLE,
        "set": KNOWN_PODS,
        "volumes": VOLUMES,
    }


def _yaml(document: dict[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False)
