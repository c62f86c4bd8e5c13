"""Write images as one archive that containerd and Docker both import.

Why it exists: without a registry an image travels as a file. The archive is an OCI image layout with Docker's
manifest.json in it; layers that images share are in it once. Nothing in it depends on the clock, so the same
content gives the same digests. It refuses to know what is in a layer.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EPOCH = "1970-01-01T00:00:00Z"
_OCI = "application/vnd.oci.image"
_COPY_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class LayerFile:
    """An uncompressed layer: a tar file and the SHA-256 of it, which is its digest and its diff ID in one."""

    path: Path
    digest: str
    size: int
    comment: str


@dataclass(frozen=True, slots=True)
class Image:
    """What an image is apart from its layers' bytes."""

    reference: str
    layers: tuple[LayerFile, ...]
    architecture: str
    entrypoint: Sequence[str]
    environment: Mapping[str, str]
    user: str
    labels: Mapping[str, str]


def config(image: Image) -> bytes:
    """The image's configuration as OCI describes it."""
    return _json(
        {
            "architecture": image.architecture,
            "os": "linux",
            "created": EPOCH,
            "config": {
                "User": image.user,
                "Env": [f"{name}={value}" for name, value in image.environment.items()],
                "Entrypoint": list(image.entrypoint),
                "WorkingDir": "/",
                "Labels": dict(image.labels),
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.digest for layer in image.layers]},
            "history": [
                {"created": EPOCH, "created_by": "hanse lab images", "comment": layer.comment}
                for layer in image.layers
            ],
        }
    )


def manifest(image: Image) -> bytes:
    """The image's manifest; its digest is the image's."""
    described = config(image)
    return _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": _descriptor(f"{_OCI}.config.v1+json", described),
            "layers": [
                {"mediaType": f"{_OCI}.layer.v1.tar", "digest": layer.digest, "size": layer.size}
                for layer in image.layers
            ],
        }
    )


def digest(content: bytes) -> str:
    """SHA-256 in OCI's words."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def write(images: Sequence[Image], path: Path) -> None:
    """Write an archive with these images to `path`."""
    blobs: dict[str, bytes | Path] = {}
    index, docker = [], []
    for image in images:
        described, listed = config(image), manifest(image)
        blobs[digest(described)] = described
        blobs[digest(listed)] = listed
        blobs.update({layer.digest: layer.path for layer in image.layers})
        index.append(
            {
                **_descriptor(f"{_OCI}.manifest.v1+json", listed),
                "annotations": {
                    "io.containerd.image.name": image.reference,
                    "org.opencontainers.image.ref.name": image.reference.rpartition(":")[2],
                },
                "platform": {"architecture": image.architecture, "os": "linux"},
            }
        )
        docker.append(
            {
                "Config": _blob(digest(described)),
                "RepoTags": [image.reference],
                "Layers": [_blob(layer.digest) for layer in image.layers],
            }
        )
    with tarfile.TarFile(path, "w", format=tarfile.PAX_FORMAT, copybufsize=_COPY_BYTES) as tar:
        add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        for name in sorted(blobs):
            content = blobs[name]
            if isinstance(content, bytes):
                add(tar, _blob(name), content)
            else:
                with content.open("rb") as file:
                    member = _member(_blob(name), content.stat().st_size)
                    tar.addfile(member, file)
        media = f"{_OCI}.index.v1+json"
        add(tar, "index.json", _json({"schemaVersion": 2, "mediaType": media, "manifests": index}))
        add(tar, "manifest.json", _json(docker))


def add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    """Add one file of root's, without a date."""
    tar.addfile(_member(name, len(content), mode), io.BytesIO(content))


def pack(root: Path, path: Path, prefix: str = "", names: Iterable[Path] | None = None) -> None:
    """Write the files under `root` as a layer: root's, without dates, in order of name.

    `prefix` is where `root` is in the image; `names` limits it to these files and their directories.
    """
    chosen = sorted(root.rglob("*") if names is None else _with_parents(root, names))
    parents = [Path(prefix), *Path(prefix).parents][:-1] if prefix else []
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for directory in reversed(parents):
            tar.addfile(_directory(str(directory)))
        for each in chosen:
            member = tar.gettarinfo(each, arcname=str(Path(prefix) / each.relative_to(root)))
            if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
                continue
            member.mtime = 0
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            if member.isreg():
                with each.open("rb") as file:
                    tar.addfile(member, file)
            else:
                tar.addfile(member)


def file_digest(path: Path) -> str:
    """SHA-256 of a file in OCI's words."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def _with_parents(root: Path, names: Iterable[Path]) -> set[Path]:
    found: set[Path] = set()
    for name in names:
        found.update(each for each in (name, *name.parents) if each != root and each.is_relative_to(root))
    return found


def _directory(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode = tarfile.DIRTYPE, 0o755
    return member


def _member(name: str, size: int, mode: int = 0o644) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, mode
    return member


def _blob(name: str) -> str:
    return "blobs/" + name.replace(":", "/")


def _descriptor(media: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media, "digest": digest(content), "size": len(content)}


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
