"""Every program that a lab runs, from the first source that has it.

Why it exists: a lab needs a dozen programs and must come up on a machine that has none of them. Kubernetes,
etcd, containerd and the network's programs come from `KUBEBUILDER_ASSETS`, the cache, a checksummed download
of the official release, or a build from the pinned Go modules, in that order; host tools come from this
machine, an official release, or unpacked Debian packages. It refuses to know how they are started.

    programs = ensure("1.36", print)
    programs.path("kubelet"), programs.environment
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from simulations.lab import cache, debian, download, gobuild, hosttools, releases
from simulations.lab.releases import Program

LOCK = "programs"
_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}
_STAMP = "made-from"


class ProgramsMissing(Exception):
    """A program is not to be had; the text is one or more sentences that say what to do."""


@dataclass(frozen=True, slots=True)
class Programs:
    """The programs of one Kubernetes release, ready to be started."""

    version: str
    """As `v1.36.3`."""
    bin: Path
    """One directory with every program, to be put first in PATH."""
    cni: Path
    """The directory of the CNI plugins."""
    environment: Mapping[str, str]
    """Variables that the programs need: PATH."""

    def path(self, name: str) -> Path:
        """The program of this name.

        Raises: KeyError when a lab has no such program.
        """
        for directory in (self.bin, self.cni):
            if (directory / name).exists():
                return directory / name
        raise KeyError(name)


def architecture() -> str:
    """This machine's architecture in the words of official releases.

    Raises: ProgramsMissing.
    """
    found = _ARCHITECTURES.get(platform.machine())
    if found is None or platform.system() != "Linux":
        raise ProgramsMissing(
            f"The lab's programs run on Linux on x86-64 or arm64, and this is {platform.system()} on "
            f"{platform.machine()}."
        )
    return found


def ensure(minor: str, on_progress: cache.Progress, *, variables: Mapping[str, str] = os.environ) -> Programs:
    """Make every program of this Kubernetes minor ready; at once when all are in the cache.

    Raises: ProgramsMissing with a sentence for each program that is not to be had; ValueError for an unknown
    minor.
    """
    release = releases.kubernetes(minor)
    arch = architecture()
    root = cache.directory(variables)
    wanted = releases.programs(release, arch)
    maker = _Maker(root, variables, on_progress)
    made = maker.there(wanted)
    tools = _on_machine(root, arch, variables)
    # Who needs nothing made waits for nobody: another process may be building for minutes.
    if len(made) < len(wanted) or any(set(each.names) - set(tools) for each in releases.host_tools(arch)):
        with cache.locked(root, LOCK, on_progress):
            for directory in (root, *(child for child in root.iterdir() if child.is_dir())):
                cache.sweep(directory)
            tools = _host_tools(root, arch, variables, on_progress)
            made = maker.make(wanted)
    directory, cni = root / f"v{release}-bin", root / f"v{release}-cni"
    for name, target in {**tools, **made}.items():
        cache.link((cni if name in releases.CNI_PROGRAMS else directory) / name, target)
    path = f"{directory}:{variables.get('PATH', '')}:{hosttools.PLACES}".replace("::", ":")
    return Programs(f"v{release}", directory, cni, {"PATH": path})


def lacking(minor: str, *, variables: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The programs that `ensure` would have to download, build or unpack first, by name; makes nothing.

    Raises: ProgramsMissing on a machine for which there are none; ValueError for an unknown minor.
    """
    arch = architecture()
    root = cache.directory(variables)
    wanted = releases.programs(releases.kubernetes(minor), arch)
    there = {*_Maker(root, variables, lambda line: None).there(wanted), *_on_machine(root, arch, variables)}
    names = [program.name for program in wanted]
    names += [name for tools in releases.host_tools(arch) for name in tools.names]
    return tuple(name for name in names if name not in there)


