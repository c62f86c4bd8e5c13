"""What every kind of model store must do: a directory here, and S3-compatible and other storage elsewhere."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator

import pytest

from coordinator.clients import blobs
from tests.fakes import s3, webhdfs

KINDS = ["files", "webhdfs", pytest.param("s3", marks=pytest.mark.process)]


@dataclasses.dataclass
class Place:
    """A training's URL in a store, and what opens it."""

    url: str
    key: blobs.Key = blobs.NO_KEY

    def save(self, number: int, model: bytes = b"m") -> str:
        """Save one round."""
        return blobs.save(f"{self.url}/{number}", {blobs.CARD: b"{}", blobs.MODEL: model}, self.key)


@pytest.fixture(scope="module")
def server() -> Iterator[s3.Server]:
    with s3.serve() as server:
        yield server


@pytest.fixture(scope="module")
def other_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webhdfs.Server]:
    with webhdfs.serve(tmp_path_factory.mktemp("webhdfs")) as server:
        yield server


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Place:
    """Give each kind in turn, empty."""
    if request.param == "files":
        return Place(blobs.training_url(f"file://{tmp_path}/store", "cardiology", "hospitals"))
    if request.param == "webhdfs":
        storage: webhdfs.Server = request.getfixturevalue("other_server")
        return Place(
            blobs.training_url(f"{storage.url}/{tmp_path.name}", "cardiology", "hospitals"),
            blobs.Key(storage.secret()),
        )
    server: s3.Server = request.getfixturevalue("server")
    prefix = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:12]
    store = f"s3://{s3.BUCKET}/{prefix}/"
    return Place(blobs.training_url(store, "cardiology", "hospitals"), blobs.Key(server.secret()))


def test_saved_files_are_read_back(place: Place, tmp_path: pathlib.Path) -> None:
    """Bytes and files arrive whole; one that is larger than a part, too."""
    model = b"0123456789abcdef" * (25 * 2**20 // 16) + b"end"
    source = tmp_path / "source"
    source.write_bytes(model)
    saved = blobs.save(f"{place.url}/7", {blobs.MODEL: source, blobs.CARD: b"{}"}, place.key)
    assert saved == f"{place.url}/7"
    assert blobs.read(saved, blobs.CARD, place.key) == b"{}"
    blobs.fetch(saved, blobs.MODEL, tmp_path / "fetched", place.key)
    assert (tmp_path / "fetched").read_bytes() == model


def test_saving_again_replaces(place: Place) -> None:
    """The same round may be saved twice; the second one counts."""
    place.save(1, b"first")
    assert blobs.read(place.save(1, b"second"), blobs.MODEL, place.key) == b"second"
    assert blobs.list_rounds(place.url, place.key) == [1]


def test_a_model_that_cannot_be_read_leaves_no_round(place: Place, tmp_path: pathlib.Path) -> None:
    """The card comes last, so a half-written round does not count."""
    files = {blobs.CARD: b"{}", blobs.MODEL: tmp_path / "missing"}
    with pytest.raises(FileNotFoundError):
        blobs.save(f"{place.url}/1", files, place.key)
    assert blobs.list_rounds(place.url, place.key) == []


def test_prune_keeps_the_newest_by_number(place: Place) -> None:
    """Ten comes after nine; the newest always stays."""
    for number in (2, 9, 10):
        place.save(number)
    assert blobs.prune(place.url, 2, place.key) == [2]
    assert blobs.prune(place.url, 0, place.key) == [9]
    assert blobs.list_rounds(place.url, place.key) == [10]
    with pytest.raises(FileNotFoundError):
        blobs.read(f"{place.url}/9", blobs.MODEL, place.key)


def test_prune_leaves_what_an_earlier_training_of_this_name_made(place: Place) -> None:
    """Its rounds have higher numbers; they must not push out the model that was just made."""
    for number in (1, 2, 3, 40):
        place.save(number)
    assert blobs.prune(place.url, 1, place.key, latest=3) == [1, 2]
    assert blobs.list_rounds(place.url, place.key) == [3, 40]


def test_nothing_saved_is_an_empty_list(place: Place) -> None:
    """A training without models has no rounds, and nothing to remove."""
    assert blobs.list_rounds(place.url, place.key) == []
    assert blobs.prune(place.url, 1, place.key) == []


def test_a_missing_file_is_just_missing(place: Place) -> None:
    """It is not the store that failed."""
    with pytest.raises(FileNotFoundError):
        blobs.read(f"{place.url}/3", blobs.MODEL, place.key)


def test_the_check_leaves_nothing(place: Place) -> None:
    """A store that can be used stays as it was."""
    blobs.check(place.url, place.key)
    assert blobs.list_rounds(place.url, place.key) == []
    place.save(1)
    blobs.check(place.url, place.key)
    assert blobs.list_rounds(place.url, place.key) == [1]
