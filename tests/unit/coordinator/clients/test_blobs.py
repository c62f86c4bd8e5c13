"""The model store keeps whole models or none."""

import pathlib
import socket
import sys
import threading

import pytest

from coordinator.clients import blobs


def store(directory: pathlib.Path) -> str:
    """The training's URL in a directory."""
    return blobs.training_url(f"file://{directory}/", "cardiology", "hospitals")


def save(url: str, number: int, model: bytes = b"m") -> str:
    """Save one round."""
    return blobs.save(f"{url}/{number}", {blobs.MODEL: model, blobs.CARD: b"{}"})


def test_saved_files_are_read_back(tmp_path: pathlib.Path) -> None:
    """Bytes and paths arrive whole, and nothing else is left in the directory."""
    source = tmp_path / "source"
    source.write_bytes(b"weights")
    url = store(tmp_path)
    saved = blobs.save(f"{url}/7", {blobs.MODEL: source, blobs.CARD: b"{}"})
    assert saved == blobs.round_url(f"file://{tmp_path}", "cardiology", "hospitals", 7)
    assert blobs.read(saved, blobs.MODEL) == b"weights"
    assert [path.name for path in (tmp_path / "cardiology" / "hospitals").iterdir()] == ["7"]


def test_saving_again_replaces(tmp_path: pathlib.Path) -> None:
    """The same round may be saved twice; the second one counts."""
    url = store(tmp_path)
    save(url, 1, b"first")
    assert blobs.read(save(url, 1, b"second"), blobs.MODEL) == b"second"


def test_a_failed_save_keeps_the_old_model(tmp_path: pathlib.Path) -> None:
    """When a file cannot be read, what was saved before is still there, and no half model beside it."""
    url = store(tmp_path)
    saved = save(url, 1, b"first")
    with pytest.raises(FileNotFoundError):
        blobs.save(saved, {blobs.CARD: b"{}", blobs.MODEL: tmp_path / "missing"})
    assert blobs.read(saved, blobs.MODEL) == b"first"
    assert blobs.list_rounds(url) == [1]


def test_prune_keeps_the_newest_by_number(tmp_path: pathlib.Path) -> None:
    """Ten comes after nine; the newest always stays."""
    url = store(tmp_path)
    for number in (2, 9, 10):
        save(url, number)
    assert blobs.prune(url, 2) == [2]
    assert blobs.prune(url, 0) == [9]
    assert blobs.list_rounds(url) == [10]


def test_a_round_without_a_card_does_not_count(tmp_path: pathlib.Path) -> None:
    """A half-written or half-removed round is not listed."""
    url = store(tmp_path)
    save(url, 1)
    (tmp_path / "cardiology" / "hospitals" / "2").mkdir()
    assert blobs.list_rounds(url) == [1]


def test_nothing_saved_is_an_empty_list(tmp_path: pathlib.Path) -> None:
    """A training without models has no rounds."""
    assert blobs.list_rounds(store(tmp_path)) == []


@pytest.mark.parametrize(
    ("url", "want"),
    [
        ("models/here", "write it as a URL"),
        ("file://models/here", "three slashes"),
        ("nosuch://bucket", "no package that is installed where this runs knows nosuch://"),
        ("pvc://models", "a claim is for clusters"),
        ("memory://models", "memory, a code host or the web keeps no models"),
        ("simplecache::file:///models", "chained with ::"),
        ("ftp://[fd00", "Invalid IPv6 URL"),
    ],
)
def test_unusable_urls_are_refused(url: str, want: str) -> None:
    """The message says how to write it."""
    with pytest.raises(blobs.InvalidStoreError, match=want):
        blobs.list_rounds(url)


def test_odd_file_names_are_refused(tmp_path: pathlib.Path) -> None:
    """A file cannot leave its directory."""
    with pytest.raises(blobs.BlobError, match="not a plain file name"):
        blobs.save(f"{store(tmp_path)}/1", {blobs.CARD: b"", "../x": b""})


