"""Hanse's images without Docker or a registry: made from packages, written as archives for nodes.

Why it exists: a lab's clusters need the images that manifests/images/Dockerfile makes where there is Docker.
The same targets come out: the same user, first command and packages.

    built = build(["edge-agent", "client"], print)
    archive = together(built)          # for `ctr images import`, or Lab.load
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulations.lab import cache, programs
from simulations.lab.images import archive, layers, sbom
from simulations.lab.images.archive import Image
from simulations.lab.images.layers import ImagesMissing
from simulations.lab.images.targets import (
    DEFAULT,
    ENVIRONMENT,
    TARGETS,
    USER,
    WITH_TORCH,
    Layer,
    Target,
    reference,
)

__all__ = ["DEFAULT", "TARGETS", "WITH_TORCH", "Built", "ImagesMissing", "build", "document", "together"]

LOCK = "images"


@dataclass(frozen=True, slots=True)
class Built:
    """One image whose layers are in the cache."""

    target: str
    name: str
    """As pods name it: `localhost/hanse/client:0.1.0`."""
    digest: str
    sbom: Path
    image: Image

    @property
    def archive(self) -> Path:
        """An archive with this image alone; for several that share layers, `together` is smaller."""
        return together([self])

    @property
    def size_bytes(self) -> int:
        """The size of all its layers."""
        return sum(layer.size for layer in self.image.layers)


def build(
    targets: Iterable[str],
    on_progress: cache.Progress,
    *,
    refresh: bool = False,
    variables: Mapping[str, str] = os.environ,
) -> list[Built]:
    """Build these images, or take them from the cache when nothing in them has changed.

    Raises: ImagesMissing with a sentence; ValueError for a target that there is not.
    """
    wanted = [_target(name) for name in dict.fromkeys(targets)]
    root = cache.directory(variables) / "images"
    with cache.locked(root, LOCK, on_progress):
        cache.sweep(root)
        maker = layers.Maker(root, on_progress, refresh=refresh)
        return [_build(target, maker, root) for target in wanted]


def together(built: Sequence[Built]) -> Path:
    """One archive with these images, in which shared layers are once; written when it is not there yet."""
    root = built[0].sbom.parent
    built = sorted(built, key=lambda each: each.target)
    names = "+".join(each.target for each in built)
    digests = hashlib.sha256("".join(each.digest for each in built).encode()).hexdigest()
    path = root / f"{names}.{digests[:16]}.tar"
    # The builders' own lock: they sweep away what looks half written.
    with cache.locked(root, LOCK, lambda _: None):
        if not path.exists():
            # Room first: an archive has half a gigabyte, with torch three, and each change makes a new one.
            kept = (
                0
                if any(Layer.TORCH in TARGETS[each.target].layers for each in built)
                else layers.KEPT_ARCHIVES
            )
            layers.keep_newest(root, f"{names}.*.tar", kept)
            with cache.new_file(path) as partial:
                archive.write([each.image for each in built], partial)
    path.touch()
    return path


def document(built: Sequence[Built], archive: Path) -> dict[str, Any]:
    """What was built, for programs."""
    described = [
        {
            "target": each.target,
            "name": each.name,
            "digest": each.digest,
            "sizeBytes": each.size_bytes,
            "sbom": str(each.sbom),
        }
        for each in built
    ]
    return {"archive": str(archive), "images": described}


def _target(name: str) -> Target:
    if name not in TARGETS:
        raise ValueError(f"There is no image {name}; choose among {', '.join(TARGETS)}.")
    return TARGETS[name]


def _build(target: Target, maker: layers.Maker, root: Path) -> Built:
    made = [maker.make(layer) for layer in target.layers]
    version = layers.hanse_version()
    image = Image(
        reference=reference(target, version),
        layers=tuple(each.file for each in made),
        architecture=programs.architecture(),
        entrypoint=target.entrypoint,
        environment=ENVIRONMENT,
        user=f"{USER}:{USER}",
        labels={
            "org.opencontainers.image.title": target.title,
            "org.opencontainers.image.version": version,
            "org.opencontainers.image.licenses": "Apache-2.0",
        },
    )
    digest = archive.digest(archive.manifest(image))
    listed = root / f"{target.name}.{digest[7:23]}.spdx.json"
    components = [component for each in made for component in each.components]
    document = sbom.document(image.reference, digest, components, max(each.created for each in made))
    with cache.new_file(listed) as partial:
        partial.write_text(json.dumps(document, indent=1))
    layers.keep_newest(root, f"{target.name}.*.spdx.json", layers.KEPT)
    return Built(target.name, image.reference, digest, listed, image)
