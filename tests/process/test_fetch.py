"""What fetches a data set out of a bucket, as a process beside a real S3 server, and how it refuses."""

from __future__ import annotations

import http.server
import json
import os
import socket
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import obstore
import obstore.store
import pytest

from edge_agent.fetch import storage
from tests.fakes import s3

pytestmark = [pytest.mark.process]

ROOT = Path(__file__).resolve().parents[2]
URL = f"s3://{s3.BUCKET}"
LARGE = bytes(range(256)) * 4 * 8200  # more than one piece
ROWS = {"a.csv": b"1,2,3\n", "deep/er/b.csv": b"4,5,6\n", "empty": b"", "large.bin": LARGE}


@pytest.fixture(scope="module")
def server() -> Iterator[s3.Server]:
    with s3.serve() as server:
        yield server


def store(server: s3.Server, bucket: str = s3.BUCKET) -> obstore.store.S3Store:
    """The bucket as its owner fills it."""
    return obstore.store.S3Store(
        bucket,
        endpoint=server.url,
        region="us-east-1",
        access_key_id=server.writer["AWS_ACCESS_KEY_ID"],
        secret_access_key=server.writer["AWS_SECRET_ACCESS_KEY"],
        client_options={"allow_http": True},
    )


def fill(server: s3.Server, prefix: str, objects: Mapping[str, bytes]) -> None:
    for name, content in objects.items():
        obstore.put(store(server), f"{prefix}/{name}", content)


class Pod:
    """One claim, one Secret, and the program as a pod runs it."""

    def __init__(self, tmp_path: Path, secret: Mapping[str, bytes] | None) -> None:
        self.claim = tmp_path / "claim"
        self.claim.mkdir()
        self.words = tmp_path / "termination-log"
        self.log = tmp_path / "log"
        self.secret = None
        if secret is not None:
            self.secret = tmp_path / "secret"
            # As kubelet mounts it: links to a directory with a dot.
            (self.secret / "..data").mkdir(parents=True)
            for name, value in secret.items():
                (self.secret / "..data" / name).write_bytes(value)
                (self.secret / name).symlink_to(Path("..data", name))

    def arguments(self, url: str, endpoint: str, at_most_bytes: int = 10**9) -> list[str]:
        return [
            *(sys.executable, "-P", "-m", "edge_agent.fetch", "--url", url, "--endpoint", endpoint),
            *("--region", "us-east-1", "--at-most-bytes", str(at_most_bytes), "--to", str(self.claim)),
            *("--last-words", str(self.words)),
            *(("--secret", str(self.secret)) if self.secret is not None else ()),
        ]

    def run(self, url: str, endpoint: str, at_most_bytes: int = 10**9) -> int:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        with self.log.open("ab") as log:
            done = subprocess.run(
                self.arguments(url, endpoint, at_most_bytes),
                env={**plain, "PYTHONPATH": str(ROOT)}, stderr=log, timeout=120,
            )  # fmt: skip
        return done.returncode

    def said(self) -> dict[str, Any]:
        return dict(json.loads(self.words.read_text()))

    def refusal(self, url: str, endpoint: str, at_most_bytes: int = 10**9) -> str:
        """Return the last words of a run that fails: its reason and its sentence."""
        assert self.run(url, endpoint, at_most_bytes) == 1
        said = self.said()
        assert set(said) == {"reason", "message"}
        assert "\n" not in said["message"]
        assert not (self.claim / "objects").exists()
        return f"{said['reason']}: {said['message']}"

    def files(self) -> dict[str, bytes]:
        objects = self.claim / "objects"
        return {
            str(path.relative_to(objects)): path.read_bytes() for path in objects.rglob("*") if path.is_file()
        }


