"""Hanse's images without Docker or a registry: made from packages, written as archives for nodes.

Why it exists: the lab's clusters need the images that manifests/images/Dockerfile makes where there is
Docker. The same targets come out: the same user, first command and packages.

    built = build(["coordinator", "edge-agent", "client"], print)
    archive = together(built)          # for `ctr images import`, or Lab.load
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simulations.lab import cache, programs
from simulations.lab.images import archive, layers, sbom
from simulations.lab.images.archive import Image
from simulations.lab.images.layers import ImagesMissing
from simulations.lab.images.targets import DEFAULT, TARGETS, USER, Target, reference

__all__ = ["DEFAULT", "TARGETS", "Built", "ImagesMissing", "build", "together"]

LOCK = "images"


@dataclass(frozen=True, slots=True)
class Built:
    """One image that is ready to be imported."""

    target: str
    name: str
    """As pods name it: `localhost/hanse/client:0.1.0`."""
    digest: str
    archive: Path
    sbom: Path
    size_bytes: int
    image: Image


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
        return [_build(target, maker, root, on_progress) for target in wanted]


def together(built: Sequence[Built]) -> Path:
    """One archive with all these images, in which shared layers are once."""
    if len(built) == 1:
        return built[0].archive
    digests = hashlib.sha256("".join(sorted(each.digest for each in built)).encode()).hexdigest()
    path = built[0].archive.parent / f"together-{digests[:16]}.tar"
    if not path.exists():
        with cache.new_file(path) as partial:
            archive.write([each.image for each in built], partial)
    path.touch()
    layers.keep_newest(path.parent, "together-*.tar", layers.KEPT)
    return path


def _target(name: str) -> Target:
    if name not in TARGETS:
        raise ValueError(f"There is no image {name}; choose among {', '.join(TARGETS)}.")
    return TARGETS[name]


def _build(target: Target, maker: layers.Maker, root: Path, on_progress: cache.Progress) -> Built:
    made = [maker.make(layer) for layer in target.layers]
    version = layers.hanse_version()
    image = archive.Image(
        reference=reference(target, version),
        layers=tuple(each.file for each in made),
        architecture=programs.architecture(),
        entrypoint=target.entrypoint,
        environment=target.environment,
        user=f"{USER}:{USER}",
        labels={
            "org.opencontainers.image.title": target.title,
            "org.opencontainers.image.version": version,
            "org.opencontainers.image.licenses": "Apache-2.0",
        },
    )
    digest = archive.digest(archive.manifest(image))
    path = root / f"{target.name}-image-{digest[7:23]}.tar"
    listed = path.with_suffix(".spdx.json")
    if not path.exists():
        on_progress(f"writing {image.reference}")
        components = [component for each in made for component in each.components]
        document = sbom.document(image.reference, digest, components, max(each.created for each in made))
        with cache.new_file(listed) as partial:
            partial.write_text(json.dumps(document, indent=1))
        with cache.new_file(path) as partial:
            archive.write([image], partial)
    path.touch()
    listed.touch()
    for suffix in ("tar", "spdx.json"):
        layers.keep_newest(root, f"{target.name}-image-*.{suffix}", layers.KEPT)
    return Built(target.name, image.reference, digest, path, listed, path.stat().st_size, image)