def test_a_package_that_is_missing_is_said_by_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """The aggregator checks before the first round, so nobody trains for nothing."""
    monkeypatch.setitem(sys.modules, "obstore.fsspec", None)
    key = blobs.Key({"AWS_ACCESS_KEY_ID": b"id", "AWS_SECRET_ACCESS_KEY": b"key"})
    with pytest.raises(blobs.InvalidStoreError, match=r"obstore is not installed where this runs; use"):
        blobs.check("s3://bucket/a/b", key)


@pytest.mark.parametrize(
    ("scheme", "module", "package"),
    [("gs", "gcsfs", "gcsfs"), ("sftp", "paramiko", "paramiko"), ("smb", "smbclient", "smbprotocol")],
)
def test_the_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, scheme: str, module: str, package: str
) -> None:
    """Whichever fsspec wants for the scheme, and also where a Secret is given."""
    monkeypatch.setitem(sys.modules, module, None)
    want = f": {package} is not installed where this runs; use an image"
    with pytest.raises(blobs.PackageMissing, match=want) as told:
        blobs.check(f"{scheme}://host/models", blobs.Key({"options.json": b"{}"}))
    assert told.value.package == package


def test_a_password_in_the_url_is_refused_and_not_repeated() -> None:
    """A manifest cannot have one; a hub's own store is looked at here, too."""
    with pytest.raises(blobs.InvalidStoreError, match=r"store sftp://host/models: a user, a pass") as told:
        blobs.check("sftp://me:hush@host/models")
    assert "hush" not in str(told.value)


def test_a_server_that_does_not_answer_is_a_store_that_failed() -> None:
    """Some of fsspec's classes connect when they are made, with errors of their own."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening: nobody answers there
        with pytest.raises(blobs.StoreFailed, match=r"ConnectionRefusedError: .*Connection refused"):
            blobs.check(f"ftp://127.0.0.1:{taken.getsockname()[1]}/models")


def test_a_server_that_takes_calls_and_says_nothing_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """fsspec's class for WebHDFS has no patience of its own that would end."""
    monkeypatch.setattr(blobs, "OTHERS_CHECK_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"webhdfs://127.0.0.1:{silent.getsockname()[1]}/models"
        with pytest.raises(blobs.StoreFailed, match="no answer within 0 s; check its address"):
            blobs.check(url)
        before = threading.active_count()
        for _ in range(3):
            with pytest.raises(blobs.StoreFailed, match="no answer within 0 s; check its address"):
                blobs.save(f"{url}/a/b/1", {blobs.MODEL: b"model", blobs.CARD: b"{}"})
        assert threading.active_count() <= before + 1, "they do not add up"


def test_a_directory_that_may_not_be_written_to_is_said_by_the_check(tmp_path: pathlib.Path) -> None:
    """A file stands where a directory is wanted, whoever runs this."""
    (tmp_path / "models").touch()
    with pytest.raises(blobs.StoreFailed, match="models may not be written to"):
        blobs.check(f"file://{tmp_path}/models/a/b")
    blobs.check(f"file://{tmp_path}/others/a/b")
    assert [path.name for path in tmp_path.iterdir()] == ["models"]


def test_options_of_other_stores_come_from_one_key() -> None:
    """What is wrong with them is said without quoting them."""
    url = "webhdfs://127.0.0.1:1/models/a/b"
    for text, want in {
        b"{secret": "options.json is not a JSON object",
        b'["secret"]': "options.json is not a JSON object",
        b'{"protocol": "file", "user": "secret"}': "options.json has a protocol, which the store's URL says",
        b'{"kerberos": true, "user": "secret"}': "is not what fsspec's class for webhdfs:// takes",
    }.items():
        with pytest.raises(blobs.InvalidStoreError, match=want) as error:
            blobs.check(url, blobs.Key({"options.json": text}))
        assert "secret" not in str(error.value).replace("Secret", "")