class _Maker:
    """One run over the list of programs; remembers the hosts that do not answer and the Go it found."""

    def __init__(self, root: Path, variables: Mapping[str, str], on_progress: cache.Progress) -> None:
        self._root = root
        self._variables = variables
        self._say = on_progress
        self._unreachable: set[str] = set()
        self._go: Path | None = None

    def there(self, wanted: tuple[Program, ...]) -> dict[str, Path]:
        """The programs that need not be made, by name."""
        paths = {program.name: self._assets(program) or self._cached(program) for program in wanted}
        return {name: path for name, path in paths.items() if path is not None}

    def make(self, wanted: tuple[Program, ...]) -> dict[str, Path]:
        """Each program's path, by name."""
        found = self.there(wanted)
        left = [program for program in wanted if program.name not in found]
        if left and len(left) < len(wanted):
            self._say(f"{len(found)} of {len(wanted)} programs are in the cache")
        for number, program in enumerate(left, 1):
            self._say(f"{number} of {len(left)}: {program.name}")
            path = self._root / program.group / program.name
            with cache.new_file(path, mode=0o755) as partial:
                if not self._downloaded(program, partial):
                    self._build(program, partial)
            self._remember(program)
            found[program.name] = path
        return found

    def _assets(self, program: Program) -> Path | None:
        directory = self._variables.get("KUBEBUILDER_ASSETS")
        path = Path(directory) / program.name if directory else None
        if path is None or not os.access(path, os.X_OK):
            return None
        if program.name in releases.KUBERNETES_PROGRAMS and not says_version(path, program.group):
            self._say(f"{path} is not {program.group}; taking {program.name} from elsewhere")
            return None
        return path.resolve()

    def _cached(self, program: Program) -> Path | None:
        path = self._root / program.group / program.name
        if not os.access(path, os.X_OK):
            return None
        if program.versioned:
            return path
        try:
            current = _stamp(path).read_text() == _made_from(program)
        except FileNotFoundError:
            current = False
        return path if current else None

    def _remember(self, program: Program) -> None:
        if not program.versioned:
            path = _stamp(self._root / program.group / program.name)
            with cache.new_file(path) as partial:
                partial.write_text(_made_from(program))

    def _downloaded(self, program: Program, path: Path) -> bool:
        source = program.download
        if source is None or download.host(source) in self._unreachable:
            return False
        try:
            download.fetch(source, path)
        except download.DownloadFailed as failure:
            if failure.unreachable:
                self._unreachable.add(download.host(source))
            self._say(f"{failure}; building {program.name} instead")
            return False
        return True

    def _build(self, program: Program, path: Path) -> None:
        try:
            if self._go is None:
                self._go = gobuild.toolchain(self._root, self._variables, self._say)
            gobuild.build(program, self._go, path, self._say)
        except gobuild.BuildFailed as failure:
            raise ProgramsMissing(f"{program.name} is not to be had: {failure}.") from failure


def says_version(program: Path, version: str) -> bool:
    """Whether this Kubernetes program is of the minor that `version` (as `v1.36.3`) belongs to."""
    arguments = ["version", "--client"] if program.name == "kubectl" else ["--version"]
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return version.rpartition(".")[0] + "." in done.stdout


def _made_from(program: Program) -> str:
    return hashlib.sha256(gobuild.sources(program).encode()).hexdigest()


def _stamp(path: Path) -> Path:
    return path.with_name(f"{path.name}.{_STAMP}")


def _on_machine(root: Path, arch: str, variables: Mapping[str, str]) -> dict[str, Path]:
    """The host tools that need not be made: this machine's own, and those that the cache has."""
    found: dict[str, Path] = {}
    # Never a link of our own: it would lead to itself.
    path = ":".join(each for each in variables.get("PATH", "").split(":") if not each.startswith(str(root)))
    for tools in releases.host_tools(arch):
        for name in tools.names:
            kept = (root / f"{name}-{releases.RUNC}" / name, root / f"host-{tools.package}" / "bin" / name)
            here = hosttools.on_machine(name, path) or next((each for each in kept if each.exists()), None)
            if here is not None:
                found[name] = here
    return found


def _host_tools(
    root: Path, arch: str, variables: Mapping[str, str], on_progress: cache.Progress
) -> dict[str, Path]:
    """Every host tool. Raises: ProgramsMissing."""
    found = _on_machine(root, arch, variables)
    for tools in releases.host_tools(arch):
        for name, source in tools.downloads.items():
            path = root / f"{name}-{releases.RUNC}" / name
            if name not in found and _official(path, source, on_progress):
                found[name] = path
    missing = [tools for tools in releases.host_tools(arch) if set(tools.names) - set(found)]
    if not missing:
        return found
    names = " ".join(tools.package for tools in missing)
    if not debian.available():
        raise ProgramsMissing(
            f"This machine lacks host tools that a lab needs; install the packages {names}."
        )
    try:
        unpacked = hosttools.unpack(missing, root, on_progress)
    except debian.PackagesMissing as failure:
        raise ProgramsMissing(f"This machine lacks {names}. {failure}") from failure
    broken = [name for name, path in unpacked.items() if not hosttools.answers(path)]
    lacking = [name for tools in missing for name in tools.names if name not in {**found, **unpacked}]
    if broken or lacking:
        raise ProgramsMissing(
            f"The tools {', '.join(broken + lacking)} do not work when unpacked; "
            f"install the packages {names}."
        )
    return {**unpacked, **found}


def _official(path: Path, source: releases.Download, on_progress: cache.Progress) -> bool:
    try:
        with cache.new_file(path, mode=0o755) as partial:
            download.fetch(source, partial)
    except download.DownloadFailed as failure:
        on_progress(f"{failure}; trying the Debian package")
        return False
    return True
