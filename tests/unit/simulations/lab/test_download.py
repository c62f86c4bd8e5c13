"""Downloads from a real HTTP server on this machine: right ones are kept, all others refused."""

from __future__ import annotations

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from simulations.lab import download
from simulations.lab.releases import Download

PROGRAM = b"#!/bin/sh\necho kubelet\n"


def archive_of(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVE = archive_of("bin/kubelet", PROGRAM)
FILES = {
    "/kubelet": PROGRAM,
    "/kubelet.sha256": hashlib.sha256(PROGRAM).hexdigest().encode(),
    "/kubelet.sha512sum": hashlib.sha512(PROGRAM).hexdigest().encode() + b"  kubelet\n",
    "/kubelet.tar.gz": ARCHIVE,
    "/page.sha256": b"<html>not found</html>",
    "/page": b"x",
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        content = FILES.get(self.path)
        self.send_response(200 if content is not None else 404)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_address[1]}"
        http.shutdown()
        thread.join()


def sha256(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def test_a_download_with_the_pinned_checksum_is_kept(server: str, tmp_path: Path) -> None:
    """The program is written as it came."""
    download.fetch(Download(f"{server}/kubelet", pinned=sha256(PROGRAM)), tmp_path / "kubelet")
    assert (tmp_path / "kubelet").read_bytes() == PROGRAM


@pytest.mark.parametrize("published", [".sha256", ".sha512sum"])
def test_without_a_pinned_checksum_the_published_one_decides(
    server: str, tmp_path: Path, published: str
) -> None:
    """Publishers put a file beside the program, with the name or without."""
    download.fetch(Download(f"{server}/kubelet", published=published), tmp_path / "kubelet")
    assert (tmp_path / "kubelet").read_bytes() == PROGRAM


def test_a_program_is_taken_out_of_a_checked_archive(server: str, tmp_path: Path) -> None:
    """The checksum is the archive's; nothing but the program stays."""
    source = Download(f"{server}/kubelet.tar.gz", member="bin/kubelet", pinned=sha256(ARCHIVE))
    download.fetch(source, tmp_path / "kubelet")
    assert [path.name for path in tmp_path.iterdir()] == ["kubelet"]
    assert (tmp_path / "kubelet").read_bytes() == PROGRAM


@pytest.mark.parametrize(
    ("path", "options", "want"),
    [
        ("/kubelet", {"pinned": sha256(b"another")}, "wrong checksum: want sha256:"),
        ("/gone", {"pinned": sha256(PROGRAM)}, "answers 404"),
        ("/kubelet", {"published": ""}, "no checksum is known"),
        ("/page", {"published": ".sha256"}, "not a checksum"),
        ("/kubelet.tar.gz", {"pinned": sha256(ARCHIVE), "member": "bin/kubectl"}, "holds no bin/kubectl"),
        ("/kubelet", {"pinned": sha256(PROGRAM), "member": "bin/kubelet"}, "holds no bin/kubelet"),
    ],
    ids=[
        "wrong checksum",
        "not there",
        "no checksum",
        "a page for a checksum",
        "not in archive",
        "no archive",
    ],
)
def test_anything_else_is_refused(
    server: str, tmp_path: Path, path: str, options: dict[str, str], want: str
) -> None:
    """Each with its own reason, and the host counts as reachable."""
    with pytest.raises(download.DownloadFailed, match=want) as caught:
        download.fetch(Download(f"{server}{path}", **options), tmp_path / "program")
    assert not caught.value.unreachable


def test_a_host_that_does_not_answer_is_said_to_be_unreachable(tmp_path: Path) -> None:
    """One line that names the host, so that it is not asked for the next program."""
    source = Download("http://127.0.0.1:9/kubelet", pinned=sha256(PROGRAM))
    with pytest.raises(download.DownloadFailed, match=r"^127\.0\.0\.1 cannot be reached$") as caught:
        download.fetch(source, tmp_path / "kubelet")
    assert caught.value.unreachable
