"""From EdgeDataset objects to what the hub may know, and to where a client process finds the data.

What is declared travels, the data do not. This module refuses to know who may use a data set (policy). Where
clients are processes, only host paths and ConfigMaps can be had; what pods mount is made in `owned`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence

from federation.api import dataset as api
from federation.api import manifests
from federation.runtime import port

Scalar = bool | int | float | str


@dataclasses.dataclass(frozen=True, slots=True)
class Offer:
    """One data set as offered; `directory`, `files` or `mount` say where its content is, or `unavailable` why
    not.

    examples:    as the owner declares it, None when the owner does not.
    directory:   used in place.
    files:       the content of a ConfigMap by file name.
    mount:       what a pod mounts.
    unavailable: one sentence for people, with the next step; None when the data can be had.
    coming:      what is unavailable now is being brought; who wants it waits.
    """

    name: str
    examples: int | None = None
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    node_config: Mapping[str, Scalar] = dataclasses.field(default_factory=dict)
    directory: pathlib.Path | None = None
    files: Mapping[str, bytes] | None = None
    mount: port.Mount | None = None
    unavailable: str | None = None
    coming: bool = False


def read(
    datasets: Iterable[api.EdgeDataset], config_maps: Sequence[manifests.ConfigMap]
) -> tuple[Offer, ...]:
    """Return what is offered, by name; of two data sets with one name the first in object order counts."""
    found: dict[str, Offer] = {}
    for dataset in sorted(datasets, key=lambda one: (one.namespace or "", one.name)):
        found.setdefault(dataset.spec.name, _offer(dataset, config_maps))
    return tuple(found[name] for name in sorted(found))


def place(offer: Offer, directory: pathlib.Path) -> pathlib.Path:
    """Return where the data lie; a ConfigMap's files are written below `directory`, 0400 in a 0500 one.

    Raises: DatasetUnavailable, with a sentence for people.
    """
    if offer.directory is not None:
        if not offer.directory.is_dir():
            raise DatasetUnavailable(
                f"data set {offer.name} lies at {offer.directory}, and there is no such directory; "
                "ask its owner to correct spec.volume.hostPath"
            )
        return offer.directory
    if offer.files is None:
        raise DatasetUnavailable(offer.unavailable or f"data set {offer.name} has no volume")
    target = directory / f"{offer.name}-{_digest(offer.files)}"
    if not target.is_dir():
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = pathlib.Path(tempfile.mkdtemp(prefix=".new-", dir=directory))
        for name, content in offer.files.items():
            (fresh / name).write_bytes(content)
            (fresh / name).chmod(0o400)
        fresh.rename(target)
        target.chmod(0o500)
    return target


def node_config(offer: Offer, location: pathlib.Path) -> dict[str, Scalar]:
    """Return what the ClientApp finds in its node config, with $(MOUNT_PATH) replaced by the real place."""
    return {
        key: value.replace(api.MOUNT_PATH_TEXT, str(location)) if isinstance(value, str) else value
        for key, value in offer.node_config.items()
    }


class DatasetUnavailable(Exception):
    """The data set is declared, but its content cannot be had; the text is a sentence for people."""


def _offer(dataset: api.EdgeDataset, config_maps: Sequence[manifests.ConfigMap]) -> Offer:
    spec = dataset.spec
    offer = Offer(
        name=spec.name,
        examples=spec.declare.examples,
        labels=spec.labels,
        node_config=spec.node_config,
    )
    if spec.volume.host_path is not None:
        return dataclasses.replace(offer, directory=pathlib.Path(spec.volume.host_path.path))
    if spec.volume.config_map is None:
        kinds = [name for name, value in spec.volume if value is not None]
        kind = type(spec.volume).model_fields[kinds[0]].alias if kinds else "none"
        return dataclasses.replace(
            offer,
            unavailable=f"data set {spec.name} lies in a volume of kind {kind}; a simulation has none; "
            "use hostPath or configMap there",
        )
    wanted = spec.volume.config_map.name
    for config_map in config_maps:
        if (config_map.name, config_map.namespace) == (wanted, dataset.namespace):
            files = {
                key: config_map.content(key) or b"" for key in (*config_map.data, *config_map.binary_data)
            }
            return dataclasses.replace(offer, files=files)
    return dataclasses.replace(
        offer,
        unavailable=f"data set {spec.name} lies in ConfigMap {wanted}, and there is none of that name in "
        f"namespace {dataset.namespace}; ask its owner to add it",
    )


def _digest(files: Mapping[str, bytes]) -> str:
    total = hashlib.sha256()
    for name, content in sorted(files.items()):
        total.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(content).digest())
    return total.hexdigest()[:16]
