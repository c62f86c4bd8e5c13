"""Where a lab's programs come from: assets before the cache, the cache before anything slow."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from simulations.lab import debian, gobuild, hosttools, programs, releases

RELEASE = releases.KUBERNETES["1.36"]


def script(path: Path, says: str = "") -> Path:
    """A small program that prints what it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def filled(tmp_path: Path) -> dict[str, str]:
    """A cache with every program and a PATH with every host tool."""
    root = tmp_path / "cache" / "hanse" / "lab"
    for program in releases.programs(RELEASE, programs.architecture()):
        path = script(root / program.group / program.name, f"cached {program.group}")
        if not program.versioned:
            programs._stamp(path).write_text(programs._made_from(program))
    for tools in releases.host_tools(programs.architecture()):
        for name in tools.names:
            script(tmp_path / "host" / name)
    return {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": str(tmp_path / "host")}


def test_with_a_full_cache_nothing_is_said_or_made(filled: dict[str, str]) -> None:
    """Every program is in one directory, the CNI plugins in another, and PATH begins with the first."""
    said: list[str] = []
    found = programs.ensure("1.36", said.append, variables=filled)
    assert said == []
    assert found.version == f"v{RELEASE}"
    assert found.environment["PATH"].startswith(f"{found.bin}:")
    for name in (
        *releases.KUBERNETES_PROGRAMS,
        *releases.CONTAINERD_PROGRAMS,
        "etcd",
        "runc",
        "iptables",
        "nft",
    ):
        assert found.path(name).parent == found.bin
        assert found.path(name).exists()
    for name in releases.CNI_PROGRAMS:
        assert found.path(name).parent == found.cni
    with pytest.raises(KeyError):
        found.path("minikube")


def test_what_would_have_to_be_made_is_known_before(filled: dict[str, str], tmp_path: Path) -> None:
    """Nothing with a full cache; a removed program and an outdated one by name; and asking makes nothing."""
    assert programs.lacking("1.36", variables=filled) == ()
    root = tmp_path / "cache" / "hanse" / "lab"
    (root / f"v{RELEASE}" / "kubelet").unlink()
    changed = next(p for p in releases.programs(RELEASE, programs.architecture()) if not p.versioned)
    programs._stamp(root / changed.group / changed.name).write_text("of other sources")
    assert set(programs.lacking("1.36", variables=filled)) == {"kubelet", changed.name}
    empty = {"XDG_CACHE_HOME": str(tmp_path / "none"), "PATH": ""}
    assert {"kubelet", "etcd"} < set(programs.lacking("1.36", variables=empty))
    assert not (tmp_path / "none").exists()


def test_its_own_environment_does_not_lead_it_in_a_circle(filled: dict[str, str]) -> None:
    """Called again with PATH as it gave it, the links still lead to the real tools."""
    first = programs.ensure("1.36", print, variables=filled)
    again = programs.ensure("1.36", print, variables={**filled, **first.environment})
    assert again.path("runc").resolve() == Path(filled["PATH"]) / "runc"


def test_assets_come_first_when_they_are_of_the_right_version(filled: dict[str, str], tmp_path: Path) -> None:
    """What envtest uses is taken; a program of another minor is left aside with a word on it."""
    assets = tmp_path / "assets"
    script(assets / "kube-apiserver", "Kubernetes v1.36.0")
    script(assets / "kubelet", "Kubernetes v1.34.1")
    script(assets / "etcd", "etcd Version: 3.6.1")
    said: list[str] = []
    found = programs.ensure("1.36", said.append, variables={**filled, "KUBEBUILDER_ASSETS": str(assets)})
    assert found.path("kube-apiserver").resolve() == assets / "kube-apiserver"
    assert found.path("etcd").resolve() == assets / "etcd"
    assert found.path("kubelet").resolve().parent.name == f"v{RELEASE}"
    assert said == [f"{assets / 'kubelet'} is not v{RELEASE}; taking kubelet from elsewhere"]


def test_a_build_is_asked_for_when_a_module_has_changed(filled: dict[str, str]) -> None:
    """A cached program of an unversioned group counts only with the go.sum that it was made from."""
    etcd = next(p for p in releases.programs(RELEASE, programs.architecture()) if p.name == "etcd")
    root = Path(filled["XDG_CACHE_HOME"]) / "hanse" / "lab"
    maker = programs._Maker(root, filled, print)
    assert maker._cached(etcd) == root / "network" / "etcd"
    programs._stamp(root / "network" / "etcd").write_text("another go.sum")
    assert maker._cached(etcd) is None


def test_an_unknown_minor_is_refused(filled: dict[str, str]) -> None:
    """Before anything is touched."""
    with pytest.raises(ValueError, match=r"choose 1\.36"):
        programs.ensure("1.12", print, variables=filled)


def test_a_build_does_not_depend_on_who_builds() -> None:
    """Fixed flags, go.sum as it is, no C compiler."""
    program = next(p for p in releases.programs(RELEASE, "amd64") if p.name == "kubelet")
    variables = gobuild.environment({"GOFLAGS": "-mod=mod", "CGO_ENABLED": "1", "HOME": "/h"})
    assert variables["GOFLAGS"] == "-mod=readonly -buildvcs=false"
    assert variables["CGO_ENABLED"] == "0"
    assert variables["HOME"] == "/h"
    command = gobuild.command(Path("/go"), program, Path("/out"))
    assert command[-3:] == ["-o", "/out", "k8s.io/kubernetes/cmd/kubelet"]
    assert f"gitVersion=v{RELEASE}" in command[command.index("-ldflags") + 1]


@pytest.mark.parametrize(
    ("text", "want"),
    [("go version go1.26.8 linux/amd64", (1, 26)), ("go version go1.27rc1 linux/amd64", (1, 27)), ("", None)],
)
def test_a_go_version_is_read(text: str, want: tuple[int, int] | None) -> None:
    """Releases and candidates."""
    assert gobuild.version(text) == want


def test_a_build_that_fails_says_why(tmp_path: Path) -> None:
    """The compiler's last lines are in the message."""
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho 'tools.go:3: no such package' >&2\nexit 1\n")
    go.chmod(0o755)
    program = next(p for p in releases.programs(RELEASE, "amd64") if p.name == "etcd")
    with pytest.raises(gobuild.BuildFailed, match="no such package"):
        gobuild.build(program, go, tmp_path / "etcd", print)


def test_an_unpacked_tool_is_started_with_its_own_libraries(tmp_path: Path) -> None:
    """Its caller needs no environment; paths may hold spaces."""
    program = tmp_path / "a b" / "iptables"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$LD_LIBRARY_PATH $XTABLES_LIBDIR $*"\n')
    program.chmod(0o755)
    start = tmp_path / "start"
    start.write_text(hosttools.launcher(program, [Path("/l 1"), Path("/l2")], Path("/x")))
    start.chmod(0o755)
    done = subprocess.run([start, "-L", "a b"], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert done.stdout == "/l 1:/l2 /x -L a b\n"


def test_the_packages_that_others_need_are_read_from_apt() -> None:
    """Indented lines are relations, angle brackets are names without a package."""
    text = "iptables\n  Depends: libip4tc2\n  Depends: netbase\nlibip4tc2\nlibstdc++6\n<debconf-2.0>\n"
    assert debian.parse_closure(text) == {"iptables", "libip4tc2", "libstdc++6"}