def test_all_objects_below_the_prefix_are_there_at_once_and_nothing_else(
    server: s3.Server, tmp_path: Path
) -> None:
    """Of any size, in their directories; others are not; and nothing that was written tells a key."""
    fill(server, "heart", ROWS)
    fill(server, "heart-2", {"other.csv": b"7,8,9\n"})
    pod = Pod(tmp_path, server.secret(server.reader, AWS_ENDPOINT_URL="http://127.0.0.1:1", AWS_REGION="x"))
    assert pod.run(f"{URL}/heart", server.url) == 0
    assert pod.files() == ROWS
    assert pod.said() == {"objects": 4, "bytes": sum(map(len, ROWS.values()))}
    assert sorted(path.name for path in pod.claim.iterdir()) == ["fetched.json", "objects"]
    written = [path.read_bytes() for path in (pod.log, pod.words, pod.claim / "fetched.json")]
    assert not [key for key in server.reader.values() if any(key.encode() in text for text in written)]


def test_what_is_fetched_is_not_fetched_again(server: s3.Server, tmp_path: Path) -> None:
    """An agent that was killed before it noted the end asks again: neither Secret nor storage is needed."""
    fill(server, "once", {"a": b"1"})
    pod = Pod(tmp_path, server.secret())
    assert pod.run(f"{URL}/once/", server.url) == 0
    fill(server, "once", {"b": b"2"})
    assert pod.run(f"{URL}/once/", "http://127.0.0.1:1") == 0
    assert pod.files() == {"a": b"1"}
    assert pod.said() == {"objects": 1, "bytes": 1}


def test_a_run_that_was_killed_is_gone_on_with(server: s3.Server, tmp_path: Path) -> None:
    """What is whole and unchanged stays; what is half, changed, or gone from the bucket does not."""
    fill(server, "resume", {"whole": b"old", "half": b"12345", "changed": b"new"})
    listed = {one["path"].rpartition("/")[2]: one for one in obstore.list(store(server), "resume").collect()}
    pod = Pod(tmp_path, server.secret())
    incoming = pod.claim / "incoming"
    incoming.mkdir()
    # Its content tells that it was not fetched again.
    (incoming / "whole").write_bytes(b"own")
    (incoming / "half").write_bytes(b"123")
    (incoming / "changed").write_bytes(b"xyz")
    (incoming / "gone").write_bytes(b"of an object that was deleted")
    noted = [
        ["resume/whole", 3, listed["whole"]["e_tag"]],
        ["resume/changed", 3, '"another"'],
        ["resume/gone", 29, '"tag"'],
    ]
    lines = "".join(json.dumps(one) + "\n" for one in noted)
    (pod.claim / "whole.jsonl").write_text(lines + '["resume/half", 5, "')
    assert pod.run(f"{URL}/resume", server.url) == 0
    assert pod.files() == {"whole": b"own", "half": b"12345", "changed": b"new"}


def test_a_prefix_may_be_one_objects_key(server: s3.Server, tmp_path: Path) -> None:
    """Then its last part is the file's name."""
    fill(server, "single", {"rows.csv": b"1,2"})
    pod = Pod(tmp_path, server.secret())
    assert pod.run(f"{URL}/single/rows.csv", server.url) == 0
    assert pod.files() == {"rows.csv": b"1,2"}


