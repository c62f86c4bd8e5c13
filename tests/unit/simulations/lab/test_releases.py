"""What a lab's programs are: every one is pinned, and what it is built from says the same version."""

from __future__ import annotations

import re

import pytest

from simulations.lab import gobuild, releases

ALL = [
    (release, program)
    for release in releases.KUBERNETES.values()
    for program in releases.programs(release, "amd64")
]


def test_two_minors_are_supported_newest_first() -> None:
    """The newest minor and the one before, so that an upgrade of a cluster is covered."""
    newest, before = (int(minor.partition(".")[2]) for minor in releases.KUBERNETES)
    assert newest == before + 1
    assert releases.KUBERNETES[releases.NEWEST] == releases.kubernetes(releases.NEWEST)


@pytest.mark.parametrize("given", ["1.36", "v1.36", "1.36.3", "v1.36.3"])
def test_a_version_is_read_in_any_usual_form(given: str) -> None:
    """With or without v, as a minor or as the very release."""
    assert releases.kubernetes(given) == "1.36.3"


@pytest.mark.parametrize("given", ["1.34", "1.36.2", "newest", ""])
def test_an_unsupported_version_is_refused_with_the_choice(given: str) -> None:
    """The message names the versions that there are."""
    with pytest.raises(ValueError, match=r"choose 1\.36 or 1\.35"):
        releases.kubernetes(given)


@pytest.mark.parametrize(("release", "program"), ALL, ids=[f"{r}-{p.name}" for r, p in ALL])
def test_every_program_is_built_from_a_module_whose_go_sum_is_checked_in(
    release: str, program: releases.Program
) -> None:
    """Its package stands in tools.go, so go.sum names all that it is built from."""
    assert program.module is not None
    directory = gobuild.BINARIES / program.module
    assert f'_ "{program.package}"' in (directory / "tools.go").read_text()
    assert len((directory / "go.sum").read_text().splitlines()) > 100


@pytest.mark.parametrize(
    ("module", "path", "version"),
    [
        *(
            (f"kubernetes-{minor}", "k8s.io/kubernetes", release)
            for minor, release in releases.KUBERNETES.items()
        ),
        ("network", "go.etcd.io/etcd/server/v3", releases.ETCD),
        ("network", "github.com/containernetworking/plugins", releases.CNI_PLUGINS),
        ("network", "sigs.k8s.io/kube-network-policies", releases.NETWORK_POLICIES),
        ("containerd", "github.com/containerd/containerd/v2", releases.CONTAINERD),
    ],
)
def test_a_build_and_a_download_are_of_the_same_version(module: str, path: str, version: str) -> None:
    """go.mod requires the version that the downloads' addresses have."""
    text = (gobuild.BINARIES / module / "go.mod").read_text()
    assert re.search(rf"^(require |\t){re.escape(path)} v{re.escape(version)}$", text, re.MULTILINE)


def test_every_pinned_checksum_is_one_and_is_used() -> None:
    """64 hex digits each, and none is left from a version that is gone."""
    used = {
        download.pinned
        for arch in ("amd64", "arm64")
        for release in releases.KUBERNETES.values()
        for download in [
            *(program.download for program in releases.programs(release, arch)),
            *(each for tools in releases.host_tools(arch) for each in tools.downloads.values()),
        ]
        if download is not None
    }
    for checksum in releases.PINNED.values():
        assert re.fullmatch("[0-9a-f]{64}", checksum)
        assert f"sha256:{checksum}" in used


def test_every_download_is_checked_against_something() -> None:
    """A pinned checksum, or the publisher's own."""
    for _, program in ALL:
        if program.download is not None:
            assert program.download.pinned or program.download.published
