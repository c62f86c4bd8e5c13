"""Tests for what an edge offers and where a client finds it."""

import pathlib
import stat

import pytest

from edge_agent import offers
from federation.api import dataset as api
from federation.api import manifests
from federation.runtime import processes


def make_dataset(volume: dict, name: str = "heart", **spec: object) -> api.EdgeDataset:
    return api.EdgeDataset.model_validate(
        {
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"name": "heart-disease", "volume": volume, **spec},
        }
    )


CONFIG_MAP = manifests.ConfigMap.model_validate(
    {
        "metadata": {"name": "rows", "namespace": "default"},
        "data": {"rows.csv": "1,2"},
        "binary_data": {"rows.npy": b"\x00"},
    }
)


def test_only_what_the_owner_declares_is_offered() -> None:
    """Name, examples and labels; nothing without a declaration."""
    volume = {"hostPath": {"path": "/srv/heart"}}
    (offer,) = offers.read([make_dataset(volume, declare={"examples": 303}, labels={"kind": "table"})], [])
    assert (offer.name, offer.examples, offer.labels) == ("heart-disease", 303, {"kind": "table"})
    (offer,) = offers.read([make_dataset(volume)], [])
    assert offer.examples is None


def test_a_host_path_is_used_in_place(tmp_path: pathlib.Path) -> None:
    """Nothing is copied; $(MOUNT_PATH) becomes the real place, other types stay."""
    volume = {"hostPath": {"path": str(tmp_path)}}
    config = {"data-path": "$(MOUNT_PATH)/x.csv", "fold": 3, "scale": True}
    (offer,) = offers.read([make_dataset(volume, nodeConfig=config)], [])
    location = offers.place(offer, tmp_path / "placed")
    assert location == tmp_path
    assert offers.node_config(offer, location) == {"data-path": f"{tmp_path}/x.csv", "fold": 3, "scale": True}
    assert not (tmp_path / "placed").exists()


def test_a_missing_host_path_says_so(tmp_path: pathlib.Path) -> None:
    """Who, where, and what to do."""
    (offer,) = offers.read([make_dataset({"hostPath": {"path": str(tmp_path / "no")}})], [])
    with pytest.raises(
        offers.DatasetUnavailable, match=r"heart-disease lies at .*no such directory; ask its owner"
    ):
        offers.place(offer, tmp_path)


def test_a_config_map_is_written_read_only(tmp_path: pathlib.Path) -> None:
    """Text and bytes, 0400 in 0500, written once; other content goes to another place."""
    (offer,) = offers.read([make_dataset({"configMap": {"name": "rows"}})], [CONFIG_MAP])
    location = offers.place(offer, tmp_path / "placed")
    assert {path.name: path.read_bytes() for path in location.iterdir()} == {
        "rows.csv": b"1,2",
        "rows.npy": b"\x00",
    }
    assert stat.S_IMODE(location.stat().st_mode) == 0o500
    assert {stat.S_IMODE(path.stat().st_mode) for path in location.iterdir()} == {0o400}
    assert offers.place(offer, tmp_path / "placed") == location
    changed = CONFIG_MAP.model_copy(update={"data": {"rows.csv": "3,4"}})
    (other,) = offers.read([make_dataset({"configMap": {"name": "rows"}})], [changed])
    assert offers.place(other, tmp_path / "placed") != location
    processes.remove_tree(tmp_path / "placed")
    assert not (tmp_path / "placed").exists()


UNAVAILABLE = {
    "a config map that is not there": ({"configMap": {"name": "gone"}}, "ConfigMap gone"),
    "a claim": ({"persistentVolumeClaim": {"claimName": "c"}}, "volume of kind persistentVolumeClaim"),
    "a bucket": ({"s3": {"url": "s3://b/p"}}, "volume of kind s3"),
}


@pytest.mark.parametrize("case", UNAVAILABLE)
def test_what_a_simulation_does_not_have_is_unavailable(case: str, tmp_path: pathlib.Path) -> None:
    """One sentence that names the volume and the next step."""
    volume, want = UNAVAILABLE[case]
    (offer,) = offers.read([make_dataset(volume)], [CONFIG_MAP])
    assert offer.unavailable is not None
    assert want in offer.unavailable
    with pytest.raises(offers.DatasetUnavailable):
        offers.place(offer, tmp_path)


def test_of_two_data_sets_with_one_name_the_first_counts() -> None:
    """Whatever the order of the files."""
    one = make_dataset({"hostPath": {"path": "/a"}}, name="a")
    two = make_dataset({"hostPath": {"path": "/b"}}, name="b")
    assert offers.read([two, one], []) == offers.read([one], [])