def test_each_refusal_is_one_sentence_with_the_next_step(server: s3.Server, tmp_path: Path) -> None:
    """None has a word of a key in it."""
    fill(server, "some", {"a": b"1" * 5000})
    good = server.secret(server.reader)
    wrong = {**good, "AWS_SECRET_ACCESS_KEY": b"not-the-right-one-42"}
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening: nobody answers there
        closed = f"http://127.0.0.1:{taken.getsockname()[1]}"
        cases: dict[str, tuple[str, str, Mapping[str, bytes] | None, int]] = {
            "NothingThere: there is no object below it": (f"{URL}/none", server.url, good, 10**9),
            "StorageRefused: there is no bucket missing at": (
                "s3://missing/x", server.url, server.secret(), 10**9,
            ),
            "StorageRefused: access to bucket others": ("s3://others/x", server.url, good, 10**9),
            "does not accept the access key (SignatureDoesNotMatch); correct": (
                f"{URL}/some", server.url, wrong, 10**9,
            ),
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are missing; correct the Secret": (
                f"{URL}/some", server.url, {"user": b"me"}, 10**9,
            ),
            "AWS_SECRET_ACCESS_KEY is missing; correct the Secret": (
                f"{URL}/some", server.url, {"AWS_ACCESS_KEY_ID": b"AKIA1"}, 10**9,
            ),
            "TooLarge: the objects have 4.9 KiB, and spec.volume.s3.sizeLimit allows 4.0 KiB": (
                f"{URL}/some", server.url, good, 4096,
            ),
            "does not answer; check the endpoint": (f"{URL}/some", closed, good, 10**9),
            "does not speak TLS": (f"{URL}/some", server.url.replace("http", "https"), good, 10**9),
        }  # fmt: skip
        for number, (want, (url, endpoint, secret, most)) in enumerate(cases.items()):
            place = tmp_path / str(number)
            place.mkdir()
            said = Pod(place, secret).refusal(url, endpoint, most)
            assert want in said
            told = [value.decode() for name, value in (secret or {}).items() if "KEY" in name]
            assert not [value for value in told if value in said]


def test_a_volume_that_fails_is_told_from_a_bucket(server: s3.Server, tmp_path: Path) -> None:
    """In words of the system's, which know no keys."""
    fill(server, "some", {"a": b"1"})
    pod = Pod(tmp_path, server.secret())
    (pod.claim / "incoming").write_text("no directory")
    assert "DiskFailed: the claim's volume fails: File exists" in pod.refusal(f"{URL}/some", server.url)


UNUSABLE = {
    "a file that is a directory": {"a": b"1", "a/b": b"2"},
    "a part that is too long": {"x" * 256: b"1"},
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_a_name_that_no_file_can_have_is_refused(case: str, server: s3.Server, tmp_path: Path) -> None:
    """Nothing is left out in silence."""
    fill(server, case.replace(" ", "-"), UNUSABLE[case])
    said = Pod(tmp_path, server.secret()).refusal(f"{URL}/{case.replace(' ', '-')}", server.url)
    assert said.startswith("NameNotUsable: ")
    assert "rename it" in said


def test_an_object_that_changes_meanwhile_is_no_half_old_one(server: s3.Server, tmp_path: Path) -> None:
    """Each piece is of the version that was listed."""
    fill(server, "moving", {"large": LARGE})
    secret = Pod(tmp_path, server.secret()).secret
    bucket = storage.Bucket(storage.Place(f"{URL}/moving", server.url, "us-east-1", secret))
    (wanted,) = bucket.objects()
    pieces = bucket.pieces(wanted)
    next(pieces)
    fill(server, "moving", {"large": LARGE[::-1]})
    with pytest.raises(storage.NotFetched, match="changed while") as changed:
        next(pieces)
    assert changed.value.reason == "ObjectsChanged"


class OpenBucket(http.server.BaseHTTPRequestHandler):
    """What S3 says of a bucket that everyone may read, to who shows no key; moto fails at such a request."""

    def do_GET(self) -> None:
        path = urllib.parse.urlsplit(self.path).path
        status, body = 200, b"1,2,3"
        if path.startswith("/private") or "Authorization" in self.headers:
            status, body = 403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        elif path in ("/public", "/public/"):
            body = (
                b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>rows.csv</Key><Size>5</Size>"
                b"<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag></Contents>"
                b"</ListBucketResult>"
            )
        elif "Range" in self.headers:
            status = 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Range", f"bytes 0-4/{len(body)}")
        self.send_header("ETag", '"e"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_an_open_bucket_needs_no_secret(tmp_path: Path) -> None:
    """No key is shown; where one is needed, the sentence says where to put it."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), OpenBucket) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{listening.server_port}"
        pod = Pod(tmp_path, None)
        said = pod.refusal("s3://private/heart", endpoint)
        assert "does not let everyone read bucket private; put AWS_ACCESS_KEY_ID" in said
        assert pod.run("s3://public", endpoint) == 0
        assert pod.files() == {"rows.csv": b"1,2,3"}
        listening.shutdown()
