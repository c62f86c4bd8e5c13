"""From an EdgeDataset's volume to what a pod mounts, or to the sentence why it cannot.

Pure. This module refuses to know whether the volume is there.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

from edge_agent import buckets
from federation.api import dataset as api
from federation.runtime import port

RESERVED = ("/hanse", "/proc", "/sys", "/dev")
"""Directories that a client's container has for other ends."""


class NotMountable(Exception):
    """A client's pod cannot have this volume; the text is a sentence for people."""


def mount(dataset: api.EdgeDataset) -> port.Mount:
    """Return the mount of a data set, read-only at its place.

    Raises: NotMountable.
    """
    spec = dataset.spec
    path = pathlib.PurePosixPath(spec.mount_path)
    if path in (pathlib.PurePosixPath("/"), pathlib.PurePosixPath("/tmp")) or any(  # noqa: S108
        path.is_relative_to(place) for place in RESERVED
    ):
        raise NotMountable(
            f"data set {spec.name} is to be mounted at {path}, which a client needs for itself; "
            "choose another spec.mountPath, such as /data"
        )
    if (fetch := buckets.of(dataset)) is not None:
        return port.Mount(path, buckets.mount_source(fetch), sub_path=buckets.OBJECTS)
    return port.Mount(path, _source(spec.name, spec.volume))


def _source(name: str, volume: api.Volume) -> Mapping[str, Any]:
    if volume.persistent_volume_claim is not None:
        claim = volume.persistent_volume_claim.claim_name
        return {"persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    if volume.config_map is not None:
        return {"configMap": {"name": volume.config_map.name}}
    if volume.host_path is not None:
        return {"hostPath": {"path": volume.host_path.path, "type": "Directory"}}
    if volume.csi is not None:
        if volume.csi.volume_handle is not None:
            raise NotMountable(
                f"data set {name} names a volumeHandle, and volumes that are made with a pod have none; make "
                "a PersistentVolume of the handle and name its claim in spec.volume.persistentVolumeClaim"
            )
        attributes = {"volumeAttributes": dict(volume.csi.attributes)} if volume.csi.attributes else {}
        return {"csi": {"driver": volume.csi.driver, "readOnly": True, **attributes}}
    raise NotMountable(f"data set {name} names no volume; add one to spec.volume")
